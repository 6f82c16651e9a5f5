"""Raw HTTP over sockets to one process."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path

from tests import access
from tests.hostile.attempts import APPLY, CANARY
from tests.hostile.conftest import Process

KEY = f"Authorization: {access.HEADERS['Authorization']}\r\n"


GET = "GET /health HTTP/1.1\r\nHost: aam\r\n"


POST = f"POST {APPLY} HTTP/1.1\r\nHost: aam\r\n{KEY}Content-Type: application/json\r\n"


async def answer_of(process: Process, *pieces: bytes) -> bytes:
    """Return all bytes received until the server closes the connection, within ten seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    answer = b""
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            answer = await rest_of(reader)
    except ConnectionError:
        pass  # closed by the server during the request
    finally:
        writer.close()
    return answer


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes received until the server closes the connection.

    It resets the connection if it closes it before it has read all that was sent.
    """
    received = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            received += piece
    return received


def cpu_ms(process: Process, *, thread: int | None = None) -> float:
    """Return the CPU time of the process or one of its threads; its resolution is 10 ms."""
    folder = f"/proc/{process.pid}" if thread is None else f"/proc/{process.pid}/task/{thread}"
    fields = Path(f"{folder}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])  # fields 14 and 15 of proc(5)
    return (user + system) * 1000 / os.sysconf("SC_CLK_TCK")


async def health_cpu_ms(process: Process) -> float:
    """Return the CPU time of the event loop during one /health request on a new connection.

    Unlike latency and the time of other threads, it does not depend on the load of the machine.
    """
    began = cpu_ms(process, thread=process.pid)
    answer = await answer_of(process, f"{GET}Connection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return cpu_ms(process, thread=process.pid) - began


def expect_refusal(answer: bytes, status: int, code: str) -> None:
    """Assert a single problem response with this status and code, then a closed connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\ncontent-type: application/problem+json" in head.lower()
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["code"] == code
    assert body.endswith(b"}\n"), answer
    assert CANARY.encode() not in answer
