"""Faults between a client and Airbyte, as they appear on the wire."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from local.airbyte.api.dispatch import Answer

Fault = (
    int
    | Literal[
        "html_200",
        "html_502",
        "html_504",
        "empty_200",
        "other_200",
        "truncated",
        "reset",
        "close",
        "hang",
        "garbage",
        "lie",
        "slow",
        "late",
        "trickle",
        "redirect",
        "gzip_bomb",
        "endless",
    ]
)


@dataclass
class PlannedFault:
    path: str
    kind: Fault
    times: int | None
    after_effect: bool
    seconds: float
    answer: Answer | None = None
    skip: int = 0


def html(status: int, title: str) -> Answer:
    """Build a page of a web server in front of Airbyte."""
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>nginx/1.25.3</body>\r\n</html>"
    return Answer(status, page, "text/html")


def _gzip_bomb() -> Answer:
    content = gzip.compress(b'{"x":"' + b" " * (64 * 1024 * 1024) + b'"}', 9)
    return Answer(200, content, headers={"Content-Encoding": "gzip"})


CANNED: dict[Fault, Callable[[], Answer]] = {
    "html_200": lambda: html(200, "Welcome"),
    "html_502": lambda: html(502, "502 Bad Gateway"),
    "html_504": lambda: html(504, "504 Gateway Time-out"),
    "empty_200": lambda: Answer(200, b""),
    "other_200": lambda: Answer(200, {"unexpected": ["answer", 1]}),
    "redirect": lambda: Answer(302, b"", headers={"Location": "http://169.254.169.254/latest/"}),
    "gzip_bomb": _gzip_bomb,
}


def close_connection(transport: asyncio.Transport, kind: Fault, true: bytes) -> None:
    """Close the connection without a response, or with part of one."""
    if kind in ("reset", "late"):
        linger_not = struct.pack("ii", 1, 0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        transport.abort()
        return
    if kind == "garbage":
        transport.write(b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n")
    if kind == "truncated":
        whole = true or b'{"streams": [1, 2, 3], "more": "to come"}'
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(whole)}\r\n\r\n"
        )
        transport.write(head.encode() + whole[: max(1, len(whole) // 2)])
    transport.close()


async def send_slowly(
    request: web.BaseRequest, answer: Answer | None, *, seconds: float
) -> web.StreamResponse:
    """Send the answer byte by byte over `seconds`; None: JSON with up to 4 GB of white space."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    if answer is None:
        await response.prepare(request)
        for _ in range(4096):
            await response.write(b" " * (1 << 20))
        return response
    content = answer.content
    response.set_status(answer.status)
    response.content_length = len(content)
    await response.prepare(request)
    for byte in content:
        await response.write(bytes([byte]))
        await asyncio.sleep(seconds / len(content))
    return response
