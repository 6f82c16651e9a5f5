"""uvicorn's HTTP protocol with limits on the request head (request line and headers).

uvicorn itself limits neither the time nor the size of a head. Enabled on its command line by
`--http shared.http.uvicorn_protocol:Http`. docs/decisions/0031 lists what is left to a reverse
proxy.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar
from uuid import uuid4

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 64 * 1024
HEADERS = 100


class _Refused(Exception):
    """Stops the parsing of a head."""


class Http(HttpToolsProtocol):
    """One connection: each head must arrive in time, stay within the limits, and name one host."""

    head_deadline_s: ClassVar[float] = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Accept uvicorn's own arguments."""
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._unparsed_bytes = 0
        self._head_bytes = 0
        self._refusal = (400, "invalid_http", "The request is not valid HTTP.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the head's deadline, which also closes connections that send no request."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the head's deadline."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received data, within the head's limits."""
        if self._awaits_head:
            self._begin_head()
            self._unparsed_bytes += len(data)
        super().data_received(data)
        # The parser does not report a header before its end, so unparsed bytes are counted, too.
        if self._awaits_head and self._unparsed_bytes > HEAD_BYTES:
            self._refuse_size()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Reset the head's size."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Accept a part of the request target, within the limit."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Accept a header, within the limits."""
        self._count(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            self._refuse_size()
            raise _Refused

    def on_headers_complete(self) -> None:
        """End the head's deadline, and check the number of hosts and of open connections."""
        self._end_head()
        self._awaits_head = False
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise _Refused
        limit = self.limit_concurrency
        is_free = self.cycle is None or self.cycle.response_complete
        if limit is not None and is_free and max(len(self.connections), len(self.tasks)) >= limit:
            detail = f"This process serves at most {limit} callers at once."
            self._refusal = (503, "too_many_connections", detail)
            raise _Refused  # uvicorn would respond in plain text
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head."""
        super().on_message_complete()
        self._awaits_head = True
        self._unparsed_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Respond with problem+json instead of uvicorn's text, and close the connection."""
        del msg
        self._end_head()
        if self.transport.is_closing():
            return
        status, code, detail = self._refusal
        body = orjson.dumps(
            {
                "type": f"urn:aam:problem:{code}",
                "title": detail,
                "status": status,
                "detail": detail,
                "code": code,
                "request_id": uuid4().hex,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d"
        if status == 503:
            head += b"\r\nretry-after: 1"
        self.transport.write(STATUS_LINE[status] + head % len(body) + b"\r\n\r\n" + body)
        self.transport.close()

    def _begin_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_deadline_s, self._give_up)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._refusal = (408, "head_timeout", "The request's head did not arrive in time.")
        self.send_400_response("")

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._refuse_size()
            raise _Refused

    def _refuse_size(self) -> None:
        detail = f"The request's head is larger than {HEAD_BYTES} bytes or {HEADERS} headers."
        self._refusal = (431, "head_too_large", detail)
