"""HTTP written by hand, to one process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from tests import access
from tests.hostile.attempts import APPLY, CANARY
from tests.hostile.conftest import Process

KEY = f"Authorization: {access.HEADERS['Authorization']}\r\n"


GET = "GET /health HTTP/1.1\r\nHost: aam\r\n"


POST = f"POST {APPLY} HTTP/1.1\r\nHost: aam\r\n{KEY}Content-Type: application/json\r\n"


async def answer_of(process: Process, *pieces: bytes) -> bytes:
    """What is answered until the connection is closed, which must be within ten seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    told = b""
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while piece := await reader.read(65536):
                told += piece
    except ConnectionError:
        pass  # hung up on while it was sent
    finally:
        writer.close()
    return told


def cpu_ms(process: Process) -> float:
    """Milliseconds that the process has computed so far, in steps of a clock tick (10 ms)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])  # numbers 14 and 15 of proc(5)
    return (user + system) * 1000 / os.sysconf("SC_CLK_TCK")


async def health_cpu_ms(process: Process) -> float:
    """How long the process computes before it answers /health, on a connection of its own.

    Time in which the machine runs other programs is not in it.
    """
    began = cpu_ms(process)
    told = await answer_of(process, f"{GET}Connection: close\r\n\r\n".encode())
    assert told.startswith(b"HTTP/1.1 200 "), told
    return cpu_ms(process) - began


def expect_refusal(told: bytes, status: int, code: str) -> None:
    """One problem of this status and code, and the end of the connection."""
    head, _, body = told.partition(b"\r\n\r\n")
    assert told.count(b"HTTP/1.1 ") == 1, told
    assert head.startswith(b"HTTP/1.1 %d " % status), told
    assert b"\r\ncontent-type: application/problem+json" in head.lower()
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["code"] == code
    assert body.endswith(b"}\n"), told
    assert CANARY.encode() not in told
