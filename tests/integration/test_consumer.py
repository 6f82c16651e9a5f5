"""The consumer group: at least once, remembered, put aside after three tries."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from local.processes import servers
from shared.consumer import DEAD, Consumer
from shared.errors import Unavailable
from shared.outbox import STREAM
from tests.integration.conftest import REPOSITORY

Handle = Callable[[Any], Awaitable[None]]


class Seen(list[str]):
    """Handles events by remembering their ids in order."""

    async def handle(self, event: Any) -> None:
        self.append(event["event_id"])


async def dies(_event: Any) -> None:
    """End as a process does that is killed: nothing is told to Redis."""
    raise asyncio.CancelledError


def consumer(
    redis: Redis, handle: Handle, name: str = "one", idle_ms: int = 50, **more: Any
) -> Consumer:
    return Consumer(redis, "healer", name, handle, idle_ms=idle_ms, block_ms=20, **more)


async def tell(redis: Redis, count: int = 1, **fields: str) -> list[str]:
    """Events on the stream; their ids."""
    ids = []
    for _ in range(count):
        event: dict[Any, Any] = {"event_id": str(uuid4()), "type": "catalog.applied", **fields}
        await redis.xadd(STREAM, event)
        ids.append(event["event_id"])
    return ids


async def pending(redis: Redis) -> int:
    """How many events the group has taken and not acknowledged."""
    answer: Any = await redis.xpending(STREAM, "healer")
    return int(answer["pending"])


async def dead(redis: Redis) -> list[dict[str, str]]:
    """The dead letters, oldest first."""
    entries: Any = await redis.xrange(DEAD)
    return [fields for _, fields in entries]


@pytest.fixture(autouse=True)
async def forgotten(redis: Redis) -> None:
    """Nothing of another test's."""
    for key in await redis.keys(f"{STREAM}*") or []:
        await redis.delete(key)


@pytest.fixture
async def own_redis(own_valkey: servers.Valkey) -> AsyncIterator[Redis]:
    """A client of a Valkey that may be stopped, filled and emptied."""
    redis = Redis.from_url(own_valkey.url, decode_responses=True, protocol=3, socket_timeout=1)
    yield redis
    await redis.aclose()


async def looked(one: Consumer, times: int) -> None:
    for _ in range(times):
        await one.look()


async def test_each_is_handled_once_in_order(redis: Redis) -> None:
    """A group that is new begins at the first event; a double of one is not handled again."""
    seen = Seen()
    told = await tell(redis, 20)
    await tell(redis, event_id=told[3])
    await looked(consumer(redis, seen.handle), 22)

    assert seen == told
    assert await pending(redis) == 0
    assert 0 < await redis.ttl(f"{STREAM}.handled.healer.{told[0]}") <= 24 * 60 * 60


async def test_two_groups_hear_the_same(redis: Redis) -> None:
    """What one group has handled is remembered for it alone."""
    one, other = Seen(), Seen()
    told = await tell(redis, 3)
    await looked(consumer(redis, one.handle), 4)
    await looked(Consumer(redis, "observer", "one", other.handle, block_ms=20), 4)
    assert one == other == told


async def test_members_share_the_work(redis: Redis) -> None:
    """Three at once handle forty events, each of them one's alone."""
    seen = Seen()
    told = await tell(redis, 40)
    members = [consumer(redis, seen.handle, name, idle_ms=5_000) for name in "abc"]
    await members[0].look()
    await asyncio.gather(*(looked(member, 40) for member in members))
    assert sorted(seen) == sorted(told)
    assert await pending(redis) == 0


async def test_other_types_are_acknowledged_unread(redis: Redis) -> None:
    """A member that wants some types only is told of no other, and leaves none behind."""
    seen = Seen()
    (wanted,) = await tell(redis, type="sync.finished")
    await tell(redis, 2)
    await looked(consumer(redis, seen.handle, types={"sync.finished"}), 4)
    assert seen == [wanted]
    assert await pending(redis) == 0


async def test_what_one_left_another_takes(redis: Redis) -> None:
    """A member that died before it acknowledged: its event is claimed once it is idle."""
    (event_id,) = await tell(redis)
    seen = Seen()
    dying, other = consumer(redis, dies), consumer(redis, seen.handle, "other")
    await dying.look()  # makes the group
    with pytest.raises(asyncio.CancelledError):
        await dying.look()
    await other.look()
    assert seen == []
    await asyncio.sleep(0.06)
    await other.look()
    assert seen == [event_id]


async def test_what_it_left_itself_comes_first(redis: Redis) -> None:
    """Started again under its name, a member does not wait for its own events to be idle."""
    told = await tell(redis, 3)
    seen = Seen()
    with pytest.raises(asyncio.CancelledError):
        await looked(consumer(redis, dies, idle_ms=60_000), 2)
    await looked(consumer(redis, seen.handle, idle_ms=60_000), 4)
    assert seen == told


async def test_a_killed_process_is_taken_over(redis: Redis, redis_url: str) -> None:
    """Kill -9 in the middle of handling: another member handles it, and what came after."""
    told = await tell(redis, 3)
    program = (
        "import asyncio, os, signal, sys\n"
        "from redis.asyncio import Redis\n"
        "from shared.consumer import Consumer\n"
        "async def handle(event): os.kill(os.getpid(), signal.SIGKILL)\n"
        "async def main():\n"
        "    redis = Redis.from_url(sys.stdin.read(), decode_responses=True, protocol=3)\n"
        "    await Consumer(redis, 'healer', 'killed', handle).run(asyncio.Event())\n"
        "asyncio.run(main())\n"
    )
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        input=redis_url.encode(),
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL

    seen = Seen()
    await asyncio.sleep(0.06)
    await looked(consumer(redis, seen.handle, "other"), 3)
    assert seen == told


@pytest.mark.parametrize(
    "error, code", [(Unavailable("x"), "unavailable"), (KeyError("CANARY"), "internal_error")]
)
async def test_a_poisonous_event_is_put_aside(redis: Redis, error: Exception, code: str) -> None:
    """Three tries, then the dead letters: its fields and a code, no exception's text."""
    poison, good = await tell(redis, 2, code="its_own")
    tried: list[str] = []

    async def handle(event: Any) -> None:
        tried.append(event["event_id"])
        if event["event_id"] == poison:
            raise error

    one = consumer(redis, handle, idle_ms=10)
    for _ in range(8):
        await one.look()
        await asyncio.sleep(0.02)
    await tell(redis, event_id=poison)
    await one.look()

    assert tried.count(poison) == 3
    assert tried.count(good) == 1
    assert await pending(redis) == 0
    assert await dead(redis) == [
        {
            "event_id": poison,
            "type": "catalog.applied",
            "code": "its_own",
            "group": "healer",
            "failure_code": code,
        }
    ]


async def test_an_event_that_kills_is_put_aside_and_no_other(redis: Redis) -> None:
    """Three processes die over it; the fourth puts it aside, and handles what waited behind it."""
    poison, *good = await tell(redis, 4)
    seen = Seen()

    async def handle(event: Any) -> None:
        if event["event_id"] == poison:
            raise asyncio.CancelledError
        await seen.handle(event)

    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await looked(consumer(redis, handle), 2)
    await looked(consumer(redis, handle), 6)

    assert [letter["event_id"] for letter in await dead(redis)] == [poison]
    assert (await dead(redis))[0]["failure_code"] == "never_finished"
    assert seen == good


async def test_a_handler_that_hangs_is_broken_off(redis: Redis) -> None:
    """Before its event could be another's: it counts as a failure."""

    async def handle(_event: Any) -> None:
        await asyncio.sleep(30)

    await tell(redis)
    one = consumer(redis, handle, idle_ms=20)
    for _ in range(6):
        await one.look()
        await asyncio.sleep(0.03)
    assert [letter["failure_code"] for letter in await dead(redis)] == ["timed_out"]


async def test_many_that_are_at_work_hide_none_that_is_left(redis: Redis) -> None:
    """Redis looks through ten pending events a call; the member goes on from where it was."""
    told = await tell(redis, 40)
    await redis.xgroup_create(STREAM, "healer", id="0")
    await redis.xreadgroup("healer", "dead", {STREAM: ">"}, count=40)
    await asyncio.sleep(0.4)
    entries: Any = await redis.xrange(STREAM, count=39)
    await redis.xclaim(STREAM, "healer", "busy", 0, [entry_id for entry_id, _ in entries])

    seen = Seen()
    await looked(consumer(redis, seen.handle, idle_ms=300), 5)
    assert seen == told[39:]


@pytest.mark.parametrize("emptied", ["stream", "all", "group"])
async def test_a_redis_that_lost_everything_is_begun_again(redis: Redis, emptied: str) -> None:
    """NOGROUP: the group is made again; what is remembered is not handled again."""
    seen = Seen()
    one = consumer(redis, seen.handle)
    before = await tell(redis, 2)
    await looked(one, 3)
    if emptied == "group":
        await redis.xgroup_destroy(STREAM, "healer")
    else:
        await redis.delete(STREAM, *(await redis.keys(f"{STREAM}.*") if emptied == "all" else ()))
    after = await tell(redis, 2)
    await looked(one, 6)
    assert seen == before + after


async def test_a_stream_deleted_while_it_waits(redis: Redis, redis_url: str) -> None:
    """The waiting call ends with an error; the group is made again, and nothing is missed."""
    seen = Seen()
    async with Redis.from_url(redis_url, decode_responses=True, protocol=3) as reading:
        one = Consumer(reading, "healer", "one", seen.handle, block_ms=3_000)
        await one.look()
        waiting = asyncio.create_task(one.look())
        await asyncio.sleep(0.1)
        await redis.delete(STREAM)
        assert await waiting == 0
        told = await tell(redis)
        await one.look()
    assert seen == told


async def test_a_full_redis_loses_the_memory_and_no_event(own_redis: Redis) -> None:
    """What cannot be remembered is acknowledged all the same."""
    seen = Seen()
    one = consumer(own_redis, seen.handle)
    await looked(one, 1)
    told = await tell(own_redis, 3)
    await own_redis.config_set("maxmemory", "1")
    await looked(one, 4)
    assert seen == told
    assert await pending(own_redis) == 0


async def test_redis_is_waited_for(own_valkey: servers.Valkey, own_redis: Redis) -> None:
    """Away it is waited for; back, each is handled once; told to stop, the member stops."""
    seen, stop = Seen(), asyncio.Event()
    running = asyncio.create_task(consumer(own_redis, seen.handle).run(stop))
    told = await tell(own_redis, 3)
    async with asyncio.timeout(20):
        while len(seen) < 3:  # noqa: ASYNC110 (the member's doing)
            await asyncio.sleep(0.02)
        own_valkey.stop()
        await asyncio.sleep(0.3)
        assert not running.done()
        own_valkey.start()
        told += await tell(own_redis, 3)
        while len(seen) < 6:  # noqa: ASYNC110 (the member's doing)
            await asyncio.sleep(0.02)
        stop.set()
        await running
    assert seen == told


async def test_it_stops_though_redis_hangs(own_valkey: servers.Valkey, own_redis: Redis) -> None:
    """In seconds, and without an error."""
    stop = asyncio.Event()
    running = asyncio.create_task(consumer(own_redis, Seen().handle).run(stop))
    await asyncio.sleep(0.2)
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        stop.set()
        await running
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert time.monotonic() - begun < 8


async def test_it_stops_though_a_handler_hangs(redis: Redis) -> None:
    """In seconds; the event that was broken off is delivered again."""
    reached, stop = asyncio.Event(), asyncio.Event()

    async def handle(_event: Any) -> None:
        reached.set()
        await asyncio.sleep(30)

    told = await tell(redis)
    running = asyncio.create_task(consumer(redis, handle, idle_ms=60_000).run(stop))
    async with asyncio.timeout(60):
        await reached.wait()
    begun = time.monotonic()
    stop.set()
    await running
    assert time.monotonic() - begun < 8

    seen = Seen()
    await consumer(redis, seen.handle).look()
    assert seen == told
