"""Event streams: one response of server-sent events for each reader, and its limits.

The data are events as in GET /events. Comments and control events tell the reader where it is:
`reset` (events may be lost: read the state again), `away` and `back` (Redis).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.orchestrator.event_feed import EventFeed, Item, Reset, Signal, Subscription
from services.orchestrator.event_log import BATCH, Event, EventLog, Position, Wanted
from services.orchestrator.event_visibility import visible
from shared import outbox
from shared.auth.scopes import Caller, Recheck
from shared.config import Settings
from shared.database import Database
from shared.errors import AamError, TooManyRequests, Unavailable
from shared.observability import logs

log = logs.get(__name__)

MOST_STREAMS: Final = 500
"""Streams of one process; its server takes 1000 connections at once, for all requests."""
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 3000
"""How long a reader waits before it connects again, plus up to a third."""
_RECHECK_S: Final = 1.0
"""With the four seconds for which keys are remembered, a revoked one ends within five."""
_LAST_WORDS_S: Final = 1.0
"""How long a stream that ends waits for its reader to take what is left."""
_AWAY_S: Final = 0.5
"""How often a stream without a subscription checks whether Redis responds again."""
_CHUNK: Final = 64
_WAIT_S: Final = 10.0
"""What a caller with too many streams is asked to wait."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would wait for a full buffer
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a stream, what, and from where."""

    caller: Caller
    recheck: Recheck
    wanted: Wanted
    after: Position | None
    """None: from now on."""


class EventStreams:
    """The open streams of a process."""

    def __init__(
        self, feed: EventFeed, db: Database, *, per_caller: int, lifetime: timedelta
    ) -> None:
        self.feed = feed
        self.db = db
        self.lifetime_s = lifetime.total_seconds()
        self._per_caller = per_caller
        self._open: Counter[str] = Counter()

    @classmethod
    def from_settings(cls, settings: Settings, db: Database) -> Self:
        """Streams from the settings' Redis, which is connected to when the feed runs."""
        return cls(
            EventFeed(EventLog(outbox.open_reader(settings))),
            db,
            per_caller=settings.event_streams_per_caller,
            lifetime=settings.event_stream_lifetime,
        )

    def open(self, reader: Reader) -> EventStream:
        """A response that streams events to a reader; it counts until it has ended.

        Raises:
            TooManyRequests: the caller has as many streams as one may have here.
            Unavailable: the process has as many as it can serve, or it is stopping.
        """
        self.expect_room(reader.caller)
        self._open[reader.caller.id] += 1
        return EventStream(self, reader)

    def expect_room(self, caller: Caller) -> None:
        """Check that a caller may open one more stream now.

        Raises:
            TooManyRequests: the caller has as many streams as one may have here.
            Unavailable: the process has as many as it can serve, or it is stopping.
        """
        if not self.feed.is_running:
            raise Unavailable("This process is stopping.", code="stopping")
        if not caller.is_service and self._open[caller.id] >= self._per_caller:
            raise TooManyRequests(
                f"This caller has {self._per_caller} event streams open, which is the limit.",
                code="too_many_streams",
                wait_s=_WAIT_S,
            )
        if self._open.total() >= MOST_STREAMS:
            raise Unavailable(
                f"This process has {MOST_STREAMS} event streams open, which is the limit.",
                code="streams_full",
            )

    def close(self, reader: Reader) -> None:
        """Forget a stream that has ended."""
        self._open[reader.caller.id] -= 1
        self._open += Counter()  # removes callers without streams


class EventStream(Response):
    """The response of one reader, ended at once when it must, even while the reader does not read.

    Starlette's StreamingResponse only ends between two writes.
    """

    def __init__(self, streams: EventStreams, reader: Reader) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._streams = streams
        self._feed = streams.feed
        self._reader = reader
        self._position = reader.after
        self._subscription: Subscription | None = None
        self._is_over = asyncio.Event()
        self._ends_at = time.monotonic() + streams.lifetime_s

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - Starlette's signature
        receive: Receive,
        send: Send,
    ) -> None:
        """Send until the reader disconnects or the stream must end."""
        writing = asyncio.create_task(self._write(send))
        ending = asyncio.create_task(self._until_over())
        leaving = asyncio.create_task(_until_disconnected(receive))
        tasks = {writing, ending, leaving}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._is_over.set()
            if self._subscription is not None:
                self._subscription.end()
            if not leaving.done():
                await asyncio.wait({writing}, timeout=_LAST_WORDS_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._subscription is not None:
                self._feed.unsubscribe(self._subscription)
            self._streams.close(self._reader)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_over(self) -> None:
        """Return when the process stops, or the stream is too slow, too old, or not permitted."""
        while (left_s := self._ends_at - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), min(_RECHECK_S, left_s))
            if self._is_at_end() or not await self._is_valid():
                return

    async def _is_valid(self) -> bool:
        try:
            return await self._reader.recheck()
        except AamError:  # as unavailable as for a new request
            return False

    async def _chunks(self) -> AsyncIterator[bytes]:
        """What is sent, until the stream is over."""
        retry_ms = RETRY_MS + random.randrange(RETRY_MS // 3)  # noqa: S311 - spreads the load
        yield b"retry: %d\n\n" % retry_ms
        is_away, beats_at = False, 0.0
        while self._subscription is None and not self._is_at_end():
            if not await self._feed.until_here(within_s=_AWAY_S):
                if not is_away or time.monotonic() >= beats_at:
                    yield b": heartbeat\n\n" if is_away else _encoded(Signal.AWAY)
                    beats_at = time.monotonic() + HEARTBEAT_S
                is_away = True
                continue
            if is_away:
                yield _encoded(Signal.BACK)
            try:
                async for chunk in self._begun(was_away=is_away):
                    yield chunk
                is_away = False
            except Unavailable:
                yield _encoded(Signal.AWAY)
                is_away = True
                await asyncio.sleep(_AWAY_S)  # they would be asked without a pause
        if self._subscription is not None:
            async for chunk in self._followed(self._subscription):
                yield chunk

    def _is_at_end(self) -> bool:
        is_ended = self._subscription is not None and self._subscription.is_over
        return is_ended or self._is_over.is_set() or not self._feed.is_running

    async def _begun(self, *, was_away: bool) -> AsyncIterator[bytes]:
        """The events since the reader's position; subscribes, unless Redis is away again.

        Raises:
            Unavailable: Redis does not respond, or the registry to a limited reader.
        """
        wanted = self._reader.wanted
        while (tail := self._feed.tail) is not None and not self._is_at_end():
            if self._position is None:
                self._subscription = self._feed.subscribe(wanted, tail)
                # The reader has no position: what came while Redis was away would be unnoticed.
                yield _encoded(Reset(tail)) if was_away else _heartbeat(tail)
                return
            found = await self._feed.log.read(self._position)
            if found.misses(self._position):
                self._position = found.last
                yield _encoded(Reset(found.last))
                continue
            events = [event for event in found.events if wanted.has(event)]
            shown = await visible(self._streams.db, events)
            if found.events:
                self._position = found.events[-1].position
            # All events until `tail` are read, and the feed has not moved on since.
            if len(found.events) < BATCH and self._feed.tail == tail:
                position = max(self._position, tail)
                self._subscription = self._feed.subscribe(wanted, position)
            for chunk in _chunked(shown):
                yield chunk
            if self._subscription is not None:
                return

    async def _followed(self, subscription: Subscription) -> AsyncIterator[bytes]:
        """The events of a subscription, until it ends."""
        while True:
            items = await subscription.items(within_s=HEARTBEAT_S)
            try:
                shown = await visible(self._streams.db, items)
            except Unavailable:
                return  # a limited reader resumes after the last event that it has received
            for chunk in _chunked(shown):
                yield chunk
            if not items and subscription.is_over:
                return
            if not items:
                yield _heartbeat(subscription.position)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunked(items: Sequence[Item]) -> Iterator[bytes]:
    """Items as chunks of some kilobytes, so that a reader that stops has few of them in memory."""
    for start in range(0, len(items), _CHUNK):
        yield b"".join(map(_encoded, items[start : start + _CHUNK]))


def _encoded(item: Item) -> bytes:
    if isinstance(item, Event):
        return item.message
    if isinstance(item, Reset):
        return b"id: %s\nevent: reset\ndata: {}\n\n" % str(item.position).encode()
    return b"event: %s\ndata: {}\n\n" % item.value.encode()


def _heartbeat(position: Position) -> bytes:
    """A comment, with the position that a filtered stream has passed."""
    return b": heartbeat\nid: %s\n\n" % str(position).encode()
