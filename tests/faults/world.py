"""A disposable world: real servers, real service processes, a scriptable Airbyte."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from redis.asyncio import Redis

from local.processes import servers
from local.processes.fork_server import ForkedProcess, ForkServer
from shared.outbox import STREAM
from tests import access, leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.faults import oracles
from tests.integration.conftest import (
    CREDENTIALS,
    DESTINATION_ID,
    ORDER,
    REPOSITORY,
    add_destination,
    broker_for,
    empty,
    migrate,
    serving,
)

T_CALL, T_QUIET, T_DEADLINE = 0.5, 0.5, 12.0
"""Seconds: timeout of an Airbyte call, in-flight window, deadline of an operation."""
T_CONVERGED = T_DEADLINE + 8
TIMES = {
    "AIRBYTE_TIMEOUT": str(T_CALL),
    "DISCOVER_TIMEOUT": str(T_CALL),
    "PEER_TIMEOUT": str(T_CALL),
    "IN_FLIGHT_WINDOW": str(T_QUIET),
    "OPERATION_DEADLINE": str(T_DEADLINE),
    "SWEEP_GRACE": "1",
    "SWEEP_INTERVAL": "1",
    "RECONCILE_INTERVAL": "1",
    "ON_UPSTREAM_DRIFT": "reapply",
    "JOB_POLL_INTERVAL": "0.2",
    "EVENT_RELAY_INTERVAL": "0.1",
}


_SHARED_MODULES = (
    *(f"services.{name}.main" for name in ("orchestrator", "drift_repair_agent", "auth_broker")),
    *("uvicorn.protocols.http.httptools_impl", "uvloop", "asyncpg"),
)


class Process:
    """One service process: its pid, its port, its exit code."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name, self.port, self.log = name, port, log
        self.forked: ForkedProcess | None = None
        self.is_plain = True
        """Whether it runs without failpoints and without settings of a cell."""
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.client = access.client(f"http://127.0.0.1:{port}", timeout=30)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.forked is not None
        return self.forked.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended or was not started."""
        if self.forked is not None and not self.code.done():
            self.forked.send(number)

    def started(self, forked: ForkedProcess) -> None:
        """Note that it runs, until its end sets `code`."""
        self.forked = forked
        loop = asyncio.get_running_loop()
        channel = forked.fileno()

        def ended() -> None:
            loop.remove_reader(channel)
            code = forked.exit_code()
            assert code is not None
            self.code.set_result(code)

        loop.add_reader(channel, ended)

    async def died(self, *, within: float = 60.0) -> int:
        """Wait for its exit and return the exit code, negative for a signal."""
        async with asyncio.timeout(within):
            return await asyncio.shield(self.code)


class World:
    """Starts, breaks and inspects servers and services; between cells only its data is deleted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, Process] = {}
        self._ports: dict[str, int] = {}
        self.broker_url = ""
        self.postgres = servers.Postgres(
            folder / "postgres",
            port=servers.free_port(),
            log=folder / "pg.log",
            options=servers.THROWAWAY_OPTIONS,
        )
        self.valkey = servers.Valkey(
            folder / "valkey", port=servers.free_port(), log=folder / "v.log"
        )
        self.airbyte = AirbyteServer(version="2.0.0")
        self.airbyte_port = servers.free_port()
        self.settings: dict[str, str] = {}
        self.credentials = dict(CREDENTIALS)
        """The broker's environment; a cell may change it."""

    async def open(self) -> None:
        """Start the servers that every cell needs."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.postgres.start)
        await loop.run_in_executor(None, self.valkey.start)
        await loop.run_in_executor(None, migrate, self.postgres.url)
        with servers.private_log(self._folder / "fork_server.log") as log:
            self._fork_server = ForkServer(
                _SHARED_MODULES, log=log, env=dict(os.environ), cwd=REPOSITORY
            )
        await self.forget()

    async def close(self) -> None:
        """Stop everything."""
        for process in self._processes.values():
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGKILL)
            await process.client.aclose()
        await asyncio.gather(*(process.died() for process in self._processes.values()))
        await asyncio.to_thread(self._fork_server.stop)
        leaks.add_files("the log", self._folder.glob("*.log"))
        await self.airbyte.stop()
        self.valkey.stop()
        self.postgres.stop()

    async def forget(self) -> None:
        """Reset the world: no rows, no events, a new Airbyte with one destination."""
        await self.airbyte.stop()
        self.airbyte = AirbyteServer(version="2.0.0")
        await self.airbyte.start(self.airbyte_port)
        add_destination(self.airbyte)
        self.settings = {}
        self.credentials.clear()
        self.credentials.update(CREDENTIALS)
        async with self.sql() as sql:
            await leaks.add_rows(sql)
            await empty(sql)
        async with self.redis() as redis:
            await leaks.add_entries(redis)
            await redis.delete(STREAM)

    # Processes

    def port_of(self, name: str) -> int:
        """Return the port of a service, whether or not it runs."""
        if name not in self._ports:
            self._ports[name] = servers.free_port()
        return self._ports[name]

    async def start(self, name: str, *, failpoints: str = "", ready: bool = True) -> Process:
        """Start a service: `orchestrator`, or `orchestrator/2` for a replica of it."""
        service = name.partition("/")[0]
        before = self._processes.get(name)
        if before is not None:
            await before.client.aclose()
        port = self.port_of(name)
        process = Process(name, port, self._folder / f"{name.replace('/', '-')}.log")
        environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            **TIMES,
            "SUPABASE_DB_URL": f"{self.postgres.url_for(service)}?sslmode=disable",
            "REDIS_URL": self.valkey.url,
            "AIRBYTE_API_URL": f"http://127.0.0.1:{self.airbyte_port}/api/v1",
            "AIRBYTE_DESTINATION_ID": DESTINATION_ID,
            "AUTH_BROKER_URL": self.broker_url,
            "SCHEMA_OBSERVER_URL": f"http://127.0.0.1:{self.port_of('schema_observer')}",
            "ROTATION_DIGEST_KEY": "for the worlds of tests and no other",
            "STATE_ENCRYPTION_KEYS": "for the worlds of tests and no other",
            "AAM_ENV": "test",
            "LOG_LEVEL": "DEBUG",
            "AAM_FAILPOINTS": failpoints,
            **access.environment(),
            **self.settings,
            **(CREDENTIALS if service == "auth_broker" else {}),
        }
        command = [
            *("uvicorn", f"services.{service}.main:app", "--port", str(port)),
            *("--no-access-log", "--timeout-graceful-shutdown", "8"),
        ]
        process.is_plain = not failpoints and not self.settings
        self._processes[name] = process
        with servers.private_log(process.log) as log:
            process.started(
                await asyncio.to_thread(
                    self._fork_server.spawn, name, command, log=log, env=environment
                )
            )
        if ready:
            await self._is_up(process)
        return process

    async def _is_up(self, process: Process) -> None:
        async with asyncio.timeout(60):
            while True:
                if process.code.done():
                    raise AssertionError(f"{process.name} ended: {self.tail(process)}")
                with suppress(httpx.TransportError):
                    if (await process.client.get("/health")).status_code == 200:
                        return
                await asyncio.sleep(0.02)

    async def running(self, name: str) -> Process:
        """Return the service, restarted if it has died or has a cell's failpoints or settings."""
        process = self._processes.get(name)
        if process is None or process.code.done() or not process.is_plain:
            return await self.replace(name)
        return process

    async def running_or_armed(self, name: str) -> Process:
        """Return the service as the cell has started it; start a plain one if it does not run."""
        process = self._processes.get(name)
        return await self.start(name) if process is None or process.code.done() else process

    async def replace(self, name: str, *, failpoints: str = "") -> Process:
        """Restart the service with these failpoints."""
        await self.end(name)
        return await self.start(name, failpoints=failpoints)

    async def end(self, name: str) -> None:
        """Kill a service if it runs."""
        process = self._processes.get(name)
        if process is not None and not process.code.done():
            process.signal(signal.SIGKILL)
            await process.died()

    async def end_services(self) -> None:
        """Kill every service that runs."""
        for name in self._processes:
            await self.end(name)

    def tail(self, process: Process, lines: int = 25) -> str:
        """Return the end of a service's log."""
        return "\n".join(process.log.read_text().splitlines()[-lines:])

    # Inspection

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[Any]:
        """A direct connection to the registry, bypassing all faults."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """A client of the event stream."""
        client = Redis.from_url(self.valkey.url, decode_responses=True, protocol=3)
        try:
            yield client
        finally:
            await client.aclose()

    async def converged(self, *, within: float = T_CONVERGED) -> None:
        """Wait until all invariants hold; fail with the violations after `within` seconds."""
        until = time.monotonic() + within
        while True:
            async with self.sql() as sql, self.redis() as redis:
                wrong = await oracles.violations(sql, self.airbyte, redis)
            if not wrong:
                return
            if time.monotonic() > until:
                logs = "\n".join(
                    f"--- {process.name}\n{self.tail(process)}"
                    for process in self._processes.values()
                )
                raise AssertionError("\n".join([*wrong, logs]))
            await asyncio.sleep(0.1)

    async def fetch(self, query: str) -> list[Any]:
        """Query the registry."""
        async with self.sql() as sql:
            return list(await sql.fetch(query))


@asynccontextmanager
async def opened(folder: Path | None = None) -> AsyncIterator[World]:
    """Open a world, and clean it up afterwards."""
    folder = folder or Path(tempfile.mkdtemp())
    world = World(folder)
    try:
        await world.open()
        broker = broker_for(
            f"{world.postgres.services_url}?sslmode=disable", world.credentials, log_level="INFO"
        )
        async with serving(broker) as broker_url:
            world.broker_url = broker_url
            yield world
    finally:
        await world.close()


__all__ = ["ORDER", "Process", "World", "opened"]
