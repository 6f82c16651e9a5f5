"""Jobs on the queue: with their transaction or not at all, run once, and again if one dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import Engine, event, text
from structlog.testing import capture_logs

from local import servers
from shared import background, jobs
from shared.background import Look
from shared.config import PostgresAddress, postgres_address
from shared.database import Database
from shared.errors import Unavailable
from shared.jobs import Jobs
from tests.integration.conftest import REPOSITORY, migrate

Sql = Any
NOW = timedelta(0)
CANARY = "AAMCANARY-job"


class Worker:
    """One process's queue and registry, and what its jobs did."""

    def __init__(self, url: str, *, takes: float = 0.0, works: bool = True) -> None:
        self.address: PostgresAddress = postgres_address(url)
        self.db = Database.at(self.address, application="test")
        self.jobs = Jobs(self.address, application="test")
        self.takes = takes
        self.ran: list[tuple[str, float]] = []
        self.began = asyncio.Event()
        self.failing: list[Exception] = []
        if works:
            self.jobs.on("test", self._run, at_once=10)

    async def _run(self, payload: str) -> None:
        self.began.set()
        if self.failing:
            raise self.failing.pop(0)
        await asyncio.sleep(self.takes)
        self.ran.append((payload, asyncio.get_running_loop().time()))

    @property
    def payloads(self) -> list[str]:
        return [payload for payload, _ in self.ran]

    async def enqueue(self, payload: str = "x", *, after: timedelta = NOW) -> float:
        """Enqueue in a transaction of its own; the time when that was committed."""
        async with self.db.transaction() as session:
            await self.jobs.enqueue(session, "test", payload, after=after)
        return asyncio.get_running_loop().time()


@asynccontextmanager
async def worker(url: str, *, takes: float = 0.0, runs: bool = True) -> AsyncIterator[Worker]:
    one = Worker(url, takes=takes)
    if runs:
        async with one.jobs.running():
            yield one
    else:
        yield one
    await one.db.close()


async def until(what: Callable[[], bool], *, within: float) -> float:
    """Wait for it; how long that took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 (another task's doing)
            await asyncio.sleep(0.01)
    return clock() - began


async def until_sql(sql: Sql, condition: str, *, within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while not await sql.fetchval(f"SELECT {condition}"):  # noqa: ASYNC110, S608
            await asyncio.sleep(0.02)


@contextmanager
def telling() -> Iterator[list[str]]:
    """The words of the queue's own log lines, and of PgQueuer's, while within."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(f"{record.name}: {record.getMessage()} {record.exc_info}")

    listener, logger = Listener(), logging.getLogger("pgqueuer")
    logger.addHandler(listener)
    bare = jobs.log
    try:
        with capture_logs() as lines:
            jobs.log = bare.new()  # one that was cached by an earlier test would not be captured
            yield told
            told += [str(line["event"]) for line in lines]
    finally:
        jobs.log = bare
        logger.removeHandler(listener)


# Within the caller's transaction


async def test_a_rolled_back_job_never_was(registry_url: str, sql: Sql) -> None:
    """Although nothing else was said in the transaction before."""
    async with worker(registry_url, runs=False) as one:
        with pytest.raises(ZeroDivisionError):
            async with one.db.transaction() as session:
                await one.jobs.enqueue(session, "test", "x", after=NOW)
                raise ZeroDivisionError
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer_log") == 0


async def test_a_job_is_seen_with_its_commit_and_not_before(registry_url: str, sql: Sql) -> None:
    async with worker(registry_url) as one:
        async with one.db.transaction() as session:
            await session.execute(text("SELECT 1"))
            await one.jobs.enqueue(session, "test", "x", after=NOW)
            await asyncio.sleep(0.3)
            assert one.payloads == []
        await until(lambda: one.payloads == ["x"], within=2)


async def test_a_job_costs_one_statement(registry_url: str, sql: Sql) -> None:
    """Counted where Postgres reads them; the transaction had begun."""
    seen: list[str] = []
    async with worker(registry_url, runs=False) as one, one.db.transaction() as session:
        await session.execute(text("SELECT 1"))
        raw: Any = await (await session.connection()).get_raw_connection()
        driver = raw.driver_connection
        count = lambda query: seen.append(query.query)  # noqa: E731 (asyncpg compares them)
        driver.add_query_logger(count)
        await one.jobs.enqueue(session, "test", "x", after=NOW)
        driver.remove_query_logger(count)
    assert len(seen) == 1, seen
    assert "INSERT INTO pgqueuer " in " ".join(seen[0].split())


async def test_a_registry_that_goes_away_meanwhile_is_unavailable(
    registry_url: str, sql: Sql
) -> None:
    """So the caller learns that nothing was recorded."""
    async with worker(registry_url, runs=False) as one:
        with pytest.raises(Unavailable):
            async with one.db.transaction() as session:
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                await sql.execute("SELECT pg_terminate_backend($1, 2000)", pid)
                await one.jobs.enqueue(session, "test", "x", after=NOW)
        await one.enqueue("after")
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 1


# Run at its time, by one


@pytest.mark.exact
async def test_a_job_runs_at_its_time_on_one_of_two(registry_url: str, sql: Sql) -> None:
    async with worker(registry_url) as one, worker(registry_url) as other:
        enqueued = [await one.enqueue(str(n), after=timedelta(seconds=1.5)) for n in range(20)]
        soon = await other.enqueue("soon")
        await until(lambda: len(one.ran) + len(other.ran) == 21, within=5)
        await asyncio.sleep(0.5)
    ran = dict(one.ran + other.ran)
    assert len(one.ran) + len(other.ran) == len(ran) == 21
    assert ran.pop("soon") - soon < 0.5
    late = [ran[str(n)] - at - 1.5 for n, at in enumerate(enqueued)]
    assert -0.05 < min(late)
    assert max(late) < 1.2
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0


@pytest.mark.exact
async def test_many_deferred_jobs_do_not_slow_one_that_is_due(registry_url: str, sql: Sql) -> None:
    async with worker(registry_url) as one:

        async def pick(name: str) -> float:
            at = await one.enqueue(name)
            await until(lambda: name in one.payloads, within=3)
            return dict(one.ran)[name] - at

        few = sorted([await pick(f"few {n}") for n in range(20)])
        await sql.execute("""
            INSERT INTO pgqueuer (priority, entrypoint, payload, status, execute_after)
            SELECT 0, 'test', 'later', 'queued', now() + interval '1 h' + n * interval '1 s'
            FROM generate_series(1, 10000) n
        """)
        many = sorted([await pick(f"many {n}") for n in range(20)])
    assert many[10] < 3 * few[10] + 0.02, (few[10], many[10])
    assert "later" not in one.payloads
    await sql.execute("TRUNCATE pgqueuer")


@pytest.mark.exact
async def test_an_idle_worker_asks_little(registry_url: str, sql: Sql) -> None:
    """Statements of its one connection over ten seconds, two in a second at most."""
    async with worker(registry_url):
        await asyncio.sleep(0.5)
        before = await sql.fetchval(_WORKERS_STATEMENTS)
        await asyncio.sleep(10)
        after = await sql.fetchval(_WORKERS_STATEMENTS)
    # Each statement is a transaction; the few that the test's own asking makes count too.
    assert 0 < after - before <= 20


_WORKERS_STATEMENTS = """
    SELECT pg_stat_clear_snapshot(), xact_commit FROM pg_stat_database
    WHERE datname = current_database()
"""


# What fails


async def test_a_handlers_bug_is_told_and_its_job_comes_again(
    registry_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause; what the exception said is in no table."""
    monkeypatch.setattr(jobs, "_FIRST_RETRY", timedelta(seconds=0.5))
    async with worker(registry_url) as one:
        one.failing = [ValueError(CANARY), Unavailable("The registry is away.")]
        with telling() as told:
            at = await one.enqueue()
            await until(lambda: one.payloads == ["x"], within=5)
        assert one.ran[0][1] - at > 1.4  # 0.5 and then 1 second
        assert told == ["bug", "job_failed"]
        await until_sql(sql, "count(*) = 0 FROM pgqueuer")
    for table in ("pgqueuer", "pgqueuer_log"):
        assert not await sql.fetchval(
            f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%'",  # noqa: S608
            CANARY,
        )


async def test_a_job_that_always_fails_is_given_up(
    registry_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_FIRST_RETRY", timedelta(0))
    monkeypatch.setattr(jobs, "_TRIES", 3)
    async with worker(registry_url) as one:
        one.failing = [ValueError(str(n)) for n in range(9)]
        with telling() as told:
            await one.enqueue()
            await until(lambda: len(one.failing) == 6, within=5)
            await until_sql(sql, "count(*) = 0 FROM pgqueuer")
    assert one.payloads == []
    assert told == ["bug", "bug", "bug", "job_given_up"]


_KILLED = """
import asyncio, sys
from datetime import timedelta
from tests.integration.test_jobs import Worker

async def main():
    one = Worker(sys.argv[1], takes=60)
    async with one.jobs.running():
        await one.enqueue("left")
        await one.began.wait()
        print("began", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_workers_job_is_run_by_another(registry_url: str, sql: Sql) -> None:
    """Within what a heartbeat may be late, and one poll."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, registry_url], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        began = await asyncio.to_thread(process.stdout.readline)
        os.kill(process.pid, signal.SIGKILL)
        assert began == b"began\n"
    assert await sql.fetchval("SELECT status::text FROM pgqueuer") == "picked"
    async with worker(registry_url) as other:
        await until(lambda: other.payloads == ["left"], within=17)
        await until_sql(sql, "count(*) = 0 FROM pgqueuer")


# Postgres goes and comes


async def test_work_goes_on_when_postgres_is_back(own_postgres: servers.Postgres) -> None:
    """A line when it is away, a line when it is back; the job under way is not lost."""
    migrate(own_postgres.url)
    async with worker(own_postgres.url, takes=0.2) as one:
        await one.enqueue("before")
        await until(lambda: one.payloads == ["before"], within=3)
        await one.enqueue("deferred", after=timedelta(seconds=1))
        with telling() as told:
            own_postgres.stop()
            await asyncio.sleep(3)
            own_postgres.start()
            async with asyncio.timeout(10):
                while "jobs_resumed" not in await _lines(told):
                    await asyncio.sleep(0.05)
            await one.enqueue("after")
            await until(lambda: {"deferred", "after"} <= set(one.payloads), within=5)
        assert told == ["jobs_paused", "jobs_resumed"]
