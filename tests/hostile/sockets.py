"""HTTP written by hand, to one process."""

from __future__ import annotations

import asyncio
import json
import time

from tests import access
from tests.hostile.attempts import APPLY, CANARY
from tests.hostile.conftest import Process

KEY = f"Authorization: {access.HEADERS['Authorization']}\r\n"


GET = "GET /health HTTP/1.1\r\nHost: aam\r\n"


POST = f"POST {APPLY} HTTP/1.1\r\nHost: aam\r\n{KEY}Content-Type: application/json\r\n"


async def answer_of(process: Process, *pieces: bytes) -> bytes:
    """What is answered until the connection is closed, which must be within three seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    told = b""
    try:
        async with asyncio.timeout(3):
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


async def health_ms(process: Process) -> float:
    """How long /health takes, on a connection of its own."""
    began = time.perf_counter()
    told = await answer_of(process, f"{GET}Connection: close\r\n\r\n".encode())
    assert told.startswith(b"HTTP/1.1 200 "), told
    return (time.perf_counter() - began) * 1000


def expect_refusal(told: bytes, status: int, code: str) -> None:
    """One problem of this status and code, and the end of the connection."""
    head, _, body = told.partition(b"\r\n\r\n")
    assert told.count(b"HTTP/1.1 ") == 1, told
    assert head.startswith(b"HTTP/1.1 %d " % status), told
    assert b"\r\ncontent-type: application/problem+json" in head.lower()
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["code"] == code
    assert CANARY.encode() not in told
