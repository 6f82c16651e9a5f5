"""Queries for comparing a source's connections with its snapshots, and how far each is compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.schema_observer.mapper_queries import UNCHECKED
from shared.models import ConnectionStatus, StreamSchema, Watch
from shared.registry.arrays import one_of
from shared.registry.connections import LIVE


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A connection that has not been compared with its source's newest snapshot."""

    connection_id: UUID
    status: ConnectionStatus
    catalog_version: int
    compared_snapshot_id: UUID | None
    before_snapshot_id: UUID | None
    """The snapshot to compare with; None where its source was never observed before."""
    has_mappers: bool
    lapsed_mappers: str
    """The lapsed mappers that were found before, as JSON text."""


# Scheduling


async def connections_of_source(session: AsyncSession, source_id: UUID) -> Sequence[UUID]:
    """The live connections of a source, by id."""
    return (await session.scalars(_OF_SOURCE, {"source": source_id})).all()


_OF_SOURCE = text(f"""
    SELECT c.id FROM connections c WHERE c.airbyte_source_id = :source AND {LIVE} ORDER BY c.id
""")  # noqa: S608 - no input


async def synced_streams(session: AsyncSession, source_id: UUID) -> set[tuple[str | None, str]]:
    """The streams that live connections sync from a source, by namespace and name."""
    rows = await session.execute(_SYNCED, {"source": source_id})
    return {(namespace, name) for namespace, name in rows}


_SYNCED = text(f"""
    SELECT DISTINCT nullif(s->'stream'->>'namespace', ''), s->'stream'->>'name'
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    CROSS JOIN jsonb_array_elements(v.sync_catalog->'streams') s
    WHERE c.airbyte_source_id = :source AND {LIVE}
""")  # noqa: S608 - no input


async def configured_streams(
    session: AsyncSession,
    connection_id: UUID,
    version_number: int,
    *,
    names: Collection[str] | None = None,
) -> list[bytes]:
    """The streams of a catalog version as JSON; only of these names where given."""
    rows = await session.scalars(
        _CONFIGURED,
        {
            "id": connection_id,
            "version": version_number,
            "names": None if names is None else list(names),
        },
    )
    return [stream.encode() for stream in rows]


_CONFIGURED = text("""
    SELECT stream::text FROM sync_catalog_versions v
    CROSS JOIN jsonb_array_elements(v.sync_catalog->'streams') stream
    WHERE v.connection_id = :id AND v.version_number = :version AND (
        CAST(:names AS text[]) IS NULL
        OR stream->'stream'->>'name' = ANY(CAST(:names AS text[]))
    )
""")


async def uncompared(
    session: AsyncSession, source_id: UUID, snapshot_id: UUID
) -> Sequence[Uncompared]:
    """The live connections of a source that are not fully compared with a snapshot, by id.

    Either the schema was not compared yet, or the mappers of the head were not.

    One that was never compared is compared with the snapshot of its newest version.
    """
    rows = await session.execute(_UNCOMPARED, {"source": source_id, "snapshot": snapshot_id})
    return [Uncompared(id_, ConnectionStatus(status), *rest) for id_, status, *rest in rows]


_UNCOMPARED = text(f"""
    SELECT c.id, c.status, c.catalog_version, w.compared_snapshot_id,
        coalesce(w.compared_snapshot_id, (
            SELECT v.snapshot_id FROM sync_catalog_versions v
            JOIN snapshots s ON s.id = v.snapshot_id AND s.airbyte_source_id = c.airbyte_source_id
            WHERE v.connection_id = c.id ORDER BY v.version_number DESC LIMIT 1
        )), c.has_mappers, coalesce(w.lapsed_mappers::text, '[]')
    FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
    WHERE c.airbyte_source_id = :source AND {LIVE}
        AND (w.compared_snapshot_id IS DISTINCT FROM CAST(:snapshot AS uuid) OR {UNCHECKED})
    ORDER BY c.id
""")  # noqa: S608 - no input


async def compared_snapshot(session: AsyncSession, connection_id: UUID) -> UUID | None:
    """The snapshot that a connection was last compared with; None before the first comparison."""
    return await session.scalar(
        select(Watch.compared_snapshot_id).where(Watch.connection_id == connection_id)
    )


async def record_compared(
    session: AsyncSession,
    connection_id: UUID,
    snapshot_id: UUID,
    *,
    mappers_version: int | None = None,
    lapsed_mappers: str = "[]",
) -> None:
    """Record the snapshot that a connection was last compared with, and so were its mappers."""
    written = {
        "compared_snapshot_id": snapshot_id,
        "mappers_version": mappers_version,
        "lapsed_mappers": lapsed_mappers,
    }
    await session.execute(
        insert(Watch)
        .values(connection_id=connection_id, **written)
        .on_conflict_do_update(index_elements=[Watch.connection_id], set_=written)
    )


async def stream_schemas(
    session: AsyncSession, hashes: Collection[bytes], *, names: Collection[str] | None = None
) -> Sequence[StreamSchema]:
    """These stream schemas, unordered; only of streams with these names where given."""
    found = select(StreamSchema).where(one_of(StreamSchema.hash, hashes))
    if names is not None:
        found = found.where(one_of(StreamSchema.name, names))
    return (await session.scalars(found)).all()


async def stream_names(
    session: AsyncSession, hashes: Collection[bytes]
) -> set[tuple[str | None, str]]:
    """The streams that these schemas belong to, by namespace and name."""
    rows = await session.execute(
        select(StreamSchema.namespace, StreamSchema.name).where(one_of(StreamSchema.hash, hashes))
    )
    return {(namespace, name) for namespace, name in rows}


# Intervals
