"""Background work on PgQueuer: jobs put into the caller's own transaction, run by any replica.

A job is a nudge to look at a row, never the only record of something to be done: one that is lost
or comes twice delays or repeats a look. Its worker needs LISTEN, so no transaction pooler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared import logs
from shared.config import PostgresAddress
from shared.database import connect_arguments
from shared.errors import AamError

log = logs.get(__name__)

Handler = Callable[[str], Awaitable[None]]

_AGAIN_AFTER_S = 1.0
_STOP_WITHIN_S = 1.5
_LONGEST_PAUSE = timedelta(seconds=5)
"""How long a worker waits for a notification before it looks whether a job is there."""
_KEPT = timedelta(days=1)


class Jobs:
    """The queue; one instance per process and event loop."""

    def __init__(self, address: PostgresAddress, *, application: str) -> None:
        self._address = address
        self._application = application
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self._stopping = asyncio.Event()
        self._manager: QueueManager | None = None
        logging.getLogger("pgqueuer").setLevel(logging.ERROR)

    def on(self, entrypoint: str, handler: Handler, *, at_once: int) -> None:
        """Have this process run the jobs of an entrypoint; `at_once` is over all replicas."""
        self._handlers[entrypoint] = (handler, at_once)

    async def enqueue(
        self, session: AsyncSession, entrypoint: str, payload: str, *, after: timedelta
    ) -> None:
        """Add a job to the caller's transaction: it rolls back with it. One statement."""
        # What SQLAlchemy has not begun yet, the raw connection would commit by itself.
        await session.flush()
        connection = await session.connection()
        if not connection.in_transaction():
            raise RuntimeError("A job is enqueued within a transaction.")
        raw = await connection.get_raw_connection()
        driver = AsyncpgDriver(raw.driver_connection)  # type: ignore[arg-type]  # asyncpg's own
        await Queries(driver).enqueue(entrypoint, payload.encode(), execute_after=after)

    async def prune(self, session: AsyncSession) -> None:
        """Forget PgQueuer's own log of jobs that ended long ago."""
        await session.execute(_PRUNE, {"kept": _KEPT})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run jobs within; at the end, those under way are finished."""
        task = asyncio.create_task(self._keep_working())
        try:
            yield
        finally:
            self.stop()
            _, late = await asyncio.wait({task}, timeout=_STOP_WITHIN_S)
            for one in late:
                one.cancel()
                await asyncio.wait(late, timeout=1)

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopping.set()
        if self._manager is not None:
            self._manager.shutdown.set()

    async def _keep_working(self) -> None:
        """Work until the process stops, also when Postgres is away for a while."""
        away = False
        while not self._stopping.is_set():
            try:
                async with self._connection() as connection:
                    if away:
                        log.info("jobs_resumed")
                    away = False
                    await self._work(connection)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RuntimeError) as error:
                # RuntimeError: PgQueuer's word for tables that are not migrated yet.
                if not away:
                    log.warning("jobs_paused", cause=type(error).__name__)
                away = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_AFTER_S):
                    await self._stopping.wait()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await asyncpg.connect(
            host=self._address.host,
            port=self._address.port,
            user=self._address.user,
            password=self._address.password,
            database=self._address.database,
            server_settings={"application_name": f"aam-{self._application}-jobs"},
            **connect_arguments(self._address),
        )
        try:
            yield connection
        finally:
            with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=2)

    async def _work(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        manager = QueueManager(Queries(AsyncpgDriver(connection)))
        for entrypoint, (handler, at_once) in self._handlers.items():
            manager.entrypoint(entrypoint, concurrency_limit=at_once)(_executed(handler))
        self._manager = manager
        if self._stopping.is_set():
            return
        working = asyncio.create_task(
            manager.run(
                dequeue_timeout=_LONGEST_PAUSE,
                heartbeat_timeout=timedelta(seconds=10),
                shutdown_on_listener_failure=True,
            )
        )
        gone = asyncio.create_task(lost.wait())
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working}, timeout=1)
            raise OSError("The connection to the registry was lost.")
        await working


_PRUNE = text("""
    WITH statistics AS (
        DELETE FROM pgqueuer_statistics WHERE created < now() - CAST(:kept AS interval)
    )
    DELETE FROM pgqueuer_log WHERE created < now() - CAST(:kept AS interval)
""")


def _executed(handler: Handler) -> Callable[[Job], Awaitable[None]]:
    async def execute(job: Job) -> None:
        try:
            await handler((job.payload or b"").decode())
        except AamError as error:
            # What the job was to look at is found by the schedule that looks for the lost.
            log.warning("job_failed", entrypoint=job.entrypoint, code=error.code)

    return execute
