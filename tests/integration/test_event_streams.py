"""Streams of events resume without loss at any replica, and no reader delays another."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from local.processes import servers
from services.orchestrator import event_feed, event_pages, event_routes, event_streams
from services.orchestrator.event_feed import EventFeed, Reset, Subscription
from services.orchestrator.event_log import START, Event, EventLog, Position, Wanted
from services.orchestrator.event_pages import EventPages
from services.orchestrator.event_streams import EventStreams
from shared import outbox
from shared.auth.label_limits import Labels
from shared.auth.scopes import Caller, Scope
from shared.config import Settings
from shared.database import Database
from shared.http.app import create_app
from shared.http.authentication import Access
from shared.outbox import STREAM
from tests import access
from tests.integration.conftest import Mesh, serving
from tests.waiting import until

Json = dict[str, Any]
ONE, OTHER = str(uuid4()), str(uuid4())


@dataclass
class Keys:
    """Accepts these words as keys, until they are revoked."""

    valid: set[str] = field(default_factory=lambda: {"ada", "bob"})
    labels: Labels = ()
    """The labels by which their callers are limited."""

    async def caller(self, presented: str) -> Caller | None:
        """The caller with this key, who may read connections."""
        if presented not in self.valid:
            return None
        scopes = frozenset({Scope.CONNECTIONS_READ})
        return Caller(f"key:{presented}", presented, scopes, labels=self.labels)


@dataclass
class Replica:
    """One process of the orchestrator, reduced to its events."""

    url: str
    streams: EventStreams
    keys: Keys

    @asynccontextmanager
    async def follow(
        self, *, key: str = "ada", last: str | None = None, **query: Any
    ) -> AsyncIterator[Follower]:
        """Read a stream in the background; it has begun when this is entered."""
        headers = {"Authorization": f"Bearer {key}"}
        if last is not None:
            headers["Last-Event-ID"] = last
        async with (
            httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as client,
            client.stream("GET", "/events/stream", params=query) as answer,
        ):
            follower = Follower(answer, last=last)
            reading = asyncio.create_task(follower.read())
            if answer.status_code == 200:
                # With a position it does not matter when the stream begins.
                await until(lambda: follower.last or follower.signals or query.get("after"))
            try:
                yield follower
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def get(self, path: str, *, key: str = "ada", **query: Any) -> httpx.Response:
        """Send a request."""
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers) as client:
            return await client.get(path, params=query)

    def count(self) -> int:
        """The number of open streams."""
        return self.streams._open.total()


class Follower:
    """What arrived on a stream, as a browser's EventSource would understand it."""

    def __init__(self, answer: httpx.Response, *, last: str | None) -> None:
        self.answer = answer
        self.last = last
        """The id that a browser would resume after."""
        self.events: list[Json] = []
        self.signals: list[str] = []
        self.blocks = 0
        self.comments = 0
        self.has_ended = False

    async def read(self) -> None:
        """Read until the end."""
        if self.answer.status_code != 200:
            await self.answer.aread()
            return
        block: dict[str, str] = {}
        async for line in self.answer.aiter_lines():
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                block[name] = value
            else:
                self._take(block)
                block = {}
        self.has_ended = True

    def _take(self, block: dict[str, str]) -> None:
        self.blocks += 1
        self.last = block.get("id", self.last)
        if "event" in block:
            assert block["data"] == "{}"
            self.signals.append(block["event"])
        elif "data" in block:
            self.events.append(json.loads(block["data"]))
            assert self.events[-1]["id"] == block["id"]

    async def until_seen(self, *versions: int) -> None:
        """Wait until exactly these events have arrived."""
        await until(lambda: self.seen == list(versions))

    async def until_last(self, version: int) -> None:
        """Wait until this is the newest event."""
        await until(lambda: self.seen[-1:] == [version])

    async def until_count(self, count: int) -> None:
        """Wait until at least so many events have arrived."""
        await until(lambda: len(self.events) >= count)

    async def until_signals(self, *signals: str) -> None:
        """Wait until exactly these control events have arrived."""
        await until(lambda: self.signals == list(signals))

    @property
    def seen(self) -> list[int]:
        """The versions of the events, which the tests count by."""
        return [event["version"] for event in self.events]


def replica(valkey: servers.Valkey, **limits: Any) -> tuple[FastAPI, EventStreams, Keys]:
    """Build a process that serves events from this Valkey."""
    settings = Settings.model_validate(
        {
            "supabase_db_url": "postgresql://reader:x@127.0.0.1:1/aam",
            "redis_url": valkey.url,
            **access.service_keys(),
        }
    )
    feed = EventFeed(EventLog(outbox.open_reader(settings)))
    given: Json = {"per_caller": 12, "lifetime": timedelta(minutes=15), **limits}
    db = Database.at(settings.registry_address, application="test")  # never connects
    streams = EventStreams(feed, db, **given)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with feed.running():
            yield

    keys = Keys()
    app = create_app(
        service="test", description="A test's.", access=Access([keys]), lifespan=lifespan
    )
    app.state.event_streams = streams
    app.state.event_pages = EventPages(feed.log, streams.db)
    app.include_router(event_routes.router)
    return app, streams, keys


@asynccontextmanager
async def running(valkey: servers.Valkey, **limits: Any) -> AsyncIterator[Replica]:
    """Serve a replica on a real socket."""
    app, streams, keys = replica(valkey, **limits)
    async with serving(app) as url:
        yield Replica(url, streams, keys)


async def publish(
    redis: Redis, versions: Sequence[int], *, connection_id: str = ONE, **more: str
) -> list[str]:
    """Add events as the relay does, in one transaction; return their ids."""
    pipeline = redis.pipeline(transaction=True)
    for version in versions:
        fields: Any = {
            "event_id": str(uuid4()),
            "seq": str(version),
            "type": "sync.finished",
            "connection_id": connection_id,
            "ref": "",
            "status": "succeeded",
            "version": str(version),
            "code": "",
            "at": "2026-11-30T09:30:00.123Z",
            **more,
        }
        pipeline.xadd(STREAM, fields, maxlen=outbox.KEEP, approximate=True)
    return [str(id_) for id_ in await pipeline.execute()]


@pytest.fixture
async def redis(own_valkey: servers.Valkey) -> AsyncIterator[Redis]:
    """A client of the test's own Valkey."""
    client = Redis.from_url(own_valkey.url, decode_responses=True, protocol=3)
    yield client
    await client.aclose()


async def test_reader_resumes_at_another_replica_without_loss_or_doubles(
    own_valkey: servers.Valkey, redis: Redis
) -> None:
    """Eight changes between two replicas, while events are published all the time."""
    async with running(own_valkey) as one, running(own_valkey) as other:
        written, is_enough = 0, False

        async def write() -> None:
            nonlocal written
            while not is_enough:
                await publish(redis, range(written + 1, written + 16))
                written += 15
                await asyncio.sleep(0.01)  # more than the relay of a busy installation publishes

        writing = asyncio.create_task(write())
        seen: list[int] = []
        last: str | None = "0"
        for turn in range(8):
            async with (one, other)[turn % 2].follow(last=last) as follower:
                await follower.until_count(50)
                seen += follower.seen
                last = follower.last
                assert follower.signals == []
        is_enough = True
        await writing
        async with one.follow(last=last) as follower:
            await until(lambda: len(seen) + len(follower.events) >= written)
            seen += follower.seen
    assert seen == list(range(1, written + 1))


async def test_all_readers_receive_what_they_asked_for(
    own_valkey: servers.Valkey, redis: Redis
) -> None:
    """By one blocked read of Redis; the members are those of a page."""
    async with running(own_valkey) as one, AsyncExitStack() as stack:
        every = [await stack.enter_async_context(one.follow()) for _ in range(5)]
        typed = await stack.enter_async_context(
            one.follow(types=["drift.detected", "sync.finished"])
        )
        mine = await stack.enter_async_context(one.follow(connection_id=OTHER))
        await publish(redis, [1, 2])
        await publish(redis, [3], type="repair.applied", code="c", ref=ONE)
        await publish(redis, [4], connection_id=OTHER)
        for follower in every:
            await follower.until_seen(1, 2, 3, 4)
        await until(lambda: (typed.seen, mine.seen) == ([1, 2, 4], [4]))
        blocked = [c for c in await redis.client_list() if c["cmd"] == "xread"]
        assert len(blocked) == 1
        page = (await one.get("/events")).json()
    assert page["items"] == every[0].events
    assert page["items"][2] == {
        "id": page["items"][2]["id"], "event_id": page["items"][2]["event_id"],
        "type": "repair.applied", "connection_id": ONE, "ref": ONE, "status": "succeeded",
        "version": 3, "code": "c", "at": "2026-11-30T09:30:00.123Z",
    }  # fmt: skip


async def test_limited_reader_misses_no_event_while_the_registry_is_away(
    own_valkey: servers.Valkey, redis: Redis, mesh: Mesh, db: Database
) -> None:
    """What it may see is unknown meanwhile: it waits at the beginning, or resumes afterwards."""
    id_ = (await mesh.onboard())["id"]
    await mesh.sql.execute('UPDATE connections SET labels = \'{"team": "a"}\'')
    async with running(own_valkey) as one:
        one.keys.labels, away = (("team", "a"),), one.streams.db
        await publish(redis, [1, 2], connection_id=id_)
        async with one.follow(last="0") as follower:
            await follower.until_signals("away")
            one.streams.db = db
            await follower.until_seen(1, 2)
            one.streams.db = away
            await publish(redis, [3], connection_id=id_)
            await until(lambda: follower.has_ended)
        one.streams.db = db
        async with one.follow(last=follower.last) as resumed:
            await resumed.until_seen(3)


async def test_reply_is_not_buffered_or_stored(own_valkey: servers.Valkey) -> None:
    """By its headers, which HEAD shows as well."""
    async with running(own_valkey) as one, one.follow() as follower:
        async with httpx.AsyncClient(headers={"Authorization": "Bearer ada"}) as client:
            head = await client.head(f"{one.url}/events/stream")
        for answer in (follower.answer, head):
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-accel-buffering"] == "no"
        assert one.count() == 1


async def test_quiet_stream_has_heartbeats_with_its_position(
    own_valkey: servers.Valkey, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also past events that the reader did not ask for, so that it resumes behind them."""
    monkeypatch.setattr(event_streams, "HEARTBEAT_S", 0.2)
    async with running(own_valkey) as one, one.follow(connection_id=OTHER) as follower:
        assert follower.last == "0-0"
        last = (await publish(redis, [1, 2, 3]))[-1]
        await until(lambda: follower.last == last)
        assert follower.comments > 1
    assert follower.events == []


async def test_position_that_is_not_kept_is_reset(own_valkey: servers.Valkey, redis: Redis) -> None:
    """Trimmed, of another Redis, or ahead of this one; `0` begins with what there is."""
    ids = await publish(redis, range(1, 11))
    await redis.xtrim(STREAM, maxlen=5, approximate=False)
    async with running(own_valkey) as one:
        for last in (ids[0], "1-0", "99999999999999-0"):
            async with one.follow(last=last) as follower:
                await follower.until_signals("reset")
                assert follower.last == ids[-1]
                await publish(redis, [11])
                await follower.until_seen(11)
            await redis.xdel(STREAM, follower.events[0]["id"])
            ids[-1] = str((await redis.xinfo_stream(STREAM))["last-generated-id"])
        async with one.follow(last="0") as follower:
            await until(lambda: follower.seen == [6, 7, 8, 9, 10])
        async with one.follow(after=follower.events[2]["id"]) as follower:
            await until(lambda: follower.seen == [9, 10])
        for wrong in ("x", "1-", "-1", "1-2-3", "99999999999999999999-0"):
            answer = await one.get("/events/stream", after=wrong)
            assert (answer.status_code, answer.headers["content-type"]) == (
                422,
                "application/problem+json",
            )


async def test_slow_reader_is_ended_and_delays_no_other(
    own_valkey: servers.Valkey, redis: Redis
) -> None:
    """One that never reads, while another receives 20 MB."""
    async with running(own_valkey) as one, one.follow(key="bob") as follower:
        host, port = one.url.removeprefix("http://").split(":")
        idle = socket.socket()
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(idle.connect, (host, int(port)))
        idle.sendall(b"GET /events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n")
        await until(lambda: one.count() == 2)
        for batch in range(12):
            await publish(redis, range(200 * batch, 200 * (batch + 1)), code="x" * 8000)
            await follower.until_count(200 * (batch + 1))
        await until(lambda: one.count() == 1)
        assert follower.seen == list(range(2400))
        assert follower.signals == []
        idle.close()


async def test_queue_of_a_reader_is_bounded(
    own_valkey: servers.Valkey, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is full, the events in it are replaced by a reset, and the subscription ends."""
    monkeypatch.setattr(event_feed, "QUEUE", 10)
    async with running(own_valkey) as one:
        await until(lambda: one.streams.feed.tail == START)
        idle = one.streams.feed.subscribe(Wanted(), START)
        ids = await publish(redis, range(11))
        await until(lambda: idle.is_over)
        assert await idle.items(within_s=0) == [Reset(Position.of(ids[-1]))]
        assert await idle.items(within_s=9) == []


def test_unseen_signals_cancel_each_other() -> None:
    """So that an outage of hours does not fill the queue of a reader."""
    subscription = Subscription(Wanted(), START)
    event = Event(Position(1, 0), "t", ONE, b"{}")
    subscription.signal(event_feed.Signal.AWAY)
    assert subscription.offer(event)
    assert subscription.offer(event)
    for _ in range(1000):
        subscription.signal(event_feed.Signal.BACK)
        subscription.signal(event_feed.Signal.AWAY)
    assert list(subscription._queue) == [event_feed.Signal.AWAY, event]


async def test_stream_outlives_redis(own_valkey: servers.Valkey, redis: Redis) -> None:
    """It reports the outage, and continues without a loss; new readers wait, too."""
    first, second = await publish(redis, [1, 2])
    async with running(own_valkey) as one, one.follow(last=first) as early:
        await until(lambda: early.seen == [2])
        own_valkey.kill()
        await until(lambda: early.signals == ["away"])
        async with one.follow(last=first) as late, one.follow() as unplaced:
            await until(lambda: (late.signals, unplaced.signals) == (["away"], ["away"]))
            page = await one.get("/events")
            assert (page.status_code, page.json()["code"]) == (503, "events_unavailable")
            own_valkey.start()
            await redis.aclose()  # its connection is from before
            await publish(redis, [3])
            await until(lambda: early.seen == [2, 3])
            await until(lambda: late.seen == [2, 3])
            assert early.signals == late.signals == ["away", "back"]
            # Whether it missed an event cannot be known.
            await until(lambda: unplaced.signals == ["away", "back", "reset"])
            await publish(redis, [4])
            for follower in (early, late, unplaced):
                await follower.until_last(4)
    assert second < early.events[1]["id"]


async def test_redis_that_lost_its_data_resets_readers(
    own_valkey: servers.Valkey, redis: Redis
) -> None:
    """They go on with what is published later."""
    await publish(redis, [1])
    async with running(own_valkey) as one, one.follow() as follower:
        own_valkey.stop()
        await until(lambda: follower.signals == ["away"])
        shutil.rmtree(own_valkey.data_dir / "appendonlydir")
        own_valkey.start()
        await redis.aclose()  # its connection is from before
        await until(lambda: follower.signals == ["away", "reset", "back"])
        await publish(redis, [2])
        await until(lambda: follower.seen == [2])


async def test_revoked_key_ends_its_streams(own_valkey: servers.Valkey) -> None:
    """Within five seconds, and only its own."""
    async with running(own_valkey) as one, one.follow() as ada, one.follow(key="bob") as bob:
        one.keys.valid.remove("ada")
        await until(lambda: ada.has_ended, within=5)
        assert not bob.has_ended
        assert (await one.get("/events/stream")).status_code == 401


async def test_caller_has_a_limited_number_of_streams(own_valkey: servers.Valkey) -> None:
    """Another caller has its own; one that ends makes room."""
    async with running(own_valkey, per_caller=2) as one:
        async with one.follow(), one.follow(), one.follow(key="bob"):
            answer = await one.get("/events/stream")
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")
            assert answer.headers["retry-after"] == "10"
        await until(lambda: one.count() == 0)
        async with one.follow() as follower:
            assert follower.answer.status_code == 200


async def test_process_has_a_limited_number_of_streams(
    own_valkey: servers.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever they belong to."""
    monkeypatch.setattr(event_streams, "MOST_STREAMS", 1)
    async with running(own_valkey) as one, one.follow():
        answer = await one.get("/events/stream", key="bob")
        assert (answer.status_code, answer.json()["code"]) == (503, "streams_full")


async def test_stream_ends_after_its_lifetime(own_valkey: servers.Valkey) -> None:
    """Whole, so that the reader simply connects again."""
    async with running(own_valkey, lifetime=timedelta(seconds=0.5)) as one:
        async with one.follow() as follower:
            await until(lambda: follower.has_ended)
        await until(lambda: one.count() == 0)


async def test_streams_end_at_once_when_the_process_stops(
    own_valkey: servers.Valkey, redis: Redis
) -> None:
    """Those that wait, and soon those that do not read; later ones are refused."""
    async with running(own_valkey) as one, one.follow() as ada, one.follow(key="bob") as bob:
        host, port = one.url.removeprefix("http://").split(":")
        idle = socket.socket()
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(idle.connect, (host, int(port)))
        idle.sendall(b"GET /events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\n\r\n")
        await until(lambda: one.count() == 3)
        await publish(redis, range(900), code="x" * 8000)
        await until(lambda: len(ada.events) == len(bob.events) == 900)
        begun = time.monotonic()
        one.streams.feed.stop()
        await until(lambda: ada.has_ended and bob.has_ended, within=2)
        await until(lambda: one.count() == 0, within=3)
        assert time.monotonic() - begun < 4
        answer = await one.get("/events/stream")
        assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
        idle.close()


async def test_pages_share_their_ids_with_streams(own_valkey: servers.Valkey, redis: Redis) -> None:
    """Without a position the newest; with filters a page may be short; a gap is reported."""
    async with running(own_valkey) as one:
        empty = (await one.get("/events")).json()
        assert empty == {"items": [], "next": "0-0", "has_more": False, "gap": False}
        ids = await publish(redis, range(1, 11))
        other = await publish(redis, [11], connection_id=OTHER)

        async def page(**query: Any) -> tuple[list[int], str, bool, bool]:
            body = (await one.get("/events", **query)).json()
            seen = [item["version"] for item in body["items"]]
            return seen, body["next"], body["has_more"], body["gap"]

        assert await page(limit=3) == ([9, 10, 11], other[0], False, False)
        assert await page(after="0", limit=4) == ([1, 2, 3, 4], ids[3], True, False)
        assert await page(after=ids[3], limit=7) == (list(range(5, 12)), other[0], False, False)
        assert await page(after=other[0]) == ([], other[0], False, False)
        assert await page(after=ids[3], connection_id=OTHER) == ([11], other[0], False, False)
        assert await page(connection_id=OTHER) == ([11], other[0], False, False)
        assert await page(types="drift.detected", after="0") == ([], other[0], False, False)
        await redis.xtrim(STREAM, maxlen=5, approximate=False)
        assert await page(after=ids[0]) == ([7, 8, 9, 10, 11], other[0], False, True)
        assert await page(after="99999999999999-0") == ([], other[0], False, True)
        async with one.follow(last=(await page(limit=2))[1]) as follower:
            await publish(redis, [12])
            await until(lambda: follower.seen == [12])
        assert (await one.get("/events", types="no.such")).status_code == 422


async def test_page_looks_at_a_limited_number_of_entries(
    own_valkey: servers.Valkey, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page goes on, and entries of other programs do no harm."""
    monkeypatch.setattr(event_pages, "_MOST_SCANNED", 1000)
    await publish(redis, range(1100))
    await redis.xadd(STREAM, {"type": "odd", "version": "x", "connection_id": OTHER})
    async with running(own_valkey) as one:
        first = (await one.get("/events", after="0", connection_id=OTHER)).json()
        assert (first["items"], first["has_more"]) == ([], True)
        rest = (await one.get("/events", after=first["next"], connection_id=OTHER)).json()
        assert [(item["type"], item["version"]) for item in rest["items"]] == [("odd", None)]
        assert not rest["has_more"]
