"""Bodies: read once, in time and within the limits, checked, and handed on as the very same bytes.

A body is JSON in UTF-8 and nothing else. Nothing is ever decompressed. What a route reads is what
was checked here, so no two parsers can see different things.
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
_AT_ONCE_BYTES = 128 * 1024
"""What is checked where it is, in a millisecond or two; more goes to the thread."""

# The one thread: two would only take turns, and each holds a body and its text.
_checking = ThreadPoolExecutor(1, thread_name_prefix="body")


class Bodies:
    """The layer that reads bodies; it raises what is wrong with one before a route sees it."""

    def __init__(self, app: ASGIApp, *, limits: Limits, deadline: timedelta) -> None:
        self._app = app
        self._limits = limits
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and check a request's body, if it has one.

        Raises:
            UnsupportedMedia: it is not said to be JSON in UTF-8, or said to be compressed.
            TooLarge: it has more bytes than the limit, told or found.
            BodyTimeout: it did not arrive in time.
            NotJson: it is no UTF-8.
            Invalid: it is no JSON that can be taken.
        """
        if scope["type"] != "http" or not _has_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        _expect_json(scope["headers"])
        if _declared_length(scope["headers"]) > self._limits.body_bytes:
            raise self._too_large()
        body = await self._read(receive)
        if len(body) > _AT_ONCE_BYTES:
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
    """Whether a body comes, by HTTP/1.1's rule."""
    lengths = _values(headers, b"content-length")
    return bool(_values(headers, b"transfer-encoding")) or lengths not in ([], [b"0"])


def _declared_length(headers: Headers) -> int:
    return max(
        (int(told) for told in _values(headers, b"content-length") if told.isdigit()), default=0
    )


def _expect_json(headers: Headers) -> None:
    """See what the body is said to be, before a byte of it is read."""
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
        told, message = message, None
        return told

    return replay
