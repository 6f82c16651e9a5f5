"""An operation has one owner: a late one writes nothing, a lost one is replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from shared import periodic, registry
from shared.config import Settings
from shared.database import Database
from shared.errors import SyncRunning, UpstreamRefused, UpstreamUnknown
from shared.job_queue import Jobs
from shared.operations import HttpResult, Intent, Key, Operation, Operations
from tests import factories
from tests.waiting import until

Sql = Any
LEASE_OVER = "UPDATE operations SET in_flight_until = now(), lease_until = now() - interval '3 s'"


class Waiting:
    """A story of one step that lasts until it is let go."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.made = 0
        self.failing: list[Exception] = []

    async def run(self, operation: Operation) -> None:
        async def make() -> str:
            self.made += 1
            self.began.set()
            await self.go.wait()
            if self.failing:
                raise self.failing.pop(0)
            return "made"

        await operation.once("step", make, within=30)
        await self.end(operation)

    async def undo(self, operation: Operation) -> None:
        await self.end(operation)

    async def abandon(self, operation: Operation) -> None:
        await self.end(operation)

    async def end(self, operation: Operation) -> None:
        async with self._db.transaction() as session:
            await operation.finish(session, status=200, body='"done"')


class Replica:
    """One process's operations."""

    def __init__(self, settings: Settings) -> None:
        self.db = Database.at(settings.registry_address, application="test")
        self.jobs = Jobs(settings.registry_address, application="test")
        self.operations = Operations(settings, self.db, self.jobs, service="test")
        self.saga = Waiting(self.db)
        self.operations.register("waiting", self.saga)

    async def begin(self) -> tuple[UUID, UUID]:
        """Ids of an operation and of the connection it is about."""
        begun, connection_id = await self.begin_with(None)
        assert isinstance(begun, UUID)
        return begun, connection_id

    async def begin_with(self, key: Key | None) -> tuple[UUID | HttpResult, UUID]:
        """The id of an operation, or its result, and the id of the connection it is about."""
        connection = factories.connection(name=str(uuid4()))

        async def announce(session: AsyncSession, _id: UUID) -> None:
            await registry.insert_pending(session, connection)

        intent = Intent("waiting", connection.id, {}, key=key)
        return await self.operations.begin(intent, announce), connection.id


@pytest.fixture
def settings(registry_url: str) -> Settings:
    return Settings(
        _env_file=None,
        supabase_db_url=registry_url,
        in_flight_window="0.2",
        operation_deadline="2000",
    )


@asynccontextmanager
async def replica(settings: Settings, *, works: bool = True) -> AsyncIterator[Replica]:
    one = Replica(settings)
    async with one.operations.running():
        if works:
            async with periodic.repeating(one.db, one.operations.takeover_task), one.jobs.running():
                yield one
        else:
            yield one
    await one.db.close()


@contextmanager
def statements(db: Database) -> Iterator[list[tuple[str, tuple[object, ...]]]]:
    """What is sent to the registry in the block, with its parameters."""
    assert db._engine is not None
    sent: list[tuple[str, tuple[object, ...]]] = []

    def keep(_c: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
        sent.append((statement, tuple(given)))

    event.listen(db._engine.sync_engine, "before_cursor_execute", keep)
    yield sent
    event.remove(db._engine.sync_engine, "before_cursor_execute", keep)


async def blocks(sql: Sql, statement: str, given: tuple[object, ...]) -> int:
    """Return how many blocks of 8 KiB Postgres reads for it; it is rolled back."""
    transaction = sql.transaction()
    await transaction.start()
    explained = await sql.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *given)
    await transaction.rollback()
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_late_owner_writes_nothing(settings: Settings, sql: Sql) -> None:
    """Its lease expired and another finished: it returns the other's result."""
    async with replica(settings, works=False) as late, replica(settings, works=False) as other:
        operation_id, _ = await late.begin()
        await late.saga.began.wait()
        await sql.execute(LEASE_OVER)
        other.saga.go.set()
        await other.operations.takeover_task.run()
        await until(lambda: sql.fetchval("SELECT status = 'done' FROM operations"))
        ended_at = await sql.fetchval("SELECT ended_at FROM operations")

        late.saga.go.set()
        answer = await late.operations.outcome(operation_id, wait=5)

        assert (answer.status, answer.body) == (200, '"done"')
        row = await sql.fetchrow("SELECT ended_at, attempts FROM operations")
        assert tuple(row) == (ended_at, 2)


@pytest.mark.parametrize("key", [None, Key("ada", "POST /x", "k", b"hash")])
@pytest.mark.parametrize("has_ended", [True, False])
async def test_operation_taken_over_before_its_commit_is_known_is_not_begun_again(
    settings: Settings,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_ended: bool,
    key: Key | None,
) -> None:
    """The commit's answer comes after the first lease: the result is the new owner's."""
    async with replica(settings, works=False) as late, replica(settings, works=False) as other:
        transaction = late.db.transaction

        @asynccontextmanager
        async def losing() -> AsyncIterator[AsyncSession]:
            monkeypatch.setattr(late.db, "transaction", transaction)  # the next ones are not lost
            async with transaction() as session:
                yield session
            await sql.execute(LEASE_OVER)
            await other.operations.takeover_task.run()
            await other.saga.began.wait()
            if has_ended:
                other.saga.go.set()
                await until(lambda: sql.fetchval("SELECT status = 'done' FROM operations"))
            raise UpstreamUnknown("lost")

        monkeypatch.setattr(late.db, "transaction", losing)
        async with asyncio.timeout(5):
            begun, _ = await late.begin_with(key)
        other.saga.go.set()
        answer = await late.operations.outcome(begun, wait=5)

        assert (answer.status, answer.body) == (200, '"done"')
        assert (late.saga.made, other.saga.made) == (0, 1)
        row = await sql.fetchrow("SELECT count(*), min(attempts) FROM operations")
        assert tuple(row) == (1, 2)


async def test_lost_owner_is_replaced_when_its_lease_ends(settings: Settings, sql: Sql) -> None:
    """Within two seconds."""
    async with replica(settings, works=False) as gone, replica(settings) as other:
        other.saga.go.set()
        operation_id, _ = await gone.begin()
        await gone.saga.began.wait()
        await sql.execute(
            "UPDATE operations SET in_flight_until = now(), lease_until = now() + interval '2 s'"
        )
        lease_until = await sql.fetchval("SELECT lease_until FROM operations")
        await until(lambda: sql.fetchval("SELECT status = 'done' FROM operations"), within=12)
        row = await sql.fetchrow("SELECT id, ended_at, attempts FROM operations")
        assert (row["id"], row["attempts"]) == (operation_id, 2)
        assert row["ended_at"] - lease_until < timedelta(seconds=2)
        gone.saga.go.set()


async def test_enqueued_job_completes_a_lost_operation(settings: Settings, sql: Sql) -> None:
    """Without the periodic task."""
    async with replica(settings, works=False) as gone, replica(settings, works=False) as other:
        other.saga.go.set()
        await gone.begin()
        await gone.saga.began.wait()
        await sql.execute(LEASE_OVER)
        async with other.jobs.running():
            await until(lambda: sql.fetchval("SELECT status = 'done' FROM operations"), within=12)
        gone.saga.go.set()


async def test_step_with_unknown_outcome_waits_before_its_retry(
    settings: Settings, sql: Sql
) -> None:
    """The lost request may still take effect."""
    async with replica(settings, works=False) as one:
        one.saga.failing = [UpstreamUnknown("lost")]
        one.saga.go.set()
        clock = asyncio.get_running_loop().time
        began = clock()
        operation_id, _ = await one.begin()
        answer = await one.operations.outcome(operation_id, wait=5)
        assert answer.status == 200
        assert one.saga.made == 2
        assert clock() - began >= 0.2


async def test_refusal_ends_the_operation(settings: Settings, sql: Sql) -> None:
    """The problem is stored as the answer, word for word."""
    async with replica(settings, works=False) as one:
        one.saga.failing = [UpstreamRefused("no")]
        one.saga.go.set()
        operation_id, _ = await one.begin()
        answer = await one.operations.outcome(operation_id, wait=5)
        row = await sql.fetchrow("SELECT status, response_status, response FROM operations")
        assert (answer.status, row["status"]) == (422, "failed")
        assert tuple(row)[1:] == (answer.status, answer.body)


async def test_one_operation_at_a_time_per_connection(settings: Settings, sql: Sql) -> None:
    """The second is refused with the kind of the first, and not recorded."""
    async with replica(settings, works=False) as one:
        _, connection_id = await one.begin()
        await sql.execute("UPDATE operations SET kind = 'sync'")

        async def nothing(_session: AsyncSession, _id: UUID) -> None:
            return None

        with pytest.raises(SyncRunning):
            await one.operations.begin(Intent("waiting", connection_id, {}), nothing)
        assert await sql.fetchval("SELECT count(*) FROM operations") == 1
        one.saga.go.set()


async def test_stopping_releases_operations(settings: Settings, sql: Sql) -> None:
    """Another replica continues waiting ones at once."""
    async with replica(settings, works=False) as stopping:
        stopping.saga.failing = [UpstreamUnknown("lost")] * 50
        stopping.saga.go.set()
        operation_id, _ = await stopping.begin()
        await stopping.saga.began.wait()
        stopping.operations.stop()
        answer = await stopping.operations.outcome(operation_id, wait=5)
        assert answer.status == 202
    assert await sql.fetchval("SELECT owner FROM operations") is None
    async with replica(settings, works=False) as other:
        other.saga.go.set()
        await sql.execute(LEASE_OVER)
        await other.operations.takeover_task.run()
        await until(lambda: sql.fetchval("SELECT status = 'done' FROM operations"))


async def test_claim_uses_an_index_among_many_operations(settings: Settings, sql: Sql) -> None:
    """10,000 open and 100,000 finished ones."""
    await sql.execute("""
        WITH made AS (
            INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)
            SELECT gen_random_uuid(), 'c' || n, 'x', gen_random_uuid(), 'PENDING'
            FROM generate_series(1, 10000) n RETURNING id
        )
        INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,
            deadline, request_id, ended_at)
        SELECT gen_random_uuid(), 'other', id, status, '{}', 'x', now() + interval '1 h',
            now() + interval '1 h', '', CASE WHEN status = 'done' THEN now() END
        FROM made,
            (SELECT 'running' AS status UNION ALL SELECT 'done' FROM generate_series(1, 10)) s
    """)
    await sql.execute("ANALYZE operations")
    size = await sql.fetchval("SELECT pg_relation_size('operations') / 8192")
    async with replica(settings, works=False) as one:
        one.saga.go.set()
        lost, _ = await one.begin()
        await until(
            lambda: sql.fetchval("SELECT status = 'done' FROM operations WHERE id = $1", lost)
        )
        await sql.execute(
            "UPDATE operations SET status = 'running', ended_at = NULL, in_flight_until = now(),"
            " lease_until = now() - interval '3 s' WHERE id = $1",
            lost,
        )
        with statements(one.db) as sent:
            await one.operations.takeover_task.run()
        about = [(text, given) for text, given in sent if "operations" in text]
        looked_at = [await blocks(sql, text, given) for text, given in about]
    assert size > 1000
    assert len(about) >= 2, about
    assert max(looked_at) < 100, looked_at
    await sql.execute("TRUNCATE operations, connections CASCADE")
