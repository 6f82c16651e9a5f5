"""A state is put back once, and is the one that was saved, wherever the process is killed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.faults.world import ORDER, World
from tests.waiting import until

pytestmark = pytest.mark.process

Json = dict[str, Any]
STATES: dict[tuple[str | None, str], Json] = {
    (None, "Account"): {"at": 1},
    (None, "Contact"): {"at": 2},
}


async def _read_in_full(world: World) -> Json:
    """A connection whose newest version reads Account in full, so that its state is lost."""
    orchestrator = await world.running("orchestrator")
    answer = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert answer.status_code == 201, answer.text
    connection: Json = answer.json()
    world.airbyte.put_states(connection["airbyte_connection_id"], "stream", STATES)
    path = f"/connections/{connection['id']}/catalog-versions/1"
    catalog = (await orchestrator.client.get(path)).json()
    (account,) = [one for one in catalog["streams"] if one["stream"]["name"] == "Account"]
    account["config"] |= {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}
    agent = await world.running("drift_repair_agent")
    order = {"connection_id": connection["id"], "sync_catalog": catalog}
    answer = await agent.client.post("/repair/apply_new_catalog", json=order)
    assert answer.status_code == 200, answer.text
    return connection


def _states(world: World, connection: Json) -> dict[str, Json]:
    held = world.airbyte.states[connection["airbyte_connection_id"]]
    return {one["streamDescriptor"]["name"]: one["streamState"] for one in held}


@pytest.mark.deep(after=1)
@pytest.mark.parametrize(
    "failpoint",
    [
        "apply.put_state.after",
        "apply.state.before",
        "apply.state.after",
        "apply.look.after",
        "apply.lost_state.after",
        "apply.put_state.before",
        "apply.finish.before",
    ],
)
async def test_rollback_puts_the_state_back_despite_a_crash(world: World, failpoint: str) -> None:
    connection = await _read_in_full(world)
    assert _states(world, connection) == {"Contact": {"at": 2}}
    await world.end("drift_repair_agent/2")
    armed = await world.replace("drift_repair_agent", failpoints=f"{failpoint}=kill")

    with suppress(httpx.TransportError):
        path = f"/connections/{connection['id']}/rollback"
        await armed.client.post(path, json={"version": 1})
    assert await armed.died(within=30) == -9
    await world.replace("drift_repair_agent/2")

    await until(lambda: world.fetch("SELECT id FROM repairs WHERE state = 'applied'"))
    assert _states(world, connection) == {"Account": {"at": 1}, "Contact": {"at": 2}}
    versions = await world.fetch("SELECT version_number FROM sync_catalog_versions ORDER BY 1")
    assert [row["version_number"] for row in versions] == [1, 2, 3]
    saved = await world.fetch("SELECT kind FROM stream_states ORDER BY saved_at")
    assert [row["kind"] for row in saved] == ["heal", "rollback"]
