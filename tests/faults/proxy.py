"""A scripted TCP proxy that injects network faults into selected requests."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

Mode = Literal[
    "refuse_after_accept",
    "blackhole",
    "drop_request_mid",
    "eat_response",
    "rst_on_response",
    "truncate",
    "slow_response",
    "late_effect",
]
_CHUNK = 65536


class Proxy:
    """Forwards all traffic, except the requests that a test selects for a fault.

    `late_effect` closes the caller's connection and delivers the request `seconds` later;
    `slow_response` sends the response a byte at a time over `seconds`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._planned: list[tuple[bytes, Mode, float]] = []
        self._late: set[asyncio.Task[None]] = set()
        self.port = 0
        self.injected = 0

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()
        for task in self._late:
            task.cancel()

    def inject(self, path: str, mode: Mode, *, times: int = 1, seconds: float = 1.0) -> None:
        """Inject a fault into the next requests of a path."""
        self._planned += [(f"/{path} ".encode(), mode, seconds)] * times

    def _next(self, data: bytes) -> tuple[Mode, float] | None:
        for position, (path, mode, seconds) in enumerate(self._planned):
            if path in data.split(b"\r\n", 1)[0]:
                del self._planned[position]
                self.injected += 1
                return mode, seconds
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        answers = asyncio.create_task(_pump(up_reader, writer))
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                injected = self._next(data)
                if injected is not None:
                    answers.cancel()
                    await asyncio.wait([answers])
                    await self._fail(*injected, data, (reader, writer), (up_reader, up_writer))
                    break
                up_writer.write(data)
                await up_writer.drain()
        answers.cancel()
        for one in (writer, up_writer):
            one.close()

    async def _fail(
        self,
        mode: Mode,
        seconds: float,
        data: bytes,
        caller: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        up_reader, up_writer = upstream
        if mode == "refuse_after_accept":
            _reset(caller[1])
        elif mode == "blackhole":
            await caller[0].read()  # until the caller closes the connection
        elif mode == "drop_request_mid":
            up_writer.write(data[: len(data) // 2])
            await up_writer.drain()
            _reset(up_writer)
            _reset(caller[1])
        elif mode == "late_effect":
            task = asyncio.create_task(self._deliver(data, seconds))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        else:
            up_writer.write(data)
            answer = await up_reader.read(_CHUNK)
            await self._answer(mode, seconds, answer, caller)

    async def _answer(
        self,
        mode: Mode,
        seconds: float,
        answer: bytes,
        caller: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        reader, writer = caller
        if mode == "rst_on_response":
            _reset(writer)
        elif mode == "eat_response":
            await reader.read()
        elif mode == "truncate":
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
        else:
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(seconds / len(answer))

    async def _deliver(self, data: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        reader, writer = await asyncio.open_connection(*self._upstream)
        writer.write(data)
        await reader.read(_CHUNK)
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with a RST instead of a FIN."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
