"""Scheduling observations: by jobs, shared by any number of processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.schema_observer import claim_queries
from services.schema_observer import main as schema_observer
from services.schema_observer.drift_detection import Comparison
from services.schema_observer.observer import Observer
from services.schema_observer.scheduler import Scheduler
from shared.airbyte_client import AirbyteClient
from shared.database import Database
from shared.errors import NotFound
from shared.job_queue import Jobs
from tests import access
from tests.fakes.airbyte_server import WORKSPACE_ID
from tests.integration.conftest import REPOSITORY, Mesh, as_service
from tests.integration.observing import by_hand, counts, drifts, fetch, observe
from tests.waiting import until, until_not

Json = dict[str, Any]

EVERY = timedelta(minutes=15)

pytestmark = pytest.mark.exact


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


@asynccontextmanager
async def another_observer(mesh: Mesh, **settings: Any) -> AsyncIterator[None]:
    """One more replica of the service."""
    app = schema_observer.build(
        as_service(mesh.settings.model_copy(update=settings), "schema_observer")
    )
    async with app.router.lifespan_context(app):
        yield


async def many_sources(mesh: Mesh, count: int) -> list[str]:
    """So many connections, each on a source of its own, due to be looked at; the sources."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    for number in range(count - 1):
        source = mesh.airbyte.add_source(f"Org {number}")
        copy = deepcopy(held) | {
            "connectionId": str(uuid4()),
            "name": f"Org {number}",
            "sourceId": source["sourceId"],
        }
        mesh.airbyte.connections[copy["connectionId"]] = copy
    answer = await mesh.orchestrator.post("/connections/import", json={"dry_run": False})
    assert answer.status_code == 200, answer.text
    db = Database.at(mesh.settings.registry_address, application="test")
    async with db.transaction() as session:
        await claim_queries.enrol_sources(session, every=EVERY)
    await db.close()
    rows = await mesh.sql.fetch("SELECT airbyte_source_id::text AS id FROM observations")
    assert len(rows) == count
    return [row["id"] for row in rows]


async def all_due(mesh: Mesh) -> None:
    await mesh.sql.execute("UPDATE observations SET next_at = now()")


async def pause_scheduling(mesh: Mesh) -> None:
    """No replica sees what is due, until `everybody_looks`."""
    await mesh.sql.execute(
        "INSERT INTO periodic_runs (name, next_at) VALUES ('observe', now() + interval '1 hour')"
        " ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at"
    )


async def resume_scheduling(mesh: Mesh) -> None:
    await mesh.sql.execute("UPDATE periodic_runs SET next_at = now()")


async def until_all_are_observed(mesh: Mesh) -> None:
    await until_not(
        lambda: mesh.sql.fetchval(
            "SELECT EXISTS (SELECT FROM observations WHERE next_at <= now()"
            " OR observed_at IS NULL OR claimed_by IS NOT NULL)"
        )
    )


async def test_due_source_is_observed(mesh: Mesh) -> None:
    """Without a request; the next observation is due about an interval later."""
    await many_sources(mesh, 3)
    mesh.airbyte.add_field("Account", "Region__c")
    await all_due(mesh)

    await until_all_are_observed(mesh)

    assert len((await fetch(mesh, "/drifts"))["items"]) == 3
    pauses = await mesh.sql.fetch(
        "SELECT extract(epoch FROM next_at - observed_at)::float8 AS s FROM observations"
    )
    assert all(0.89 * 900 <= row["s"] <= 1.11 * 900 for row in pauses)
    assert len({round(row["s"]) for row in pauses}) > 1


async def test_unexpected_failure_delays_the_next_observation(
    mesh: Mesh,
) -> None:
    """An answer such as 413 is no error of the connector: it is recorded, and retried later."""
    await many_sources(mesh, 2)
    refusal = {"message": "Too large.", "exceptionClassName": "io.airbyte.TooLarge"}
    mesh.airbyte.answer("commands/run/discover", refusal, status=413, times=None, effect=False)
    calls = len(mesh.airbyte.called("commands/run/discover"))
    await all_due(mesh)

    await until_all_are_observed(mesh)

    assert len(mesh.airbyte.called("commands/run/discover")) == calls + 2
    rows = await mesh.sql.fetch("SELECT outcome, code FROM observations")
    assert {tuple(row) for row in rows} == {("failed", "catalog_too_large")}
    assert not await mesh.sql.fetchval("SELECT count(*) FROM discoveries WHERE ended_at IS NULL")


async def test_unjudgeable_source_is_not_observed_again_at_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays claimed, and the others of its batch are observed."""
    sources = await many_sources(mesh, 2)
    bad = UUID(sources[0])
    compare = Comparison.compare

    async def refusing(self: Comparison, source_id: UUID, snapshot_id: UUID) -> Any:
        if source_id == bad:
            raise NotFound("It is gone.")
        return await compare(self, source_id, snapshot_id)

    monkeypatch.setattr(Comparison, "compare", refusing)
    mesh.airbyte.add_field("Account", "Region__c")
    calls = len(mesh.airbyte.called("commands/run/discover"))
    await all_due(mesh)
    await drifts(mesh)
    await until_not(
        lambda: mesh.sql.fetchval("SELECT count(*) FROM pgqueuer WHERE entrypoint = 'observe'")
    )

    held = "SELECT claimed_until > now() FROM observations WHERE airbyte_source_id = $1"
    assert await mesh.sql.fetchval(held, bad) is True
    assert len(mesh.airbyte.called("commands/run/discover")) == calls + 2
    assert len((await fetch(mesh, "/drifts"))["items"]) == 1


async def test_replicas_share_the_sources_and_the_limit(mesh: Mesh) -> None:
    """Each source is observed once, by either; never more than four of a workspace at once."""
    await many_sources(mesh, 16)
    mesh.airbyte.discoveries.clear()
    mesh.airbyte.forget_peaks()
    mesh.airbyte.fault("commands/status", "slow", seconds=0.2, times=None)
    async with another_observer(mesh), another_observer(mesh):
        await all_due(mesh)
        asked = asyncio.gather(
            *(
                mesh.schema_observer.post(f"/connections/{row['id']}/observe")
                for row in await mesh.sql.fetch("SELECT id FROM connections LIMIT 6")
            )
        )
        await until_all_are_observed(mesh)
        assert {answer.status_code for answer in await asked} == {200}

    assert mesh.airbyte.most_discoveries_at_once == 4
    assert set(mesh.airbyte.discoveries.values()) <= {1, 2}
    assert sum(mesh.airbyte.discoveries.values()) <= 16 + 6


async def test_each_source_is_claimed_by_one_replica(mesh: Mesh) -> None:
    sources = await many_sources(mesh, 12)
    mesh.airbyte.discoveries.clear()
    async with another_observer(mesh), another_observer(mesh):
        await all_due(mesh)
        await until_all_are_observed(mesh)

    assert mesh.airbyte.discoveries == dict.fromkeys(sources, 1)


async def test_requested_source_is_observed_first(mesh: Mesh) -> None:
    """While every slot is occupied and others have been due for longer."""
    await many_sources(mesh, 24)
    mesh.airbyte.fault("commands/status", "slow", seconds=0.15, times=None)
    await mesh.sql.execute("UPDATE observations SET next_at = now() - interval '1 day'")
    await until_not(
        lambda: mesh.sql.fetchval("SELECT count(DISTINCT claimed_by) < 4 FROM observations")
    )
    requested = await mesh.sql.fetchrow(
        "SELECT c.id FROM connections c JOIN observations o USING (airbyte_source_id)"
        " WHERE o.claimed_by IS NULL AND o.observed_at IS NULL ORDER BY o.airbyte_source_id DESC"
    )
    assert requested is not None

    found = await observe(mesh, {"id": str(requested["id"])})

    assert found["outcome"] == "unchanged"
    assert await mesh.sql.fetchval("SELECT count(*) FROM observations WHERE observed_at IS NULL")
    await until_all_are_observed(mesh)


async def test_only_sources_of_live_connections_are_observed(mesh: Mesh) -> None:
    """Enrolled once, within the interval, and removed with the last connection."""
    connection = await mesh.onboard()
    await by_hand(mesh, connection)
    db = Database.at(mesh.settings.registry_address, application="test")

    async def enrol() -> None:
        async with db.transaction() as session:
            await claim_queries.enrol_sources(session, every=EVERY)

    for _ in range(2):
        await enrol()
    rows = await mesh.sql.fetch(
        "SELECT airbyte_workspace_id, next_at BETWEEN now() AND now() + interval '15 minutes' AS ok"
        " FROM observations"
    )
    assert [tuple(row) for row in rows] == [(UUID(WORKSPACE_ID), True)]

    await mesh.sql.execute("UPDATE connections SET status = 'FAILED'")
    await all_due(mesh)
    async with db.transaction() as session:
        assert await claim_queries.due_workspaces(session, entrypoint="observe", at_once=4) == []
    await mesh.sql.execute("UPDATE connections SET archived_at = now()")
    await enrol()
    assert await mesh.sql.fetchval("SELECT count(*) FROM observations") == 0
    await db.close()


async def test_sources_of_unknown_workspaces_share_one_limit(mesh: Mesh) -> None:
    """They may all be in the same one."""
    await pause_scheduling(mesh)
    await many_sources(mesh, 6)
    await mesh.sql.execute("UPDATE observations SET airbyte_workspace_id = NULL")
    db = Database.at(mesh.settings.registry_address, application="test")
    await all_due(mesh)

    async def claim(limit: int = 1) -> int:
        async with db.transaction() as session:
            claims = await claim_queries.claim_sources(
                session,
                None,
                slot=uuid4(),
                at_once=2,
                lease=timedelta(minutes=1),
                every=EVERY,
                limit=limit,
            )
        return len(claims)

    assert [await claim(), await claim(limit=3), await claim()] == [1, 3, 0]
    await mesh.sql.execute("UPDATE observations SET claimed_until = now() - interval '1 s'")
    assert await claim() == 1
    await db.close()


async def test_claims_are_released_at_a_stop(mesh: Mesh) -> None:
    """Also that of the running observation: another replica repeats it at once."""
    await pause_scheduling(mesh)
    await many_sources(mesh, 2)
    db = Database.at(mesh.settings.registry_address, application="test")
    jobs = Jobs(mesh.settings.registry_address, application="test")
    mesh.airbyte.fault("commands/run/discover", "hang")
    async with AirbyteClient.from_settings(mesh.settings) as airbyte:
        scheduling = Scheduler(mesh.settings, db, jobs, Observer(mesh.settings, db, airbyte, jobs))
        row = await mesh.sql.fetchrow("SELECT * FROM observations LIMIT 1")
        assert row is not None
        async with scheduling.running():
            task = await scheduling.observe_now(
                row["airbyte_source_id"], row["airbyte_workspace_id"]
            )
            assert task is not None
            claimed = "SELECT count(claimed_by) FROM observations"
            await mesh.until_true(claimed)
        assert await mesh.sql.fetchval(claimed) == 0
        assert (await scheduling.observe_now(row["airbyte_source_id"], None)) is None
    await db.close()
    mesh.airbyte.heal()


async def test_waiting_for_an_ended_observation_starts_no_other(mesh: Mesh) -> None:
    """It may end between the check and the claim."""
    await pause_scheduling(mesh)
    connection = await mesh.onboard()
    db = Database.at(mesh.settings.registry_address, application="test")
    jobs = Jobs(mesh.settings.registry_address, application="test")
    async with AirbyteClient.from_settings(mesh.settings) as airbyte:
        observing = Observer(mesh.settings, db, airbyte, jobs)
        scheduling = Scheduler(mesh.settings, db, jobs, observing)
        before = await mesh.sql.fetchval("SELECT clock_timestamp()")
        await observe(mesh, connection)
        row = await mesh.sql.fetchrow("SELECT * FROM observations")
        assert row is not None
        source, workspace = row["airbyte_source_id"], row["airbyte_workspace_id"]
        async with scheduling.running():
            late = await scheduling.observe_now(source, workspace, unanswered_since=before)
            assert late is None
            since = await mesh.sql.fetchval("SELECT clock_timestamp()")
            task = await scheduling.observe_now(source, workspace, unanswered_since=since)
            assert task is not None
            await task
    await db.close()


async def test_observation_that_lost_its_claim_records_nothing(mesh: Mesh) -> None:
    """Its lease expired and another has the source: only drifts, which are facts, stay."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    mesh.airbyte.fault("commands/run/discover", "slow", seconds=1.5)
    before = await counts(mesh)
    mesh.airbyte.requests.clear()
    asking = asyncio.create_task(
        mesh.schema_observer.post(f"/connections/{connection['id']}/observe", params={"wait": 3})
    )
    await until(lambda: mesh.airbyte.called("commands/run/discover"))
    await mesh.sql.execute(
        "UPDATE observations SET claimed_by = gen_random_uuid(),"
        " claimed_until = now() + interval '1 minute'"
    )

    answer = await asking

    assert answer.status_code == 202
    assert await counts(mesh) == before
    row = await mesh.sql.fetchrow("SELECT outcome, observed_at FROM observations")
    assert row is not None
    assert tuple(row) == (None, None)


@pytest.mark.process
@pytest.mark.deep(after=1)
@pytest.mark.parametrize("place", ["observe.stored", "observe.compared"])
async def test_killed_process_leaves_no_duplicates(mesh: Mesh, place: str) -> None:
    """Killed after the snapshot, or after the drift: the next observation does the rest."""
    await pause_scheduling(mesh)
    await many_sources(mesh, 1)
    mesh.airbyte.drop_field("Account", "Name")
    environment = {
        **os.environ,
        **mesh.airbyte.environment,
        **access.environment(),
        "SUPABASE_DB_URL": as_service(
            mesh.settings, "schema_observer"
        ).supabase_db_url.get_secret_value(),
        "AAM_ENV": "test",
        "AAM_FAILPOINTS": f"{place}=kill",
    }
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ONE_LOOK, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        assert await killed.wait() == -signal.SIGKILL
    snapshots = "SELECT count(*) FROM snapshots"
    assert await mesh.sql.fetchval(snapshots) == 2
    assert (await counts(mesh))["drifts"] == (place == "observe.compared")
    await mesh.sql.execute(
        "UPDATE observations SET claimed_until = now() - interval '1 s', next_at = now()"
    )
    await resume_scheduling(mesh)

    await until_all_are_observed(mesh)

    assert len((await fetch(mesh, "/drifts"))["items"]) == 1
    assert await mesh.sql.fetchval(snapshots) == 2
    detected = "SELECT count(*) FROM events WHERE type = 'drift.detected'"
    assert await mesh.sql.fetchval(detected) == 1


_ONE_LOOK = """
import asyncio
from datetime import timedelta
from uuid import uuid4

from services.schema_observer.drift_detection import Comparison
from services.schema_observer import claim_queries
from services.schema_observer.observer import Observer
from shared import failpoints, registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings, load
from shared.database import Database
from shared.job_queue import Jobs


async def look():
    settings = load(Settings)
    failpoints.arm(settings.aam_failpoints)
    db = Database.at(settings.registry_address, application="test")
    jobs = Jobs(settings.registry_address, application="test")
    slot, day = uuid4(), timedelta(days=1)
    async with AirbyteClient.from_settings(settings) as airbyte:
        async with db.transaction() as session:
            due = "UPDATE observations SET next_at = now() RETURNING airbyte_workspace_id"
            workspace = await session.scalar(__import__("sqlalchemy").text(due))
            (claim,) = await claim_queries.claim_sources(
                session, workspace, slot=slot, at_once=4, lease=day, every=day, limit=1
            )
        observing = Observer(settings, db, airbyte, jobs)
        await observing.record([await observing.discover(claim, slot)], slot)


asyncio.run(look())
"""
