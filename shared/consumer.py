"""Reads lifecycle events in a consumer group: each is handled, in order of arrival, by one of it.

Delivery is at least once. What was handled is remembered for a day by `event_id`, so a double is
handled again only where a process died between handling and remembering: handlers stay idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shared import logs
from shared.errors import AamError
from shared.events import STREAM

log = logs.get(__name__)

DEAD = f"{STREAM}.dead"
"""Where events go that could not be handled: their fields, the group, and the failure's code."""
DELIVERIES = 3
"""How often an event is tried before it is dead."""
_REMEMBERED_S = 24 * 60 * 60
_DEAD_KEPT = 10_000
_PAUSE_S = 1.0

Event = Mapping[str, str]
Handler = Callable[[Event], Awaitable[None]]


class Consumer:
    """One member of a group; `name` must be its own among the members that run.

    `redis` speaks RESP3 and decodes its answers (`shared.events.open_redis`). A new group begins
    at the stream's first event: nothing that is still kept is missed. `idle_ms` is how long another
    member may be silent about an event before it is taken over.
    """

    def __init__(
        self,
        redis: Redis,
        group: str,
        name: str,
        handle: Handler,
        *,
        idle_ms: int = 60_000,
        block_ms: int = 1_000,
    ) -> None:
        self._redis = redis
        self._group = group
        self._name = name
        self._handle = handle
        self._idle_ms = idle_ms
        self._block_ms = block_ms

    async def run(self, stop: asyncio.Event) -> None:
        """Handle events until `stop` is set; the one being handled then is finished."""
        away = False
        while not stop.is_set():
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                if not away:
                    log.warning("events_not_read", group=self._group, cause=type(error).__name__)
                away = True
                await asyncio.sleep(_PAUSE_S)
            else:
                away = False

    async def look(self) -> int:
        """Handle what others left, then what is new; how many events were looked at."""
        try:
            left = await self._left_by_others()
            fresh = [] if left else await self._fresh()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._make_group()  # a new Redis, or an empty one after a restart
            return 0
        for entry_id, event in left or fresh:
            await self._take(entry_id, event)
        return len(left or fresh)

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(STREAM, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _left_by_others(self) -> list[tuple[str, dict[str, str]]]:
        """Events that a member, perhaps this one before a restart, took and never acknowledged."""
        answer = await self._redis.xautoclaim(
            STREAM, self._group, self._name, min_idle_time=self._idle_ms, count=10
        )
        return _entries(answer[1])

    async def _fresh(self) -> list[tuple[str, dict[str, str]]]:
        answer: Any = await self._redis.xreadgroup(
            self._group, self._name, {STREAM: ">"}, count=100, block=self._block_ms
        )
        return [entry for entries in (answer or {}).values() for entry in _entries(entries[0])]

    async def _take(self, entry_id: str, event: dict[str, str]) -> None:
        remembered = f"{STREAM}.handled.{self._group}.{event.get('event_id', entry_id)}"
        if await self._redis.exists(remembered):
            await self._redis.xack(STREAM, self._group, entry_id)
            return
        try:
            await self._handle(event)
        except AamError as error:
            await self._failed(entry_id, event, error.code)
            return
        except Exception:  # the outermost loop of an event: logged, tried again, then put aside
            log.exception("bug")
            await self._failed(entry_id, event, "internal_error")
            return
        async with self._redis.pipeline(transaction=True) as both:
            both.set(remembered, "1", ex=_REMEMBERED_S)
            both.xack(STREAM, self._group, entry_id)
            await both.execute()

    async def _failed(self, entry_id: str, event: dict[str, str], code: str) -> None:
        """Leave it for another try, or put it aside after the last."""
        pending: Any = await self._redis.xpending_range(
            STREAM, self._group, min=entry_id, max=entry_id, count=1
        )
        tries = pending[0]["times_delivered"] if pending else DELIVERIES
        log.warning("event_not_handled", event_id=event.get("event_id"), code=code, tries=tries)
        if tries < DELIVERIES:
            return
        async with self._redis.pipeline(transaction=True) as both:
            letter: dict[Any, Any] = {**event, "group": self._group, "code": code}
            both.xadd(DEAD, letter, maxlen=_DEAD_KEPT)
            both.xack(STREAM, self._group, entry_id)
            await both.execute()


def _entries(listed: Any) -> list[tuple[str, dict[str, str]]]:
    """Entries as RESP3 lists them; one that was trimmed meanwhile has no fields."""
    return [(str(entry_id), dict(event)) for entry_id, event in listed or [] if event]
