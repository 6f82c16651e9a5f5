"""Connections to the run's Postgres that outlive a test, since opening one costs more than a test.

A backend of Postgres that is new takes about 30 ms of processor time until it has planned its first
statements, and a mesh would open two dozen of them. A Database that is closed leaves its engine,
with the connections that nobody uses, for the next one of the same login and settings.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import asyncpg
import pytest_asyncio
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from local import servers
from shared import telemetry
from shared.database import Database
from tests import leftovers

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_Key: TypeAlias = tuple[object, ...]


class Pools:
    """The engines of one server that nobody uses now."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[_Key, list[AsyncEngine]] = defaultdict(list)
        self._owners: list[Sql] = []
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

    async def owner(self, url: str) -> Sql:
        """The owner's connection, as new."""
        while self._owners:
            connection = self._owners.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(url)

    async def give_back(self, connection: Sql) -> None:
        """Keep the owner's connection for the next test."""
        if connection.is_closed():
            return
        await connection.reset()
        leftovers.share([connection])
        self._owners.append(connection)

    async def close(self) -> None:
        """Close them all."""
        for engine in [one for idle in self._idle.values() for one in idle]:
            await engine.dispose()
        for connection in self._owners:
            await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pools(postgres: servers.Postgres) -> AsyncIterator[Pools]:
    """Those of the run's own Postgres, from the first test on that needs it."""
    shared = Pools(postgres.port)
    opened, closed = Database.at.__func__, Database.close  # type: ignore[attr-defined]
    keys: dict[AsyncEngine, _Key] = {}

    def at(
        cls: type[Database], address: Any, *, application: str, connections: int = 20
    ) -> Database:
        key = (address, application, connections)
        if telemetry._Tracing.tracer is not None or not shared.shares(address.port):
            return opened(cls, address, application=application, connections=connections)
        engine = shared.engine_for(key)
        if engine is not None:
            return Database.on(engine, application=application)
        database = opened(cls, address, application=application, connections=connections)
        keys[database._engine] = key
        shared.watch(database._engine)
        return database

    async def close(self: Database) -> None:
        key = keys.get(self._engine) if self._engine is not None else None
        if key is None or asyncio.get_running_loop() is not shared._loop:
            await closed(self)
        else:
            await shared.park(key, self._engine)

    Database.at, Database.close = classmethod(at), close  # type: ignore[method-assign,assignment]
    try:
        yield shared
    finally:
        Database.at, Database.close = classmethod(opened), closed  # type: ignore[method-assign]
        await shared.close()
