"""Live updates: one stream of events from the orchestrator per process, for all open pages.

It is read with the console's own service token, whose one scope is `events:read`: events hold ids
and codes. Everything that a page shows is still read with the person's credential.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from services.console.api import Clients
from services.console.problems import PageProblem
from shared.auth.service_tokens import BadKey, Signer
from shared.observability import logs
from shared.reader_queue import ReaderQueue

log = logs.get(__name__)

SCOPE: Final = "events:read"
_MEMBERS: Final = ("type", "connection_id", "ref", "status", "version", "code", "at")
_KEPT: Final = 1_000
"""Number of events that are remembered for pages which connect again."""
_QUEUE: Final = 200
"""Most messages that wait for one page; beyond that, the page gets a reset instead."""
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 20.0
_AGAIN_S: Final = 0.2
_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


class Position(NamedTuple):
    """A place in the order of all events: milliseconds, and a number within them."""

    ms: int
    number: int

    def __str__(self) -> str:
        """As the id of an event."""
        return f"{self.ms}-{self.number}"

    @classmethod
    def of(cls, text: str) -> Position | None:
        """The position of an event's id; None for other text."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Message:
    """What a page receives."""

    kind: str = ""
    """Empty for an event; otherwise `reset`, `away` or `back`."""
    data: bytes = b"{}"
    position: Position | None = None
    connection_id: str = ""
    """The connection of an event."""

    def encoded(self) -> bytes:
        """As a server-sent event."""
        lines = [] if self.position is None else [b"id: %s" % str(self.position).encode()]
        lines += [b"event: %s" % self.kind.encode()] if self.kind else []
        return b"\n".join([*lines, b"data: %s" % self.data, b"", b""])


AWAY: Final = Message("away")
BACK: Final = Message("back")


class Subscription(ReaderQueue[Message]):
    """The messages for one page, in a queue of limited length."""

    def __init__(self, position: Position | None) -> None:
        super().__init__()
        self.position = position

    def put(self, message: Message) -> None:
        """Queue a message, unless the page has it already; a page that is too slow gets a reset."""
        at = message.position
        is_known = at is not None and self.position is not None and at <= self.position
        if is_known and message.kind != "reset":
            return
        self.position = at or self.position
        if len(self._queue) >= _QUEUE:
            self._queue.clear()
            message = Message("reset", position=self.position)
        self._append(message)


class LiveFeed:
    """Follows the orchestrator's events within `running`, and hands them to subscriptions."""

    def __init__(self, clients: Clients, signer: Signer | None) -> None:
        self._clients = clients
        self._signer = signer
        self._subscriptions: set[Subscription] = set()
        self._kept: deque[Message] = deque()
        self._start: Position | None = None
        """All events after it are in `_kept`."""
        self._end: Position | None = None
        self._is_away = True
        self._is_running = False

    @property
    def is_running(self) -> bool:
        """Whether pages can subscribe: not without a key, and not while the process stops."""
        return self._is_running

    @property
    def pages(self) -> int:
        """How many pages are subscribed."""
        return len(self._subscriptions)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the events within the block; do nothing without the console's key."""
        if self._signer is None:
            yield
            return
        self._is_running = True
        following = asyncio.create_task(self._follow(self._signer))
        try:
            yield
        finally:
            self.stop()
            following.cancel()
            await asyncio.wait({following})

    def stop(self) -> None:
        """End every subscription, so that their responses end."""
        self._is_running = False
        for one in self._subscriptions:
            one.end()

    def subscribe(self, after: Position | None) -> Subscription:
        """The messages from now on, or after an event that a page has already received."""
        made = Subscription(after if after is not None else self._end)
        self._subscriptions.add(made)
        if self._is_away:
            made.put(AWAY)
        if after is not None and (self._start is None or after < self._start):
            made.put(Message("reset", position=self._end))
        elif after is not None:
            for message in self._kept:
                made.put(message)
        if not self._is_running:
            made.end()
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a page that has gone."""
        self._subscriptions.discard(subscription)

    async def _follow(self, signer: Signer) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                token = signer.token("orchestrator", SCOPE)
                async with self._clients.events(token, str(self._end or "")) as lines:
                    pause_s = _FIRST_PAUSE_S
                    self._set_away(is_away=False)
                    await self._read(lines)
                await asyncio.sleep(_AGAIN_S)  # each stream ends after some minutes
                continue
            except PageProblem as problem:
                log.warning("live_updates_away", reason=problem.code)
            except Exception:  # the outermost loop of a feed: pages would wait for ever
                log.exception("bug")
            self._set_away(is_away=True)
            await asyncio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - spreads load
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _read(self, lines: AsyncIterator[str]) -> None:
        """Pass a stream's events on to the pages until it ends, as each does after some minutes."""
        kind, data, position = "", "", None
        async for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                position = Position.of(value)
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line:
                self._take(kind, data, position)
                kind, data, position = "", "", None

    def _take(self, kind: str, data: str, position: Position | None) -> None:
        if kind in ("away", "back"):
            self._set_away(is_away=kind == "away")
        elif kind == "reset":
            self._kept.clear()
            self._start = self._end = position
            self._hand_on(Message("reset", position=position))
        elif data and position is not None:
            self._start = self._start or position
            self._end = position
            known = _known(data)
            message = Message(
                data=orjson.dumps(known),
                position=position,
                connection_id=str(known["connection_id"]),
            )
            self._kept.append(message)
            if len(self._kept) > _KEPT:
                self._start = self._kept.popleft().position
            self._hand_on(message)
        elif position is not None:  # a heartbeat
            if self._end is None:  # pages without a position may have missed events
                self._hand_on(Message("reset", position=position))
            self._start = self._start or position
            self._end = position

    def _set_away(self, *, is_away: bool) -> None:
        if is_away != self._is_away:
            self._is_away = is_away
            self._hand_on(AWAY if is_away else BACK)

    def _hand_on(self, message: Message) -> None:
        for one in self._subscriptions:
            one.put(message)


def _known(data: str) -> dict[str, Any]:
    """An event's known members; others, which a newer orchestrator may send, are left out.

    Raises:
        PageProblem: it is not a JSON object.
    """
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise PageProblem(503, "events_invalid", "An event is not a JSON object.")
    return {name: event.get(name) for name in _MEMBERS}


def signer_of_console(folder: Path | None) -> Signer | None:
    """The key that signs the console's service tokens; None without a folder.

    Raises:
        SystemExit: the folder has no key that can be used.
    """
    if folder is None:
        return None
    try:
        return Signer("console", folder / "console.pem")
    except BadKey as error:
        raise SystemExit(f"console.pem in SERVICE_PRIVATE_KEY_DIR {error}") from None
