"""The consumer group: at least once, remembered, put aside after three tries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from shared.consumer import DEAD, Consumer
from shared.errors import Unavailable
from shared.events import STREAM

Handle = Callable[[Any], Awaitable[None]]


def consumer(redis: Redis, handle: Handle, name: str = "one", idle_ms: int = 50) -> Consumer:
    return Consumer(redis, "healer", name, handle, idle_ms=idle_ms, block_ms=20)


async def tell(redis: Redis, count: int = 1, **fields: str) -> list[str]:
    """Events on the stream; their ids."""
    ids = []
    for _ in range(count):
        event_id = fields.get("event_id") or str(uuid4())
        await redis.xadd(STREAM, {"event_id": event_id, "type": "catalog.applied"})
        ids.append(event_id)
    return ids


@pytest.fixture(autouse=True)
async def forgotten(redis: Redis) -> None:
    """Nothing of another test's."""
    for key in await redis.keys(f"{STREAM}*") or []:
        await redis.delete(key)


async def looked(one: Consumer, times: int) -> None:
    for _ in range(times):
        await one.look()


async def test_each_is_handled_once_in_order(redis: Redis) -> None:
    """A group that is new begins at the first event; a double of one is not handled again."""
    seen: list[str] = []

    async def handle(event: Any) -> None:
        seen.append(event["event_id"])

    told = await tell(redis, 20)
    await tell(redis, event_id=told[3])
    await looked(consumer(redis, handle), 3)

    assert seen == told
    pending: Any = await redis.xpending(STREAM, "healer")
    assert pending["pending"] == 0


async def test_what_one_left_another_takes(redis: Redis) -> None:
    """A member that died before it acknowledged: its event is claimed once it is idle."""
    (event_id,) = await tell(redis)
    seen: list[str] = []

    async def dies(_event: Any) -> None:
        raise asyncio.CancelledError

    async def handle(event: Any) -> None:
        seen.append(event["event_id"])

    dying, other = consumer(redis, dies), consumer(redis, handle, "other")
    await dying.look()  # makes the group
    with pytest.raises(asyncio.CancelledError):
        await dying.look()
    await other.look()
    assert seen == []
    await asyncio.sleep(0.06)
    await other.look()
    assert seen == [event_id]


@pytest.mark.parametrize(
    "error, code", [(Unavailable("x"), "unavailable"), (KeyError("CANARY"), "internal_error")]
)
async def test_a_poisonous_event_is_put_aside(redis: Redis, error: Exception, code: str) -> None:
    """Three tries, then the dead letters: its fields and a code, no exception's text."""
    poison, good = await tell(redis, 2)
    tried: list[str] = []

    async def handle(event: Any) -> None:
        tried.append(event["event_id"])
        if event["event_id"] == poison:
            raise error

    one = consumer(redis, handle, idle_ms=10)
    for _ in range(8):
        await one.look()
        await asyncio.sleep(0.02)

    assert tried.count(poison) == 3
    assert tried.count(good) == 1
    dead: Any = await redis.xrange(DEAD)
    assert [fields for _, fields in dead] == [
        {"event_id": poison, "type": "catalog.applied", "group": "healer", "code": code}
    ]


async def test_a_redis_that_lost_everything_is_begun_again(redis: Redis) -> None:
    """NOGROUP: the group is made again, and what comes after is handled."""
    seen: list[str] = []

    async def handle(event: Any) -> None:
        seen.append(event["event_id"])

    one = consumer(redis, handle)
    await tell(redis)
    await looked(one, 2)
    await redis.delete(STREAM)
    (after,) = await tell(redis)
    await looked(one, 3)
    assert seen[-1] == after


async def test_it_stops_and_waits_for_redis(own_valkey: Any) -> None:
    """Redis away is waited for; told to stop, it stops."""
    seen = asyncio.Event()

    async def handle(_event: Any) -> None:
        seen.set()

    redis = Redis.from_url(own_valkey.url, decode_responses=True, protocol=3)
    stop = asyncio.Event()
    running = asyncio.create_task(consumer(redis, handle).run(stop))
    await asyncio.sleep(0.1)
    own_valkey.stop()
    await asyncio.sleep(0.3)
    own_valkey.start()
    await tell(redis)
    async with asyncio.timeout(10):
        await seen.wait()
        stop.set()
        await running
    await redis.aclose()
