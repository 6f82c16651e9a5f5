"""Syncs: started once, recorded, followed to their end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from local.airbyte.api.backend import Refresh
from tests.fakes.airbyte_server import _backend
from tests.integration.conftest import Mesh


async def test_sync_is_recorded_and_followed_to_its_end(mesh: Mesh) -> None:
    """202 with both ids; the history has the result, and two events report it."""
    connection = await mesh.onboard()
    mesh.airbyte.jobs_end_with("succeeded", polls=2, records=700, bytes=181_034)

    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert answer.status_code == 202
    assert set(answer.json()) == {"job_id", "airbyte_job_id", "status", "operation_id"}
    (job,) = await mesh.jobs_until_end(connection["id"])
    assert job["job_id"] == answer.json()["job_id"]
    assert (job["status"], job["records"], job["bytes"]) == ("succeeded", 700, 181_034)
    assert (job["attempts"], job["catalog_version"], job["failure_code"]) == (1, 1, None)
    events = await mesh.events(3)
    assert [one["type"] for one in events[1:]] == ["sync.triggered", "sync.finished"]
    assert [one["ref"] for one in events[1:]] == [job["job_id"]] * 2
    assert events[2]["status"] == "succeeded"


async def test_failed_sync_has_airbytes_failure_type(mesh: Mesh) -> None:
    """Its type, never its message."""
    connection = await mesh.onboard()
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    mesh.airbyte.finish_job(
        started.json()["airbyte_job_id"], "failed", failure=("config_error", "token of bob")
    )

    (job,) = await mesh.jobs_until_end(connection["id"])

    assert (job["status"], job["failure_code"]) == ("failed", "config_error")
    assert "bob" not in str(job)


async def test_second_sync_names_the_running_one(mesh: Mesh) -> None:
    """409 with both ids of the running job, and no second job."""
    connection = await mesh.onboard()
    first = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    second = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert (second.status_code, second.json()["code"]) == (409, "sync_running")
    assert second.json()["job_id"] == first.json()["job_id"]
    assert second.json()["airbyte_job_id"] == first.json()["airbyte_job_id"]
    assert len(mesh.airbyte.jobs) == 1


async def test_concurrent_requests_start_one_job(mesh: Mesh) -> None:
    connection = await mesh.onboard()

    answers = await asyncio.gather(
        *(mesh.orchestrator.post(f"/connections/{connection['id']}/sync") for _ in range(10))
    )

    assert sorted(one.status_code for one in answers) == [202] + [409] * 9
    assert len(mesh.airbyte.jobs) == 1


@pytest.mark.deep(after=3)
@pytest.mark.parametrize(
    "kind, after_effect",
    [
        *((kind, True) for kind in ("reset", "html_504", "empty_200")),
        *((kind, False) for kind in ("reset", "html_504", 409, 500)),
    ],
)
async def test_lost_answer_starts_one_job(mesh: Mesh, kind: Any, after_effect: bool) -> None:
    """A started job is found in the list; otherwise it is started after the in-flight window."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("connections/sync", kind, after_effect=after_effect)

    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert answer.status_code == 202
    assert list(mesh.airbyte.jobs) == [answer.json()["airbyte_job_id"]]


@pytest.mark.parametrize("ahead_s, is_started", [(-600, True), (600, False)])
async def test_clock_difference_neither_duplicates_nor_loses_a_sync(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, ahead_s: int, is_started: bool
) -> None:
    """The answer is lost: the started job is recognized by its id, not its creation time."""
    monkeypatch.setattr(_backend, "epoch_now", lambda: int(time.time()) + ahead_s)
    connection = await mesh.onboard()
    before = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.finish_job(before["id"])
    mesh.airbyte.fault("connections/sync", "reset", after_effect=is_started)

    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert answer.status_code == 202, answer.text
    assert answer.json()["airbyte_job_id"] == before["id"] + 1
    assert len(mesh.airbyte.jobs) == 2


async def test_sync_is_refused_in_other_states(mesh: Mesh) -> None:
    """Unknown 404; failed and archived 409."""
    unknown = await mesh.orchestrator.post("/connections/7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f/sync")
    assert unknown.status_code == 404

    mesh.airbyte.fail_discovery()
    await mesh.orchestrator.post("/connections/onboard", json=mesh.order)
    failed = await mesh.sql.fetchval("SELECT id FROM connections")
    answer = await mesh.orchestrator.post(f"/connections/{failed}/sync")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_active")


async def test_sync_that_carries_out_a_refresh_is_found_after_a_lost_answer(mesh: Mesh) -> None:
    """Airbyte's job is a `refresh` then; one job is started, and recorded as AAM's."""
    connection = await mesh.onboard()
    airbyte_id = connection["airbyte_connection_id"]
    streams = [{"name": "Account"}]
    mesh.airbyte.refreshes[airbyte_id] = [Refresh(streams, "Merge")]
    mesh.airbyte.fault("connections/sync", "close", after_effect=True)

    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    assert (answer.status_code, answer.json()["airbyte_job_id"]) == (202, 1)
    assert [job["configType"] for job in mesh.airbyte.jobs.values()] == ["refresh"]
    assert await mesh.sql.fetchval("SELECT started_by FROM job_history") == "aam"
