"""Requests while Airbyte does not answer: recorded first, or refused with nothing recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from shared import airbyte_reads
from shared.config import Settings
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import apply, discovered, seen
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until
from tests.integration.repairing import approve, fields, proposal, put

pytestmark = pytest.mark.exact

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
ANSWERED_WITHIN_S = 30.0
"""Half of what a read of Airbyte is repeated for."""


@pytest.fixture
async def mesh(
    airbyte: AirbyteServer, meshes: Meshes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Mesh]:
    """The services with the default timeout of Airbyte, a minute, and a shorter limit."""
    default = Settings.model_fields["peer_timeout"].default
    assert default.total_seconds() > airbyte_reads._WITHIN_S
    monkeypatch.setattr(airbyte_reads, "_WITHIN_S", 2.0)
    async with meshes.start(airbyte, airbyte_timeout="60", operation_deadline="1800") as mesh:
        try:
            yield mesh
        finally:
            mesh.airbyte.heal()


def save_global_state(mesh: Mesh, connection: Json) -> None:
    """Give both streams a global state, as a sync would have saved it."""
    states: dict[tuple[str | None, str], Any] = {
        (None, name): {"at": 1} for name in ("Account", "Contact")
    }
    mesh.airbyte.put_states(connection["airbyte_connection_id"], "global", states)


async def test_approval_is_recorded_before_airbyte_is_read(mesh: Mesh) -> None:
    """202 with the approved repair, which is carried out once Airbyte answers again."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    mesh.airbyte.fault("connections/status", "hang", times=None)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        status, decided = await approve(mesh, repair)

    assert (status, decided["id"], decided["state"]) == (202, repair["id"], "approved")
    assert decided["waits_for"] == "upstream_timeout"
    assert [one["verdict"] for one in decided["decisions"]] == ["approved"]
    assert "AnnualRevenue" in fields(mesh, connection)

    mesh.airbyte.heal()
    await repairs_until(mesh, connection, ["applied"])
    assert "AnnualRevenue" not in fields(mesh, connection)


async def test_approval_that_needs_airbyte_first_is_refused(mesh: Mesh) -> None:
    """Whether a stream would miss changes must be known before: 503, and nothing is recorded."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"reactions": {"stream": {"added": "propose"}}})
    save_global_state(mesh, connection)
    without = offering(ACCOUNT)
    without["streams"] = [one for one in without["streams"] if one["stream"]["name"] != "Contact"]
    status, _ = await approve(mesh, await proposal(mesh, connection, without))
    assert status == 200
    await drift(mesh, connection, offering(ACCOUNT))
    _, repair = await repairs_until(mesh, connection, ["applied", "proposed"])
    mesh.airbyte.fault("state/get", "hang", times=None)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        status, problem = await approve(mesh, repair, on_global_state="refresh")

    assert (status, problem["code"]) == (503, "upstream_timeout")
    assert problem["detail"].endswith("Nothing was recorded.")
    (_, still) = await repairs_until(mesh, connection, ["applied", "proposed"])
    assert (still["id"], still["decisions"]) == (repair["id"], [])


async def test_decision_about_several_repairs_is_recorded(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they wait for Airbyte as long as one."""
    monkeypatch.setattr(airbyte_reads, "_WITHIN_S", ANSWERED_WITHIN_S / 5)
    connections = [await mesh.onboard(connection_name=f"Org {number}") for number in range(6)]
    proposed = [await proposal(mesh, one, offering(LESS)) for one in connections]
    mesh.airbyte.fault("connections/status", "hang", times=None)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        order = {"repairs": [one["id"] for one in proposed], "verdict": "approve"}
        status, decided = await post(mesh, "/repairs/decide", order)

    assert (status, [one["state"] for one in decided["items"]]) == (200, ["approved"] * 6)


async def test_rollback_is_recorded_before_airbyte_is_read(mesh: Mesh) -> None:
    """As an approval."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    await repairs_until(mesh, connection, ["applied"])
    mesh.airbyte.fault("connections/status", "hang", times=None)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        path = f"/connections/{connection['id']}/rollback"
        status, repair = await post(mesh, path, {"version": 1})

    assert (status, repair["kind"], repair["state"]) == (202, "rollback", "approved")
    mesh.airbyte.heal()
    await repairs_until(mesh, connection, ["applied", "applied"])
    assert "Region__c" not in fields(mesh, connection)


async def test_catalog_that_cannot_be_checked_is_not_applied(mesh: Mesh) -> None:
    """A running sync would finish with parts of the old catalog: 503, and nothing is recorded."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    order["sync_catalog"]["streams"] = order["sync_catalog"]["streams"][:1]
    mesh.airbyte.fault("connections/status", "hang", times=None)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (503, "upstream_timeout")
    assert problem["detail"].endswith("Nothing was recorded.")
    shown = await seen(mesh, connection)
    assert (shown["status"], shown["catalog_version"]) == ("ACTIVE", 1)
    count = "SELECT count(*) FROM operations WHERE kind = 'apply' AND connection_id = $1"
    assert await mesh.sql.fetchval(count, UUID(connection["id"])) == 0


@pytest.mark.parametrize(
    "service, method, path, body",
    [
        ("orchestrator", "POST", "sync", {}),
        ("orchestrator", "POST", "streams/refresh", {"streams": [{"name": "Account"}]}),
        ("orchestrator", "POST", "jobs/{job}/cancel", None),
        ("orchestrator", "PATCH", "", {"name": "Renamed"}),
        ("drift_repair_agent", "POST", "connector/upgrade", {}),
    ],
)
async def test_request_that_needs_airbyte_first_is_refused(
    mesh: Mesh, service: str, method: str, path: str, body: Json | None
) -> None:
    """503 before the caller gives up, and nothing is recorded."""
    connection = await mesh.onboard()
    job = (await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")).json()
    mesh.airbyte.fault("*", "hang", times=None)
    count = "SELECT count(*) FROM operations"
    before = await mesh.sql.fetchval(count)

    async with asyncio.timeout(ANSWERED_WITHIN_S):
        url = f"/connections/{connection['id']}/{path}".rstrip("/").format(job=job["job_id"])
        answer = await getattr(mesh, service).request(method, url, json=body)

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_timeout"), answer.text
    assert answer.json()["detail"].endswith("Nothing was recorded.")
    assert await mesh.sql.fetchval(count) == before
