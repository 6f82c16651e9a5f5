"""The stream of events for a browser: what has changed, by ids; pages then read it themselves."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from services.console.accepted_callers import AcceptedCallers
from services.console.api import Api, address_of, current_api
from services.console.live_feed import LiveFeed, Position
from services.console.problems import ApiProblem, PageProblem, SignedOut
from services.console.session import Session
from shared.http.request_log import is_head

router = APIRouter()

SCOPE: Final = "connections:read"
MOST_STREAMS: Final = 500
MOST_OF_CALLER: Final = 12
LIFETIME_S: Final = 15 * 60.0
HEARTBEAT_S: Final = 15.0
KNOWN_FOR_S: Final = 60.0
_RETRY_MS: Final = 3_000
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class OpenStreams:
    """Counts the open streams of a process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def expect_room(self, caller_id: str) -> None:
        """Check that a person may open one more.

        Raises:
            PageProblem: the person, or all together, have as many as there may be.
        """
        if self._open[caller_id] >= MOST_OF_CALLER or self._open.total() >= MOST_STREAMS:
            raise PageProblem(429, "too_many_streams", "Too many pages with live updates are open.")

    def opened(self, caller_id: str) -> None:
        """Count one."""
        self._open[caller_id] += 1

    def closed(self, caller_id: str) -> None:
        """No longer count one."""
        self._open[caller_id] -= 1
        self._open += Counter()  # removes people without streams


class Visible:
    """Which connections a person may see whose key is limited by labels.

    It asks again after a minute, since a connection can get other labels while a page is open.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, tuple[bool, float]] = {"": (True, float("inf"))}
        """With the time until which each is known."""

    async def has(self, connection_id: str) -> bool:
        """Whether the person sees a connection; an event without one concerns everybody.

        Raises:
            SignedOut: the person's credential is no longer accepted.
        """
        has, until = self._known.get(connection_id, (False, 0.0))
        if time.monotonic() < until:
            return has
        try:
            await self._api.orchestrator.get("/connections/{}", connection_id)
        except ApiProblem as problem:
            if problem.status != 404:  # asked again with the next event
                return False
            has = False
        else:
            has = True
        self._known[connection_id] = (has, time.monotonic() + KNOWN_FOR_S)
        return has


@router.get("/live")
async def live(
    request: Request,
    after: Annotated[str, Query(max_length=41)] = "",
    last_event_id: Annotated[str, Header(max_length=41)] = "",
) -> Response:
    """Follow events, from now on or after one that this page has received."""
    feed: LiveFeed = request.app.state.live_feed
    callers: AcceptedCallers = request.app.state.accepted_callers
    streams: OpenStreams = request.app.state.open_streams
    session: Session = request.state.session
    if not feed.is_running:
        raise PageProblem(503, "live_updates_off", "Live updates are off here.")
    address = address_of(request)
    caller = await callers.accepted(session.credential, address=address)
    if SCOPE not in caller.scopes:
        raise PageProblem(403, "forbidden", f"Live updates need {SCOPE}.")
    streams.expect_room(session.caller_id)
    if is_head(request):
        return Response(headers=_HEADERS, media_type="text/event-stream")
    position = Position.of(last_event_id or after)
    seen = Visible(current_api(request)) if caller.is_limited else None

    async def chunks() -> AsyncIterator[bytes]:
        subscription = feed.subscribe(position)
        streams.opened(session.caller_id)
        ends_at = time.monotonic() + LIFETIME_S
        try:
            yield b"retry: %d\n\n" % (_RETRY_MS + random.randrange(1_000))  # noqa: S311
            while True:
                messages = await subscription.items(within_s=HEARTBEAT_S)
                try:
                    if seen is not None:
                        messages = [one for one in messages if await seen.has(one.connection_id)]
                except SignedOut:
                    return
                yield b"".join(one.encoded() for one in messages) or b": heartbeat\n\n"
                if subscription.is_over or time.monotonic() >= ends_at:
                    return
                if not await _is_accepted(callers, session, address):
                    return
        finally:
            feed.unsubscribe(subscription)
            streams.closed(session.caller_id)

    return StreamingResponse(chunks(), media_type="text/event-stream", headers=_HEADERS)


async def _is_accepted(callers: AcceptedCallers, session: Session, address: str) -> bool:
    try:
        return SCOPE in (await callers.accepted(session.credential, address=address)).scopes
    except (SignedOut, PageProblem):
        return False
