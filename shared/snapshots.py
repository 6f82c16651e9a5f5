"""What a source offered, kept once per distinct stream however often it is looked at.

A discovery that found nothing new costs one scan of its bytes and no JSON parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

import msgspec

from shared import registry
from shared.airbyte_client import Discovered
from shared.database import Database
from shared.domain.catalog import canonical_hash, distinct, identify, raw_hash, scan
from shared.domain.steps import Steps, run_cooperatively
from shared.models import Snapshot, StreamSchema

DUPLICATE_STREAM = "duplicate_stream"
"""The code of a discovery that names one stream twice: which of the two is meant is not known."""
_ROWS_AT_ONCE = 200
"""Stream schemas per insert: a big org's 1,500 would be one statement of 40 MB."""


class Offered(msgspec.Struct, frozen=True, eq=False):
    """What a source offers now, scanned and hashed; the streams are views into the document."""

    streams: list[memoryview]
    raw_hashes: bytes
    """As in `snapshots.raw_hashes`."""
    catalog_id: UUID | None
    size: int
    """Bytes of the document."""


async def offered(discovered: Discovered) -> Offered:
    """One scan of a discovery's bytes, without a JSON parse.

    Raises:
        InvalidCatalog: what was discovered makes no catalog.
    """
    streams = scan(discovered.catalog)
    hashes = await run_cooperatively(_raw_hashes(streams))
    return Offered(streams, b"".join(hashes), discovered.catalog_id, len(discovered.catalog))


async def keep(db: Database, source_id: UUID, discovered: Discovered) -> UUID:
    """Store what a source offers now, and return the snapshot's id.

    The newest snapshot's own id is returned while the source still offers the same.

    Raises:
        InvalidCatalog: what was discovered makes no catalog, or has one stream twice.
    """
    return await keep_offered(db, source_id, await offered(discovered))


async def expect_distinct(now: Offered) -> None:
    """See that no stream is named twice in a discovery.

    Raises:
        InvalidCatalog: `duplicate_stream`: one is.
    """
    digests = list(registry.split_hashes(now.raw_hashes))
    await run_cooperatively(distinct.steps(now.streams, digests=digests))


async def keep_offered(db: Database, source_id: UUID, now: Offered) -> UUID:
    """Store what a source offers, scanned and hashed already; as `keep`."""
    streams, raw_hashes = now.streams, now.raw_hashes
    await expect_distinct(now)
    async with db.read() as session:
        last = await registry.latest_snapshot(session, source_id)
    if last is not None and last.raw_hashes == raw_hashes:
        await _see_again(db, last, raw_hashes, now.catalog_id)
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
        await _see_again(db, last, raw_hashes, now.catalog_id, stream_hashes=stream_hashes)
        return last.id

    rows = list(schemas.values())
    snapshot = Snapshot(
        id=uuid4(),
        airbyte_source_id=source_id,
        airbyte_catalog_id=now.catalog_id,
        raw_hashes=raw_hashes,
        stream_hashes=stream_hashes,
    )
    # A snapshot that fails after these leaves schemas that nothing names: harmless, found again.
    while len(rows) > _ROWS_AT_ONCE:
        async with db.transaction() as session:
            await registry.insert_stream_schemas(session, rows[:_ROWS_AT_ONCE])
        rows = rows[_ROWS_AT_ONCE:]
    async with db.transaction() as session:
        await registry.insert_stream_schemas(session, rows)
        session.add(snapshot)
    return snapshot.id


async def _see_again(
    db: Database,
    last: Snapshot,
    raw_hashes: bytes,
    catalog_id: UUID | None,
    *,
    stream_hashes: bytes | None = None,
) -> None:
    async with db.transaction() as session:
        await registry.see_snapshot_again(
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
