"""A pause or resume that a plan requires is tried again until it succeeds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.drift_repair_agent import recent_failures
from tests.integration.applying import seen
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs, repairs_until
from tests.integration.repairing import approve, upstream
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
LOST = offering(ACCOUNT, cursor=None)
"""Account without its cursor, for which a repair pauses the connection."""
UPDATE = "connections/update"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between the tries."""
    monkeypatch.setattr(recent_failures, "_FIRST_PAUSE_S", 0.1)


async def is_paused_by(mesh: Mesh, connection: Json, repair_id: str | None) -> None:
    """Wait until the connection is paused by this repair; None: by no repair."""

    async def is_so() -> bool:
        return bool((await seen(mesh, connection))["paused_by"] == repair_id)

    await until(is_so)


async def paused(mesh: Mesh) -> tuple[Json, Json]:
    """A connection that a repair has paused, and the repair."""
    connection = await mesh.onboard()
    await drift(mesh, connection, LOST)
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    await is_paused_by(mesh, connection, repair["id"])
    await mesh.until_true("SELECT NOT EXISTS (SELECT FROM operations WHERE ended_at IS NULL)")
    return connection, repair


async def failures(mesh: Mesh, connection: Json) -> list[Json]:
    """The failed operations that the connection's timeline shows."""
    answer = await mesh.orchestrator.get(
        f"/connections/{connection['id']}/timeline", params={"kinds": ["operation"]}
    )
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["items"] if one["outcome"] == "failed"]


async def test_failed_pause_is_tried_again(mesh: Mesh) -> None:
    """For the same proposal, which then resumes the connection; the timeline has the failures."""
    connection = await mesh.onboard()
    mesh.airbyte.fault(UPDATE, 403, times=2)

    await drift(mesh, connection, LOST)

    await until(lambda: upstream(mesh, connection)["status"] == "inactive")
    (repair,) = await repairs(mesh, connection)
    await is_paused_by(mesh, connection, repair["id"])
    found = await failures(mesh, connection)
    assert [(one["code"], one["details"]["kind"]) for one in found] == [
        ("upstream_auth", "pause"),
        ("upstream_auth", "pause"),
    ]

    assert (await approve(mesh, repair))[0] == 200
    assert upstream(mesh, connection)["status"] == "active"


async def test_failed_resume_is_tried_again(mesh: Mesh) -> None:
    """The source has its cursor again, so no repair is left that would resume the connection."""
    connection, _ = await paused(mesh)
    mesh.airbyte.fault(UPDATE, 403, times=2)

    await drift(mesh, connection, offering(ACCOUNT))

    await until(lambda: upstream(mesh, connection)["status"] == "active")
    await is_paused_by(mesh, connection, None)
    assert len(await failures(mesh, connection)) == 2
    assert [one["state"] for one in await repairs(mesh, connection)] == ["superseded"]


async def test_pause_of_a_connection_that_airbyte_lacks_is_not_tried_again(mesh: Mesh) -> None:
    """It syncs nothing, and its difference is reported."""
    connection = await mesh.onboard()
    del mesh.airbyte.connections[connection["airbyte_connection_id"]]

    await drift(mesh, connection, LOST)

    (failure,) = await until(lambda: failures(mesh, connection))
    assert failure["code"] == "upstream_missing"
    assert await mesh.sql.fetchval("SELECT count(*) FROM plans") == 1


async def test_connection_is_resumed_although_the_repair_fails_that_would_resume_it(
    mesh: Mesh,
) -> None:
    """The source has its cursor again and a new field, which Airbyte refuses: a person decides."""
    connection, _ = await paused(mesh)
    mesh.airbyte.fault(UPDATE, 422)

    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    await repairs_until(mesh, connection, ["superseded", "failed", "proposed"])
    await until(lambda: upstream(mesh, connection)["status"] == "active")
    await is_paused_by(mesh, connection, None)


async def test_failing_pause_does_not_run_all_the_time(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try waits, although the plan is due."""
    monkeypatch.setattr(recent_failures, "_FIRST_PAUSE_S", 60)
    connection = await mesh.onboard()
    mesh.airbyte.fault(UPDATE, 403, times=None)

    await drift(mesh, connection, LOST)

    await until(lambda: failures(mesh, connection))
    next_at = await mesh.sql.fetchval("SELECT next_at FROM periodic_runs WHERE name = 'plan'")
    is_later = "SELECT next_at > $1 FROM periodic_runs WHERE name = 'plan'"
    await mesh.until_true(is_later, next_at + timedelta(seconds=1))
    assert len(await failures(mesh, connection)) == 1
    assert await mesh.sql.fetchval("SELECT count(*) FROM plans") == 0
