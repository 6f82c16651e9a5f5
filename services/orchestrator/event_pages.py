"""Pages of lifecycle events, for callers that poll; their position is that of event streams."""

from __future__ import annotations

from typing import Final

import msgspec

from services.orchestrator.event_log import BATCH, Event, EventLog, Position, Wanted
from services.orchestrator.event_visibility import visible
from shared.database import Database

_MOST_SCANNED: Final = 10_000
"""Entries that one page looks at for events that were asked for."""


class EventPages:
    """Reads pages."""

    def __init__(self, event_log: EventLog, db: Database) -> None:
        self._log = event_log
        self._db = db

    async def newest(self, wanted: Wanted, *, limit: int) -> bytes:
        """The newest events as JSON, oldest first, of those that one page looks at.

        Raises:
            Unavailable: Redis does not respond.
        """
        found: list[Event] = []
        scanned, before, end = 0, None, None
        while len(found) < limit and scanned < _MOST_SCANNED:
            read = await self._log.read_back(before, limit=BATCH)
            end = end or read.last
            scanned += len(read.events)
            found += await visible(self._db, [one for one in read.events if wanted.has(one)])
            if len(read.events) < BATCH:
                break
            before = read.events[-1].position
        newest = found[:limit][::-1]
        return _page(newest, end or Position(0, 0), has_more=False, gap=False)

    async def after(self, position: Position, wanted: Wanted, *, limit: int) -> bytes:
        """The events after a position as JSON, oldest first.

        Raises:
            Unavailable: Redis does not respond.
        """
        found: list[Event] = []
        scanned, gap, has_more = 0, False, True
        while has_more and len(found) < limit and scanned < _MOST_SCANNED:
            read = await self._log.read(position, limit=BATCH)
            if read.misses(position):
                gap = True
                # From the oldest event that there is, or, with another Redis's position, the end.
                position = Position(0, 0) if position < read.last else read.last
                continue
            scanned += len(read.events)
            has_more = len(read.events) == BATCH
            shown = set(await visible(self._db, [one for one in read.events if wanted.has(one)]))
            for event in read.events:
                position = event.position
                if event in shown:
                    found.append(event)
                if len(found) == limit:
                    has_more = has_more or event is not read.events[-1]
                    break
        return _page(found, position, has_more=has_more, gap=gap)


def _page(events: list[Event], end: Position, *, has_more: bool, gap: bool) -> bytes:
    return msgspec.json.encode(
        {
            "items": [msgspec.Raw(event.json) for event in events],
            "next": str(end),
            "has_more": has_more,
            "gap": gap,
        }
    )
