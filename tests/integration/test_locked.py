"""A connection whose status in Airbyte is neither active nor inactive: AAM never writes over it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.applying import discovered, seen
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until
from tests.integration.repairing import upstream
from tests.waiting import until, until_not

Json = dict[str, Any]


async def has(mesh: Mesh, connection: Json, name: str, *, is_set: bool = True) -> Json:
    """Wait until a member of the connection's view is set, or no longer set; return the view."""

    async def view_once_so() -> Json | None:
        view = await seen(mesh, connection)
        return view if (view[name] is not None) is is_set else None

    found: Json = await until(view_once_so)
    return found


@pytest.mark.deep(after=1)
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
    view = await has(mesh, connection, "upstream_code")
    assert (view["upstream_code"], view["paused_by"]) == (code, None)
    assert upstream(mesh, connection)["status"] == status

    await drift(mesh, connection, offering(ACCOUNT))
    await repairs_until(mesh, connection, ["superseded"])
    await until_not(
        lambda: mesh.sql.fetchval(
            "SELECT count(*) FROM operations WHERE status IN ('running', 'undoing')"
        )
    )
    assert upstream(mesh, connection)["status"] == status


async def test_connection_locked_while_paused_is_not_resumed(mesh: Mesh) -> None:
    """An approval applies the catalog, and Airbyte's status stays."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await has(mesh, connection, "paused_by")
    upstream(mesh, connection)["status"] = "locked"
    (repair,) = await repairs_until(mesh, connection, ["proposed"])

    status, decided = await post(mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada"})

    assert (status, decided["state"]) == (200, "applied")
    assert upstream(mesh, connection)["status"] == "locked"
    view = await seen(mesh, connection)
    assert (view["upstream_code"], view["paused_by"]) == ("locked", None)


async def test_connection_locked_while_paused_is_no_longer_paused_by_aam(mesh: Mesh) -> None:
    """The cursor comes back: nothing is resumed."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await has(mesh, connection, "paused_by")
    upstream(mesh, connection)["status"] = "locked"

    await drift(mesh, connection, offering(ACCOUNT))

    view = await has(mesh, connection, "paused_by", is_set=False)
    assert (view["upstream_code"], upstream(mesh, connection)["status"]) == ("locked", "locked")


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
    order = await discovered(mesh, connection)
    order["sync_catalog"]["streams"].pop()

    status, refused = await post(mesh, "/repair/apply_new_catalog", order)
    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert (status, refused["code"]) == (409, "sync_running")
    assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
    assert answer.json()["job_kind"] == "sync"
