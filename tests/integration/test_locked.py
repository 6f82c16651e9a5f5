"""A connection whose status in Airbyte is neither active nor inactive: AAM never writes over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until

Json = dict[str, Any]


def upstream(mesh: Mesh, connection: Json) -> Json:
    """The connection as Airbyte has it."""
    found: Json = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    return found


async def shown(mesh: Mesh, connection: Json) -> Json:
    """The connection as people see it."""
    found: Json = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    return found


async def until(mesh: Mesh, connection: Json, is_so: Callable[[Json], bool]) -> Json:
    """The connection as people see it, once it is so."""
    async with asyncio.timeout(10):
        while not is_so(seen := await shown(mesh, connection)):  # noqa: ASYNC110 (another's doing)
            await asyncio.sleep(0.02)
    return seen


async def operations_ended(mesh: Mesh) -> None:
    """Wait until no operation is open."""
    query = "SELECT count(*) FROM operations WHERE status IN ('running', 'undoing')"
    async with asyncio.timeout(10):
        while await mesh.sql.fetchval(query):  # noqa: ASYNC110 (another task's doing)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "status, code", [("locked", "locked"), ("suspended_by_plan", "status_unknown")]
)
async def test_locked_connection_is_neither_paused_nor_resumed(
    mesh: Mesh, status: str, code: str
) -> None:
    """A lost cursor would pause it, and comes back; the lock is shown."""
    connection = await mesh.onboard()
    upstream(mesh, connection)["status"] = status

    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await repairs_until(mesh, connection, ["proposed"])
    seen = await until(mesh, connection, lambda one: one["upstream_code"] is not None)
    assert (seen["upstream_code"], seen["paused_by"]) == (code, None)
    assert upstream(mesh, connection)["status"] == status

    await drift(mesh, connection, offering(ACCOUNT))
    await repairs_until(mesh, connection, ["superseded"])
    await operations_ended(mesh)
    assert upstream(mesh, connection)["status"] == status


async def test_connection_locked_while_paused_is_not_resumed(mesh: Mesh) -> None:
    """An approval applies the catalog, and Airbyte's status stays."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await until(mesh, connection, lambda one: one["paused_by"] is not None)
    upstream(mesh, connection)["status"] = "locked"
    (repair,) = await repairs_until(mesh, connection, ["proposed"])

    status, decided = await post(mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada"})

    assert (status, decided["state"]) == (200, "applied")
    assert upstream(mesh, connection)["status"] == "locked"
    seen = await shown(mesh, connection)
    assert (seen["upstream_code"], seen["paused_by"]) == ("locked", None)


async def test_connection_locked_while_paused_is_no_longer_paused_by_aam(mesh: Mesh) -> None:
    """The cursor comes back: nothing is resumed."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await until(mesh, connection, lambda one: one["paused_by"] is not None)
    upstream(mesh, connection)["status"] = "locked"

    await drift(mesh, connection, offering(ACCOUNT))

    seen = await until(mesh, connection, lambda one: one["paused_by"] is None)
    assert (seen["upstream_code"], upstream(mesh, connection)["status"]) == ("locked", "locked")


async def test_repair_clears_the_breaking_change_and_not_the_lock(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    upstream(mesh, connection).update(status="locked", breakingChange=True)

    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    await repairs_until(mesh, connection, ["applied"])
    held = upstream(mesh, connection)
    assert (held["status"], held["breakingChange"]) == ("locked", False)


async def test_no_catalog_is_applied_during_a_job_of_unknown_status(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    busy = {
        "connectionId": connection["airbyte_connection_id"],
        "connectionSyncStatus": "compacting",
        "activeJob": job,
    }
    mesh.airbyte.answer("connections/status", [busy], status=200, times=None)
    order = (await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")).json()
    order["sync_catalog"]["streams"].pop()

    status, refused = await post(mesh, "/repair/apply_new_catalog", order)
    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert (status, refused["code"]) == (409, "sync_running")
    assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
    assert answer.json()["job_kind"] == "sync"
