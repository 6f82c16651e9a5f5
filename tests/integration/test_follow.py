"""Following syncs: with few calls, each job independently, and none for ever or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from local.airbyte.releases import ErrorStyle
from services.orchestrator import job_follower
from services.orchestrator.job_follower import JobFollower
from services.orchestrator.volumes import Volumes
from shared.airbyte_client import AirbyteClient, Job
from shared.database import Database
from shared.errors import (
    Upstream,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnknown,
)
from shared.job_queue import Jobs
from tests.factories import open_operation
from tests.integration.conftest import Mesh
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
LOST_AFTER = timedelta(minutes=1)
_SEEN_UNTIL = "SELECT seen_until FROM periodic_runs WHERE name = 'new_jobs'"


class Clock:
    """The follower's clock, which a test sets forward."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        return self._now_s

    def forward(self, by: timedelta) -> None:
        self._now_s += by.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def follower(mesh: Mesh, clock: Clock) -> AsyncIterator[JobFollower]:
    """One that the test runs by hand, beside the mesh's own, which waits longer."""
    db = Database.at(mesh.settings.registry_address, application="test")
    async with AirbyteClient.from_settings(mesh.settings) as airbyte:
        jobs = Jobs(mesh.settings.registry_address, application="test")
        yield JobFollower(db, airbyte, jobs, Volumes(db), lost_after=LOST_AFTER, clock=clock)
    await db.close()


async def job_of(mesh: Mesh, airbyte_job_id: int) -> Json:
    """A job's row, once it is there."""
    query = "SELECT * FROM job_history WHERE airbyte_job_id = $1"
    return dict(await until(lambda: mesh.sql.fetchrow(query, airbyte_job_id)))


async def run_until_lost(follower: JobFollower, clock: Clock) -> None:
    """Run the follower twice, after which a job that Airbyte does not know is lost."""
    await follower.update_running()
    clock.forward(LOST_AFTER)
    await follower.update_running()


async def stop_following(mesh: Mesh) -> None:
    """Let the mesh's own follower leave the jobs to the test's."""
    await mesh.sql.execute(
        "INSERT INTO periodic_runs (name, next_at) VALUES ('jobs', now() + interval '1 hour')"
        " ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at"
    )
    # One that has begun ends: it lists what is new last.
    async with asyncio.timeout(10):
        calls = -1
        while calls != (calls := len(mesh.airbyte.called("jobs/list"))):  # noqa: ASYNC110 (the mesh's doing)
            await asyncio.sleep(0.2)


async def add_connections(mesh: Mesh, connection: Json, count: int) -> list[str]:
    """More live connections like this one, here and in Airbyte; their ids in Airbyte."""
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    ids = [str(uuid4()) for _ in range(count)]
    for number, airbyte_id in enumerate(ids):
        mesh.airbyte.connections[airbyte_id] = {**held, "connectionId": airbyte_id}
        await mesh.sql.execute(
            "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status,"
            " airbyte_source_id, airbyte_connection_id, catalog_version)"
            " SELECT $1, name || $2, source_type, airbyte_destination_id, 'ACTIVE',"
            " airbyte_source_id, $3, catalog_version FROM connections WHERE id = $4",
            uuid4(),
            f" {number}",
            UUID(airbyte_id),
            UUID(connection["id"]),
        )
    return ids


async def test_airbyte_sync_is_recorded_after_a_busy_time(
    mesh: Mesh, follower: JobFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the connection was busy, and whatever was recorded of others meanwhile."""
    monkeypatch.setattr(job_follower, "_OVERLAP", timedelta(0))
    connection = await mesh.onboard()
    (other,) = await add_connections(mesh, connection, 1)
    await open_operation(mesh.sql, connection["id"])
    # Without an overlap a job is missed that began in the second in which the first look does.
    await until(lambda: mesh.sql.fetchval(_SEEN_UNTIL))
    missed = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    missed["createdAt"] += 1
    await follower.update_running()
    mesh.airbyte.finish_job(missed["id"])
    # The clock of a later look: a job that began more than a second later is seen and recorded.
    later = mesh.airbyte.start_job(other)
    later["createdAt"] += 2
    await asyncio.sleep(1.1)
    await job_of(mesh, later["id"])
    await follower.update_running()
    assert await mesh.sql.fetchval("SELECT count(*) FROM job_history") == 1

    await mesh.sql.execute("DELETE FROM operations WHERE status = 'running'")
    row = await job_of(mesh, missed["id"])

    assert (row["started_by"], row["connection_id"]) == ("airbyte", UUID(connection["id"]))
    (job,) = await mesh.jobs_until_end(connection["id"])
    assert job["status"] == "succeeded"


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("style", list(ErrorStyle))
@pytest.mark.parametrize("is_missing", [False, True])
async def test_job_unknown_to_airbyte_ends_alone(
    mesh: Mesh, follower: JobFollower, clock: Clock, style: ErrorStyle, is_missing: bool
) -> None:
    """With an event and a reason; another open job of the same connection goes on."""
    connection = await mesh.onboard()
    mesh.airbyte.error_style = style
    lost = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    goes_on = mesh.airbyte.start_job(connection["airbyte_connection_id"], "clear")
    await job_of(mesh, lost["id"])
    await job_of(mesh, goes_on["id"])
    await stop_following(mesh)
    del mesh.airbyte.jobs[lost["id"]]
    if is_missing:
        body = {"errorId": str(uuid4())}
        mesh.airbyte.answer("jobs/get_without_logs", body, status=404, times=None, effect=False)

    await follower.update_running()
    assert (await job_of(mesh, lost["id"]))["ended_at"] is None
    calls = len(mesh.airbyte.called("jobs/get_without_logs"))
    await follower.update_running()
    assert len(mesh.airbyte.called("jobs/get_without_logs")) == calls
    clock.forward(LOST_AFTER)
    await follower.update_running()

    row = await job_of(mesh, lost["id"])
    assert (row["status"], row["failure_code"]) == ("cancelled", "job_lost")
    assert row["ended_at"] is not None
    assert (await job_of(mesh, goes_on["id"]))["ended_at"] is None
    (event,) = [one for one in await mesh.events(4) if one["type"] == "sync.finished"]
    assert (event["ref"], event["code"]) == (str(row["id"]), "job_lost")


async def test_job_id_reused_for_another_connection_is_lost(
    mesh: Mesh, follower: JobFollower, clock: Clock
) -> None:
    """Airbyte's database was restored: the id now says nothing about our job."""
    connection = await mesh.onboard()
    (other,) = await add_connections(mesh, connection, 1)
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    row = await job_of(mesh, job["id"])
    job.update(configId=other)
    mesh.airbyte.finish_job(job["id"], records=5)

    await run_until_lost(follower, clock)

    ended = await mesh.sql.fetchrow("SELECT * FROM job_history WHERE id = $1", row["id"])
    assert ended is not None
    assert (ended["failure_code"], ended["records"]) == ("job_lost", None)


@pytest.mark.parametrize("chunk", [1, 1000])
async def test_airbyte_sync_is_recorded_after_hours(
    mesh: Mesh, follower: JobFollower, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Its connection was busy for longer than the follower looks back, in one chunk or several."""
    monkeypatch.setattr(job_follower, "_CHUNK", chunk)
    connection = await mesh.onboard()
    (other,) = await add_connections(mesh, connection, 1)
    await stop_following(mesh)
    await mesh.sql.execute("UPDATE periodic_runs SET seen_until = now() - interval '3 hours'")
    await open_operation(mesh.sql, connection["id"])
    missed = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    missed["createdAt"] -= 9000
    mesh.airbyte.finish_job(missed["id"])
    later = mesh.airbyte.start_job(other)

    await follower.update_running()
    await mesh.sql.execute("DELETE FROM operations WHERE status = 'running'")
    await follower.update_running()

    ids = await mesh.sql.fetch("SELECT airbyte_job_id FROM job_history ORDER BY 1")
    assert [row["airbyte_job_id"] for row in ids] == [missed["id"], later["id"]]


async def test_interrupted_search_for_new_jobs_continues(
    mesh: Mesh, follower: JobFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long pause: what was listed before the interruption is recorded, the rest later."""
    monkeypatch.setattr(job_follower, "_CHUNK", 2)
    connection = await mesh.onboard()
    others = await add_connections(mesh, connection, 5)
    await stop_following(mesh)
    await mesh.sql.execute("UPDATE periodic_runs SET seen_until = now() - interval '9 hours'")
    jobs = [mesh.airbyte.start_job(other) for other in others]
    for job, hours in zip(jobs, (8, 7, 3, 3, 3), strict=True):
        job["createdAt"] = jobs[0]["updatedAt"] - hours * 3600
    mesh.airbyte.fault("jobs/list", 500, skip=1, times=None)

    await follower.update_running()

    assert await _recorded_jobs(mesh) == [job["id"] for job in jobs[:2]]
    seen = await mesh.sql.fetchval(_SEEN_UNTIL)
    assert seen.timestamp() == jobs[1]["createdAt"]
    mesh.airbyte.heal()
    await follower.update_running()
    assert await _recorded_jobs(mesh) == [job["id"] for job in jobs]


async def _recorded_jobs(mesh: Mesh) -> list[int]:
    rows = await mesh.sql.fetch("SELECT airbyte_job_id FROM job_history ORDER BY 1")
    return [row["airbyte_job_id"] for row in rows]


async def test_sync_started_before_its_connection_is_recorded_is_found(
    mesh: Mesh, follower: JobFollower
) -> None:
    """The answer to the creation was lost, and Airbyte's scheduler was faster."""
    connection = await mesh.onboard()
    (other,) = await add_connections(mesh, connection, 1)
    await stop_following(mesh)
    await mesh.sql.execute("UPDATE periodic_runs SET seen_until = now() - interval '4 minutes'")
    id_ = UUID(connection["id"])
    await mesh.sql.execute(
        "UPDATE connections SET airbyte_connection_id = NULL, status = 'PENDING' WHERE id = $1", id_
    )
    await open_operation(mesh.sql, connection["id"], "onboard")
    early = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    early["createdAt"] -= 150
    later = mesh.airbyte.start_job(other)

    await follower.update_running()
    await mesh.sql.execute("DELETE FROM operations WHERE status = 'running'")
    await mesh.sql.execute(
        "UPDATE connections SET airbyte_connection_id = $2, status = 'ACTIVE' WHERE id = $1",
        id_,
        UUID(connection["airbyte_connection_id"]),
    )
    await follower.update_running()

    ids = await mesh.sql.fetch("SELECT airbyte_job_id FROM job_history ORDER BY 1")
    assert [row["airbyte_job_id"] for row in ids] == [early["id"], later["id"]]


async def test_slow_airbyte_clock_loses_no_sync(mesh: Mesh, follower: JobFollower) -> None:
    """Airbyte's own clock says how far the follower has read."""
    connection = await mesh.onboard()
    first = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    first["createdAt"] -= 600
    await job_of(mesh, first["id"])

    await stop_following(mesh)
    await mesh.sql.execute("DELETE FROM periodic_runs WHERE name = 'new_jobs'")
    await follower.update_running()
    mesh.airbyte.finish_job(first["id"])
    second = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    second["createdAt"] -= 600
    await follower.update_running()

    await job_of(mesh, second["id"])


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("error", [UpstreamForbidden, UpstreamMissing, UpstreamUnknown])
async def test_job_of_an_unknown_connection_ends(
    mesh: Mesh,
    follower: JobFollower,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Upstream],
) -> None:
    """It is not among the running jobs, and Airbyte refuses to list the connection's."""
    connection = await mesh.onboard()
    lost = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await job_of(mesh, lost["id"])
    await stop_following(mesh)
    del mesh.airbyte.jobs[lost["id"]]
    refused = error("Airbyte answered jobs/list.")
    refused.is_over = True

    async def refuse(*_: object, **__: object) -> list[Job]:
        raise refused

    monkeypatch.setattr(AirbyteClient, "list_jobs", refuse)
    await run_until_lost(follower, clock)

    assert (await job_of(mesh, lost["id"]))["failure_code"] == "job_lost"


async def test_refused_login_loses_no_job(
    mesh: Mesh, follower: JobFollower, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about the job, though Airbyte itself has answered."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await job_of(mesh, job["id"])
    await stop_following(mesh)
    mesh.airbyte.finish_job(job["id"])
    refused = UpstreamDenied("Airbyte does not take AAM's login.")
    refused.is_over = True

    async def refuse(*_: object, **__: object) -> Job:
        raise refused

    monkeypatch.setattr(AirbyteClient, "get_job", refuse)
    monkeypatch.setattr(AirbyteClient, "list_jobs", refuse)
    await run_until_lost(follower, clock)

    assert (await job_of(mesh, job["id"]))["ended_at"] is None


async def test_unreachable_airbyte_loses_no_job(
    mesh: Mesh, follower: JobFollower, clock: Clock
) -> None:
    """Errors that Airbyte did not write start no deadline."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await job_of(mesh, job["id"])
    mesh.airbyte.finish_job(job["id"], records=5)
    mesh.airbyte.lose_route("kong", path="jobs/get_without_logs")
    mesh.airbyte.fault("jobs/get_without_logs", "html_502", times=None)
    await run_until_lost(follower, clock)
    assert (await job_of(mesh, job["id"]))["ended_at"] is None

    mesh.airbyte.heal()
    (ended,) = await mesh.jobs_until_end(connection["id"])
    assert (ended["status"], ended["records"]) == ("succeeded", 5)


async def test_unreadable_job_does_not_affect_the_others(mesh: Mesh) -> None:
    """It is in one page with a job that has ended."""
    connection = await mesh.onboard()
    (other,) = await add_connections(mesh, connection, 1)
    bad = mesh.airbyte.start_job(other)
    good = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await job_of(mesh, bad["id"])
    await job_of(mesh, good["id"])
    bad["createdAt"] *= 1000
    mesh.airbyte.finish_job(good["id"], records=5)

    (ended,) = await mesh.jobs_until_end(connection["id"])

    assert (ended["status"], ended["records"]) == ("succeeded", 5)
    assert (await job_of(mesh, bad["id"]))["ended_at"] is None


async def test_unknown_status_blocks_nothing(mesh: Mesh) -> None:
    """It is kept, and ends with the last attempt."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    job["status"] = "hibernating"
    await mesh.until_true("SELECT count(*) FROM job_history WHERE status = 'hibernating'")

    mesh.airbyte.finish_job(job["id"], records=5)
    job["status"] = "partially_succeeded"
    (ended,) = await mesh.jobs_until_end(connection["id"])

    assert (ended["status"], ended["records"]) == ("partially_succeeded", 5)


async def test_many_running_jobs_need_few_calls(mesh: Mesh, follower: JobFollower) -> None:
    """A hundred and twenty jobs are two pages; an ended job is read by its id."""
    connection = await mesh.onboard()
    await stop_following(mesh)
    jobs = [
        mesh.airbyte.start_job(airbyte_id)
        for airbyte_id in await add_connections(mesh, connection, 120)
    ]
    await mesh.sql.executemany(
        "INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version,"
        " attempts) SELECT $1, id, $2, 'running', 1, 1 FROM connections"
        " WHERE airbyte_connection_id = $3",
        [(uuid4(), job["id"], UUID(job["configId"])) for job in jobs],
    )
    mesh.airbyte.finish_job(jobs[0]["id"])
    before = Counter(request.path for request in mesh.airbyte.requests)

    await follower.update_running()

    calls = Counter(request.path for request in mesh.airbyte.requests) - before
    assert calls["jobs/get_without_logs"] == 1
    assert calls["jobs/list"] == 4
    assert (await job_of(mesh, jobs[0]["id"]))["status"] == "succeeded"


async def test_archiving_ends_running_jobs_with_an_event(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")

    await mesh.orchestrator.delete(f"/connections/{connection['id']}")

    published = [(one["type"], one["code"]) for one in await mesh.events(4)]
    assert published[-2:] == [("sync.finished", "connection_archived"), ("connection.archived", "")]
