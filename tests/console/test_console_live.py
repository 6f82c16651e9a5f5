"""Live updates: one stream of events per process, and what each open page gets of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.console import live_feed, main
from services.console.live_feed import LiveFeed, Message, Position, Subscription
from services.console.pages import live
from services.console.pages.live import OpenStreams
from services.console.problems import PageProblem
from shared.auth.service_tokens import make_pair
from tests import leaks
from tests.console.browser import Browser
from tests.console.conftest import settings_for
from tests.console.double import Double, page
from tests.console.fleet_samples import IDS, fill
from tests.integration.conftest import serving

WITHIN_S = 20


@dataclass
class Events:
    """The orchestrator's GET /events/stream: `say` sends, and `cut` ends the open streams."""

    opened: list[dict[str, str]] = field(default_factory=list)
    away: Response | None = None
    _queues: list[asyncio.Queue[bytes | None]] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        self.opened.append(dict(request.headers))
        if self.away is not None:
            return self.away
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queues.append(queue)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"retry: 3000\n\n: heartbeat\nid: 100-0\n\n"
            while (chunk := await queue.get()) is not None:
                yield chunk

        return StreamingResponse(chunks(), media_type="text/event-stream")

    def say(self, chunk: str) -> None:
        """Send something to every reader."""
        for queue in self._queues:
            queue.put_nowait(chunk.encode())

    def event(self, number: int, **members: Any) -> None:
        """Send an event."""
        event = {"id": f"{number}-0", "type": "repair.proposed", "connection_id": IDS[1]} | members
        self.say(f"id: {number}-0\ndata: {orjson.dumps(event).decode()}\n\n")

    def cut(self) -> None:
        """End every stream."""
        for queue in self._queues:
            queue.put_nowait(None)
        self._queues.clear()


@pytest.fixture
def events(double: Double) -> Events:
    """The events of the double."""
    made = Events()
    double.open_routes["GET /events/stream"] = made
    return made


@dataclass
class Running:
    """A console on a real port, with a signed-in client."""

    client: httpx.AsyncClient
    feed: LiveFeed

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[str]]:
        """The events of one page, as text."""
        async with (
            asyncio.timeout(WITHIN_S),
            self.client.stream("GET", f"/live{query}", headers=headers) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            yield _events(answer.aiter_lines())


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Each event as `kind id data`, without comments and the retry."""
    parts: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(":")
        if line and name in ("event", "id", "data"):
            parts[name] = value.strip()
        elif not line and parts:
            yield " ".join(parts[name] for name in ("event", "id", "data") if name in parts)
            parts = {}


@asynccontextmanager
async def _console(double: Double, keys: Path) -> AsyncIterator[Running]:
    make_pair("console", keys / "console.pem", keys / "public")
    app = main.build(settings_for(double.url, service_private_key_dir=keys))
    signed_in = Browser(app)
    async with serving(app) as url:
        page_ = await signed_in.sign_in(double.key)
        assert page_.status == 303
        cookie = "; ".join(f"{one.name}={one.value}" for one in signed_in.client.cookies.jar)
        async with httpx.AsyncClient(
            base_url=url, headers={"Cookie": cookie}, timeout=WITHIN_S
        ) as client:
            yield Running(client, app.state.live_feed)
    await signed_in.client.aclose()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - several things may change it
            await asyncio.sleep(0.01)


@pytest.fixture
async def running(double: Double, events: Events, tmp_path: Path) -> AsyncIterator[Running]:
    """A console that follows the double's events."""
    async with _console(double, tmp_path) as made:
        await _until(lambda: made.feed._end is not None)
        yield made
        events.cut()


async def test_event_reaches_every_page(running: Running, events: Events, double: Double) -> None:
    """Of one stream of the console's own token; only the known members are handed on."""
    async with running.stream() as one, running.stream() as two:
        await _until(lambda: running.feed.pages == 2)
        events.event(101, ref=IDS[2], text="hostile <b>")

        for stream in (one, two):
            kind_id, _, data = (await anext(stream)).partition(" ")
            assert kind_id == "101-0"
            assert orjson.loads(data) == {
                "type": "repair.proposed",
                "connection_id": IDS[1],
                "ref": IDS[2],
                **dict.fromkeys(("status", "version", "code", "at")),
            }
    await _until(lambda: running.feed.pages == 0)
    assert len(events.opened) == 1
    token = events.opened[0]["authorization"].removeprefix("Bearer ")
    leaks.know("a service token", token)
    assert token.count(".") == 2
    assert double.key not in token
    _, for_both = double.of("GET", "/whoami")  # the first one is from signing in
    assert for_both.headers["x-forwarded-for"] == "127.0.0.1"


async def test_page_that_connects_again_misses_nothing(running: Running, events: Events) -> None:
    """What came meanwhile is sent first; `reset` if its position is too old."""
    events.event(101)
    events.event(102)
    await _until(lambda: running.feed._end == Position(102, 0))

    async with running.stream("?after=101-0") as stream:
        assert (await anext(stream)).startswith("102-0 ")
    async with running.stream(**{"Last-Event-ID": "101-0"}) as stream:
        assert (await anext(stream)).startswith("102-0 ")
    async with running.stream("?after=5-0") as stream:
        assert (await anext(stream)).startswith("reset 102-0")


async def test_stream_of_the_orchestrator_ends(running: Running, events: Events) -> None:
    """It is opened again after the last event; pages notice nothing."""
    async with running.stream() as stream:
        events.event(101)
        assert (await anext(stream)).startswith("101-0 ")
        events.cut()
        await _until(lambda: len(events.opened) == 2 and events._queues)
        assert events.opened[1]["last-event-id"] == "101-0"
        events.event(103)
        assert (await anext(stream)).startswith("103-0 ")


async def test_orchestrator_is_away(running: Running, events: Events) -> None:
    """Pages learn when live updates are away, and when they are back."""
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        events.away = Response(status_code=503)
        events.cut()
        assert (await anext(stream)).startswith("away")
        events.away = None
        assert (await anext(stream)).startswith("back")


async def test_page_that_is_open_before_the_orchestrator(app: FastAPI) -> None:
    """Has no position yet, so it starts again at the first one that becomes known."""
    feed: LiveFeed = app.state.live_feed
    subscription = feed.subscribe(None)

    feed._take("", "", Position(100, 0))
    feed._take("", "", Position(110, 0))

    found = await subscription.items(within_s=0)
    assert Message("reset", position=Position(100, 0)) in found
    assert [one.kind for one in found].count("reset") == 1


async def test_bug_does_not_end_live_updates(
    running: Running, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, pages see an interruption, and the stream is opened again."""
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        with monkeypatch.context() as broken:
            broken.setattr(live_feed, "_known", lambda _: 1 / 0)
            events.event(101)
            assert (await anext(stream)).startswith("away")
        assert (await anext(stream)).startswith("back")
        events.event(102)
        assert (await anext(stream)).startswith("102-0 ")


async def test_event_that_is_no_object(running: Running, events: Events) -> None:
    """Is an interruption, as text that is not JSON."""
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        events.say("id: 101-0\ndata: [1]\n\n")
        assert (await anext(stream)).startswith("away")
        assert (await anext(stream)).startswith("back")


async def test_signals_of_the_orchestrator(running: Running, events: Events) -> None:
    """Its own away, back and reset are handed on; a heartbeat is not."""
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        events.say("event: away\ndata: {}\n\n: heartbeat\nid: 150-0\n\n")
        events.say("event: back\ndata: {}\n\nid: 200-0\nevent: reset\ndata: {}\n\n")
        assert [(await anext(stream)).split()[0] for _ in range(3)] == ["away", "back", "reset"]


async def test_revoked_key_ends_the_stream(
    running: Running, events: Events, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a minute; the next one leads to the login page."""
    monkeypatch.setattr("services.console.accepted_callers._FRESH_S", 0.0)
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        double.is_revoked = True
        events.event(101)
        assert [event.split()[0] async for event in stream] == ["101-0"]
    assert (await running.client.get("/live")).status_code == 303


async def test_limited_key_sees_events_of_its_connections(
    running: Running, events: Events, double: Double
) -> None:
    """The console asks once, as the person, whether a connection is visible."""
    double.labels = {"team": "sales"}
    double.answers[f"GET /connections/{IDS[2]}"] = {"id": IDS[2]}
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        events.event(101)
        events.event(102, connection_id=IDS[2])
        events.event(103)
        events.event(104, connection_id=IDS[2])
        seen = [(await anext(stream)).split()[0] for _ in range(2)]

    assert seen == ["102-0", "104-0"]
    assert len(double.of("GET", f"/connections/{IDS[1]}")) == 1


async def test_connection_with_other_labels_leaves_open_pages(
    running: Running, events: Events, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console asks again after a while, here at once."""
    monkeypatch.setattr(live, "KNOWN_FOR_S", 0.0)
    double.labels = {"team": "sales"}
    for id_ in IDS[1:3]:
        double.answers[f"GET /connections/{id_}"] = {"id": id_}
    async with running.stream() as stream:
        await _until(lambda: running.feed.pages == 1)
        events.event(101, connection_id=IDS[2])
        assert (await anext(stream)).split()[0] == "101-0"
        del double.answers[f"GET /connections/{IDS[2]}"]
        events.event(102, connection_id=IDS[2])
        events.event(103)
        assert (await anext(stream)).split()[0] == "103-0"


async def test_who_may_follow(running: Running, double: Double, signed_in: Browser) -> None:
    """Keys with connections:read, over a console with a key, and not too often at once."""
    assert (await signed_in.get("/live")).status == 503  # this console has no key
    double.scopes = ("repairs:decide",)
    refused = await running.client.get("/live")
    assert refused.status_code == 403
    assert "Live updates need connections:read." in refused.text


async def test_head_opens_no_stream(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the headers at once."""
    subscribed: list[object] = []
    monkeypatch.setattr(running.feed, "subscribe", subscribed.append)
    answer = await running.client.head("/live")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert subscribed == []


def test_number_of_streams() -> None:
    """Limited for each person, and for all."""
    streams = OpenStreams()
    for _ in range(live.MOST_OF_CALLER):
        streams.expect_room("one")
        streams.opened("one")
    with pytest.raises(PageProblem):
        streams.expect_room("one")
    streams.expect_room("other")
    streams.closed("one")
    streams.expect_room("one")
    for n in range(live.MOST_STREAMS):
        streams.opened(str(n))
    with pytest.raises(PageProblem):
        streams.expect_room("another")


async def test_slow_page_starts_again() -> None:
    """A queue that is full is replaced by a reset, which says where events go on."""
    subscription = Subscription(Position(1, 0))
    for n in range(live_feed._QUEUE + 1):
        subscription.put(Message(position=Position(10 + n, 0)))
    subscription.put(Message(position=Position(11, 0)))  # already received

    (one,) = await subscription.items(within_s=0)

    assert (one.kind, one.position) == ("reset", Position(10 + live_feed._QUEUE, 0))


async def test_open_page_does_not_prolong_a_session(signed_in: Browser, double: Double) -> None:
    """Neither its stream nor its polling; a person's own request does."""
    double.answers["GET /connections"] = page()
    sessions = signed_in.client._transport.app.state.sessions  # type: ignore[attr-defined]
    start = sessions._clock()
    sessions._clock = lambda: start + 600

    polled = await signed_in.get("/connections?q=a", headers={"X-AAM-Background": "1"})
    live_ = await signed_in.get("/live")
    opened = await signed_in.get("/connections?q=a")

    assert "aam-local" not in polled.response.headers.get("set-cookie", "")
    assert "set-cookie" not in live_.response.headers
    assert "aam-local=" in "".join(opened.response.headers.get_list("set-cookie"))


def test_polling_fragments_are_background_requests() -> None:
    """Templates that fetch again by themselves mark these requests, which prolong no session."""
    every = {
        tag
        for file in (Path(main.__file__).parent / "templates").glob("*.j2")
        for tag in re.findall(r'hx-trigger="every .*', file.read_text())
    }
    assert every
    for tag in every:
        assert """hx-headers='{"X-AAM-Background": "1"}'""" in tag


async def test_streams_leave_connections_for_pages(app: FastAPI, events: Events) -> None:
    """A hundred open streams through `/api` must not stop every page."""
    clients = app.state.clients
    async with asyncio.timeout(WITHIN_S), AsyncExitStack() as streams:
        for _ in range(101):
            await streams.enter_async_context(clients.events("a token", ""))
        assert await clients.is_running("orchestrator")
        events.cut()


async def test_pages_that_are_live(signed_in: Browser, double: Double) -> None:
    """The inbox listens to what needs a person, the list to the connections that it shows."""
    fill(double)
    inbox = await signed_in.get("/")
    listed = await signed_in.get("/connections")

    assert 'data-live="all"' in inbox.html
    (ids,) = re.findall(r'data-live="([^"]+)"', listed.html)
    assert IDS[8] in ids.split()


def test_bad_key_is_refused(tmp_path: Path) -> None:
    """A console that cannot sign does not start; one without a key has no live updates."""
    (tmp_path / "console.pem").write_text("no key")
    (tmp_path / "console.pem").chmod(0o400)
    with pytest.raises(SystemExit, match=r"console\.pem in SERVICE_PRIVATE_KEY_DIR"):
        live_feed.signer_of_console(tmp_path)
    assert live_feed.signer_of_console(None) is None
