"""Background jobs on PgQueuer: enqueued in the caller's transaction, run by any replica.

A job only triggers the check of a row, and is never the only record of work: if it is lost or
repeated, the check is delayed or repeated. The worker needs LISTEN, so it cannot use a transaction
pooler.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg
from opentelemetry.trace import SpanKind
from pgqueuer.adapters.persistence.qb import QueryQueueBuilder
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.domain.settings import DBSettings
from pgqueuer.errors import FailingListenerError, RetryRequested
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared import batches
from shared.database import connect_arguments, session_settings
from shared.errors import AamError
from shared.observability import logs, metrics, tracing
from shared.postgres_address import PostgresAddress

log = logs.get(__name__)

Handler = Callable[[str], Awaitable[None]]

_SETTINGS = DBSettings(db_schema="public")
"""The search path of a transaction of a limited caller does not have the queue's schema."""

_AGAIN_AFTER_S = 1.0
_STOP_WITHIN_S = 1.5
_BREAK_OFF_WITHIN_S = 0.5
_CLOSED_WITHIN_S = 0.25
_LONGEST_PAUSE = timedelta(seconds=5)
"""How long a worker waits for a notification before it polls for jobs."""
_RETENTION = timedelta(days=1)
_PRUNE_BATCH_SIZE = 20_000


class Jobs:
    """The job queue; one instance per process and event loop."""

    def __init__(self, address: PostgresAddress, *, application: str) -> None:
        self._address = address
        self._application = application
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        logging.getLogger("pgqueuer").setLevel(logging.ERROR)

    def on(self, entrypoint: str, handler: Handler, *, at_once: int) -> None:
        """Register a handler for an entrypoint; `at_once` limits concurrency over all replicas.

        A job whose handler raises is logged and not retried, so every entrypoint needs a periodic
        task that finds the unfinished rows. A job that still runs when its worker stops is
        cancelled, and run again from its start.
        """
        self._handlers[entrypoint] = (handler, at_once)

    async def enqueue(
        self, session: AsyncSession, entrypoint: str, payload: str, *, after: timedelta
    ) -> None:
        """Add a job in the caller's transaction, with one statement."""
        await self.enqueue_many(session, entrypoint, [payload], after=after)

    async def enqueue_many(
        self, session: AsyncSession, entrypoint: str, payloads: Sequence[str], *, after: timedelta
    ) -> None:
        """Add a job for each payload in the caller's transaction, with one statement."""
        if not payloads:
            return
        count = len(payloads)
        queries = Queries(
            _InTransaction(session),  # type: ignore[arg-type]  # all that it uses
            qbq=QueryQueueBuilder(settings=_SETTINGS),
        )
        await queries.enqueue(
            [entrypoint] * count,
            [payload.encode() for payload in payloads],
            [0] * count,
            [after] * count,
            headers=[_cause()] * count,
        )

    async def prune(self, session: AsyncSession) -> None:
        """Delete the oldest entries of PgQueuer's log and statistics that are over a day old."""
        await session.execute(_PRUNE, {"retention": _RETENTION, "limit": _PRUNE_BATCH_SIZE})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run jobs within the block; on exit, running ones may finish for a moment."""
        task = asyncio.create_task(self._work_until_stopped())
        try:
            yield
        finally:
            self.stop()
            await asyncio.wait({task}, timeout=_STOP_WITHIN_S + 3 * _BREAK_OFF_WITHIN_S)
            task.cancel()
            await asyncio.wait({task}, timeout=_BREAK_OFF_WITHIN_S)

    def stop(self) -> None:
        """Accept no more jobs."""
        self._stopping.set()

    async def _work_until_stopped(self) -> None:
        """Work until the process stops, and reconnect after outages of Postgres."""
        away = False
        while not self._stopping.is_set():
            try:
                async with self._connection() as connection:
                    manager = self._manager(connection)
                    await manager.verify_structure()
                    if away:
                        log.info("jobs_resumed")
                    away = False
                    await self._work(manager, connection)
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                FailingListenerError,
                RuntimeError,  # raised by PgQueuer if its tables do not exist yet
            ) as error:
                if not away:
                    log.warning("jobs_paused", cause=type(error).__name__)
                away = True
            except Exception:  # the outermost loop of a worker: its end would leave every job
                log.exception("bug")
                away = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_AFTER_S):
                    await self._stopping.wait()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await self._connect()
        try:
            yield connection
        finally:
            with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=2)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host=self._address.host,
            port=self._address.port,
            user=self._address.user,
            password=self._address.password,
            database=self._address.database,
            server_settings=session_settings(f"{self._application}-jobs"),
            **connect_arguments(self._address),
        )

    def _manager(self, connection: asyncpg.Connection[asyncpg.Record]) -> QueueManager:
        manager = QueueManager(Queries(AsyncpgDriver(connection)))
        for entrypoint, (handler, at_once) in self._handlers.items():
            manager.entrypoint(entrypoint, concurrency_limit=at_once)(self._executed(handler))
        return manager

    async def _work(
        self, manager: QueueManager, connection: asyncpg.Connection[asyncpg.Record]
    ) -> None:
        """Run jobs until the process stops or the connection is lost."""
        working = asyncio.create_task(
            manager.run(
                dequeue_timeout=_LONGEST_PAUSE,
                heartbeat_timeout=timedelta(seconds=10),
                shutdown_on_listener_failure=True,
            )
        )
        ends = [
            asyncio.create_task(end)
            for end in (_closed(connection), self._stopping.wait(), manager.shutdown.wait())
        ]
        try:
            await asyncio.wait({working, *ends}, return_when=asyncio.FIRST_COMPLETED)
            manager.shutdown.set()
            await asyncio.wait({working}, timeout=_STOP_WITHIN_S)
            await _cancel_and_wait(self._under_way)
            await asyncio.wait({working}, timeout=_BREAK_OFF_WITHIN_S)
        finally:
            await _cancel_and_wait({working, *ends})
        ended = working.exception() if working.done() and not working.cancelled() else None
        if connection.is_closed():
            raise OSError("The connection to the registry was lost.") from ended
        if ended is not None:
            raise ended

    def _executed(self, handler: Handler) -> Callable[[Job], Awaitable[None]]:
        async def handle(job: Job) -> None:
            cause = {name: str(value) for name, value in (job.headers or {}).items()}
            began, outcome = time.perf_counter(), "done"
            with (
                logs.caused_by(cause.get("request_id")),
                tracing.span(
                    f"job {job.entrypoint}",
                    kind=SpanKind.CONSUMER,
                    parent=cause,
                    request_id=logs.request_id(),
                ),
            ):
                try:
                    await handler((job.payload or b"").decode())
                except AamError as error:
                    outcome = "failed"
                    log.warning("job_failed", entrypoint=job.entrypoint, code=error.code)
                except asyncio.CancelledError as error:
                    if batches.is_cancellation(error):
                        raise
                    outcome = "bug"
                    log.exception("bug", entrypoint=job.entrypoint)
                except Exception:  # the outermost loop of a job: PgQueuer would store the message
                    outcome = "bug"
                    log.exception("bug", entrypoint=job.entrypoint)
            seconds = time.perf_counter() - began
            metrics.JOBS.labels(entrypoint=job.entrypoint, outcome=outcome).observe(seconds)

        async def execute(job: Job) -> None:
            task = asyncio.create_task(handle(job))
            self._under_way.add(task)
            try:
                await task
            except asyncio.CancelledError:
                raise RetryRequested(reason="The worker ended.") from None
            finally:
                self._under_way.discard(task)

        return execute


def _cause() -> dict[str, str]:
    """A job's headers: the current request id and trace."""
    request_id = logs.request_id()
    return ({"request_id": request_id} if request_id else {}) | tracing.traceparent()


class _InTransaction:
    """The part of a PgQueuer driver that enqueueing needs, on a SQLAlchemy session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        connection = await self._session.connection()
        found = await connection.exec_driver_sql(query, args)
        return [dict(row) for row in found.mappings()]


async def _closed(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Wait until a connection is lost; asyncpg does not notify its listeners of every loss."""
    while not connection.is_closed():  # noqa: ASYNC110 (asyncpg has a flag for it, no event)
        await asyncio.sleep(_CLOSED_WITHIN_S)


async def _cancel_and_wait(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait briefly for them to end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_BREAK_OFF_WITHIN_S)


_PRUNE = text("""
    WITH statistics AS (
        DELETE FROM pgqueuer_statistics WHERE id IN (
            SELECT id FROM pgqueuer_statistics WHERE created < now() - CAST(:retention AS interval)
            ORDER BY id LIMIT :limit
        )
    )
    DELETE FROM pgqueuer_log WHERE id IN (
        SELECT id FROM pgqueuer_log WHERE created < now() - CAST(:retention AS interval)
        ORDER BY created LIMIT :limit
    )
""")
