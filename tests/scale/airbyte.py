"""The Airbyte of the simulation: discoveries that take time, at most 25 at once per workspace.

`python -m tests.scale.airbyte PORT WORKSPACES COMPRESSION` runs it in a separate process. A
discovery takes a log-normal time, divided by the time compression, and waits first while its
workspace's threads are in use.
Sources change their schema at random simulated times. It speaks as Airbyte 1.6 does, whose
discovery is one call: polling a command would not be compressed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import orjson
import uvloop

from tests.scale import catalogs, rates

_SEED: Final = 20_261_130
_YEAR_S: Final = 365 * rates.DAY_S
_DEFINITION: Final = str(catalogs.object_id(0, "definition"))
_POSTGRES: Final = "25c5221d-dce2-4163-ade9-739ef790f503"


class _Workspace:
    """The threads of one workspace, and the discoveries that wait for one."""

    def __init__(self) -> None:
        self.used = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a thread."""
        if self.used < rates.THREADS.value:
            self.used += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    def leave(self) -> None:
        """Hand the thread to the discovery that has waited the longest."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.used -= 1


class Simulation:
    """What the sources offer, which catalogs connections have, and how time passes."""

    def __init__(self, workspaces: int, compression: float) -> None:
        self._random = random.Random(_SEED)  # noqa: S311 - not for cryptography
        self._workspaces = [_Workspace() for _ in range(workspaces)]
        self._revisions: dict[int, int] = {}
        self._changes_at: dict[int, float] = {}
        self._catalogs: dict[str, bytes] = {}
        self._paused: set[str] = set()
        self._compression = compression
        self._began: float | None = None
        self.discoveries = 0
        self.most_in_flight = 0
        self.most_waiting = 0
        self.changes = 0
        self.read = 0
        self.in_flight = 0
        self.busy_s = 0.0

    @property
    def _years(self) -> float:
        """Simulated years since the first discovery."""
        if self._began is None:
            self._began = time.monotonic()
        return (time.monotonic() - self._began) * self._compression / _YEAR_S

    def reset_maxima(self) -> bytes:
        """Start the maxima at 0 again."""
        self.most_in_flight = self.most_waiting = 0
        return b"{}"

    async def discover(self, source: int) -> bytes:
        """Discover a source by its number, and return the response."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        threads = self._workspaces[catalogs.workspace_of(source, len(self._workspaces))]
        try:
            await threads.enter()
            self.most_waiting = max(self.most_waiting, len(threads.waiting))
            try:
                drawn = self._random.lognormvariate(0, rates.SIGMA) * rates.MEDIAN_S.value
                took_s = min(drawn, rates.LONGEST_S.value) / self._compression
                self.busy_s += took_s * self._compression
                await asyncio.sleep(took_s)
            finally:
                threads.leave()
        finally:
            self.in_flight -= 1
        self.discoveries += 1
        return b'{"catalogId":"%s","jobInfo":{"succeeded":true},"catalog":%s}' % (
            _DEFINITION.encode(),
            self.offered(source),
        )

    def offered(self, number: int) -> bytes:
        """What a source offers now; its schema changes at random times, by an exponential law."""
        revision = self._revisions.setdefault(number, catalogs.revision_of(number))
        due = self._changes_at.setdefault(number, self._until_next())
        while due <= self._years and revision < catalogs.REVISIONS - 1:
            revision += 1
            due += self._until_next()
            self.changes += 1
        self._revisions[number], self._changes_at[number] = revision, due
        return catalogs.revision(catalogs.template_of(number), revision).document

    def _until_next(self) -> float:
        return self._random.expovariate(rates.CHANGES_A_YEAR.value)

    def connection(self, held: str) -> bytes:
        """A connection with the catalog that it has."""
        number = catalogs.number_of(held)
        source = (number - 1) // int(rates.CONNECTIONS_PER_SOURCE.value) + 1
        synced = self._catalogs.get(held)
        if synced is None:
            head = catalogs.revision(catalogs.template_of(source), catalogs.revision_of(source))
            synced = head.synced
        return (
            b'{"connectionId":"%s","name":"simulated","sourceId":"%s","destinationId":"%s",'
            b'"status":"%s","breakingChange":false,"namespaceDefinition":"destination",'
            b'"syncCatalog":%s}'
        ) % (
            held.encode(),
            str(catalogs.object_id(source, "source")).encode(),
            str(catalogs.object_id(number % 30, "destination")).encode(),
            b"inactive" if held in self._paused else b"active",
            synced,
        )

    def update(self, body: bytes) -> bytes:
        """Store a connection's catalog or status."""
        order = orjson.loads(body)
        held = order["connectionId"]
        if "syncCatalog" in order:
            self._catalogs[held] = orjson.dumps(order["syncCatalog"])
        if "status" in order:
            (self._paused.add if order["status"] == "inactive" else self._paused.discard)(held)
        return self.connection(held)

    def counts(self) -> bytes:
        """What happened so far; maxima since `reset_maxima`."""
        return orjson.dumps(
            {
                name: getattr(self, name)
                for name in (
                    *("discoveries", "changes", "in_flight", "most_in_flight", "most_waiting"),
                    *("read", "busy_s"),
                )
            }
        )

    async def respond(self, path: str, body: bytes) -> bytes | None:
        """The response to one call; None for an unknown endpoint."""
        if path == "sources/discover_schema":
            return await self.discover(catalogs.number_of(orjson.loads(body)["sourceId"]))
        if path == "connections/get":
            self.read += 1
            return self.connection(orjson.loads(body)["connectionId"])
        if path == "connections/update":
            return self.update(body)
        if path == "scale/reset_maxima":
            return self.reset_maxima()
        if path == "scale/counts":
            return self.counts()
        answer = _FIXED.get(path)
        return answer(orjson.loads(body or b"{}")) if answer is not None else None


def _source(order: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "sourceId": order["sourceId"],
            "name": "simulated",
            "workspaceId": str(catalogs.object_id(0, "workspace")),
            "sourceDefinitionId": _DEFINITION,
            "connectionConfiguration": {},
            "sourceName": "Simulated",
        }
    )


def _destination(order: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "destinationId": order["destinationId"],
            "name": "simulated",
            "workspaceId": str(catalogs.object_id(0, "workspace")),
            "destinationDefinitionId": _POSTGRES,
            "destinationName": "Postgres",
            "connectionConfiguration": {},
        }
    )


def _statuses(order: dict[str, Any]) -> bytes:
    return orjson.dumps(
        [
            {"connectionId": held, "connectionSyncStatus": "synced"}
            for held in order["connectionIds"]
        ]
    )


_VERSION: Final = b"""{"dockerRepository":"airbyte/%s-simulated","dockerImageTag":"1.2.3",
"supportState":"supported","supportsRefreshes":true}"""
_FIXED: Final[dict[str, Callable[[dict[str, Any]], bytes]]] = {
    "instance_configuration": lambda _: orjson.dumps(
        {"version": "1.6.0", "defaultWorkspaceId": str(catalogs.object_id(0, "workspace"))}
    ),
    "health": lambda _: b'{"available":true}',
    "sources/get": _source,
    "destinations/get": _destination,
    "connections/status": _statuses,
    "actor_definition_versions/get_for_source": lambda _: _VERSION % b"source",
    "actor_definition_versions/get_for_destination": lambda _: _VERSION % b"destination",
    "jobs/list": lambda _: b'{"jobs":[],"totalJobCount":0}',
    "jobs/list_for_workspaces": lambda _: b'{"jobs":[],"totalJobCount":0}',
    "sources/list": lambda _: b'{"sources":[]}',
    "connections/list": lambda _: b'{"connections":[]}',
    "web_backend/connections/list": lambda _: b'{"connections":[],"numConnections":0}',
}


class _Connection(asyncio.Protocol):
    """An HTTP/1.1 server connection that handles one request at a time."""

    simulation: Simulation

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = bytearray()
        self._head: tuple[str, int] | None = None
        self._responding: asyncio.Task[None] | None = None

    def connection_lost(self, _error: Exception | None) -> None:
        if self._responding is not None:
            self._responding.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end])
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            path = head.split(b" ", 2)[1].decode().removeprefix("/api/v1/")
            self._head = path, int(length or 0)
            del self._buffer[: end + 4]
        path, size = self._head
        if len(self._buffer) < size:
            return
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._head = None
        self._responding = asyncio.create_task(self._respond(path, body))

    async def _respond(self, path: str, body: bytes) -> None:
        answer = await self.simulation.respond(path, body)
        status = b"200 OK"
        if answer is None:
            sys.stderr.write(f"unknown endpoint: {path}\n")
            status, answer = b"404 Not Found", b'{"message":"Object not found."}'
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.writelines([head % (status, len(answer)), answer])


async def _serve(port: int, workspaces: int, compression: int) -> None:
    _Connection.simulation = Simulation(workspaces, compression)
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(*map(int, sys.argv[1:])))
