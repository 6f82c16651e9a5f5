"""Queries on the rows that syncs brought, by stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import DateTime, LargeBinary, Uuid, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.volume_states import SyncedStream
from shared.models import SyncVolume

MOST_STREAMS = 5000
"""How many streams of a connection are recorded; the rest is left out."""


async def streams_of_job(session: AsyncSession, job_id: UUID) -> tuple[int, Sequence[SyncedStream]]:
    """The version that was the head when the job started, and its streams, at most MOST_STREAMS."""
    rows = (await session.execute(_STREAMS, {"job_id": job_id, "limit": MOST_STREAMS})).all()
    return (rows[0][0] if rows else 0), [SyncedStream(*row[1:]) for row in rows]


_STREAMS = text("""
    SELECT v.version_number, s.of -> 'stream' ->> 'name',
        coalesce(s.of -> 'stream' ->> 'namespace', ''),
        s.of -> 'config' ->> 'syncMode' IS DISTINCT FROM 'incremental'
    FROM job_history j
    JOIN sync_catalog_versions v
        ON v.connection_id = j.connection_id AND v.version_number = j.catalog_version
    CROSS JOIN jsonb_array_elements(v.sync_catalog -> 'streams') WITH ORDINALITY s(of, position)
    WHERE j.id = :job_id
    ORDER BY s.position LIMIT :limit
""")


async def recorded(
    session: AsyncSession, connection_id: UUID, *, limit: int, after: int = 0
) -> Sequence[tuple[UUID, bytes]]:
    """The ids of a connection's jobs and their volumes, the newest jobs first, but `after`."""
    rows = await session.execute(
        select(SyncVolume.job_id, SyncVolume.volumes)
        .where(SyncVolume.connection_id == connection_id)
        .order_by(SyncVolume.ended_at.desc(), SyncVolume.job_id)
        .offset(after)
        .limit(limit)
    )
    return [(job_id, volumes) for job_id, volumes in rows]


async def histories(
    session: AsyncSession, connection_id: UUID, *, ended_at: datetime, within: timedelta, limit: int
) -> Sequence[bytes]:
    """The volumes of a connection's syncs that ended before `ended_at`, newest first."""
    found = await session.scalars(
        select(SyncVolume.volumes)
        .where(
            SyncVolume.connection_id == connection_id,
            SyncVolume.ended_at < ended_at,
            SyncVolume.ended_at >= ended_at - within,
        )
        .order_by(SyncVolume.ended_at.desc())
        .limit(limit)
    )
    return found.all()


async def save(
    session: AsyncSession,
    connection_id: UUID,
    job_id: UUID,
    volumes: bytes,
    *,
    ended_at: datetime,
    most: int,
) -> None:
    """Record the volumes of one job, instead of the oldest one's if the connection has `most`.

    The connection's row must be locked by this transaction.
    """
    values = {
        "connection_id": connection_id,
        "job_id": job_id,
        "volumes": volumes,
        "ended_at": ended_at,
        "kept": most - 1,
    }
    await session.execute(_SAVE, values)


_SAVE = text("""
    WITH overwritten AS (
        UPDATE sync_volumes SET job_id = :job_id, ended_at = :ended_at, volumes = :volumes
        WHERE job_id = (
            SELECT job_id FROM sync_volumes WHERE connection_id = :connection_id
            ORDER BY ended_at DESC OFFSET :kept LIMIT 1
        )
        RETURNING job_id
    )
    INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)
    SELECT :job_id, :connection_id, :ended_at, :volumes
    WHERE NOT EXISTS (SELECT FROM overwritten)
""").bindparams(
    bindparam("job_id", type_=Uuid()),
    bindparam("connection_id", type_=Uuid()),
    bindparam("ended_at", type_=DateTime(timezone=True)),
    bindparam("volumes", type_=LargeBinary()),
)


async def selected_streams(
    session: AsyncSession, connection_id: UUID, *, after: int
) -> Sequence[Selected]:
    """The streams of a connection's newest catalog after a position."""
    found = await session.execute(_SELECTED, {"id": connection_id, "after": after})
    return [Selected(*row) for row in found]


class Selected(NamedTuple):
    """A stream at a position of a catalog, from 1; `namespace` is empty if it has none."""

    position: int
    name: str
    namespace: str


_SELECTED = text("""
    SELECT s.position, of -> 'stream' ->> 'name', coalesce(of -> 'stream' ->> 'namespace', '')
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    CROSS JOIN jsonb_array_elements(v.sync_catalog -> 'streams') WITH ORDINALITY s(of, position)
    WHERE c.id = :id AND s.position > :after
    ORDER BY s.position
""")
