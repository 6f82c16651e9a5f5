"""How a call gets to Airbyte and back: credentials, a total deadline, and the error tree.

The one place that knows httpx. Only a connection that could not be opened means "not sent";
whatever happens after that may have taken effect. Errors tell the endpoint and the status, never
what was sent nor what came back, and hold no exception that does.
"""

from __future__ import annotations

import asyncio
import base64
import time
import zlib
from collections.abc import AsyncIterator
from typing import TypeVar

import aiohttp
import httpx
import msgspec
import stamina
from httpx_aiohttp import AiohttpTransport

from shared import logs, telemetry
from shared.airbyte_client._shapes import Token
from shared.airbyte_client._subjects import subjects
from shared.errors import (
    AamError,
    Invalid,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.trust import authorities

T = TypeVar("T")

UNSUPPORTED = "upstream_unsupported"
"""Code of the refusal of an Airbyte that has no such endpoint."""

_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
_SLICE_BYTES = 256 * 1024
_TOKEN_TIMEOUT_S = 10.0
# Shorter than what any server in front of Airbyte keeps an idle connection open for (uvicorn 5 s,
# nginx 75 s), so that no POST is written into a connection that is just being closed.
_KEEP_IDLE_S = 3.0
_CONNECTIONS = 200
_FIRST_PAUSE_S = 0.1
_TOKEN = msgspec.json.Decoder(Token)


class Unreadable(Exception):
    """Internal: an answer is over the limit, or encoded in a way that was not asked for."""


class Credentials:
    """The Authorization header; a fixed one, or none, until a subclass fetches it."""

    renewable = False

    def __init__(self, header: str | None = None) -> None:
        self._header = header

    @property
    def is_none(self) -> bool:
        """Whether calls go without."""
        return self._header is None and not self.renewable

    @classmethod
    def bearer(cls, key: str) -> Credentials:
        """A lasting API key; a line end that its file brought along is no part of it."""
        return cls(f"Bearer {key.strip()}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credentials:
        """A user name and a password, for the proxy of the compose release."""
        return cls("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())

    async def header(self, transport: Transport, *, refused: str | None = None) -> str | None:
        """What to send; `refused` is a header that was just answered with a 401."""
        del transport, refused
        return self._header


class ClientCredentials(Credentials):
    """A client id and secret that are exchanged for tokens, one exchange at a time."""

    renewable = True

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__()
        self._order = msgspec.json.encode({"client_id": client_id, "client_secret": client_secret})
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    async def header(self, transport: Transport, *, refused: str | None = None) -> str | None:
        """The token, fetched before its `exp`; a refused one only if nobody has replaced it yet.

        Raises:
            UpstreamDenied: Airbyte does not know this client id and secret.
            UpstreamUnreachable: no token could be had, so the call itself was never sent.
        """
        if self._fresh(refused):
            return self._header
        async with self._renewing:
            if not self._fresh(refused):
                token = await self._fetch(transport)
                self._header = f"Bearer {token}"
                self._renew_at = _renew_at(token)
        return self._header

    def _fresh(self, refused: str | None) -> bool:
        return self._header is not None and self._header != refused and time.time() < self._renew_at

    async def _fetch(self, transport: Transport) -> str:
        """Exchange the client id and secret for a token.

        Endpoint: POST applications/token
        Sends:    {"client_id": str, "client_secret": str}
        Receives: {"access_token": JWT}, without its lifetime
        Time:     Airbyte gives itself one second and answers 408 after it.
        """
        try:
            answer = await transport.call(
                "applications/token",
                self._order,
                _TOKEN,
                timeout=_TOKEN_TIMEOUT_S,
                repeat=True,
                anonymous=True,
            )
        except (UpstreamRefused, UpstreamDenied):
            raise UpstreamDenied(
                "Airbyte refused the client id and secret that tokens are fetched with."
            ) from None
        except AamError:
            raise UpstreamUnreachable(
                "No token could be fetched from Airbyte, so the call was not sent."
            ) from None
        return answer.access_token


class _Claims(msgspec.Struct):
    exp: float | None = None


def _renew_at(token: str) -> float:
    """When to replace a token, as epoch seconds: a fifth of its life early, at most a minute.

    An opaque token, or one that does not tell its `exp`, lasts until Airbyte answers 401.
    """
    try:
        payload = token.split(".")[1]
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        exp = msgspec.json.decode(raw, type=_Claims).exp
    except (IndexError, ValueError, msgspec.DecodeError):
        return float("inf")
    if exp is None:
        return float("inf")
    return exp - min(60.0, max(0.0, exp - time.time()) / 5)


class Transport:
    """One pool of connections to one Airbyte, for the event loop that uses it first.

    A user name and password inside the URL are taken out of it, and used where there is no other.
    """

    def __init__(self, base_url: str, credentials: Credentials) -> None:
        url = httpx.URL(base_url)
        if url.username and credentials.is_none:
            credentials = Credentials.basic(url.username, url.password)
        self._base = str(url.copy_with(userinfo=b"")).rstrip("/") + "/"
        self._credentials = credentials
        self._urls: dict[str, httpx.URL] = {}
        # Without an httpx.AsyncClient around it: what that adds (redirects, cookies, timeouts per
        # read, a log line per call) is what must not happen here, and it is not free.
        self._pool = AiohttpTransport(client=self._session, verify=authorities())

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS, keepalive_timeout=_KEEP_IDLE_S, ssl=self._pool.ssl_context
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def call(
        self,
        path: str,
        body: bytes | None,
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float,
        repeat: bool = False,
        anonymous: bool = False,
        limit_bytes: int = _ANSWER_LIMIT_BYTES,
    ) -> T:
        """Ask Airbyte once, or, where `repeat` says that this is harmless, a few times.

        `timeout` is in seconds and total: connecting, waiting, every byte and every repetition.
        `body` is JSON, or None for a GET. An empty answer is read as `null`.

        Raises:
            Upstream: of the kind that fits.
            Invalid: Airbyte, or a proxy before it, takes no body as large as this one.
        """
        with telemetry.asking_airbyte(path):
            return await self._insist(
                path,
                body,
                answer,
                timeout=timeout,
                repeat=repeat,
                anonymous=anonymous,
                limit_bytes=limit_bytes,
            )

    async def _insist(
        self,
        path: str,
        body: bytes | None,
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float,
        repeat: bool,
        anonymous: bool,
        limit_bytes: int,
    ) -> T:
        failure: AamError
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._once(path, body, answer, limit_bytes, anonymous=anonymous)
                except Upstream as error:
                    if not (repeat and error.retryable):
                        raise
                await asyncio.sleep(_FIRST_PAUSE_S)
                async for attempt in stamina.retry_context(
                    on=_worth_repeating, attempts=2, timeout=None, wait_max=1.0, wait_jitter=0.2
                ):
                    with attempt:
                        return await self._once(
                            path, body, answer, limit_bytes, anonymous=anonymous
                        )
        except TimeoutError:
            failure = UpstreamTimeout(f"Airbyte's {path} gave no answer within {timeout:g} s.")
        else:
            raise AssertionError("A retried call returns or raises.")
        # Raised here, so that it has no context: the contexts of httpx hold the request.
        raise failure

    async def _once(
        self,
        path: str,
        body: bytes | None,
        answer: msgspec.json.Decoder[T],
        limit_bytes: int,
        *,
        anonymous: bool,
    ) -> T:
        credentials = self._credentials
        if anonymous and credentials.renewable:
            status, content = await self._exchange(path, body, None, limit_bytes)
        else:
            header = await credentials.header(self)
            status, content = await self._exchange(path, body, header, limit_bytes)
            if status == 401 and credentials.renewable:
                header = await credentials.header(self, refused=header)
                status, content = await self._exchange(path, body, header, limit_bytes)
        if not 200 <= status < 300:
            raise _refusal(path, status, content)
        try:
            return answer.decode(content or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        raise UpstreamUnknown(
            f"Airbyte's {path} answered {status} with {len(content)} bytes that are not its answer."
        )

    async def _exchange(
        self, path: str, body: bytes | None, authorization: str | None, limit_bytes: int
    ) -> tuple[int, bytearray]:
        headers = {"accept": "application/json", "accept-encoding": "gzip"}
        if request_id := logs.request_id():
            headers[logs.REQUEST_ID_HEADER] = request_id
        if body is not None:
            headers["content-type"] = "application/json"
            headers["content-length"] = str(len(body))
        if authorization is not None:
            headers["authorization"] = authorization
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base + path)
        request = httpx.Request(
            "GET" if body is None else "POST", url, headers=headers, content=_sliced(body)
        )
        failure: Upstream
        try:
            response = await self._pool.handle_async_request(request)
            try:
                return response.status_code, await _content(response, limit_bytes)
            finally:
                await response.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, UnicodeError) as error:
            # UnicodeError: the transport stumbles over a reason phrase that is no text.
            failure = _not_sent(path) if _never_connected(error) else _lost(path)
        except Unreadable as error:
            failure = UpstreamUnknown(f"Airbyte's {path} answered with {error}.")
        raise failure


def _sliced(body: bytes | None) -> bytes | AsyncIterator[bytes] | None:
    """A large body in slices, between which the event loop breathes; a small one as it is."""
    return body if body is None or len(body) <= _SLICE_BYTES else _slices(body)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _SLICE_BYTES):
        yield body[start : start + _SLICE_BYTES]


async def _content(response: httpx.Response, limit_bytes: int) -> bytearray:
    """The decoded body, as long as it stays within the limit.

    httpx would decode each piece that comes as a whole, and one encoding within another.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Unreadable("an encoding that it was not asked for")
    inflate = zlib.decompressobj(wbits=31).decompress if encoding == "gzip" else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        left = limit_bytes - len(content)
        try:
            piece = chunk if inflate is None else inflate(chunk, left + 1)
        except zlib.error:
            raise Unreadable("what is no gzip") from None
        if len(piece) > left:
            raise Unreadable(f"more than {limit_bytes} bytes")
        content += piece
    return content


def _never_connected(error: BaseException) -> bool:
    """Whether the connection could not be opened, by what the transport's error was caused by.

    The transport calls a connection that was closed after the request a ConnectTimeout, too.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError):
            return True
        cause = cause.__cause__
    return False


def _not_sent(path: str) -> Upstream:
    return UpstreamUnreachable(f"Airbyte cannot be reached; {path} was not sent.")


def _lost(path: str) -> Upstream:
    return UpstreamUnknown(f"The connection to Airbyte was lost after {path} was sent.")


def _worth_repeating(error: Exception) -> bool:
    return isinstance(error, Upstream) and error.retryable


_BY_STATUS: dict[int, type[Upstream]] = {
    401: UpstreamDenied,
    403: UpstreamDenied,
    408: UpstreamTimeout,
    409: UpstreamConflict,
    423: UpstreamConflict,
    504: UpstreamTimeout,
}


def _refusal(path: str, status: int, content: bytearray) -> AamError:
    """The error class of a status that is not a success.

    A definite no needs a body that Airbyte wrote; the same status from a proxy proves nothing.
    429 proves nothing either: Airbyte's Configuration API has no rate limit, so a proxy sent it.
    """
    told = f"Airbyte answered {path} with status {status}."
    is_airbytes = _is_airbytes(content)
    if (known := _BY_STATUS.get(status)) is not None:
        refusal = known(told)
        refusal.is_over = is_airbytes
        return refusal
    if status == 413:
        return Invalid(
            f"The body of {path} is larger than Airbyte accepts.", code="catalog_too_large"
        )
    if not is_airbytes:
        return UpstreamUnknown(told)
    if status in {405, 501}:
        return UpstreamRefused(f"This Airbyte has no {path}.", code=UNSUPPORTED)
    if status == 404:
        return UpstreamMissing(told)
    definite = 400 <= status < 500 and status not in {425, 429}
    error = _refused(path, told, content) if definite else UpstreamUnknown(told)
    error.is_over = True
    return error


def _refused(path: str, told: str, content: bytearray) -> UpstreamRefused:
    about = subjects(path, content)
    if not about:
        return UpstreamRefused(told)
    return UpstreamRefused(f"{told[:-1]}, about {' and '.join(about)}.", about=about)


_ERROR_KEYS = frozenset({"message", "errorId", "title", "_embedded", "validationErrors"})


def _is_airbytes(content: bytearray) -> bool:
    """Whether an error body is in one of Airbyte's styles.

    Those are a message with class names (up to 1.8), an errorId alone (2.0), an RFC 9457 problem,
    and Micronaut's own `_embedded`.
    """
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(body, dict) and not _ERROR_KEYS.isdisjoint(body)
