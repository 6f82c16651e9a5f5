"""Reads lifecycle events in a consumer group: each is handled by one member of it.

Delivery is at least once. What was handled is remembered for a day by `event_id`, so it is handled
again only where a process died, or Redis went away, between handling and remembering: handlers stay
idempotent. They come in the order of the stream while one member runs and nothing fails; one that
is tried again comes after later ones, which `seq` and `version` tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ExecAbortError, OutOfMemoryError, RedisError, ResponseError

from shared.errors import AamError
from shared.observability import logs
from shared.outbox import STREAM

log = logs.get(__name__)

DEAD = f"{STREAM}.dead"
"""Where events go that could not be handled: their fields, `group` and `failure_code`."""
DELIVERIES = 3
"""How often an event is tried before it is dead."""
_REMEMBERED_S = 24 * 60 * 60
_DEAD_KEPT = 10_000
_PAUSE_S = 1.0
_FINISH_WITHIN_S = 5.0

Event = Mapping[str, str]
Handler = Callable[[Event], Awaitable[None]]


class Consumer:
    """One member of a group.

    `name` is its own among those that run, and best the same after a restart: it then begins with
    what it had left.

    `redis` speaks RESP3 and decodes its answers (`shared.outbox.open_redis`). A new group begins
    at the stream's first event: nothing that is still kept is missed. With `types`, events of
    others are acknowledged unread.

    `idle_ms` is how long a member may be silent about an event before another takes it over; an
    event that failed is tried again after as long. `handle` has four fifths of it, so that no two
    members that run have the same event. What it raises counts as a failure: an AamError's code
    goes to the dead letter, never a text.
    """

    def __init__(
        self,
        redis: Redis,
        group: str,
        name: str,
        handle: Handler,
        *,
        types: Collection[str] | None = None,
        idle_ms: int = 60_000,
        block_ms: int = 1_000,
    ) -> None:
        self._redis = redis
        self._group = group
        self._name = name
        self._handle = handle
        self._types = types
        self._idle_ms = idle_ms
        self._block_ms = block_ms
        self._begin()

    def _begin(self) -> None:
        self._own_after: str | None = "0"
        """How far it is with what it left itself; None when it is through."""
        self._others_from = "0-0"

    async def run(self, stop: asyncio.Event) -> None:
        """Handle events until `stop` is set, whatever Redis does meanwhile.

        The one being handled then has five seconds to end; broken off, it is delivered again.
        """
        reading = asyncio.create_task(self._read_on(stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=_FINISH_WITHIN_S)
        finally:
            reading.cancel()
            stopping.cancel()
            await asyncio.wait({reading, stopping})
        if not reading.cancelled():
            reading.result()

    async def _read_on(self, stop: asyncio.Event) -> None:
        away = False
        while not stop.is_set():
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                if not away:
                    log.warning("events_not_read", group=self._group, cause=type(error).__name__)
                away = True
                if not isinstance(error, ResponseError):
                    self._begin()  # an answer was lost: what was taken with it comes first
                await asyncio.sleep(_PAUSE_S)
            else:
                away = False

    async def look(self) -> int:
        """Handle the next event: one left by itself, else by another, else a new one.

        One at a time, so that a process that dies over an event counts against that one alone.

        Returns:
            How many were looked at: 0 or 1.

        Raises:
            RedisError, OSError, TimeoutError: Redis is away, or cannot do it now.
        """
        try:
            return await self._look()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        # A new Redis, or one that came back empty.
        self._begin()
        try:
            await self._redis.xgroup_create(STREAM, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        return 0

    async def _look(self) -> int:
        if self._own_after is not None:
            own = await self._read(self._own_after, block_ms=None)
            self._own_after = own[0][0] if own else None
            if own:
                return await self._take(*own[0], again=True)

        answer = await self._redis.xautoclaim(
            STREAM,
            self._group,
            self._name,
            min_idle_time=self._idle_ms,
            start_id=self._others_from,
            count=1,
        )
        self._others_from = str(answer[0])
        if others := _entries(answer[1]):
            return await self._take(*others[0], again=True)

        # Redis looks through ten pending events a call: while there are more, it is not waited.
        through = self._others_from == "0-0"
        fresh = await self._read(">", block_ms=self._block_ms if through else None)
        return await self._take(*fresh[0], again=False) if fresh else 0

    async def _read(self, after: str, *, block_ms: int | None) -> list[tuple[str, dict[str, str]]]:
        answer: Any = await self._redis.xreadgroup(
            self._group, self._name, {STREAM: after}, count=1, block=block_ms
        )
        return _entries(answer[STREAM][0]) if answer else []

    async def _take(self, entry_id: str, event: dict[str, str], *, again: bool) -> int:
        unread = self._types is not None and event.get("type") not in self._types
        if not event or unread or await self._redis.exists(self._memory(entry_id, event)):
            await self._redis.xack(STREAM, self._group, entry_id)
            return 1
        if again and await self._deliveries(entry_id) > DELIVERIES:
            await self._put_aside(entry_id, event, "never_finished")  # its processes died over it
            return 1
        try:
            async with asyncio.timeout(self._idle_ms * 0.8 / 1000):
                # An event tells no request: what it causes goes by the event's own id.
                with logs.caused_by(event.get("event_id")):
                    await self._handle(event)
        except AamError as error:
            await self._failed(entry_id, event, error.code)
        except TimeoutError:
            await self._failed(entry_id, event, "timed_out")
        except Exception:  # the outermost loop of an event: logged, tried again, then put aside
            log.exception("bug")
            await self._failed(entry_id, event, "internal_error")
        else:
            await self._remember(entry_id, event)
        return 1

    async def _remember(self, entry_id: str, event: dict[str, str]) -> None:
        try:
            async with self._redis.pipeline(transaction=True) as both:
                both.set(self._memory(entry_id, event), "1", ex=_REMEMBERED_S)
                both.xack(STREAM, self._group, entry_id)
                await both.execute()
        except (OutOfMemoryError, ExecAbortError):
            # An acknowledgement needs no memory. Better a double handled again than this one.
            await self._redis.xack(STREAM, self._group, entry_id)

    async def _failed(self, entry_id: str, event: dict[str, str], code: str) -> None:
        """Leave it for another try, or put it aside after the last."""
        tries = await self._deliveries(entry_id)
        log.warning("event_not_handled", event_id=event.get("event_id"), code=code, tries=tries)
        if tries >= DELIVERIES:
            await self._put_aside(entry_id, event, code)

    async def _put_aside(self, entry_id: str, event: dict[str, str], code: str) -> None:
        letter: dict[Any, Any] = {**event, "group": self._group, "failure_code": code}
        async with self._redis.pipeline(transaction=True) as all_:
            all_.xadd(DEAD, letter, maxlen=_DEAD_KEPT)
            all_.set(self._memory(entry_id, event), "1", ex=_REMEMBERED_S)
            all_.xack(STREAM, self._group, entry_id)
            await all_.execute()
        log.error("event_put_aside", event_id=event.get("event_id"), code=code)

    async def _deliveries(self, entry_id: str) -> int:
        """How often an event was delivered; 0 when somebody has acknowledged it."""
        pending: Any = await self._redis.xpending_range(
            STREAM, self._group, min=entry_id, max=entry_id, count=1
        )
        return int(pending[0]["times_delivered"]) if pending else 0

    def _memory(self, entry_id: str, event: dict[str, str]) -> str:
        return f"{STREAM}.handled.{self._group}.{event.get('event_id', entry_id)}"


def _entries(listed: Any) -> list[tuple[str, dict[str, str]]]:
    """Entries as RESP3 lists them; one that was trimmed meanwhile has no fields."""
    return [(str(entry_id), dict(event or {})) for entry_id, event in listed or []]
