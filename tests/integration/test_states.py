"""Airbyte's state of a connection: saved before changes, shown without values, and put back."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import orjson
import pytest

from tests import leaks
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.applying import apply, discovered, streams_in_airbyte
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, offering, post, repairs_until
from tests.integration.repairing import approve, proposal, put
from tests.integration.states import KEY, opened
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
STREAM = {"namespace": None, "name": "Account"}
CONTACT = {"namespace": None, "name": "Contact"}


@pytest.fixture
async def mesh(meshes: Meshes, airbyte: AirbyteServer) -> Any:
    """A mesh with a key for saved states."""
    async with meshes.start(airbyte, state_encryption_keys=KEY) as mesh:
        yield mesh


def save_state(mesh: Mesh, connection: Json, kind: Literal["stream", "global"] = "stream") -> str:
    """Give both streams a state whose value must appear nowhere; return that."""
    value = leaks.canary("a value of a cursor")
    states: dict[tuple[str | None, str], Any] = {
        (None, name): {"cursor": value, "of": name} for name in ("Account", "Contact")
    }
    if kind == "global":
        states = {key: {**state, "job": 1} for key, state in states.items()}
    mesh.airbyte.put_states(connection["airbyte_connection_id"], kind, states)
    return value


def state_of(mesh: Mesh, connection: Json, name: str) -> Json | None:
    """Return the state of a stream in Airbyte."""
    for one in mesh.airbyte.states.get(connection["airbyte_connection_id"], []):
        if one["streamDescriptor"]["name"] == name:
            found: Json = one["streamState"]
            return found
    return None


async def without_cursor(mesh: Mesh, connection: Json) -> Json:
    """Apply a catalog that reads Account in full; return the result."""
    order = await discovered(mesh, connection)
    (account,) = [
        one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    ]
    account["config"] |= {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}
    status, body = await apply(mesh, order)
    assert status == 200, body
    return body


async def roll_back(mesh: Mesh, connection: Json, version: int = 1) -> Json:
    """Roll back; return the repair with its outcome."""
    status, repair = await post(
        mesh, f"/connections/{connection['id']}/rollback", {"version": version}
    )
    assert (status, repair["state"]) == (200, "applied"), repair
    return await detail(mesh, repair)


async def detail(mesh: Mesh, repair: Json) -> Json:
    found: Json = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    return found


async def test_state_is_saved_before_a_heal_and_put_back_by_a_rollback(mesh: Mesh) -> None:
    """Since 1.8 Airbyte deletes it with the changed sync mode."""
    connection = await mesh.onboard()
    value = save_state(mesh, connection)
    before = state_of(mesh, connection, "Account")

    applied = await without_cursor(mesh, connection)

    assert applied["sync_state"]["saved"] is True
    (row,) = await mesh.sql.fetch("SELECT * FROM stream_states")
    assert (row["kind"], row["catalog_version"], row["not_saved"]) == ("heal", 1, None)
    assert value not in bytes(row["state"]).decode("latin-1")
    assert orjson.loads(opened(row))["streamState"][0]["streamState"]["cursor"] == value
    if mesh.airbyte.release.since(1, 8):
        assert state_of(mesh, connection, "Account") is None

    repair = await roll_back(mesh, connection)

    restored = [STREAM] if mesh.airbyte.release.since(1, 8) else []
    assert repair["sync_state"]["put_back"] == restored
    assert repair["sync_state"]["not_put_back"] == []
    assert state_of(mesh, connection, "Account") == before
    kinds = await mesh.sql.fetch("SELECT kind FROM stream_states ORDER BY saved_at")
    assert [one["kind"] for one in kinds] == ["heal", "rollback"]
