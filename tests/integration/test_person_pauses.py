"""Who paused a connection decides who resumes it: a person, before a repair, before Airbyte."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from services.drift_repair_agent.applying.pause import PauseSaga
from services.drift_repair_agent.repairs.executor import RepairExecutor
from shared.errors import UpstreamDenied
from shared.operations import Operation
from tests.integration.applying import seen
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, planned, repairs, repairs_until
from tests.integration.repairing import approve, proposal, put, upstream
from tests.waiting import until

Json = dict[str, Any]
LOST = offering(ACCOUNT, cursor=None)
"""Account without its cursor, for which a repair pauses the connection."""


def with_new_field(offered: Json) -> Json:
    """The same catalog with another field of Contact, which the policy adds."""
    changed = deepcopy(offered)
    (contact,) = [one["stream"] for one in changed["streams"] if one["stream"]["name"] == "Contact"]
    contact["jsonSchema"]["properties"]["Region__c"] = {"type": ["string", "null"]}
    return changed


async def set_paused(mesh: Mesh, connection: Json, *, paused: bool) -> Json:
    answer = await mesh.orchestrator.patch(
        f"/connections/{connection['id']}", json={"paused": paused, "by": "Ada"}
    )
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


async def paused_by_repair(mesh: Mesh, connection: Json) -> Json:
    """The repair that has paused the connection."""
    await drift(mesh, connection, LOST)
    (repair,) = await repairs_until(mesh, connection, ["proposed"])

    async def is_paused() -> bool:
        return bool((await seen(mesh, connection))["paused_by"] == repair["id"])

    await until(is_paused)
    await mesh.until_true("SELECT NOT EXISTS (SELECT FROM operations WHERE ended_at IS NULL)")
    return repair


async def test_repair_does_not_end_a_persons_pause(mesh: Mesh) -> None:
    """Paused by the repair and then by a person: the approval only applies the catalog."""
    connection = await mesh.onboard()
    repair = await paused_by_repair(mesh, connection)
    body = await set_paused(mesh, connection, paused=True)
    assert [one["code"] for one in body["effects"]] == ["pause_taken_over"]
    assert (body["connection"]["pause_requested_by"], body["connection"]["paused_by"]) == (
        "Ada",
        None,
    )

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    assert upstream(mesh, connection)["status"] == "inactive"
    await set_paused(mesh, connection, paused=False)
    assert upstream(mesh, connection)["status"] == "active"


async def test_flag_of_airbyte_does_not_end_a_persons_pause(mesh: Mesh) -> None:
    """A breaking change is flagged, too: the repair clears the flag alone."""
    connection = await mesh.onboard()
    await set_paused(mesh, connection, paused=True)
    upstream(mesh, connection)["breakingChange"] = True
    repair = await proposal(mesh, connection, offering({"Id": "string", "Name": "string"}))

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    assert upstream(mesh, connection)["breakingChange"] is False
    assert upstream(mesh, connection)["status"] == "inactive"


async def test_rollback_does_not_take_over_a_persons_pause(mesh: Mesh) -> None:
    """It was set in Airbyte while the sync ran that verifies the repair."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    repair = await paused_by_repair(mesh, connection)
    status, body = await approve(mesh, repair)
    assert status == 202, body
    await until(lambda: bool(mesh.airbyte.jobs))
    upstream(mesh, connection)["status"] = "inactive"

    mesh.airbyte.finish_job(1, "failed", failure=("config_error", "No."))

    await repairs_until(mesh, connection, ["rolled_back"])
    assert (await seen(mesh, connection))["paused_by"] is None
    assert upstream(mesh, connection)["status"] == "inactive"


async def test_harmless_heal_leaves_a_pause_of_airbyte_that_needs_a_decision(mesh: Mesh) -> None:
    """The pause becomes that of the repair which waits, and ends with its approval."""
    connection = await mesh.onboard()
    upstream(mesh, connection).update(status="inactive", breakingChange=True)

    await drift(mesh, connection, with_new_field(LOST))

    repair, _ = await repairs_until(mesh, connection, ["proposed", "applied"])
    held = upstream(mesh, connection)
    assert (held["status"], held["breakingChange"]) == ("inactive", True)
    assert (await seen(mesh, connection))["paused_by"] == repair["id"]

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    held = upstream(mesh, connection)
    assert (held["status"], held["breakingChange"]) == ("active", False)
    assert (await seen(mesh, connection))["paused_by"] is None


async def test_restored_cursor_ends_a_pause_of_airbyte(mesh: Mesh) -> None:
    """With its flag, so that Airbyte does not disable the connection again for it."""
    connection = await mesh.onboard()
    upstream(mesh, connection).update(status="inactive", breakingChange=True)
    await paused_by_repair(mesh, connection)

    await drift(mesh, connection, offering(ACCOUNT))

    await repairs_until(mesh, connection, ["superseded"])
    await until(lambda: upstream(mesh, connection)["status"] == "active")
    assert upstream(mesh, connection)["breakingChange"] is False


async def test_harmless_heal_leaves_a_pause_of_airbyte_before_it_is_recorded(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation that would record it has failed: the order of the heal knows the proposal."""
    connection = await mesh.onboard()
    upstream(mesh, connection).update(status="inactive", breakingChange=True)

    async def refuse(_self: PauseSaga, _operation: Operation) -> None:
        raise UpstreamDenied("Airbyte does not accept AAM's credentials.")

    monkeypatch.setattr(PauseSaga, "run", refuse)

    await drift(mesh, connection, with_new_field(LOST))

    await repairs_until(mesh, connection, ["proposed", "applied"])
    held = upstream(mesh, connection)
    assert (held["status"], held["breakingChange"]) == ("inactive", True)


async def test_resumed_connection_is_not_paused_again_for_the_same(mesh: Mesh) -> None:
    """The repair stays open; another drift with the same loss does not pause, a new loss does."""
    connection = await mesh.onboard()
    repair = await paused_by_repair(mesh, connection)
    body = await set_paused(mesh, connection, paused=False)
    assert [one["code"] for one in body["effects"]] == ["repair_stays_open"]
    assert upstream(mesh, connection)["status"] == "active"
    assert [one["state"] for one in await repairs(mesh, connection)] == ["proposed"]

    also_less = offering({"Id": "string", "Name": "string"}, cursor=None)
    await planned(mesh, connection, await drift(mesh, connection, also_less))
    assert (await seen(mesh, connection))["paused_by"] is None
    assert upstream(mesh, connection)["status"] == "active"
    newest = (await repairs(mesh, connection, state="proposed"))[0]
    assert newest["id"] != repair["id"]

    (contact,) = [one for one in also_less["streams"] if one["stream"]["name"] == "Contact"]
    contact["stream"] |= {
        "supportedSyncModes": ["full_refresh"],
        "sourceDefinedCursor": False,
        "defaultCursorField": [],
    }
    await drift(mesh, connection, also_less)
    await until(lambda: upstream(mesh, connection)["status"] == "inactive")


async def test_persons_pause_holds_for_new_repairs(mesh: Mesh) -> None:
    """A repair that would pause finds the connection paused, and does not take it over."""
    connection = await mesh.onboard()
    await set_paused(mesh, connection, paused=True)

    await planned(mesh, connection, await drift(mesh, connection, LOST))

    shown = await seen(mesh, connection)
    assert (shown["paused_by"], shown["pause_requested_by"]) == (None, "Ada")
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations WHERE kind = 'pause'") == 0
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    await approve(mesh, repair)
    assert upstream(mesh, connection)["status"] == "inactive"


async def test_approval_is_applied_although_the_connection_is_paused_meanwhile(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with the state of then, and not by the next run of a periodic task."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering({"Id": "string", "Name": "string"}))
    order = RepairExecutor._order

    async def paused_meanwhile(self: RepairExecutor, *rest: Any) -> Any:
        found = await order(self, *rest)
        await mesh.sql.execute("UPDATE connections SET pause_requested_by = 'Ada'")
        return found

    monkeypatch.setattr(RepairExecutor, "_order", paused_meanwhile)

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied"), str(decided)
