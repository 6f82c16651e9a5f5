"""The streams that connections write, or are about to write, and how they name the tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import StreamId
from shared.domain.destination import Naming
from shared.models import Connection

_NAMING = msgspec.json.Decoder(Naming)
_STREAMS = msgspec.json.Decoder(list[tuple[str | None, str]])


@dataclass(frozen=True, slots=True)
class WrittenStreams:
    """The streams of a connection's catalog, in its order."""

    connection_id: UUID
    name: str
    """Empty unless every caller who sees the connection `excluding` sees this one, too."""
    naming: Naming
    streams: tuple[StreamId, ...]


def naming_of(row: Connection) -> Naming:
    """How a connection names its tables; Airbyte's default for one that was never asked."""
    return read_naming(row.table_naming)


def save_naming(row: Connection, naming: Naming) -> None:
    """Record how a connection names its tables."""
    row.table_naming = msgspec.json.encode(naming).decode()


def read_naming(stored: str | None) -> Naming:
    """How a connection names its tables, as the registry stores it."""
    return Naming() if stored is None else _NAMING.decode(stored)


async def page_of_written_streams(
    session: AsyncSession, destination_id: UUID, *, excluding: UUID, after: UUID, limit: int
) -> list[WrittenStreams]:
    """Live connections to a destination by id, except `excluding`, from `after` on."""
    rows = await session.execute(
        _PAGE,
        {"destination": destination_id, "excluding": excluding, "after": after, "limit": limit},
    )
    return [_read(*row) for row in rows]


async def lock_tables(session: AsyncSession, destination_id: UUID) -> None:
    """Let operations that claim tables of a destination take turns, until the transaction ends."""
    await session.execute(_LOCK, {"destination": str(destination_id)})


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('aam.tables ' || :destination, 0))")


async def claimed_streams(
    session: AsyncSession, destination_id: UUID, *, excluding: UUID, within: timedelta
) -> list[WrittenStreams]:
    """What running operations are about to write to a destination, and what ended ones write.

    These are the onboardings, edits and changed catalogs that are running, or ended `within` this
    time; not those of the connection `excluding`. All connections count, also for a limited caller.
    """
    rows = await session.execute(
        _CLAIMS, {"destination": destination_id, "excluding": excluding, "within": within}
    )
    return [_read(*row) for row in rows]


def _read(connection_id: UUID, name: str, naming: str | None, streams: str) -> WrittenStreams:
    return WrittenStreams(
        connection_id,
        name,
        read_naming(naming),
        tuple(StreamId(*one) for one in _STREAMS.decode(streams)),
    )


_NAME = """
    CASE WHEN c.labels @> coalesce(
        (SELECT labels FROM public.connections WHERE id = :excluding), '{}'
    ) THEN c.name ELSE '' END
"""


def _streams(catalog: str) -> str:
    return f"""
        CAST(coalesce((
            SELECT jsonb_agg(jsonb_build_array(
                pair -> 'stream' -> 'namespace', pair -> 'stream' -> 'name'
            ) ORDER BY position)
            FROM jsonb_array_elements(({catalog}) -> 'streams')
                WITH ORDINALITY AS s(pair, position)
        ), '[]') AS text)
    """  # noqa: S608 - no input


_PAGE = text(f"""
    SELECT c.id, {_NAME}, CAST(c.table_naming AS text), {_streams("v.sync_catalog")}
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    WHERE c.airbyte_destination_id = :destination AND c.archived_at IS NULL
        AND c.id <> :excluding AND c.id > :after
    ORDER BY c.id LIMIT :limit
""")  # noqa: S608 - no input
_CLAIMED = """
    CASE WHEN o.document IS NULL THEN v.sync_catalog
        ELSE CAST(convert_from(o.document, 'UTF8') AS jsonb) END
"""
# In the tables themselves: a limited caller's views have no connections of others.
_CLAIMS = text(f"""
    SELECT c.id, {_NAME}, CAST(coalesce(
        CASE WHEN o.status = 'running' THEN nullif(o.request -> 'naming', 'null') END,
        c.table_naming
    ) AS text), {_streams(_CLAIMED)}
    FROM public.operations o
    JOIN public.connections c ON c.id = o.connection_id
    LEFT JOIN public.sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    WHERE c.airbyte_destination_id = :destination AND c.archived_at IS NULL AND c.id <> :excluding
        AND o.kind IN ('onboard', 'edit', 'apply')
        AND (o.status = 'running' OR o.ended_at > now() - CAST(:within AS interval))
    ORDER BY c.id
""")  # noqa: S608 - no input
