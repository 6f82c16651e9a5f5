"""Stores what a source offers as snapshots, each distinct stream once.

A discovery without changes costs one scan of its bytes and no JSON parsing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

import msgspec

from shared import registry
from shared.airbyte_client import Discovered
from shared.database import Database
from shared.domain.catalog import canonical_hash, distinct, identify, raw_hash, scan
from shared.domain.connector_versions import ConnectorVersion
from shared.domain.cooperative import Steps, run_cooperatively
from shared.models import Snapshot, StreamSchema

DUPLICATE_STREAM = "duplicate_stream"
"""The code of a discovery that contains a stream twice, so that the right one is unknown."""
ReadConnector = Callable[[UUID], Awaitable[ConnectorVersion | None]]
"""Reads the version of the connector that a source runs; None if that fails."""
_BATCH_ROWS = 200
"""Stream schemas per insert; a large org's 1,500 would be one statement of 40 MB."""


class Offered(msgspec.Struct, frozen=True, eq=False):
    """A scanned and hashed discovery; the streams are views into its document."""

    streams: list[memoryview]
    raw_hashes: bytes
    """The same as the column `snapshots.raw_hashes`."""
    catalog_id: UUID | None
    size: int
    """Size of the document in bytes."""


async def offered(discovered: Discovered) -> Offered:
    """Scan and hash a discovery's bytes, without parsing JSON.

    Raises:
        InvalidCatalog: the discovery is not a valid catalog.
    """
    streams = scan(discovered.catalog)
    hashes = await run_cooperatively(_raw_hashes(streams))
    return Offered(streams, b"".join(hashes), discovered.catalog_id, len(discovered.catalog))


async def store(
    db: Database,
    source_id: UUID,
    discovered: Discovered,
    *,
    read_connector: ReadConnector | None = None,
) -> UUID:
    """Store a discovery, and return the snapshot's id.

    If nothing changed, this is the id of the newest snapshot; `read_connector` is called only for a
    new one.

    Raises:
        InvalidCatalog: the discovery is not a valid catalog, or contains a stream twice.
    """
    now = await offered(discovered)
    return await store_offered(db, source_id, now, read_connector=read_connector)


async def expect_distinct(now: Offered) -> None:
    """Check that a discovery contains no stream twice.

    Raises:
        InvalidCatalog: `duplicate_stream`, a stream is there twice.
    """
    digests = list(registry.split_hashes(now.raw_hashes))
    await run_cooperatively(distinct.steps(now.streams, digests=digests))


async def store_offered(
    db: Database, source_id: UUID, now: Offered, *, read_connector: ReadConnector | None = None
) -> UUID:
    """Do the same as `store` for a discovery that is already scanned and hashed."""
    streams, raw_hashes = now.streams, now.raw_hashes
    await expect_distinct(now)
    async with db.read() as session:
        last = await registry.latest_snapshot(session, source_id)
    if last is not None and last.raw_hashes == raw_hashes:
        await _mark_seen(db, last, raw_hashes, now.catalog_id)
        return last.id

    known = _known(last)
    fresh = {
        raw: stream
        for raw, stream in zip(registry.split_hashes(raw_hashes), streams, strict=True)
        if raw not in known
    }
    schemas = await run_cooperatively(_schemas(fresh))
    known |= {raw: schema.hash for raw, schema in schemas.items()}
    stream_hashes = b"".join(known[raw] for raw in registry.split_hashes(raw_hashes))
    if last is not None and _same_streams(last.stream_hashes, stream_hashes):
        await _mark_seen(db, last, raw_hashes, now.catalog_id, stream_hashes=stream_hashes)
        return last.id

    connector = None if read_connector is None else await read_connector(source_id)
    rows = list(schemas.values())
    snapshot = Snapshot(
        id=uuid4(),
        airbyte_source_id=source_id,
        airbyte_catalog_id=now.catalog_id,
        raw_hashes=raw_hashes,
        stream_hashes=stream_hashes,
        connector_version=None if connector is None else connector.tag,
        manifest_version=None if connector is None else connector.manifest,
    )
    # If the snapshot fails after these inserts, the unused schemas are harmless, and reused later.
    while len(rows) > _BATCH_ROWS:
        async with db.transaction() as session:
            await registry.insert_stream_schemas(session, rows[:_BATCH_ROWS])
        rows = rows[_BATCH_ROWS:]
    async with db.transaction() as session:
        await registry.insert_stream_schemas(session, rows)
        session.add(snapshot)
    return snapshot.id


async def _mark_seen(
    db: Database,
    last: Snapshot,
    raw_hashes: bytes,
    catalog_id: UUID | None,
    *,
    stream_hashes: bytes | None = None,
) -> None:
    async with db.transaction() as session:
        await registry.mark_snapshot_seen(
            session,
            last.id,
            raw_hashes=raw_hashes,
            stream_hashes=stream_hashes or last.stream_hashes,
            catalog_id=catalog_id or last.airbyte_catalog_id,
        )


def _known(last: Snapshot | None) -> dict[bytes, bytes]:
    if last is None:
        return {}
    return dict(
        zip(
            registry.split_hashes(last.raw_hashes),
            registry.split_hashes(last.stream_hashes),
            strict=True,
        )
    )


def _same_streams(one: bytes, other: bytes) -> bool:
    return sorted(registry.split_hashes(one)) == sorted(registry.split_hashes(other))


def _raw_hashes(streams: Sequence[memoryview]) -> Steps[list[bytes]]:
    hashes = []
    for stream in streams:
        hashes.append(raw_hash(stream))
        yield
    return hashes


def _schemas(streams: dict[bytes, memoryview]) -> Steps[dict[bytes, StreamSchema]]:
    schemas = {}
    for position, (raw, stream) in enumerate(streams.items()):
        stream_id, _ = identify(stream, position)
        schemas[raw] = StreamSchema(
            hash=canonical_hash(stream),
            name=stream_id.name,
            namespace=stream_id.namespace,
            body=bytes(stream).decode(),
        )
        yield
    return schemas
