"""Logs of jobs, their cancellation, and refreshes of streams."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.orchestrator.sagas.cancel import CancelSaga
from shared.auth.scopes import Scope
from shared.operations import Operation
from tests import access, leaks
from tests.integration.conftest import Mesh

CANCEL, REFRESH = "jobs/cancel", "connections/refresh"
SECRET = (
    leaks.canary("a token in Airbyte's log") + "7"
)  # a secret without a digit may look like words

pytestmark = pytest.mark.exact


@pytest.fixture
def repairs() -> bool:
    return False


async def started(mesh: Mesh) -> tuple[dict[str, Any], dict[str, Any]]:
    """A connection and its running job."""
    connection = await mesh.onboard()
    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert answer.status_code == 202, answer.text
    return connection, answer.json()


async def log(
    mesh: Mesh, connection: dict[str, Any], job: dict[str, Any], **query: Any
) -> httpx.Response:
    path = f"/connections/{connection['id']}/jobs/{job['job_id']}/logs"
    return await mesh.orchestrator.get(path, params=query)


async def cancel(
    mesh: Mesh, connection: dict[str, Any], job: dict[str, Any], **more: Any
) -> httpx.Response:
    path = f"/connections/{connection['id']}/jobs/{job['job_id']}/cancel"
    return await mesh.orchestrator.post(path, **more)


async def refresh(mesh: Mesh, connection: dict[str, Any], **order: Any) -> httpx.Response:
    return await mesh.orchestrator.post(
        f"/connections/{connection['id']}/streams/refresh", json=order
    )


# Logs


async def test_log_is_masked_and_has_the_connectors_error(mesh: Mesh) -> None:
    """Names of the catalog are shown, values are not; only with connections:write."""
    connection, job = await started(mesh)
    mesh.airbyte.logs[job["airbyte_job_id"], 0] = [
        "2026-11-22 09:31:04 info source > Read 700 records from Account stream",
        f"2026-11-22 09:31:05 error source > AnnualRevenue: token={SECRET}",
    ]
    mesh.airbyte.finish_job(
        job["airbyte_job_id"], "failed", failure=("config_error", f"invalid_grant: {SECRET}")
    )

    answer = await log(mesh, connection, job)

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["items"] == [
        "2026-11-22 09:31:04 info source > Read 700 records from Account stream",
        "2026-11-22 09:31:05 error source > AnnualRevenue: token=***",
    ]
    (failure,) = body["failures"]
    assert (failure["type"], failure["message"]) == ("config_error", "invalid_grant: ***")
    assert (body["job_id"], body["airbyte_job_id"]) == (job["job_id"], job["airbyte_job_id"])
    assert (body["status"], body["attempt"], body["attempts"]) == ("failed", 0, 1)
    assert SECRET not in answer.text
    key = await access.insert(mesh.sql, Scope.CONNECTIONS_READ)
    bearer = {"Authorization": f"Bearer {key.key}"}
    path = f"/connections/{connection['id']}/jobs/{job['job_id']}/logs"
    assert (await mesh.orchestrator.get(path, headers=bearer)).status_code == 403


async def test_log_is_paged_from_its_end(mesh: Mesh) -> None:
    """Each page is in reading order; `next` leads to the lines before it."""
    connection, job = await started(mesh)
    lines = [f"line {number}" for number in range(450)]
    mesh.airbyte.logs[job["airbyte_job_id"], 0] = lines

    pages = [(await log(mesh, connection, job)).json()]
    while pages[-1]["next"] is not None:
        pages.append((await log(mesh, connection, job, after=pages[-1]["next"])).json())

    assert [len(page["items"]) for page in pages] == [200, 200, 50]
    assert [line for page in reversed(pages) for line in page["items"]] == lines
    short = (await log(mesh, connection, job, limit=2)).json()
    assert short["items"] == lines[-2:]
    refused = await log(mesh, connection, job, limit=1001)
    assert refused.status_code == 422


async def test_structured_log_is_read_as_lines(mesh: Mesh) -> None:
    """Releases since 1.6 answer events; a stack trace is lines of its own."""
    connection, job = await started(mesh)
    job_id = job["airbyte_job_id"]
    event = {
        "timestamp": 1_795_000_000_000,
        "message": "Read failed",
        "level": "error",
        "logSource": "source",
        "stackTrace": "at io.airbyte.Worker.run(Worker.kt:12)\nat io.airbyte.Main.main(Main.kt:3)",
    }
    attempt = {"id": 0, "status": "failed", "createdAt": 1, "updatedAt": 1}
    mesh.airbyte.answer(
        "jobs/get",
        {
            "job": {"id": job_id, "status": "failed"},
            "attempts": [
                {"attempt": attempt, "logType": "structured", "logs": {"events": [event]}}
            ],
        },
    )

    items = (await log(mesh, connection, job)).json()["items"]

    head = "2026-11-18 11:06:40 error source > "
    assert items == [
        f"{head}Read failed",
        f"{head}at io.airbyte.Worker.run(Worker.kt:12)",
        f"{head}at io.airbyte.Main.main(Main.kt:3)",
    ]


async def test_unknown_jobs_and_attempts_have_no_log(mesh: Mesh) -> None:
    """404 for a job of another connection; an empty log for a job without one."""
    connection, job = await started(mesh)
    other = await mesh.onboard(connection_name="Other")
    assert (await log(mesh, other, job)).status_code == 404
    refused = await log(mesh, connection, job, attempt=7)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_attempt")
    body = (await log(mesh, connection, job)).json()
    assert (body["items"], body["next"], body["failures"]) == ([], None, [])


# Cancellation


async def test_job_is_cancelled_and_its_end_recorded(mesh: Mesh) -> None:
    """The history has it at once, with one event; the operation names who requested it."""
    connection, job = await started(mesh)

    answer = await cancel(mesh, connection, job)

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "cancelled"
    assert mesh.airbyte.jobs[job["airbyte_job_id"]]["status"] == "cancelled"
    (recorded,) = await mesh.jobs_until_end(connection["id"])
    assert (recorded["status"], recorded["failure_code"]) == ("cancelled", "cancelled")
    path = f"/operations/{answer.json()['operation_id']}"
    operation = (await mesh.orchestrator.get(path)).json()
    assert (operation["kind"], operation["status"]) == ("cancel", "done")
    assert operation["requested_by"].startswith("tests")
    events = [(one["type"], one["status"]) for one in (await mesh.events(3))[1:]]
    assert events == [("sync.triggered", "running"), ("sync.finished", "cancelled")]


async def test_ended_job_cannot_be_cancelled(mesh: Mesh) -> None:
    """409 with how it ended, also if AAM has not seen the end yet; nothing is sent."""
    connection, job = await started(mesh)
    mesh.airbyte.finish_job(job["airbyte_job_id"])

    for _ in range(2):
        refused = await cancel(mesh, connection, job)
        assert (refused.status_code, refused.json()["code"]) == (409, "job_ended")
        assert refused.json()["job_status"] == "succeeded"
        await mesh.jobs_until_end(connection["id"])
    assert mesh.airbyte.called(CANCEL) == []
    unknown = await cancel(mesh, connection, {"job_id": connection["id"]})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    "kind, after_effect", [("reset", True), ("reset", False), (500, True), (500, False)]
)
async def test_lost_answer_still_cancels(mesh: Mesh, kind: Any, after_effect: bool) -> None:
    connection, job = await started(mesh)
    mesh.airbyte.fault(CANCEL, kind, after_effect=after_effect)

    answer = await cancel(mesh, connection, job)

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert len(mesh.airbyte.called(CANCEL)) == (1 if after_effect else 2)


async def test_key_repeats_the_cancellations_answer(mesh: Mesh) -> None:
    """Without a key the repetition is 409, since the job has ended."""
    connection, job = await started(mesh)
    key = {"Idempotency-Key": "cancel-one-job-once"}

    first = await cancel(mesh, connection, job, headers=key)
    again = await cancel(mesh, connection, job, headers=key)

    assert (again.status_code, again.content) == (200, first.content)
    assert (await cancel(mesh, connection, job)).status_code == 409


# Ids that Airbyte has given again, as after a restore of its database


async def reuse(mesh: Mesh, airbyte_job_id: int) -> None:
    """Make a job that of another connection, which it goes on syncing."""
    other = await mesh.onboard(connection_name="Another one")
    mesh.airbyte.jobs[airbyte_job_id]["configId"] = other["airbyte_connection_id"]


async def test_job_of_another_connection_is_neither_shown_nor_cancelled(mesh: Mesh) -> None:
    """Its log is another connection's, and its caller may not even see that connection."""
    connection, job = await started(mesh)
    mesh.airbyte.logs[job["airbyte_job_id"], 0] = ["Read 7 records"]
    await reuse(mesh, job["airbyte_job_id"])

    shown = await log(mesh, connection, job)
    cancelled = await cancel(mesh, connection, job)

    for refused in (shown, cancelled):
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), refused.text
    assert mesh.airbyte.called(CANCEL) == []
    assert mesh.airbyte.jobs[job["airbyte_job_id"]]["status"] == "running"


async def test_id_that_is_reused_before_the_cancellation_is_not_cancelled(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation was recorded before the restore, and continues after it."""
    connection, job = await started(mesh)
    run = CancelSaga.run

    async def after_restore(self: CancelSaga, operation: Operation) -> None:
        await reuse(mesh, job["airbyte_job_id"])
        await run(self, operation)

    monkeypatch.setattr(CancelSaga, "run", after_restore)

    refused = await cancel(mesh, connection, job)

    assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), refused.text
    assert mesh.airbyte.called(CANCEL) == []
    query = "SELECT ended_at IS NULL FROM job_history WHERE id = $1::uuid"
    assert await mesh.sql.fetchval(query, job["job_id"])


# Refreshes


async def test_refresh_is_a_job_that_is_followed(mesh: Mesh) -> None:
    """Merge by default; of the named streams alone."""
    connection = await mesh.onboard()

    answer = await refresh(mesh, connection, streams=[{"name": "Account"}])

    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert [one["code"] for one in body["effects"]] == ["streams_read_again"]
    (sent,) = mesh.airbyte.called(REFRESH)
    assert (sent["refreshMode"], sent["streams"]) == ("Merge", [{"streamName": "Account"}])
    mesh.airbyte.finish_job(body["airbyte_job_id"])
    (job,) = await mesh.jobs_until_end(connection["id"])
    assert (job["job_id"], job["status"], job["started_by"]) == (body["job_id"], "succeeded", "aam")


async def test_truncating_must_be_asked_for_and_says_what_it_removes(mesh: Mesh) -> None:
    """And needs connections:write beside connections:sync."""
    connection = await mesh.onboard()
    key = await access.insert(mesh.sql, Scope.CONNECTIONS_SYNC)
    order = {"streams": [{"name": "Account"}], "mode": "truncate"}
    refused = await mesh.orchestrator.post(
        f"/connections/{connection['id']}/streams/refresh",
        json=order,
        headers={"Authorization": f"Bearer {key.key}"},
    )
    assert (refused.status_code, refused.json()["scope"]) == (403, "connections:write")

    body = (await refresh(mesh, connection, **order)).json()

    assert [one["code"] for one in body["effects"]] == ["streams_read_again", "older_rows_removed"]
    assert mesh.airbyte.called(REFRESH)[0]["refreshMode"] == "Truncate"


async def test_refresh_that_cannot_be_is_refused(mesh: Mesh) -> None:
    """Unknown streams, running jobs, paused connections, destinations without refreshes."""
    connection = await mesh.onboard()
    unknown = await refresh(mesh, connection, streams=[{"name": "Acount"}])
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_stream")
    assert "'Account'" in unknown.json()["detail"]
    mesh.airbyte.supports_refreshes = False
    refused = await refresh(mesh, connection, streams=[{"name": "Account"}])
    assert (refused.status_code, refused.json()["code"]) == (422, "refresh_unsupported")
    mesh.airbyte.supports_refreshes = True
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    held["status"] = "inactive"
    refused = await refresh(mesh, connection, streams=[{"name": "Account"}])
    assert (refused.status_code, refused.json()["code"]) == (409, "not_active")
    held["status"] = "active"
    mesh.airbyte.start_job(connection["airbyte_connection_id"])
    refused = await refresh(mesh, connection, streams=[{"name": "Account"}])
    assert (refused.status_code, refused.json()["code"]) == (409, "sync_running")
    assert mesh.airbyte.called(REFRESH) == []


@pytest.mark.parametrize("kind, after_effect", [("reset", True), ("reset", False), (500, True)])
async def test_lost_answer_starts_one_refresh(mesh: Mesh, kind: Any, after_effect: bool) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.fault(REFRESH, kind, after_effect=after_effect)

    answer = await refresh(mesh, connection, streams=[{"name": "Account"}])

    assert answer.status_code == 202, answer.text
    assert list(mesh.airbyte.jobs) == [answer.json()["airbyte_job_id"]]
