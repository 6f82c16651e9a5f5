"""A connection's streams as it synced them before, for the columns that a destination has kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import ConfiguredStream, StreamId, read_stream
from shared.domain.cooperative import Steps

_MOST_VERSIONS: Final = 20
"""How many catalog versions are opened, the newest first."""
_MOST_BYTES: Final = 16 * 2**20
"""No version is opened after this many bytes of them, as Postgres stores them."""


async def read(
    session: AsyncSession, connection_id: UUID, *, before: int, names: Collection[str]
) -> list[bytes]:
    """Streams of these names as a connection's catalog versions before one have them, newest first.

    Only versions whose next one may lack a field are opened: the next one is that of a person, of a
    rollback, or of a heal that did more than add and retype.
    """
    rows = await session.scalars(
        _STREAMS,
        {
            "id": connection_id,
            "before": before,
            "names": list(names),
            "versions": _MOST_VERSIONS,
            "bytes": _MOST_BYTES,
        },
    )
    return [stream.encode() for stream in rows]


_STREAMS = text("""
    WITH earlier AS (
        SELECT v.version_number, v.sync_catalog, sum(pg_column_size(v.sync_catalog)) OVER (
            ORDER BY v.version_number DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS bytes_before
        FROM sync_catalog_versions v
        JOIN sync_catalog_versions later ON later.connection_id = v.connection_id
            AND later.version_number = v.version_number + 1
        LEFT JOIN repairs r ON r.id = later.repair_id
        WHERE v.connection_id = :id AND v.version_number < :before AND (
            r.kind IS DISTINCT FROM 'heal' OR r.summary->'by_kind' IS NULL OR EXISTS (
                SELECT FROM jsonb_object_keys(r.summary->'by_kind') kind
                WHERE kind NOT IN ('field_added', 'field_retyped', 'stream_added')
            )
        )
        ORDER BY v.version_number DESC LIMIT :versions
    )
    SELECT stream::text FROM earlier
    CROSS JOIN jsonb_array_elements(earlier.sync_catalog->'streams') stream
    WHERE coalesce(bytes_before, 0) < :bytes
        AND stream->'stream'->>'name' = ANY(CAST(:names AS text[]))
    GROUP BY stream ORDER BY max(version_number) DESC
""")


def by_id(streams: Iterable[bytes]) -> Steps[dict[StreamId, list[ConfiguredStream]]]:
    """Parse streams, and group them in their order."""
    found: dict[StreamId, list[ConfiguredStream]] = {}
    for body in streams:
        stream = read_stream(body)
        found.setdefault(stream.id, []).append(stream)
        yield
    return found
