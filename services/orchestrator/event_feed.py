"""Distributes new events to the subscribers of one process, by one blocking read of Redis.

The feed never waits for a subscriber: one whose queue is full is ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from services.orchestrator.event_log import END, Event, EventLog, Position, Wanted
from shared.errors import Unavailable
from shared.observability import logs
from shared.reader_queue import ReaderQueue

log = logs.get(__name__)

QUEUE: Final = 1000
"""Most events that wait for one subscriber; the events themselves are shared by all."""
_FINISH_WITHIN_S: Final = 1.5
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0


class Signal(Enum):
    """What a subscriber receives besides events."""

    AWAY = "away"
    """Redis does not respond: there are no events until `BACK`."""
    BACK = "back"
    """Redis responds again; no event was lost, unless a `Reset` came before."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Events may be lost; the next ones follow after this position."""

    position: Position


Item: TypeAlias = Event | Signal | Reset


class Subscription(ReaderQueue[Item]):
    """The events for one reader, in a queue of limited length."""

    def __init__(self, wanted: Wanted, position: Position) -> None:
        super().__init__()
        self.position = position
        """The newest event that was either queued or not asked for."""
        self._wanted = wanted

    def offer(self, event: Event) -> bool:
        """Queue an event that was asked for and is new here; whether there was room for it."""
        if event.position <= self.position:
            return True
        self.position = event.position
        if not self._wanted.has(event):
            return True
        if len(self._queue) >= QUEUE:
            return False
        self._append(event)
        return True

    def signal(self, signal: Signal) -> None:
        """Queue a signal; it cancels one that is still at the queue's end."""
        if self._queue and isinstance(self._queue[-1], Signal):
            self._queue.pop()
        else:
            self._append(signal)

    def reset(self, position: Position) -> None:
        """Replace what is queued by a reset."""
        self._queue.clear()
        self.position = position
        self._append(Reset(position))


class EventFeed:
    """Follows the stream from its end, for all subscribers of the process."""

    def __init__(self, event_log: EventLog) -> None:
        self.log = event_log
        self._subscriptions: set[Subscription] = set()
        self._tail: Position | None = None
        self._is_running = False
        self._is_here = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether subscribers can be served: not before the start, nor after `stop`."""
        return self._is_running

    @property
    def tail(self) -> Position | None:
        """The position that the feed has reached; None while Redis does not respond."""
        return self._tail if self._is_here.is_set() else None

    async def until_here(self, *, within_s: float) -> bool:
        """Wait until Redis responds, or for this time; whether it does."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_here.wait(), within_s)
        return self._is_here.is_set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the stream within the block; at its end every subscription ends."""
        self._is_running = True
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self.stop()
            for _ in range(3):  # the client may lose a cancellation
                following.cancel()
                done, _ = await asyncio.wait([following], timeout=_FINISH_WITHIN_S)
                if done:
                    break
            await self.log.close()

    def stop(self) -> None:
        """End every subscription at once; there will be no new ones."""
        self._is_running = False
        self._is_here.set()  # wakes those who wait
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()

    def subscribe(self, wanted: Wanted, position: Position) -> Subscription:
        """Subscribe to the events after a position, which must be the feed's or a later one."""
        subscription = Subscription(wanted, position)
        if self._is_running:
            self._subscriptions.add(subscription)
        else:
            subscription.end()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; no effect if it has ended."""
        self._subscriptions.discard(subscription)

    async def _follow(self) -> None:
        pause_s = _FIRST_PAUSE_S
        # Not for ever: the client may turn a cancellation into a timeout.
        while self._is_running:
            try:
                with logs.caused_by(None):
                    tail = await self._catch_up()
                    pause_s = _FIRST_PAUSE_S
                    await self._distribute(tail)
            except Unavailable as error:
                self._go_away(error)
            except Exception:  # the outermost loop of background work: log and continue
                log.exception("bug")
                self._go_away(None)
            if not self._is_running:
                break  # the client turned the cancellation at the end into a failure
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - after a failure
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _catch_up(self) -> Position:
        """Find the feed's place, at the start and after an outage; reset if events are lost."""
        known = self._tail
        found = await self.log.read(END if known is None else known, limit=1)
        is_lost = known is not None and found.misses(known)
        tail = found.last if known is None or is_lost else known
        self._tail = tail
        self._is_here.set()
        for subscription in self._subscriptions:
            if is_lost:
                subscription.reset(tail)
            subscription.signal(Signal.BACK)
        if known is not None:
            log.info("event_feed_resumed")
        return tail

    async def _distribute(self, tail: Position) -> None:
        while True:
            for event in await self.log.wait(tail):
                self._tail = tail = event.position
                for subscription in list(self._subscriptions):
                    if not subscription.offer(event):
                        self._end_slow(subscription)

    def _end_slow(self, subscription: Subscription) -> None:
        log.info("event_reader_too_slow")
        self._subscriptions.discard(subscription)
        subscription.reset(subscription.position)
        subscription.end()

    def _go_away(self, error: Unavailable | None) -> None:
        if not self._is_here.is_set():
            return
        log.warning("event_feed_paused", code="bug" if error is None else error.code)
        self._is_here.clear()
        for subscription in self._subscriptions:
            subscription.signal(Signal.AWAY)
