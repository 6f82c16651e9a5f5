"""Every operation ends, also one whose end cannot be recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from shared import periodic, registry
from shared.config import Settings
from shared.database import Database
from shared.errors import Conflict, NotFound, Unavailable, UpstreamRefused, UpstreamUnknown
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import Intent, Operation, Operations, _runner
from tests import factories
from tests.pools import Sql
from tests.waiting import until

LEASE_OVER = "UPDATE operations SET lease_until = now() - interval '3 s'"
ENDED = "SELECT status, response_status, failure::text FROM operations WHERE ended_at IS NOT NULL"


class Broken:
    """A story that can neither be run, nor undone, nor abandoned."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.abandoned = 0

    async def run(self, _operation: Operation) -> None:
        raise UpstreamRefused("It is refused.")

    async def undo(self, _operation: Operation) -> None:
        raise self.error

    async def abandon(self, _operation: Operation) -> None:
        self.abandoned += 1
        raise self.error


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between the tries."""
    logs.set_up("test", level="WARNING")
    monkeypatch.setattr(_runner, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(_runner, "_LONGEST_PAUSE_S", 0.02)


@asynccontextmanager
async def replica(registry_url: str, saga: Broken) -> AsyncIterator[tuple[Database, Operations]]:
    """One process's operations, with this story."""
    settings = Settings(
        _env_file=None,
        supabase_db_url=registry_url,
        in_flight_window="0.01",
        operation_deadline="2000",
    ).model_copy(update={"operation_deadline": timedelta(seconds=0.2)})
    db = Database.at(settings.registry_address, application="test")
    jobs = Jobs(settings.registry_address, application="test")
    operations = Operations(settings, db, jobs, service="test")
    operations.register("broken", saga)
    async with (
        operations.running(),
        periodic.repeating(db, operations.takeover_task),
        jobs.running(),
    ):
        yield db, operations
    await db.close()


async def begin(operations: Operations, *, heals: bool = False) -> UUID:
    """The id of the connection that an operation was begun for."""
    connection = factories.connection()

    async def announce(session: AsyncSession, operation_id: UUID) -> None:
        await registry.insert_pending(session, connection)
        if heals:
            registry.begin_heal(connection, operation_id)

    await operations.begin(Intent("broken", connection.id, {}), announce)
    return connection.id


async def ended(sql: Sql) -> asyncpg.Record:
    """The operation, once it has ended."""
    row: asyncpg.Record = await until(lambda: sql.fetchrow(ENDED))
    return row


@pytest.mark.deep(after=3)
@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        Conflict("It is held by another."),
        NotFound("It is gone."),
        TimeoutError(),
        asyncio.CancelledError(),
    ],
)
@pytest.mark.parametrize("heals", [False, True])
async def test_operation_that_cannot_be_abandoned_fails(
    registry_url: str, sql: Sql, error: BaseException, heals: bool
) -> None:
    """After a number of tries, with a code, and its connection is FAILED rather than blocked."""
    saga = Broken(error)
    async with replica(registry_url, saga) as (_, operations):
        connection_id = await begin(operations, heals=heals)
        row = await ended(sql)

    assert (row["status"], row["response_status"]) == ("failed", 504)
    assert msgspec.json.decode(row["failure"])["code"] == "abandon_failed"
    assert saga.abandoned == 5
    connection = await sql.fetchrow("SELECT * FROM connections WHERE id = $1", connection_id)
    assert connection is not None
    shown = [connection[name] for name in ("status", "failure_code", "heal_id")]
    assert shown == ["FAILED", "abandon_failed", None]
    code = await sql.fetchval("SELECT code FROM events WHERE type = 'connection.failed'")
    assert code == "abandon_failed"


async def test_operation_that_kills_its_owners_is_abandoned_at_its_deadline(
    registry_url: str, sql: Sql
) -> None:
    """It has had a hundred owners."""

    class Deadly(Broken):
        runs = 0
        first: asyncio.Task[object] | None = None

        async def run(self, _operation: Operation) -> None:
            self.runs += 1
            self.first = asyncio.current_task()
            await over.wait()

        async def abandon(self, operation: Operation) -> None:
            async with db.transaction() as session:
                await operation.finish(session)

    over = asyncio.Event()
    saga = Deadly(KeyError())
    async with replica(registry_url, saga) as (db, operations):
        await begin(operations)
        await until(lambda: saga.runs)
        await sql.execute("UPDATE operations SET attempts = 200")
        await sql.execute(LEASE_OVER)
        row = await ended(sql)
        over.set()
        assert saga.first is not None
        await asyncio.wait({saga.first})
    assert (row["status"], saga.runs) == ("failed", 1)
    assert msgspec.json.decode(row["failure"])["code"] == "broken_deadline"


async def test_registry_outage_does_not_count_as_a_try(registry_url: str, sql: Sql) -> None:
    """What could not be recorded is recorded when it is back."""

    class Patient(Broken):
        async def abandon(self, operation: Operation) -> None:
            self.abandoned += 1
            if self.abandoned <= 8:
                raise Unavailable("The registry is away.")
            async with db.transaction() as session:
                await operation.finish(session)

    saga = Patient(KeyError())
    async with replica(registry_url, saga) as (db, operations):
        await begin(operations)
        row = await ended(sql)
    assert (row["status"], saga.abandoned) == ("failed", 9)
    assert msgspec.json.decode(row["failure"])["code"] != "abandon_failed"


async def test_registry_outage_before_a_try_does_not_count(
    registry_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is abandoned when the registry is back."""

    class Patient(Broken):
        async def abandon(self, operation: Operation) -> None:
            self.abandoned += 1
            async with db.transaction() as session:
                await operation.finish(session)

    note, lost = Operation.note, iter(range(8))

    async def away_at_first(self: Operation, reason: str) -> None:
        if next(lost, None) is not None:
            raise Unavailable("The registry is away.")
        await note(self, reason)

    monkeypatch.setattr(Operation, "note", away_at_first)
    saga = Patient(KeyError())
    async with replica(registry_url, saga) as (db, operations):
        await begin(operations)
        row = await ended(sql)
    assert (row["status"], saga.abandoned) == ("failed", 1)
    assert msgspec.json.decode(row["failure"])["code"] != "abandon_failed"


@pytest.mark.parametrize(
    "error", [Unavailable("Its row is locked."), UpstreamUnknown("Airbyte is away.")]
)
async def test_operation_that_can_never_be_abandoned_ends(
    registry_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The registry answers, and only this one cannot be abandoned: it ends later."""
    monkeypatch.setattr(_runner, "_MOST_BEGUN", 20)
    saga = Broken(error)
    async with replica(registry_url, saga) as (_, operations):
        await begin(operations)
        row = await ended(sql)
    assert msgspec.json.decode(row["failure"])["code"] == "abandon_failed"
    assert saga.abandoned == 20


async def test_unreadable_operation_blocks_no_other(registry_url: str, sql: Sql) -> None:
    """Whatever is wrong with its row: those after it are taken over."""

    class Short(Broken):
        async def run(self, operation: Operation) -> None:
            async with db.transaction() as session:
                await operation.finish(session)

    saga = Short(KeyError())
    async with replica(registry_url, saga) as (db, _):
        for name in ("a", "b"):
            connection = factories.connection()
            async with db.transaction() as session:
                await registry.insert_pending(session, connection)
            await sql.execute(_LEFT, connection.id, name)
        await sql.execute("UPDATE operations SET steps = '7' WHERE request_id = 'a'")
        await until(lambda: sql.fetchval(_IS_DONE))


_LEFT = """
    INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until, deadline,
        request_id)
    VALUES (gen_random_uuid(), 'broken', $1, 'running', '{}', 'intent', now() - interval '9 s',
        now() + interval '1 h', $2)
"""
_IS_DONE = "SELECT status = 'done' FROM operations WHERE request_id = 'b'"


async def test_periodic_task_survives_a_cancelled_dependency(
    registry_url: str,
) -> None:
    taken = 0
    again = asyncio.Event()

    async def take() -> None:
        nonlocal taken
        taken += 1
        if taken == 2:
            again.set()
        raise asyncio.CancelledError

    db = Database.at(
        Settings(_env_file=None, supabase_db_url=registry_url).registry_address, application="test"
    )
    async with periodic.repeating(db, periodic.PeriodicTask(take, timedelta(seconds=0.01))):
        async with asyncio.timeout(10):
            await again.wait()
    await db.close()


async def test_rare_tasks_run_first_some_seconds_after_the_start(
    registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts has more urgent work; a process that stops does not wait for it."""
    monkeypatch.setattr(periodic, "_RARE_AFTER_S", 0.5)
    began = asyncio.get_running_loop().time()
    runs: dict[str, float] = {}
    done = asyncio.Event()

    async def run(name: str) -> None:
        runs.setdefault(name, asyncio.get_running_loop().time() - began)
        if len(runs) == 2:
            done.set()

    def task(name: str, interval: timedelta) -> periodic.PeriodicTask:
        return periodic.PeriodicTask(lambda: run(name), interval)

    db = Database.at(
        Settings(_env_file=None, supabase_db_url=registry_url).registry_address, application="test"
    )
    often, rarely = task("often", timedelta(seconds=5)), task("rarely", timedelta(minutes=1))
    async with asyncio.timeout(10):
        async with periodic.repeating(db, often, rarely):
            await done.wait()
        monkeypatch.setattr(periodic, "_RARE_AFTER_S", 60)
        async with periodic.repeating(db, rarely):
            pass
    assert runs["often"] < 0.5 <= runs["rarely"]
    await db.close()
