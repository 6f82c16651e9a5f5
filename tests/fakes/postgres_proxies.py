"""Proxies in front of a real Postgres: one adds TLS, one loses the response to a commit."""

from __future__ import annotations

import asyncio
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import trustme


class Proxy(ABC):
    """Forwards sessions to a Postgres; they all end with the `async with` block of the proxy."""

    def __init__(self, upstream: str) -> None:
        """Forward to the Postgres at this URL."""
        url = urlsplit(upstream)
        self._upstream = (url.hostname, url.port)
        self._sessions: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[int]:
        """Listen on a port of 127.0.0.1 and yield it."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            async with server:
                yield server.sockets[0].getsockname()[1]
        finally:
            for session in self._sessions:
                session.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._serve(reader, writer))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            async with AsyncExitStack() as connections:
                connections.push_async_callback(_abort, writer)
                up_reader, up_writer = await asyncio.open_connection(*self._upstream)
                connections.push_async_callback(_abort, up_writer)
                await self._relay(reader, writer, up_reader, up_writer)

    @abstractmethod
    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        """Forward one session; both of its connections are reset on return."""


class TlsProxy(Proxy):
    """Terminates TLS for a Postgres built without it, as a pooler does; forwards plain sessions."""

    def __init__(self, upstream: str, issued: trustme.LeafCert) -> None:
        """Forward to the Postgres at this URL, with this server certificate."""
        super().__init__(upstream)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(self._context)
        self.encrypted: list[bool] = []
        """One entry per established session: whether it is encrypted."""

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        first = await reader.readexactly(8)
        wants_tls = first == struct.pack("!ii", 8, 80877103)
        if wants_tls:
            writer.write(b"S")
            await writer.start_tls(self._context)
            first = await reader.readexactly(8)
        self.encrypted.append(wants_tls)
        up_writer.write(first)
        both = [
            asyncio.create_task(_pump(reader, up_writer)),
            asyncio.create_task(_pump(up_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(*both)


SAGA = (b"INSERT INTO operations", b"INSERT INTO snapshots", b"owner = NULL, document = NULL")
"""Statements that identify an operation's transactions: its intent, its result, its end."""


class LossyCommit(Proxy):
    """Cuts the connection once, at a COMMIT, after sparing the first `spared` ones.

    Only transactions with a statement that contains one of the `about` texts count; a session
    sends a statement's text once, when it prepares it.
    """

    def __init__(
        self, upstream: str, *, delivers: bool, spared: int = 0, about: Collection[bytes] = (b"",)
    ) -> None:
        """`delivers`: whether the commit itself reaches Postgres."""
        super().__init__(upstream)
        self._delivers = delivers
        self._spared = spared
        self._about = about
        self.is_armed = False
        self.has_cut = asyncio.Event()
        self._sent_at = asyncio.get_running_loop().time()

    async def until_quiet(self, *, for_s: float = 0.15, within_s: float = 2) -> None:
        """Wait until no client has sent anything for `for_s`, but at most `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while asyncio.get_running_loop().time() < self._sent_at + for_s:  # noqa: ASYNC110
                    await asyncio.sleep(for_s / 5)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        answers = asyncio.create_task(_pump(up_reader, writer))
        try:
            statements = b""
            while sent := await reader.read(65536):
                statements += sent
                self._sent_at = asyncio.get_running_loop().time()
                if b"COMMIT;" in sent:  # does not match the READ COMMITTED of a BEGIN
                    is_counted = any(text in statements for text in self._about)
                    statements = b""
                    if is_counted and self._cuts():
                        self.has_cut.set()
                        await _cancel(answers)
                        if self._delivers:
                            up_writer.write(sent)
                            await up_reader.readuntil(b"COMMIT\0")
                        return
                up_writer.write(sent)
        finally:
            await _cancel(answers)

    def _cuts(self) -> bool:
        if not self.is_armed:
            return False
        self._spared -= 1
        self.is_armed = self._spared >= 0
        return not self.is_armed


def moved(url: str, port: int) -> str:
    """Return the URL of a Postgres with the port of its proxy."""
    return url.replace(f":{urlsplit(url).port}/", f":{port}/")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward until one side closes, then close the other."""
    with suppress(OSError):
        while got := await reader.read(65536):
            writer.write(got)
    writer.close()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _abort(writer: asyncio.StreamWriter) -> None:
    """Reset the connection and wait until it is closed."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
