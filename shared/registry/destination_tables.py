"""The streams that connections write to a destination, and how they name their tables."""

from __future__ import annotations

from dataclasses import dataclass
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
    """The streams of a connection's head, in the catalog's order."""

    connection_id: UUID
    name: str
    """Empty unless every caller who sees the other connection, `besides`, sees this one, too."""
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
    session: AsyncSession, destination_id: UUID, *, besides: UUID, after: UUID, limit: int
) -> list[WrittenStreams]:
    """Live connections to a destination by id, `besides` one, from `after` on."""
    rows = await session.execute(
        _PAGE,
        {"destination": destination_id, "besides": besides, "after": after, "limit": limit},
    )
    return [
        WrittenStreams(
            connection_id,
            name,
            read_naming(naming),
            tuple(StreamId(*one) for one in _STREAMS.decode(streams)),
        )
        for connection_id, name, naming, streams in rows
    ]


_PAGE = text("""
    SELECT c.id, CASE WHEN c.labels @> coalesce(
            (SELECT labels FROM connections WHERE id = :besides), '{}'
        ) THEN c.name ELSE '' END, CAST(c.table_naming AS text), CAST(coalesce((
        SELECT jsonb_agg(jsonb_build_array(
            pair -> 'stream' -> 'namespace', pair -> 'stream' -> 'name'
        ) ORDER BY position)
        FROM jsonb_array_elements(v.sync_catalog -> 'streams') WITH ORDINALITY AS s(pair, position)
    ), '[]') AS text)
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    WHERE c.airbyte_destination_id = :destination AND c.archived_at IS NULL
        AND c.id <> :besides AND c.id > :after
    ORDER BY c.id LIMIT :limit
""")
