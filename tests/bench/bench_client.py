"""What a call through the Airbyte client costs, as a ratio to plain httpx in the same run.

`python -m tests.bench.bench_client`: 100 calls at once, small JSON, loopback. The server is a
process of its own that answers every request with the same bytes: only the clients are measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import cast
from uuid import UUID, uuid4

import httpx
import uvloop

from shared.airbyte_client import AirbyteClient

AT_ONCE = 100
CALLS = 1_000
ROUNDS = 3
FLOOR = 5.0

_SOURCE_ID = uuid4()
_ANSWER = (
    f'{{"sourceId":"{_SOURCE_ID}","name":"bench","workspaceId":"{_SOURCE_ID}",'
    f'"sourceDefinitionId":"{_SOURCE_ID}","connectionConfiguration":{{}},"sourceName":"Bench"}}'
).encode()
_RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(_ANSWER)
) + _ANSWER


class _SameAnswer(asyncio.Protocol):
    """Counts whole requests in what arrives, and answers each."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._held) < end + 4 + length:
                return
            self._held = self._held[end + 4 + length :]
            self._transport.write(_RESPONSE)


def _serve(ready: Connection) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(_SameAnswer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(forever())


async def _rate(call: Callable[[], Awaitable[object]]) -> float:
    """Calls per second, with `AT_ONCE` of them under way all the time."""
    each = CALLS // AT_ONCE

    async def one_after_another() -> None:
        for _ in range(each):
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return CALLS / (time.perf_counter() - started)


async def measure(port: int) -> tuple[float, float]:
    """The medians of plain httpx and of the client, in calls per second, in turns."""
    base = f"http://127.0.0.1:{port}/api/v1"
    plain: list[float] = []
    ours: list[float] = []
    source_id: UUID = _SOURCE_ID
    async with httpx.AsyncClient() as bare, AirbyteClient(base) as client:

        async def by_httpx() -> None:
            answer = await bare.post(f"{base}/sources/get", json={"sourceId": str(source_id)})
            answer.json()

        for _ in range(ROUNDS):
            plain.append(await _rate(by_httpx))
            ours.append(await _rate(lambda: client.get_source(source_id)))
    return statistics.median(plain), statistics.median(ours)


def main() -> int:
    """Print both rates and the ratio; 1 when the ratio is under the floor."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=_serve, args=(there,), daemon=True)
    server.start()
    try:
        plain, ours = uvloop.run(measure(here.recv()))
    finally:
        server.kill()
        server.join()
    ratio = ours / plain
    sys.stdout.write(
        f"{AT_ONCE} calls at once: plain httpx {plain:,.0f}/s, AirbyteClient {ours:,.0f}/s, "
        f"{ratio:.1f} x (floor {FLOOR:.0f} x)\n"
    )
    return 0 if ratio >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
