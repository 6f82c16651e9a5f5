"""Jobs go with their transaction; their worker outlives bugs and a registry that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import structlog
from pgqueuer.core.qm import QueueManager
from sqlalchemy import text
from structlog.testing import LogCapture

from local.processes import servers
from shared import job_queue
from shared.database import Database
from shared.errors import NotFound, Unavailable
from shared.job_queue import Handler, Jobs
from shared.postgres_address import postgres_address
from tests.integration.conftest import migrate
from tests.pools import Pools
from tests.waiting import until

Sql = Any
CANARY = "AAMCANARY-payload"
NOW = timedelta(0)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the queue logs meanwhile."""
    capture = LogCapture()
    logger = structlog.wrap_logger(
        None, processors=[capture], wrapper_class=structlog.stdlib.BoundLogger
    )
    monkeypatch.setattr(job_queue, "log", logger)
    return capture


def events(logged: LogCapture) -> list[str]:
    """The names of what was logged, oldest first."""
    return [entry["event"] for entry in logged.entries]


def queue(url: str, **handlers: Handler) -> Jobs:
    """A process's queue with the handlers of these entrypoints."""
    one = Jobs(postgres_address(url), application="test")
    for entrypoint, handler in handlers.items():
        one.on(entrypoint, handler, at_once=5)
    return one


async def add(db: Database, entrypoint: str, payload: str) -> None:
    async with db.transaction() as session:
        await queue("postgresql://h/d").enqueue(session, entrypoint, payload, after=NOW)


class Seen:
    """A handler that notes what it was given."""

    def __init__(self) -> None:
        self.payloads: list[str] = []

    async def __call__(self, payload: str) -> None:
        self.payloads.append(payload)


# Enqueueing


@pytest.mark.parametrize("before", [None, "SELECT 1"])
async def test_job_is_rolled_back_with_its_transaction(
    registry_url: str, db: Database, sql: Sql, before: str | None
) -> None:
    """Also as the first statement of the transaction."""
    one = queue(registry_url)
    with pytest.raises(NotFound):  # noqa: PT012 (the rollback is the block's end)
        async with db.transaction() as session:
            if before is not None:
                await session.execute(text(before))
            await one.enqueue(session, "look", "rolled back", after=NOW)
            await one.enqueue_many(session, "look", ["rolled", "back"], after=NOW)
            raise NotFound("What the transaction was about is gone.")
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0


async def test_many_jobs_are_one_statement(registry_url: str, db: Database, sql: Sql) -> None:
    """Committed together, each with its payload and due time; an empty list adds none."""
    async with db.transaction() as session:
        await queue(registry_url).enqueue_many(
            session, "look", [f"ä{number}" for number in range(1000)], after=timedelta(hours=1)
        )
        await queue(registry_url).enqueue_many(session, "look", [], after=NOW)

    assert await sql.fetchval("SELECT count(DISTINCT payload) FROM pgqueuer") == 1000
    row = await sql.fetchrow(
        "SELECT entrypoint, convert_from(payload, 'UTF8') AS payload,"
        " execute_after - created AS after FROM pgqueuer ORDER BY id LIMIT 1"
    )
    assert tuple(row) == ("look", "ä0", timedelta(hours=1))


async def test_enqueueing_without_postgres_is_unavailable(
    registry_url: str, db: Database, sql: Sql
) -> None:
    """Nothing was recorded, and the driver's message is not shown."""
    with pytest.raises(Unavailable) as caught:  # noqa: PT012 (the transaction is the block)
        async with db.transaction() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            await sql.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
            await queue(registry_url).enqueue(session, "look", CANARY, after=NOW)
    assert CANARY not in f"{caught.value.problem()} {caught.value.__cause__!r}"
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0


# Working


@pytest.mark.parametrize("bug", [ValueError, asyncio.CancelledError])
async def test_bug_ends_its_own_job_only(
    registry_url: str, db: Database, sql: Sql, logged: LogCapture, bug: type[BaseException]
) -> None:
    """It is logged; Postgres keeps nothing of the exception; the next job is run."""
    seen = Seen()

    async def broken(payload: str) -> None:
        raise bug(payload)

    async with queue(registry_url, broken=broken, seen=seen).running():
        await add(db, "broken", CANARY)
        await until(lambda: "bug" in events(logged))
        await add(db, "seen", "next")
        await until(lambda: seen.payloads == ["next"])
        await until(lambda: sql.fetchval("SELECT NOT EXISTS (SELECT FROM pgqueuer)"))

    assert logged.entries == [
        {"event": "bug", "entrypoint": "broken", "log_level": "error", "exc_info": True}
    ]
    rows = await sql.fetch("SELECT row_to_json(l)::text AS row FROM pgqueuer_log l")
    assert len(rows) >= 2
    assert CANARY not in "".join(row["row"] for row in rows)
    assert await sql.fetchval("SELECT count(traceback) FROM pgqueuer_log") == 0


@pytest.mark.process
async def test_unmigrated_registry_is_logged_once(
    own_postgres: servers.Postgres, logged: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when the worker pauses, and one when it continues."""
    monkeypatch.setattr(job_queue, "_AGAIN_AFTER_S", 0.05)
    seen, looks, verify = Seen(), 0, QueueManager.verify_structure

    async def counted(manager: QueueManager) -> None:
        nonlocal looks
        looks += 1
        await verify(manager)

    monkeypatch.setattr(QueueManager, "verify_structure", counted)
    db = Database.at(postgres_address(own_postgres.services_url), application="test")
    async with queue(own_postgres.services_url, seen=seen).running():
        await until(lambda: looks > 3)
        assert events(logged) == ["jobs_paused"]
        await asyncio.to_thread(migrate, own_postgres.url)
        await add(db, "seen", "migrated")
        await until(lambda: seen.payloads == ["migrated"])
        own_postgres.stop()
        own_postgres.start()
        await add(db, "seen", "restarted")
        await until(lambda: "restarted" in seen.payloads)
    await db.close()

    assert events(logged) == ["jobs_paused", "jobs_resumed"] * 2


@asynccontextmanager
async def without_notifications(sql: Sql, pools: Pools) -> AsyncIterator[None]:
    """Sessions that begin within get no notification: another pg_notify takes theirs."""
    await pools.close()
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute("CREATE SCHEMA deaf")
    await sql.execute("GRANT USAGE ON SCHEMA deaf TO PUBLIC")
    await sql.execute(
        "CREATE FUNCTION deaf.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'"
    )
    await sql.execute(f"ALTER DATABASE {name} SET search_path = public, deaf, pg_catalog")
    try:
        yield
    finally:
        await sql.execute(f"ALTER DATABASE {name} RESET search_path")
        await sql.execute("DROP SCHEMA deaf CASCADE")


async def test_worker_reconnects_without_notifications(
    registry_url: str,
    pools: Pools,
    db: Database,
    sql: Sql,
    logged: LogCapture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PgQueuer gives up a connection that brings no notifications; the next one is tried."""
    check = QueueManager._run_periodic_health_check
    monkeypatch.setattr(check, "__defaults__", (timedelta(seconds=0.2),))
    monkeypatch.setattr(job_queue, "_LONGEST_PAUSE", timedelta(seconds=0.2))
    monkeypatch.setattr(job_queue, "_AGAIN_AFTER_S", 0.05)
    seen = Seen()
    async with without_notifications(sql, pools):
        working = queue(registry_url, seen=seen).running()
        await working.__aenter__()
        await until(lambda: events(logged).count("jobs_paused") > 1)
    assert {entry.get("cause") for entry in logged.entries} == {None, "FailingListenerError"}

    await add(db, "seen", "heard")
    await until(lambda: seen.payloads == ["heard"])
    await working.__aexit__(None, None, None)


# Stopping


async def test_stop_cancels_a_hanging_job(registry_url: str, db: Database, sql: Sql) -> None:
    """Within its bound, and another replica runs the job again."""
    began, seen = asyncio.Event(), Seen()

    async def hanging(_payload: str) -> None:
        began.set()
        await asyncio.Event().wait()

    clock = asyncio.get_running_loop().time
    async with queue(registry_url, look=hanging).running():
        await add(db, "look", "hangs")
        await began.wait()
        stopped = clock()
    assert clock() - stopped < 4

    async with queue(registry_url, look=seen).running():
        await until(lambda: seen.payloads == ["hangs"])
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0


async def test_hanging_job_is_cancelled_when_the_worker_loses_its_connection(
    registry_url: str, db: Database, sql: Sql
) -> None:
    began, seen = asyncio.Event(), Seen()

    async def hanging(_payload: str) -> None:
        began.set()
        await asyncio.Event().wait()

    async with queue(registry_url, look=hanging, seen=seen).running():
        await add(db, "look", "hangs")
        await began.wait()
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'aam-test-jobs'"
        )
        await add(db, "seen", "after")
        await until(lambda: seen.payloads == ["after"])


async def test_stop_lets_a_running_job_finish(registry_url: str, db: Database, sql: Sql) -> None:
    began, seen = asyncio.Event(), Seen()

    async def short(payload: str) -> None:
        began.set()
        await asyncio.sleep(0.5)
        await seen(payload)

    async with queue(registry_url, look=short).running():
        await add(db, "look", "short")
        await began.wait()
    assert seen.payloads == ["short"]
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 0
