"""Queries on Airbyte jobs and their recorded state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import CursorResult, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.errors import NotFound
from shared.models import Connection, JobHistory, JobStarter
from shared.registry.job_kinds import is_sync


class RunningJob(NamedTuple):
    """A job that has not ended, as last seen, and its connection in Airbyte."""

    id: UUID
    connection_id: UUID
    airbyte_connection_id: UUID | None
    airbyte_job_id: int
    status: str
    attempts: int
    records: int | None
    bytes_: int | None


async def running_jobs(session: AsyncSession) -> Sequence[RunningJob]:
    """The jobs that have not ended, oldest first."""
    rows = await session.execute(
        select(
            JobHistory.id,
            JobHistory.connection_id,
            Connection.airbyte_connection_id,
            JobHistory.airbyte_job_id,
            JobHistory.status,
            JobHistory.attempts,
            JobHistory.records,
            JobHistory.bytes_,
        )
        .join(Connection, Connection.id == JobHistory.connection_id)
        .where(JobHistory.ended_at.is_(None))
        .order_by(JobHistory.started_at)
    )
    return [RunningJob(*row) for row in rows]


async def jobs_started_by_aam(
    session: AsyncSession, connection_id: UUID, airbyte_job_ids: Sequence[int]
) -> set[int]:
    """Which of these Airbyte jobs are recorded as started by AAM."""
    rows = await session.scalars(
        select(JobHistory.airbyte_job_id).where(
            JobHistory.connection_id == connection_id,
            JobHistory.airbyte_job_id.in_(airbyte_job_ids),
            JobHistory.started_by == JobStarter.AAM,
        )
    )
    return set(rows)


async def end_running_jobs(
    session: AsyncSession, connection_id: UUID, *, code: str
) -> Sequence[UUID]:
    """End a connection's jobs that can no longer be followed; the ids of those still running."""
    ended = await session.scalars(
        update(JobHistory)
        .where(JobHistory.connection_id == connection_id, JobHistory.ended_at.is_(None))
        .values(ended_at=func.now(), status="cancelled", failure_code=code)
        .returning(JobHistory.id)
    )
    registry.mark_changed(session, [connection_id])
    return ended.all()


async def job_of(session: AsyncSession, connection_id: UUID, job_id: UUID) -> JobHistory:
    """A connection's job by AAM's id.

    Raises:
        NotFound: the connection has no such job.
    """
    job = await session.get(JobHistory, job_id, populate_existing=True)
    if job is None or job.connection_id != connection_id:
        raise NotFound(f"Connection {connection_id} has no job {job_id}.")
    return job


async def find_job(
    session: AsyncSession, connection_id: UUID, airbyte_job_id: int
) -> JobHistory | None:
    """A connection's job by Airbyte's id; None when it is not recorded."""
    return await session.scalar(
        select(JobHistory).where(
            JobHistory.connection_id == connection_id, JobHistory.airbyte_job_id == airbyte_job_id
        )
    )


# Follow-ups of failed syncs

FollowedUp = Literal["observed", "awaits_heal", "retried", "rejected", "skipped"]


class FailedSync(NamedTuple):
    """A failed sync whose follow-up is due."""

    job_id: UUID
    connection_id: UUID
    source_id: UUID
    started_at: datetime
    is_newest: bool
    """Whether the connection has no newer sync."""


async def failed_sync(session: AsyncSession, job_id: UUID) -> FailedSync | None:
    """A failed sync of a live connection; None if its follow-up is not due, or no longer."""
    row = (await session.execute(_FAILED_SYNC, {"id": job_id})).one_or_none()
    return None if row is None else FailedSync(*row)


_FAILED_SYNC = text(f"""
    SELECT j.id, j.connection_id, c.airbyte_source_id, j.started_at, NOT EXISTS (
        SELECT FROM job_history newer
        WHERE newer.connection_id = j.connection_id AND newer.started_at > j.started_at
            AND {is_sync("newer")}
    )
    FROM job_history j JOIN connections c ON c.id = j.connection_id
    WHERE j.id = :id AND j.follow_up = 'due' AND c.archived_at IS NULL
        AND c.airbyte_source_id IS NOT NULL
""")  # noqa: S608 - no input


async def due_follow_ups(
    session: AsyncSession, *, ended_before: timedelta, limit: int
) -> Sequence[UUID]:
    """The failed syncs that ended so long ago and whose follow-up is due, oldest first."""
    rows = await session.scalars(
        select(JobHistory.id)
        .where(JobHistory.follow_up == "due", JobHistory.ended_at <= func.now() - ended_before)
        .order_by(JobHistory.ended_at)
        .limit(limit)
    )
    return rows.all()


async def skip_old_follow_ups(session: AsyncSession, *, older_than: timedelta) -> None:
    """Skip the follow-ups that have been due for too long."""
    await session.execute(
        update(JobHistory)
        .where(JobHistory.follow_up == "due", JobHistory.ended_at < func.now() - older_than)
        .values(follow_up="skipped")
    )


async def end_follow_up(session: AsyncSession, job_id: UUID, follow_up: FollowedUp) -> bool:
    """Record what followed from a failed sync; False if it was not due any more."""
    written: CursorResult[tuple[()]] = await session.execute(  # type: ignore[assignment]
        update(JobHistory)
        .where(JobHistory.id == job_id, JobHistory.follow_up == "due")
        .values(follow_up=follow_up)
    )
    return written.rowcount == 1


# Syncs after a heal

HEALED_SYNC: Final = "healed_sync"
"""The scope of the Idempotency-Key of such a sync; the key is the id of the failed job."""


class AwaitedHeal(NamedTuple):
    """A failed sync that runs again after a heal, once that can be decided."""

    job_id: UUID
    connection_id: UUID
    is_started: bool
    """Whether AAM has started the sync."""
    is_over: bool
    """Whether none is to be started any more."""


async def is_after_synced(
    session: AsyncSession, connection_id: UUID, *, started_at: datetime
) -> bool:
    """Whether the one that started then is the sync after a heal, by the sync before it."""
    parameters = {"id": connection_id, "started_at": started_at, "route": HEALED_SYNC}
    return bool(await session.scalar(_AFTER_SYNCED, parameters))


_STARTED = """
    EXISTS (
        SELECT FROM operations o
        WHERE o.caller = 'AAM' AND o.route = :route AND o.idempotency_key = CAST(j.id AS text)
    )
"""
"""Whether AAM has begun to start the sync that follows the job `j`."""
_AFTER_SYNCED = text(f"""
    SELECT j.follow_up = 'synced' OR {_STARTED} FROM job_history j
    WHERE j.connection_id = :id AND j.started_at < :started_at AND {is_sync("j")}
    ORDER BY j.started_at DESC LIMIT 1
""")  # noqa: S608 - no input


async def awaited_heals(
    session: AsyncSession, *, longest: timedelta, limit: int
) -> Sequence[AwaitedHeal]:
    """The failed syncs that await a heal which has come, or comes no more, oldest first.

    A connection is healed if a repair's catalog is its head since the failed sync, and no other
    repair is open. One that is paused or has an open operation is left out.
    """
    rows = await session.execute(
        _AWAITED, {"longest": longest, "limit": limit, "route": HEALED_SYNC}
    )
    return [AwaitedHeal(*row) for row in rows]


_AWAITED = text(f"""
    SELECT id, connection_id, is_started, is_over FROM (
        SELECT j.id, j.connection_id, {_STARTED} AS is_started,
            c.archived_at IS NOT NULL OR j.ended_at < now() - CAST(:longest AS interval) OR EXISTS (
                SELECT FROM job_history newer
                WHERE newer.connection_id = j.connection_id AND newer.started_at > j.started_at
                    AND {is_sync("newer")}
            ) AS is_over,
            c.status = 'ACTIVE' AND c.paused_by IS NULL AND c.pause_requested_by IS NULL
                AND c.catalog_version > j.catalog_version AND v.origin = 'repair'
                AND NOT EXISTS (
                    SELECT FROM repairs r WHERE r.connection_id = c.id AND r.ended_at IS NULL
                )
                AND NOT EXISTS (
                    SELECT FROM operations o
                    WHERE o.connection_id = c.id AND o.status IN ('running', 'undoing')
                ) AS is_healed,
            j.ended_at
        FROM job_history j
        JOIN connections c ON c.id = j.connection_id
        LEFT JOIN sync_catalog_versions v
            ON v.connection_id = c.id AND v.version_number = c.catalog_version
        WHERE j.follow_up = 'awaits_heal'
    ) waiting
    WHERE is_started OR is_over OR is_healed
    ORDER BY ended_at LIMIT :limit
""")  # noqa: S608 - no input


async def end_awaited_heal(
    session: AsyncSession, job_id: UUID, follow_up: Literal["observed", "synced"]
) -> None:
    """Record what followed from a failed sync that awaited a heal."""
    await session.execute(
        update(JobHistory)
        .where(JobHistory.id == job_id, JobHistory.follow_up == "awaits_heal")
        .values(follow_up=follow_up)
    )
