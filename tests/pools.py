"""Connections to the run's Postgres that outlive a test, since opening one costs more than a test.

A new Postgres backend takes about 30 ms of processor time until it has planned its first
statements, and a mesh would open two dozen of them. Closing a Database keeps its engine, with its
idle connections, for the next Database with the same login and settings.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest_asyncio
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from local.processes import servers
from shared.database import Database
from shared.jobs import Jobs
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
        """One that is idle."""
        return self._idle[key].pop() if self._idle[key] else None

    def watch(self, engine: AsyncEngine) -> None:
        """Know what it has open."""
        held = self._open[engine] = set()
        event.listen(engine.sync_engine, "connect", lambda one, _: held.add(one.driver_connection))

    def shares(self, port: int) -> bool:
        """Whether it is this server's, and asked for in the tests' own event loop."""
        return port == self._port and asyncio._get_running_loop() is self._loop

    async def park(self, key: _Key, engine: AsyncEngine) -> None:
        """Keep it for the next one; of what somebody still uses, nothing is kept."""
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
        """An idle connection, reset, or a new one where none is idle."""
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
        """Close what is idle, as a test does that changes what new sessions begin with."""
        engines, spare = [*self._idle.values()], [*self._spare.values()]
        self._idle.clear()
        self._spare.clear()
        for engine in itertools.chain(*engines):
            await engine.dispose()
        for connection in itertools.chain(*spare):
            await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pools(postgres: servers.Postgres) -> AsyncIterator[Pools]:
    """Those of the run's own Postgres, from the first test on that needs it."""
    shared = Pools(postgres.port)
    opened: Callable[..., Database] = Database.at.__func__  # type: ignore[attr-defined]
    closed = Database.close
    connected = Jobs._connection
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
            yield spare

    Database.at, Database.close = classmethod(at), close  # type: ignore[method-assign,assignment]
    Jobs._connection = connection  # type: ignore[method-assign]
    try:
        yield shared
    finally:
        Database.at, Database.close = classmethod(opened), closed  # type: ignore[method-assign,assignment]
        Jobs._connection = connected  # type: ignore[method-assign]
        await shared.close()
