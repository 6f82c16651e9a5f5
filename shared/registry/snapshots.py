"""Snapshots of what sources offer; each distinct stream is stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import NotFound
from shared.models import Snapshot, StreamSchema
from shared.registry.arrays import one_of

_HASH_BYTES = 16


def split_hashes(hashes: bytes) -> Iterator[bytes]:
    """Split a snapshot's column of concatenated hashes."""
    return (hashes[at : at + _HASH_BYTES] for at in range(0, len(hashes), _HASH_BYTES))


async def latest_snapshot(session: AsyncSession, source_id: UUID) -> Snapshot | None:
    """A source's newest snapshot; None if it was never observed."""
    return await session.scalar(
        select(Snapshot)
        .where(Snapshot.airbyte_source_id == source_id)
        .order_by(Snapshot.taken_at.desc())
        .limit(1)
    )


async def find_snapshot(session: AsyncSession, snapshot_id: UUID) -> Snapshot:
    """A snapshot by id.

    Raises:
        NotFound: there is no such snapshot.
    """
    snapshot = await session.get(Snapshot, snapshot_id)
    if snapshot is None:
        raise NotFound(f"No snapshot {snapshot_id}.")
    return snapshot


async def mark_snapshot_seen(
    session: AsyncSession,
    snapshot_id: UUID,
    *,
    raw_hashes: bytes,
    stream_hashes: bytes,
    catalog_id: UUID | None,
) -> None:
    """Record that a source still offers a snapshot's streams, with their current hashes."""
    await session.execute(
        update(Snapshot)
        .where(Snapshot.id == snapshot_id)
        .values(
            seen_at=func.now(),
            raw_hashes=raw_hashes,
            stream_hashes=stream_hashes,
            airbyte_catalog_id=catalog_id,
        )
    )


async def insert_stream_schemas(session: AsyncSession, schemas: Sequence[StreamSchema]) -> None:
    """Store new stream schemas, and mark the others as in use, so that they are not pruned."""
    if not schemas:
        return
    await session.execute(
        _INSERT_SCHEMAS,
        {
            "hashes": [schema.hash for schema in schemas],
            "names": [schema.name for schema in schemas],
            "namespaces": [schema.namespace for schema in schemas],
            "bodies": [schema.body for schema in schemas],
        },
    )


_INSERT_SCHEMAS = text("""
    INSERT INTO stream_schemas (hash, name, namespace, body)
    SELECT * FROM unnest(
        CAST(:hashes AS bytea[]), CAST(:names AS text[]),
        CAST(:namespaces AS text[]), CAST(:bodies AS text[])
    ) ORDER BY 1 -- two that store the same take their rows in one order
    ON CONFLICT (hash) DO UPDATE SET created_at = now()
    WHERE stream_schemas.created_at < now() - interval '1 hour'
""")


async def offered_streams(
    session: AsyncSession, snapshot: Snapshot, *, names: Sequence[str] | None = None
) -> set[tuple[str | None, str]]:
    """The namespace and name of a snapshot's streams; only those in `names` if given."""
    rows = await session.execute(
        _OFFERED,
        {
            "hashes": list(split_hashes(snapshot.stream_hashes)),
            "names": None if names is None else list(names),
        },
    )
    return {(namespace, name) for namespace, name in rows}


_OFFERED = text("""
    SELECT namespace, name FROM stream_schemas
    WHERE hash = ANY(CAST(:hashes AS bytea[]))
      AND (CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[])))
""")


async def stream_bodies(
    session: AsyncSession, snapshot: Snapshot, *, names: Sequence[str]
) -> list[bytes]:
    """A snapshot's streams with these names, as the discovery returned them."""
    rows = await session.scalars(
        _BODIES, {"hashes": list(split_hashes(snapshot.stream_hashes)), "names": list(names)}
    )
    return [body.encode() for body in rows]


_BODIES = text("""
    SELECT body FROM stream_schemas
    WHERE hash = ANY(CAST(:hashes AS bytea[])) AND name = ANY(CAST(:names AS text[]))
    ORDER BY name, namespace
""")


async def snapshot_streams(session: AsyncSession, snapshot: Snapshot) -> list[bytes]:
    """A snapshot's streams, as the discovery returned them and in its order."""
    hashes = list(split_hashes(snapshot.stream_hashes))
    rows = await session.execute(
        select(StreamSchema.hash, StreamSchema.body).where(one_of(StreamSchema.hash, hashes))
    )
    bodies = {hash_: body.encode() for hash_, body in rows}
    return [bodies[hash_] for hash_ in hashes]
