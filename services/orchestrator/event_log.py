"""Reads the Redis stream of lifecycle events, for pages and for streams; never writes to it.

A position is the id of an entry of the Redis stream. Such ids are in the order of publication, at
every replica, while ids of the outbox may become visible out of order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shared.errors import Invalid, Unavailable
from shared.outbox import STREAM, EventType

BATCH: Final = 500
"""Entries that are read at once, as many as the relay publishes at once."""
_WITHIN_S: Final = 4.0
_BLOCK_MS: Final = 2000
"""How long one read waits for new entries; less than the client's timeout of 5 s."""
_AT_ONCE: Final = 4
"""Reads at once in one process, so that many streams that begin together do not load Redis."""
_FORM: Final = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")
_LARGEST: Final = 2**64 - 1


class Position(NamedTuple):
    """The id of an entry, in the order of the stream."""

    ms: int
    seq: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a position, such as `1764500000000-0`; `0` is before the oldest entry.

        Raises:
            Invalid: it is not the id of an entry.
        """
        form = _FORM.fullmatch(text)
        found = cls(int(form[1]), int(form[2] or 0)) if form else None
        if found is None or max(found) > _LARGEST:
            raise Invalid("This is not the id of an event.", code="invalid_cursor")
        return found

    def __str__(self) -> str:
        """The id as Redis writes it."""
        return f"{self.ms}-{self.seq}"


START: Final = Position(0, 0)
"""Before the oldest entry."""
END: Final = Position(_LARGEST, 0)
"""After the newest entry."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry: what filters need, and the JSON that is sent."""

    position: Position
    type: str
    connection_id: str
    json: bytes

    @property
    def message(self) -> bytes:
        """The event as a message of server-sent events."""
        return b"id: %s\ndata: %s\n\n" % (str(self.position).encode(), self.json)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a caller asked for; None for all."""

    types: frozenset[str] | None = None
    connection_id: str | None = None

    @classmethod
    def of(cls, types: Sequence[EventType] | None, connection_id: UUID | None) -> Self:
        """The filter of a request's query."""
        return cls(
            frozenset(types) if types else None,
            None if connection_id is None else str(connection_id),
        )

    def has(self, event: Event) -> bool:
        """Whether an event was asked for."""
        return (self.types is None or event.type in self.types) and (
            self.connection_id is None or event.connection_id == self.connection_id
        )


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive events, and what the stream held when they were read."""

    first: Position | None
    """The oldest entry; None if the stream is empty."""
    last: Position
    """The newest position that the stream ever had."""
    events: list[Event]

    def misses(self, after: Position) -> bool:
        """Whether events after this position may be lost: trimmed, or with Redis's data."""
        if after in (START, self.last):
            return False
        return self.first is None or after < self.first or after > self.last


class EventLog:
    """Reads the stream; one instance per process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._reading = asyncio.Semaphore(_AT_ONCE)

    async def read(self, after: Position, *, limit: int = BATCH) -> Range:
        """The events after a position, oldest first.

        Raises:
            Unavailable: Redis does not respond.
        """
        async with self._available(), self._reading:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xinfo_stream(STREAM)
            pipeline.xrange(STREAM, min=f"({after}", max="+", count=limit)
            async with asyncio.timeout(_WITHIN_S):
                info, entries = await pipeline.execute(raise_on_error=False)
            return Range(*_ends(info), _events(_checked(entries)))

    async def read_back(self, before: Position | None, *, limit: int) -> Range:
        """The events before a position, newest first; None: before the end of the stream.

        Raises:
            Unavailable: Redis does not respond.
        """
        async with self._available(), self._reading:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xinfo_stream(STREAM)
            end = "+" if before is None else f"({before}"
            pipeline.xrevrange(STREAM, max=end, min="-", count=limit)
            async with asyncio.timeout(_WITHIN_S):
                info, entries = await pipeline.execute(raise_on_error=False)
            return Range(*_ends(info), _events(_checked(entries)))

    async def wait(self, after: Position) -> list[Event]:
        """The events after a position as soon as there are any; empty after two seconds.

        Raises:
            Unavailable: Redis does not respond.
        """
        async with self._available():
            found: Any = await self._redis.xread({STREAM: str(after)}, count=BATCH, block=_BLOCK_MS)
        return _events(_of_stream(found))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    @asynccontextmanager
    async def _available(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                "The events cannot be read, since Redis is unavailable.", code="events_unavailable"
            ) from error


def _checked(answer: Any) -> Any:
    """An answer of a transaction.

    Raises:
        RedisError: it is an error.
    """
    if isinstance(answer, RedisError):
        raise answer
    return answer


def _ends(info: Any) -> tuple[Position | None, Position]:
    """The oldest and the newest position of the stream, from XINFO STREAM."""
    if isinstance(info, ResponseError) and "no such key" in str(info):
        return None, START
    first = _checked(info)["first-entry"]
    last = Position.of(info["last-generated-id"])
    return None if first is None else Position.of(first[0]), last


def _of_stream(found: Any) -> Any:
    """The entries of an answer of XREAD about one stream, in either form of the client."""
    if not found:
        return []
    entries = next(iter(found.values())) if isinstance(found, Mapping) else found[0][1]
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _events(entries: Sequence[tuple[str, Mapping[str, str]]]) -> list[Event]:
    return [_event(Position.of(id_), fields) for id_, fields in entries]


def _event(position: Position, fields: Mapping[str, str]) -> Event:
    """An entry as an event; members that the entry lacks are null."""
    version = fields.get("version", "")
    shown = {
        "id": str(position),
        "event_id": fields.get("event_id") or None,
        "type": fields.get("type", ""),
        "connection_id": fields.get("connection_id") or None,
        "ref": fields.get("ref") or None,
        "status": fields.get("status") or None,
        "version": int(version) if version.isdecimal() else None,
        "code": fields.get("code") or None,
        "at": fields.get("at") or None,
    }
    return Event(
        position,
        fields.get("type", ""),
        fields.get("connection_id", ""),
        msgspec.json.encode(shown),
    )
