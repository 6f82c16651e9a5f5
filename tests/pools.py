"""Connections to the run's Postgres that outlive a test, since opening one is expensive.

A new Postgres backend needs about 30 ms of CPU time until it has planned its first statements, and
a mesh would open two dozen. Closing a Database returns its engine, with its idle connections, to a
pool for the next Database with the same login and settings.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakSet

import asyncpg
import pytest_asyncio
from pgqueuer.core.qm import QueueManager
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from local.processes import servers
from shared.database import Database
from shared.job_queue import Jobs
from shared.observability import tracing
from tests import leftovers

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_Key: TypeAlias = tuple[object, ...]


class Pools:
    """Idle engines and connections of one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[_Key, list[AsyncEngine]] = defaultdict(list)
        self._spare: defaultdict[_Key, list[Sql]] = defaultdict(list)
        self._open: dict[AsyncEngine, set[Any]] = {}

    def engine_for(self, key: _Key) -> AsyncEngine | None:
        """Return an idle engine, or None."""
        return self._idle[key].pop() if self._idle[key] else None

    def watch(self, engine: AsyncEngine) -> None:
        """Track the engine's open connections."""
        held = self._open[engine] = set()
        event.listen(engine.sync_engine, "connect", lambda one, _: held.add(one.driver_connection))

    def shares(self, port: int) -> bool:
        """Whether a connection to this port from the current event loop may be pooled."""
        return port == self._port and asyncio._get_running_loop() is self._loop

    async def park(self, key: _Key, engine: AsyncEngine) -> None:
        """Make an engine available for reuse; dispose of it if it has checked-out connections."""
        if engine.pool.checkedout():  # type: ignore[attr-defined]
            await engine.dispose()
            return
        held = self._open[engine]
        held -= {one for one in held if one.is_closed()}
        leftovers.share(held)
        self._idle[key].append(engine)

    @asynccontextmanager
    async def connection(
        self, key: _Key, connect: Callable[[], Awaitable[Sql]]
    ) -> AsyncIterator[Sql]:
        """Yield an idle connection, which was reset, or a new one."""
        while self._spare[key] and self._spare[key][-1].is_closed():
            self._spare[key].pop()
        connection = self._spare[key].pop() if self._spare[key] else await connect()
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        await self._give_back(key, connection)

    async def _give_back(self, key: _Key, connection: Sql) -> None:
        try:
            async with asyncio.timeout(2):
                await connection.reset()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
            return
        leftovers.share([connection])
        self._spare[key].append(connection)

    async def close(self) -> None:
        """Close idle connections, for tests that change the defaults of new sessions."""
        engines, spare = [*self._idle.values()], [*self._spare.values()]
        self._idle.clear()
        self._spare.clear()
        for engine in itertools.chain(*engines):
            await engine.dispose()
        for connection in itertools.chain(*spare):
            await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pools(postgres: servers.Postgres) -> AsyncIterator[Pools]:
    """The pools of the run's Postgres; active from the first test that needs it."""
    shared = Pools(postgres.port)
    opened: Callable[..., Database] = Database.at.__func__  # type: ignore[attr-defined]
    closed = Database.close
    connected = Jobs._connection
    verify = QueueManager.verify_structure
    pooled: WeakSet[Sql] = WeakSet()
    verified: WeakSet[Sql] = WeakSet()
    keys: dict[AsyncEngine, _Key] = {}

    def at(
        cls: type[Database], address: Any, *, application: str, connections: int = 20
    ) -> Database:
        key = (address, application, connections)
        if tracing._Tracing.tracer is not None or not shared.shares(address.port):
            return opened(cls, address, application=application, connections=connections)
        engine = shared.engine_for(key)
        if engine is not None:
            return Database.on(engine, application=application)
        database = opened(cls, address, application=application, connections=connections)
        assert database._engine is not None
        keys[database._engine] = key
        shared.watch(database._engine)
        return database

    async def close(self: Database) -> None:
        engine = self._engine
        key = None if engine is None else keys.get(engine)
        if engine is None or key is None or asyncio.get_running_loop() is not shared._loop:
            await closed(self)
        else:
            await shared.park(key, engine)

    @asynccontextmanager
    async def connection(self: Jobs) -> AsyncIterator[Sql]:
        if not shared.shares(self._address.port):
            async with connected(self) as its_own:
                yield its_own
            return
        key = ("jobs", self._address, self._application)
        async with shared.connection(key, self._connect) as spare:
            pooled.add(spare)
            yield spare

    async def verify_once(self: QueueManager) -> None:
        connection: Sql = self.queries.driver._connection  # type: ignore[attr-defined]
        if connection not in verified:
            await verify(self)
            if connection in pooled:
                verified.add(connection)

    QueueManager.verify_structure = verify_once  # type: ignore[method-assign]
    Database.at, Database.close = classmethod(at), close  # type: ignore[method-assign,assignment]
    Jobs._connection = connection  # type: ignore[method-assign]
    try:
        yield shared
    finally:
        Database.at, Database.close = classmethod(opened), closed  # type: ignore[method-assign,assignment]
        Jobs._connection = connected  # type: ignore[method-assign]
        QueueManager.verify_structure = verify  # type: ignore[method-assign]
        await shared.close()
