"""Queries on the rows that syncs brought, by stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.volume_states import SyncedStream, Volume
from shared.models import StreamVolume
from shared.registry.paging import stamp

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


async def histories(
    session: AsyncSession,
    connection_id: UUID,
    volumes: Sequence[Volume],
    *,
    ended_at: datetime,
    within: timedelta,
    limit: int,
) -> str:
    """The syncs of each volume's stream before `ended_at`, newest first, as a JSON array each.

    One text for all, since decoding it takes a while for a large connection: it is decoded in
    another thread, as `Recorded`.
    """
    parameters = {
        "id": connection_id,
        "names": [one.stream_name for one in volumes],
        "namespaces": [one.stream_namespace for one in volumes],
        "ended_at": ended_at,
        "within": within,
        "limit": limit,
    }
    found: str = await session.scalar(_HISTORIES, parameters)
    return found


_HISTORIES = text(f"""
    SELECT coalesce(json_agg(h.syncs ORDER BY wanted.position), '[]')::text
    FROM unnest(CAST(:names AS text[]), CAST(:namespaces AS text[]))
        WITH ORDINALITY wanted(name, namespace, position)
    CROSS JOIN LATERAL (
        SELECT coalesce(json_agg(json_build_array(
            {stamp("t.ended_at")}, t.is_full_refresh, t.rows, t.is_pending, t.usual_low,
            t.usual_high, {stamp("t.suspicious_since")}, t.suspicious_version,
            {stamp("t.usual_since")}
        ) ORDER BY t.ended_at DESC), '[]') AS syncs
        FROM (
            SELECT * FROM stream_volumes v
            WHERE v.connection_id = :id AND v.stream_name = wanted.name
                AND v.stream_namespace = wanted.namespace AND v.ended_at < :ended_at
                AND v.ended_at >= CAST(:ended_at AS timestamptz) - CAST(:within AS interval)
            ORDER BY v.ended_at DESC LIMIT :limit
        ) t
    ) h
""")  # noqa: S608 - no input


async def save(
    session: AsyncSession, connection_id: UUID, job_id: UUID, volumes: Sequence[Volume]
) -> None:
    """Record the volumes of one job."""
    of_job = {"connection_id": connection_id, "job_id": job_id}
    if volumes:
        await session.execute(
            insert(StreamVolume), [of_job | msgspec.structs.asdict(one) for one in volumes]
        )


class Listed(NamedTuple):
    """A stream of a connection, at a position of its catalog, and its newest volume."""

    position: int
    name: str
    namespace: str
    ended_at: datetime | None
    job_id: UUID | None
    rows: int | None
    bytes_: int | None
    is_pending: bool | None
    usual_low: int | None
    usual_high: int | None
    suspicious_since: datetime | None


async def page(
    session: AsyncSession,
    connection_id: UUID,
    *,
    is_suspicious: bool | None,
    after: int,
    limit: int,
) -> Sequence[Listed]:
    """The streams of the newest catalog after a position, with their newest volume, if any."""
    parameters = {
        "id": connection_id,
        "suspicious": is_suspicious,
        "after": after,
        "limit": limit,
    }
    return [Listed(*row) for row in await session.execute(_PAGE, parameters)]


_PAGE = text("""
    SELECT s.position, s.name, s.namespace, t.ended_at, t.job_id, t.rows, t.bytes, t.is_pending,
        t.usual_low, t.usual_high, t.suspicious_since
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    CROSS JOIN LATERAL (
        SELECT of -> 'stream' ->> 'name' AS name,
            coalesce(of -> 'stream' ->> 'namespace', '') AS namespace, position
        FROM jsonb_array_elements(v.sync_catalog -> 'streams') WITH ORDINALITY e(of, position)
    ) s
    LEFT JOIN LATERAL (
        SELECT * FROM stream_volumes w
        WHERE w.connection_id = c.id AND w.stream_name = s.name
            AND w.stream_namespace = s.namespace
        ORDER BY w.ended_at DESC LIMIT 1
    ) t ON true
    WHERE c.id = :id AND s.position > :after AND (
        CAST(:suspicious AS boolean) IS NULL
        OR (t.suspicious_since IS NOT NULL) = CAST(:suspicious AS boolean)
    )
    ORDER BY s.position LIMIT :limit
""")
