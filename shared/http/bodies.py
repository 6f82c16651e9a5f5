"""Middleware that reads and validates request bodies, and passes the same bytes on.

A body must be JSON in UTF-8; nothing is ever decompressed. Routes receive exactly the bytes that
were checked here, so two parsers cannot disagree about them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeAlias

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import BodyTimeout, TooLarge, UnsupportedMedia
from shared.http.strict_json import Limits, check

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)
_MAX_INLINE_BYTES = 128 * 1024
"""Bodies up to this size are checked on the event loop, in 1 to 2 ms; larger ones in a thread."""

# One thread: two would only contend for the GIL, and each holds a body and its decoded text.
_checking = ThreadPoolExecutor(1, thread_name_prefix="body")


class Bodies:
    """ASGI middleware that rejects an invalid body before a route sees it."""

    def __init__(self, app: ASGIApp, *, limits: Limits, deadline: timedelta) -> None:
        self._app = app
        self._limits = limits
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and check a request's body, if it has one.

        Raises:
            UnsupportedMedia: its headers do not declare JSON in UTF-8, or declare an encoding.
            TooLarge: its declared or actual size exceeds the limit.
            BodyTimeout: it did not arrive in time.
            NotJson: it is not UTF-8.
            Invalid: it is not valid JSON, or JSON that AAM rejects.
        """
        if scope["type"] != "http" or not _has_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        _expect_json(scope["headers"])
        if _declared_length(scope["headers"]) > self._limits.body_bytes:
            raise self._too_large()
        body = await self._read(receive)
        if len(body) > _MAX_INLINE_BYTES:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(_checking, check, body, self._limits)
        elif body:
            check(body, self._limits)
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size, is_whole = 0, False
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                while not is_whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._limits.body_bytes:
                        raise self._too_large()
                    parts.append(part)
                    is_whole = not message.get("more_body", False)
        except TimeoutError:
            seconds = self._deadline.total_seconds()
            raise BodyTimeout(f"The body did not arrive within {seconds:g} s.") from None
        return b"".join(parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self._limits.body_bytes} bytes.")


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _has_body(headers: Headers) -> bool:
    """Whether the request has a body, by the rules of HTTP/1.1."""
    lengths = _values(headers, b"content-length")
    return bool(_values(headers, b"transfer-encoding")) or lengths not in ([], [b"0"])


def _declared_length(headers: Headers) -> int:
    return max(
        (int(value) for value in _values(headers, b"content-length") if value.isdigit()), default=0
    )


def _expect_json(headers: Headers) -> None:
    """Check the declared media type before reading any of the body."""
    if _values(headers, b"content-encoding"):
        raise UnsupportedMedia(
            "A body must not be encoded: send it without Content-Encoding.",
            code="unsupported_content_encoding",
        )
    types = _values(headers, b"content-type")
    if len(types) != 1 or not _JSON.fullmatch(types[0]):
        raise UnsupportedMedia("A body must come with Content-Type: application/json, in UTF-8.")


def _replayed(body: bytes, receive: Receive) -> Receive:
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        received, message = message, None
        return received

    return replay
