"""Reads what destinations can hold, and which of their tables other connections write."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.database import Database
from shared.domain.catalog import StreamId
from shared.domain.destination import Destination, Judgement, Table, tables
from shared.domain.destination import shared_tables as shared_with
from shared.errors import UpstreamForbidden, UpstreamMissing, UpstreamRefused
from shared.observability import logs
from shared.registry import WrittenStreams

log = logs.get(__name__)

_REMEMBERED_S: Final = 300.0
"""How long an upgrade of a destination may stay unnoticed."""
_MOST_REMEMBERED: Final = 1_000
_MOST_COMPARED: Final = 5_000
_COMMIT_TAKES: Final = timedelta(minutes=1)
"""How long a transaction that ends an operation may take; it records its own start as the end."""
_PAGE: Final = 10
"""Connections whose catalogs are read at once; each may have megabytes."""


class DestinationReader:
    """Reads destinations' connectors and versions; their configurations are not remembered."""

    def __init__(
        self, airbyte: AirbyteClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._airbyte = airbyte
        self._clock = clock
        self._known: OrderedDict[UUID, tuple[float, Destination]] = OrderedDict()

    async def read(self, destination_id: UUID) -> Destination:
        """What a destination can hold; an unknown one if Airbyte does not report its connector.

        Raises:
            Upstream: Airbyte is unavailable.
        """
        now = self._clock()
        known = self._known.get(destination_id)
        if known is not None and now < known[0]:
            return known[1]
        try:
            found = await self._airbyte.destination_rules(destination_id)
        except (UpstreamMissing, UpstreamForbidden, UpstreamRefused) as error:
            log.warning("destination_not_read", destination=str(destination_id), code=error.code)
            found = Destination()
        self._known[destination_id] = (now + _REMEMBERED_S, found)
        self._known.move_to_end(destination_id)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found


async def shared_tables(
    db: Database,
    destination: Destination,
    destination_id: UUID,
    ours: Sequence[Table],
    *,
    excluding: UUID,
) -> dict[StreamId, Judgement]:
    """The streams whose table another live connection writes, too.

    `excluding` is the connection that writes `ours`. The first 5,000 connections are compared, and
    those that running operations are about to change.
    """
    async with db.read() as session:
        claims = await registry.claimed_streams(
            session, destination_id, excluding=excluding, within=timedelta(0)
        )
    found = _compared(destination, ours, claims)
    after, compared = UUID(int=0), 0
    while compared < _MOST_COMPARED:
        async with db.read() as session:
            others = await registry.page_of_written_streams(
                session, destination_id, excluding=excluding, after=after, limit=_PAGE
            )
        for stream, judgement in _compared(destination, ours, others).items():
            found[stream] = judgement.joined(found.get(stream))
        if len(others) < _PAGE:
            return found
        after, compared = others[-1].connection_id, compared + len(others)
    log.warning("tables_not_all_compared", destination=str(destination_id), compared=compared)
    return found


@dataclass(frozen=True, slots=True)
class TableClaim:
    """Tables that an operation is about to write; tables written already were compared before."""

    connection_id: UUID
    destination_id: UUID
    destination: Destination
    tables: Sequence[Table]

    async def conflicts(
        self, session: AsyncSession, *, within: timedelta
    ) -> dict[StreamId, Judgement]:
        """The streams whose table another operation claims, or has claimed `within` this time.

        Call it in the transaction that records the operation, since other claims of the destination
        then wait until that ends: of two operations that claim a table, the second one sees the
        first. `within` must reach back to before the tables were compared.
        """
        await registry.lock_tables(session, self.destination_id)
        claims = await registry.claimed_streams(
            session,
            self.destination_id,
            excluding=self.connection_id,
            within=within + _COMMIT_TAKES,
        )
        return _compared(self.destination, self.tables, claims)


def _compared(
    destination: Destination, ours: Sequence[Table], others: Iterable[WrittenStreams]
) -> dict[StreamId, Judgement]:
    found: dict[StreamId, Judgement] = {}
    for other in others:
        theirs = tables(destination, other.streams, other.naming)
        for stream, judgement in shared_with(destination, ours, theirs, connection=other.name):
            found[stream] = judgement.joined(found.get(stream))
    return found
