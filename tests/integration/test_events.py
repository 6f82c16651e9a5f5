"""Events are published in order if and only if the state changed, whatever Redis does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from local.processes import servers
from shared import outbox, registry
from shared.config import Settings
from shared.database import Database
from shared.models import Connection
from shared.outbox import STREAM, EventType, Relay
from shared.postgres_address import postgres_address
from tests import factories
from tests.integration.conftest import REPOSITORY
from tests.pools import Sql

_KILLED = """
import asyncio, sys
from redis.asyncio import Redis
from shared import failpoints
from shared.postgres_address import postgres_address
from shared.database import Database
from shared.outbox import Relay

async def main():
    registry_url, redis_url = sys.stdin.read().split()
    db = Database.at(postgres_address(registry_url), application="relay")
    failpoints.arm("relay.added=kill")
    await Relay(db, Redis.from_url(redis_url, decode_responses=True, protocol=3)).publish()

asyncio.run(main())
"""


async def stored_connection(db: Database) -> Connection:
    """A connection in the registry."""
    connection = factories.connection()
    async with db.transaction() as session:
        session.add(connection)
    return connection


async def record_events(db: Database, connection_id: UUID, *, times: int = 1) -> None:
    """Record so many events of a connection in one transaction of their own."""
    async with db.transaction() as session:
        connection = await registry.lock_connection(session, connection_id)
        for _ in range(times):
            outbox.record(session, EventType.SYNC_TRIGGERED, connection)


async def stream_of(redis: Redis) -> list[dict[str, str]]:
    """The stream, oldest first."""
    entries: Any = await redis.xrange(STREAM)
    return [fields for _, fields in entries]


def unique(stream: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """The events of a stream as a consumer sees them: by id, in the order of their first coming."""
    first: dict[str, dict[str, str]] = {}
    for event in stream:
        first.setdefault(event["event_id"], event)
    return first


def sequence_numbers(stream: list[dict[str, str]], connection_id: UUID) -> list[int]:
    """The sequence numbers that a consumer sees of a connection."""
    events_ = unique(stream).values()
    return [int(one["seq"]) for one in events_ if one["connection_id"] == str(connection_id)]


async def waiting(sql: Sql) -> int:
    """The number of events that are not marked as published."""
    return int(await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL"))


def settings_of(registry_url: str, valkey: servers.Valkey) -> Settings:
    """Settings of a service with a Redis of its own."""
    return Settings.model_validate({"supabase_db_url": registry_url, "redis_url": valkey.url})


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes."""
    while data := await reader.read(65536):
        writer.write(data)


@pytest.fixture
async def valkey_client(own_valkey: servers.Valkey, registry_url: str) -> AsyncIterator[Redis]:
    """A service's client of the test's own Valkey."""
    redis = outbox.open_redis(settings_of(registry_url, own_valkey))
    yield redis
    await redis.aclose()


async def test_event_has_nine_text_fields(db: Database, redis: Redis) -> None:
    """An absent value is empty."""
    connection, ref = await stored_connection(db), uuid4()
    async with db.transaction() as session:
        locked = await registry.lock_connection(session, connection.id)
        outbox.record(session, EventType.SYNC_FINISHED, locked, status="failed", ref=ref, code="c")
    await record_events(db, connection.id)
    await Relay(db, redis).publish()

    first, second = await stream_of(redis)
    assert UUID(first.pop("event_id")) != UUID(second.pop("event_id"))
    assert first.pop("at").endswith("Z")
    assert first == {
        "seq": "1", "type": "sync.finished", "connection_id": str(connection.id), "ref": str(ref),
        "status": "failed", "version": "1", "code": "c",
    }  # fmt: skip
    assert (second["seq"], second["ref"], second["status"]) == ("2", "", "ACTIVE")
    assert second.keys() - {"at"} == first.keys()


async def test_rollback_leaves_no_event(db: Database, sql: Sql) -> None:
    """Neither the row nor its sequence number."""
    connection = await stored_connection(db)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the rollback is the block's end
        async with db.transaction() as session:
            locked = await registry.lock_connection(session, connection.id)
            outbox.record(session, EventType.CATALOG_HEALING, locked)
            await session.flush()
            raise ZeroDivisionError
    assert await sql.fetchval("SELECT count(*) FROM events") == 0

    await record_events(db, connection.id)
    assert await sql.fetchval("SELECT seq FROM events") == 1


async def test_concurrent_writers_draw_consecutive_numbers(
    db: Database, redis: Redis, sql: Sql
) -> None:
    """Twenty at once on each of two connections, relayed in each connection's order."""
    one, other = await stored_connection(db), await stored_connection(db)
    await asyncio.gather(*(record_events(db, who.id) for _ in range(20) for who in (one, other)))
    await Relay(db, redis).publish()

    stream = await stream_of(redis)
    for who in (one, other):
        seqs = [int(event["seq"]) for event in stream if event["connection_id"] == str(who.id)]
        assert seqs == list(range(1, 21))
    assert await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL") == 0


async def test_two_relays_publish_each_event_once(db: Database, redis: Redis) -> None:
    """One holds the lock, the other waits its turn."""
    connection = await stored_connection(db)
    for _ in range(10):
        await record_events(db, connection.id)
    await asyncio.gather(*(Relay(db, redis).publish() for _ in range(4)))

    assert [event["seq"] for event in await stream_of(redis)] == [str(n) for n in range(1, 11)]


async def test_relay_publishes_all_and_trims_the_stream(
    db: Database, redis: Redis, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run publishes every waiting event; the stream is trimmed by whole nodes."""
    monkeypatch.setattr(outbox, "KEEP", 300)
    connection = await stored_connection(db)
    await sql.execute(
        "INSERT INTO events (event_id, connection_id, seq, type, status, version)"
        " SELECT gen_random_uuid(), $1, n, 'sync.triggered', 'ACTIVE', 1"
        " FROM generate_series(1, 1100) n",
        connection.id,
    )
    await Relay(db, redis).publish()

    assert await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL") == 0
    remaining = [int(event["seq"]) for event in await stream_of(redis)]
    assert remaining == list(range(1101 - len(remaining), 1101))
    assert 300 <= len(remaining) < 600


async def test_two_relays_keep_the_order_of_concurrent_writes(
    db: Database, redis: Redis, redis_url: str, registry_url: str
) -> None:
    """Five hundred events of twenty connections, two in each transaction, without duplicates."""
    connections = [await stored_connection(db) for _ in range(20)]
    others = [Database.at(postgres_address(registry_url), application="relay") for _ in range(2)]
    clients = [Redis.from_url(redis_url, decode_responses=True, protocol=3) for _ in range(2)]
    relays = [Relay(other, client) for other, client in zip(others, clients, strict=True)]
    written = asyncio.Event()

    async def write(connection_id: UUID) -> None:
        for _ in range(12):
            await record_events(db, connection_id, times=2)
        await record_events(db, connection_id)

    async def publish(relay: Relay) -> None:
        while not written.is_set():
            await relay.publish()

    async with asyncio.timeout(40):
        publishing = [asyncio.create_task(publish(relay)) for relay in relays]
        await asyncio.gather(*(write(connection.id) for connection in connections))
        written.set()
        await asyncio.gather(*publishing)
        await relays[0].publish()

    stream = await stream_of(redis)
    assert len({event["event_id"] for event in stream}) == len(stream) == 500
    for connection in connections:
        assert sequence_numbers(stream, connection.id) == list(range(1, 26))
    for opened in clients:
        await opened.aclose()
    for other in others:
        await other.close()


async def test_redis_restart_loses_no_event(
    db: Database, valkey_client: Redis, own_valkey: servers.Valkey, sql: Sql
) -> None:
    """Recording does not need Redis; waiting events arrive in order, once per id."""
    one, other = await stored_connection(db), await stored_connection(db)
    relay = Relay(db, valkey_client)
    await record_events(db, one.id)
    await relay.publish()

    own_valkey.stop()
    begun = time.monotonic()
    for _ in range(10):
        await record_events(db, one.id)
        await record_events(db, other.id)
    assert time.monotonic() - begun < 5
    async with asyncio.timeout(20):
        await relay.publish()
    assert await waiting(sql) == 20

    own_valkey.start()
    await relay.publish()
    stream = await stream_of(valkey_client)
    assert sequence_numbers(stream, one.id) == list(range(1, 12))
    assert sequence_numbers(stream, other.id) == list(range(1, 11))
    assert len(unique(stream)) == 21
    assert await waiting(sql) == 0


async def test_redis_that_lost_its_data_receives_later_events(
    db: Database, valkey_client: Redis, own_valkey: servers.Valkey, sql: Sql
) -> None:
    """Earlier events are lost with it; later ones are there, in order."""
    connection = await stored_connection(db)
    relay = Relay(db, valkey_client)
    await record_events(db, connection.id)
    await relay.publish()
    own_valkey.stop()
    shutil.rmtree(own_valkey.data_dir / "appendonlydir")
    await record_events(db, connection.id, times=2)
    own_valkey.start()
    await relay.publish()
    assert sequence_numbers(await stream_of(valkey_client), connection.id) == [2, 3]
    assert await waiting(sql) == 0


async def test_full_redis_is_waited_for(
    db: Database, valkey_client: Redis, sql: Sql, own_valkey: servers.Valkey
) -> None:
    """When there is room again, every event is published in order."""
    connection = await stored_connection(db)
    relay = Relay(db, valkey_client)
    await record_events(db, connection.id, times=10)
    await valkey_client.config_set("maxmemory", "1")
    await relay.publish()
    await record_events(db, connection.id, times=10)
    await relay.publish()
    assert await waiting(sql) == 20
    assert await stream_of(valkey_client) == []

    await valkey_client.config_set("maxmemory", "0")
    await relay.publish()
    assert [int(event["seq"]) for event in await stream_of(valkey_client)] == list(range(1, 21))
    assert own_valkey.exit_code() is None


async def test_events_after_a_refused_one_are_not_published_first(
    db: Database, valkey_client: Redis, own_valkey: servers.Valkey, sql: Sql
) -> None:
    """Memory is short for the first event and free for the next: neither is published."""
    connection = await stored_connection(db)
    await record_events(db, connection.id, times=4)
    begun = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", own_valkey.port)
        back = asyncio.create_task(pump(up_reader, writer))
        while data := await reader.read(65536):
            if data.count(b"XADD") == 4 and not begun.is_set():
                begun.set()
                middle = data.index(b"XADD", data.index(b"XADD") + 1)
                await valkey_client.config_set("maxmemory", "1")
                up_writer.write(data[:middle])
                await up_writer.drain()
                await asyncio.sleep(0.2)
                await valkey_client.config_set("maxmemory", "0")
                data = data[middle:]
            up_writer.write(data)
        back.cancel()
        for one in (writer, up_writer):
            one.close()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        url = own_valkey.url.replace(str(own_valkey.port), str(port))
        async with Redis.from_url(url, decode_responses=True, protocol=3) as spoilt:
            await Relay(db, spoilt).publish()
    assert begun.is_set()
    assert await waiting(sql) == 4
    await Relay(db, valkey_client).publish()
    assert sequence_numbers(await stream_of(valkey_client), connection.id) == [1, 2, 3, 4]


async def test_hanging_redis_blocks_nothing(
    db: Database, registry_url: str, valkey_client: Redis, own_valkey: servers.Valkey, sql: Sql
) -> None:
    """A relay run ends in seconds and frees its lock; events are recorded meanwhile."""
    connection = await stored_connection(db)
    hanging = outbox.open_redis(settings_of(registry_url, own_valkey))
    await record_events(db, connection.id, times=5)
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        looking = asyncio.create_task(Relay(db, hanging).publish())
        await asyncio.sleep(0.3)
        recording = asyncio.create_task(record_events(db, connection.id, times=5))
        done, _ = await asyncio.wait({looking, recording}, return_when=asyncio.FIRST_COMPLETED)
        assert recording in done
        await asyncio.gather(looking, recording)
        took = time.monotonic() - begun
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert 1 < took < 10
    held = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = ("
        "SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert await sql.fetchval(held) == 0
    assert await waiting(sql) == 10

    await Relay(db, hanging).publish()
    assert sequence_numbers(await stream_of(valkey_client), connection.id) == list(range(1, 11))
    assert await waiting(sql) == 0
    await hanging.aclose()


@pytest.mark.process
async def test_relay_killed_before_marking_events_publishes_them_again(
    db: Database, redis: Redis, redis_url: str, registry_url: str, sql: Sql
) -> None:
    """Duplicates are identical, and the order stays."""
    one, other = await stored_connection(db), await stored_connection(db)
    for _ in range(3):
        await record_events(db, one.id)
        await record_events(db, other.id)
    for _ in range(2):
        killed = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", _KILLED],
            input=f"{registry_url} {redis_url}".encode(),
            cwd=REPOSITORY,
            timeout=120,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        await record_events(db, one.id)
    assert await waiting(sql) == 8
    await Relay(db, redis).publish()

    stream = await stream_of(redis)
    assert len(stream) == 6 + 7 + 8
    assert len(unique(stream)) == 8
    for event in stream:
        assert unique(stream)[event["event_id"]] == event
    assert sequence_numbers(stream, one.id) == [1, 2, 3, 4, 5]
    assert sequence_numbers(stream, other.id) == [1, 2, 3]
    assert await waiting(sql) == 0


@pytest.mark.process
async def test_registry_outage_pauses_the_relay(
    own_postgres: servers.Postgres, redis: Redis
) -> None:
    """It logs one line and continues later."""
    db = Database.at(postgres_address(own_postgres.url), application="test")
    own_postgres.stop()
    relay = Relay(db, redis)
    for _ in range(2):
        await relay.publish()
    assert await stream_of(redis) == []
    await db.close()
