"""Events: told if and only if the state changed, in order, and whatever Redis does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from local import servers
from shared import events, registry
from shared.config import Settings, postgres_address
from shared.database import Database
from shared.events import STREAM, EventType, Relay
from shared.models import Connection
from tests import factories

SQL: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def db(registry_url: str, sql: SQL) -> AsyncIterator[Database]:
    """The registry, by an engine of the test's own."""
    db = Database.at(postgres_address(registry_url), application="test")
    yield db
    await db.close()


async def born(db: Database) -> Connection:
    """A connection in the registry."""
    connection = factories.connection()
    async with db.transaction() as session:
        session.add(connection)
    return connection


async def tell(db: Database, connection_id: UUID, ref: UUID | None = None) -> None:
    """Record an event of a connection in a transaction of its own."""
    async with db.transaction() as session:
        connection = await registry.lock_connection(session, connection_id)
        events.record(session, EventType.SYNC_TRIGGERED, connection, ref=ref)


async def told(redis: Redis) -> list[dict[str, str]]:
    """The stream, oldest first."""
    entries: Any = await redis.xrange(STREAM)
    return [fields for _, fields in entries]


async def test_an_event_is_nine_fields(db: Database, redis: Redis) -> None:
    """All text, an absent value as an empty one, and nothing else."""
    connection, ref = await born(db), uuid4()
    async with db.transaction() as session:
        locked = await registry.lock_connection(session, connection.id)
        events.record(session, EventType.SYNC_FINISHED, locked, status="failed", ref=ref, code="c")
    await tell(db, connection.id)
    await Relay(db, redis).look()

    first, second = await told(redis)
    assert UUID(first.pop("event_id")) != UUID(second.pop("event_id"))
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "seq": "1", "type": "sync.finished", "connection_id": str(connection.id), "ref": str(ref),
        "status": "failed", "version": "1", "code": "c",
    }  # fmt: skip
    assert (second["seq"], second["ref"], second["status"]) == ("2", "", "ACTIVE")
    assert second.keys() - {"at"} == first.keys()


async def test_no_commit_no_event(db: Database, sql: SQL) -> None:
    """Neither the row nor its sequence number survives a rollback."""
    connection = await born(db)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the rollback is the block's end
        async with db.transaction() as session:
            locked = await registry.lock_connection(session, connection.id)
            events.record(session, EventType.CATALOG_HEALING, locked)
            await session.flush()
            raise ZeroDivisionError
    assert await sql.fetchval("SELECT count(*) FROM events") == 0

    await tell(db, connection.id)
    assert await sql.fetchval("SELECT seq FROM events") == 1


async def test_many_writers_draw_numbers_without_gap_or_double(
    db: Database, redis: Redis, sql: SQL
) -> None:
    """Twenty at once on each of two connections, relayed in the order of each connection."""
    one, other = await born(db), await born(db)
    await asyncio.gather(*(tell(db, who.id) for _ in range(20) for who in (one, other)))
    await Relay(db, redis).look()

    stream = await told(redis)
    for who in (one, other):
        seqs = [int(event["seq"]) for event in stream if event["connection_id"] == str(who.id)]
        assert seqs == list(range(1, 21))
    assert await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL") == 0


async def test_two_relays_publish_each_event_once(db: Database, redis: Redis) -> None:
    """One holds the lock, the other waits its turn."""
    connection = await born(db)
    for _ in range(10):
        await tell(db, connection.id)
    await asyncio.gather(*(Relay(db, redis).look() for _ in range(4)))

    assert [event["seq"] for event in await told(redis)] == [str(n) for n in range(1, 11)]


async def test_more_than_a_batch_and_about_so_many_are_kept(
    db: Database, redis: Redis, sql: SQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look publishes all that waits; the stream is trimmed by whole nodes, not to the item."""
    monkeypatch.setattr(events, "KEEP", 300)
    connection = await born(db)
    await sql.execute(
        "INSERT INTO events (event_id, connection_id, seq, type, status, version)"
        " SELECT gen_random_uuid(), $1, n, 'sync.triggered', 'ACTIVE', 1"
        " FROM generate_series(1, 1100) n",
        connection.id,
    )
    await Relay(db, redis).look()

    assert await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL") == 0
    kept = [int(event["seq"]) for event in await told(redis)]
    assert kept == list(range(1101 - len(kept), 1101))
    assert 300 <= len(kept) < 600


async def test_redis_goes_and_comes(
    db: Database, own_valkey: servers.Valkey, sql: SQL, registry_url: str
) -> None:
    """Recording asks it nothing; what waited arrives in order, each event once by its id."""
    connection = await born(db)
    settings = Settings.model_validate(
        {"supabase_db_url": registry_url, "redis_url": own_valkey.url}
    )
    redis = events.open_redis(settings)
    relay = Relay(db, redis)
    await tell(db, connection.id)
    await relay.look()

    own_valkey.stop()
    async with asyncio.timeout(5):
        await tell(db, connection.id)
        await tell(db, connection.id)
    async with asyncio.timeout(20):
        await relay.look()
    assert await sql.fetchval("SELECT count(*) FROM events WHERE published_at IS NULL") == 2

    own_valkey.start()
    await relay.look()
    stream = await told(redis)
    unique = list({event["event_id"]: event["seq"] for event in stream}.values())
    assert unique == ["1", "2", "3"]
    await redis.aclose()


async def test_a_registry_that_is_away_pauses_the_relay(
    own_postgres: servers.Postgres, redis: Redis
) -> None:
    """It says so once and lives on."""
    db = Database.at(postgres_address(own_postgres.url), application="test")
    own_postgres.stop()
    relay = Relay(db, redis)
    for _ in range(2):
        await relay.look()
    assert await told(redis) == []
    await db.close()
