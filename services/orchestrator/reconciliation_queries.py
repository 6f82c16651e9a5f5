"""Queries for comparing the registry with Airbyte, and each periodic task's position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import Connection, JobHistory, PeriodicRun
from shared.registry.arrays import one_of


@dataclass(frozen=True, slots=True)
class Head:
    """What Airbyte should hold for an ACTIVE connection."""

    connection_id: UUID
    airbyte_connection_id: UUID
    version: int
    fingerprint: str
    drifted_upstream_at: datetime | None
    upstream_code: str | None
    paused_by: UUID | None
    pause_requested_by: str | None
    table_naming: str | None


async def heads(session: AsyncSession, *, after: UUID, limit: int) -> Sequence[Head]:
    """One page of ACTIVE connections without an open operation, ordered by id."""
    rows = await session.execute(_HEADS, {"after": after, "limit": limit})
    return [Head(*row) for row in rows]


_HEADS = text("""
    SELECT c.id, c.airbyte_connection_id, c.catalog_version, v.fingerprint, c.drifted_upstream_at,
        c.upstream_code, c.paused_by, c.pause_requested_by, CAST(c.table_naming AS text)
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    WHERE c.status = 'ACTIVE' AND c.archived_at IS NULL AND c.id > :after
        AND NOT EXISTS (
            SELECT FROM operations o
            WHERE o.connection_id = c.id AND o.status IN ('running', 'undoing')
        )
    ORDER BY c.id LIMIT :limit
""")


async def was_reapply_refused(
    session: AsyncSession, connection_id: UUID, version: int, *, within: timedelta
) -> bool:
    """Whether the newest attempt to reapply a catalog version was refused less than `within` ago.

    One that was given up at its deadline was not refused: Airbyte was unavailable.
    """
    values = {"connection": connection_id, "version": version, "within": within}
    return bool(await session.scalar(_REFUSED, values))


_REFUSED = text("""
    SELECT status = 'failed' AND response_status <> 504
        AND ended_at > now() - CAST(:within AS interval)
    FROM operations
    WHERE connection_id = :connection AND kind = 'reapply'
        AND CAST(request ->> 'version' AS integer) = :version
    ORDER BY created_at DESC LIMIT 1
""")


async def is_onboarding(session: AsyncSession) -> bool:
    """Whether an onboarding is open: Airbyte may have a connection not yet in the registry."""
    return bool(await session.scalar(_IS_ONBOARDING))


_IS_ONBOARDING = text("""
    SELECT EXISTS (
        SELECT FROM operations WHERE kind = 'onboard' AND status IN ('running', 'undoing')
    )
""")


async def operations_over(
    session: AsyncSession, ids: Collection[UUID], *, before: timedelta
) -> dict[UUID, bool]:
    """Which of these operations and trials exist, and whether each ended at least `before` ago."""
    rows = await session.execute(_OVER, {"ids": list(ids), "before": before})
    return {id_: bool(is_over) for id_, is_over in rows}


_OVER = text("""
    SELECT id, ended_at IS NOT NULL AND ended_at <= now() - CAST(:before AS interval)
    FROM operations WHERE id = ANY(CAST(:ids AS uuid[]))
    UNION ALL
    SELECT id, coalesce(ended_at, expires_at) <= now() - CAST(:before AS interval)
    FROM source_trials WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def used_in_airbyte(session: AsyncSession, ids: Collection[UUID]) -> set[UUID]:
    """Which of these Airbyte sources and connections a live connection uses."""
    return set(await session.scalars(_USED, {"ids": list(ids)}))


_USED = text("""
    SELECT airbyte_source_id FROM connections
    WHERE airbyte_source_id = ANY(CAST(:ids AS uuid[]))
        AND archived_at IS NULL AND airbyte_connection_id IS NOT NULL
    UNION
    SELECT airbyte_connection_id FROM connections
    WHERE airbyte_connection_id = ANY(CAST(:ids AS uuid[])) AND archived_at IS NULL
""")


async def connections_in_airbyte(
    session: AsyncSession, airbyte_connection_ids: Collection[UUID]
) -> dict[UUID, UUID]:
    """The live connections that use these Airbyte connections, by Airbyte's id."""
    rows = await session.execute(
        select(Connection.airbyte_connection_id, Connection.id).where(
            one_of(Connection.airbyte_connection_id, airbyte_connection_ids),
            Connection.archived_at.is_(None),
        )
    )
    return {airbyte_id: id_ for airbyte_id, id_ in rows if airbyte_id is not None}


async def known_jobs(
    session: AsyncSession, airbyte_job_ids: Collection[int]
) -> set[tuple[int, UUID]]:
    """Which of these Airbyte jobs are recorded, with their connections.

    After its database was restored, Airbyte may reuse a job id for another connection.
    """
    rows = await session.execute(
        select(JobHistory.airbyte_job_id, JobHistory.connection_id).where(
            one_of(JobHistory.airbyte_job_id, airbyte_job_ids)
        )
    )
    return {(job_id, connection_id) for job_id, connection_id in rows}


async def task_position(session: AsyncSession, task: str) -> datetime | None:
    """The position that a periodic task reached in its last run; None before the first."""
    return await session.scalar(select(PeriodicRun.seen_until).where(PeriodicRun.name == task))


async def save_task_position(session: AsyncSession, task: str, until: datetime) -> None:
    """Record the position that a periodic task has reached."""
    await session.execute(
        insert(PeriodicRun)
        .values(name=task, seen_until=until)
        .on_conflict_do_update(index_elements=[PeriodicRun.name], set_={"seen_until": until})
    )
