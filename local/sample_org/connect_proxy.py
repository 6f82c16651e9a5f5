"""A CONNECT proxy that redirects an unmodified client from every salesforce.com host to the org.

It answers CONNECT for such a host, terminates TLS with a certificate of its own authority, and
forwards the content to the org's port. Any other host is refused: nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from functools import lru_cache
from pathlib import Path

import trustme

from local.sample_org.running_org import write_private
from shared.observability import logs

log = logs.get(__name__)

SALESFORCE_HOST = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,6}salesforce\.com", re.IGNORECASE)
_CHUNK_BYTES = 256 * 1024
_HEAD_SECONDS = 10


class Authority:
    """The certificate authority that clients of the proxy must trust."""

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "ca.pem"
        key = directory / "ca.key"
        if self.bundle.exists() and key.exists():
            self._ca = trustme.CA.from_pem(self.bundle.read_bytes(), key.read_bytes())
        else:
            self._ca = trustme.CA(organization_name="AAM sample org")
            write_private(key, self._ca.private_key_pem.bytes())
            write_private(self.bundle, self._ca.cert_pem.bytes())
        self.context = lru_cache(maxsize=32)(self._context)

    def _context(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(host).configure_cert(context)
        return context


class Proxy:
    """Accepts connections for `asyncio.start_server` and forwards them to one port."""

    def __init__(
        self, authority: Authority, *, port: int, hosts: re.Pattern[str] = SALESFORCE_HOST
    ) -> None:
        self._authority = authority
        self._port = port
        self._hosts = hosts

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side closes the connection."""
        try:
            host = await self._read_connect_request(reader, writer)
            if host is not None:
                await self._tunnel(reader, writer, host)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            log.debug("proxy_client_left")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _read_connect_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str | None:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.decode("latin-1").partition(" ")
        host, _, port = rest.partition(" ")[0].rpartition(":")
        if method != "CONNECT":
            await _answer(writer, "405 Method Not Allowed")
            return None
        if port != "443" or self._hosts.fullmatch(host) is None:
            log.warning("proxy_refused_host")
            await _answer(writer, "403 Forbidden")
            return None
        return host.lower()

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str
    ) -> None:
        org_reader, org_writer = await asyncio.open_connection(
            "127.0.0.1", self._port, limit=_CHUNK_BYTES
        )
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._authority.context(host), ssl_handshake_timeout=10)
            there = asyncio.create_task(_copy(reader, org_writer))
            back = asyncio.create_task(_copy(org_reader, writer))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        finally:
            org_writer.close()
            with contextlib.suppress(OSError):
                await org_writer.wait_closed()


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK_BYTES):
        target.write(chunk)
        await target.drain()
