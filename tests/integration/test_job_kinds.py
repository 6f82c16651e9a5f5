"""Jobs that only clear data are no syncs to those who wait for one, or look for the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.drift_repair_agent.states import queries
from services.orchestrator import job_queries
from shared import registry
from shared.database import Database
from shared.models import Connection, JobHistory
from tests import factories

pytestmark = pytest.mark.parametrize("kind", ["clear", "reset_connection"])

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def connection(db: Database) -> Connection:
    row = factories.connection()
    async with db.transaction() as session:
        session.add(row)
    return row


async def add_job(
    db: Database, connection: Connection, *, age: timedelta, **columns: Any
) -> JobHistory:
    """A job that started so long ago, and ended half an hour later, unless it is running."""
    started_at = NOW - age
    job = JobHistory(
        connection_id=connection.id,
        airbyte_job_id=int(age / timedelta(seconds=1)),
        catalog_version=1,
        started_at=started_at,
        ended_at=None if columns["status"] == "running" else started_at + HOUR / 2,
        **columns,
    )
    async with db.transaction() as session:
        session.add(job)
    return job


@pytest.mark.parametrize("follow_up", ["due", "awaits_heal"])
async def test_failed_sync_stays_the_newest(
    db: Database, connection: Connection, kind: str, follow_up: str
) -> None:
    """So that it is followed up, and runs again after a heal."""
    failed = await add_job(db, connection, age=2 * HOUR, status="failed", follow_up=follow_up)
    await add_job(db, connection, age=HOUR, kind=kind, status="succeeded")

    async with db.read() as session:
        due = await job_queries.failed_sync(session, failed.id)
        over = await job_queries.awaited_heals(session, longest=timedelta(days=1), limit=9)

    assert over == []
    if follow_up == "due":
        assert due is not None
        assert due.is_newest


async def test_sync_after_a_heal_is_recognised(
    db: Database, connection: Connection, kind: str
) -> None:
    """By the sync before it."""
    await add_job(db, connection, age=3 * HOUR, status="failed", follow_up="synced")
    await add_job(db, connection, age=2 * HOUR, kind=kind, status="succeeded")
    again = await add_job(db, connection, age=HOUR, status="failed")

    async with db.read() as session:
        assert await job_queries.is_after_synced(
            session, connection.id, started_at=again.started_at
        )


async def test_source_is_not_in_use_by_it(db: Database, connection: Connection, kind: str) -> None:
    """A discovery of a source whose connector renews tokens waits for syncs only."""
    assert connection.airbyte_source_id is not None
    await add_job(db, connection, age=HOUR, kind=kind, status="running")

    async with db.read() as session:
        loads = await registry.source_loads(
            session,
            [connection.airbyte_source_id],
            every=HOUR,
            recent=HOUR,
            renewing_types=[connection.source_type],
        )

    assert loads[connection.airbyte_source_id].sync_since is None


async def test_full_read_is_that_of_a_sync(db: Database, connection: Connection, kind: str) -> None:
    await add_job(db, connection, age=2 * HOUR, status="succeeded", records=700)
    await add_job(db, connection, age=HOUR, kind=kind, status="succeeded", records=0)

    async with db.read() as session:
        found = await queries.last_full_read(
            session, connection.id, full_version=1, is_since_first=False, kept=None
        )

    assert found == queries.FullRead(took=HOUR / 2, records=700)
