"""Queries on the mappers of connections, and how far they have been checked."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

UNCHECKED: Final = "c.has_mappers AND w.mappers_version IS DISTINCT FROM c.catalog_version"
"""SQL: a head's mappers were not yet compared with the snapshot that its connection was compared
with. `c` is the connection, `w` its watch. False, without further cost, without mappers."""


async def mapped_streams(
    session: AsyncSession, connection_id: UUID, version_number: int
) -> list[bytes]:
    """The streams of a catalog version that have mappers or hashed fields, as JSON."""
    rows = await session.scalars(_MAPPED, {"id": connection_id, "version": version_number})
    return [stream.encode() for stream in rows]


_MAPPED = text("""
    SELECT stream::text FROM sync_catalog_versions v
    CROSS JOIN jsonb_array_elements(v.sync_catalog->'streams') stream
    WHERE v.connection_id = :id AND v.version_number = :version AND (
        jsonb_path_exists(stream, '$.config.mappers[*]')
        OR jsonb_path_exists(stream, '$.config.hashedFields[*]')
    )
""")
