"""How a call gets to Airbyte and back: credentials, a total deadline, and the error tree.

The one place that knows httpx. Only a connection that could not be opened means "not sent";
whatever happens after that may have taken effect. Only an answer with Airbyte's own signature is a
definite one. Errors name the endpoint and the status, never what was sent nor what came back, and
hold no exception that does.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import zlib
from collections.abc import AsyncIterator
from typing import TypeVar

import aiohttp
import httpx
import msgspec
import stamina
from httpx_aiohttp import AiohttpTransport

from shared.airbyte_client._shapes import InstanceRead, Token
from shared.airbyte_client._signatures import Author, ErrorBody, classify
from shared.errors import (
    AamError,
    Invalid,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamLoginOff,
    UpstreamMissing,
    UpstreamNotAirbyte,
    UpstreamNoTls,
    UpstreamNoToken,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.observability import logs, tracing
from shared.tls import authorities

T = TypeVar("T")

UNSUPPORTED = "upstream_unsupported"
"""Code of the refusal of an Airbyte that has no such endpoint."""
LOCKED = "connection_locked"
"""Code of the refusal of a connection that Airbyte has locked."""

_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
_SLICE_BYTES = 256 * 1024
_LARGE_BODY_BYTES = 64 * 1024
"""Below this size no proxy refuses a body for its size."""
_TOKEN_TIMEOUT_S = 10.0
# Shorter than what any server in front of Airbyte keeps an idle connection open for (uvicorn 5 s,
# nginx 75 s), so that no POST is written into a connection that is just being closed.
_KEEP_IDLE_S = 3.0
_CONNECTIONS = 200
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_MAX_REPETITIONS = 4
_TOKEN = msgspec.json.Decoder(Token)
_INSTANCE = msgspec.json.Decoder(InstanceRead)


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

    @property
    def is_token(self) -> bool:
        """Whether calls go with a bearer token, which only Airbyte's own login takes."""
        return self.renewable or (self._header or "").startswith("Bearer ")

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
        self._failure: Upstream | None = None
        self._failed_at = 0.0

    async def header(self, transport: Transport, *, refused: str | None = None) -> str | None:
        """The token, fetched before its `exp`; a refused one only if nobody has replaced it yet.

        Raises:
            UpstreamDenied: Airbyte does not know this client id and secret.
            UpstreamLoginOff: Airbyte has no login.
            UpstreamUnreachable: no token could be had, so the call itself was never sent.
        """
        if self._fresh(refused):
            return self._header
        came_at = time.monotonic()
        async with self._renewing:
            if not self._fresh(refused):
                self._expect_no_failure_since(came_at)
                token = await self._fetch(transport)
                self._header = f"Bearer {token}"
                self._renew_at = _renew_at(token)
        return self._header

    def _expect_no_failure_since(self, came_at: float) -> None:
        """Let calls that waited for one token share its failure, instead of asking one by one.

        A later call asks for itself: Airbyte may be back.
        """
        failure = self._failure
        if failure is not None and came_at <= self._failed_at:
            again = type(failure)(failure.detail, code=failure.code)
            again.retryable = failure.retryable
            raise again

    def _fresh(self, refused: str | None) -> bool:
        return self._header is not None and self._header != refused and time.time() < self._renew_at

    async def _fetch(self, transport: Transport) -> str:
        """Exchange the client id and secret for a token.

        Endpoint: POST applications/token
        Sends:    {"client_id": str, "client_secret": str}
        Receives: {"access_token": JWT}, without its lifetime
        Time:     Airbyte gives itself one second and answers 408 after it.
        """
        failure: Upstream
        try:
            answer = await transport.call(
                _TOKEN_PATH,
                self._order,
                _TOKEN,
                timeout=_TOKEN_TIMEOUT_S,
                repeat=True,
                anonymous=True,
            )
        except UpstreamNoTls as error:
            failure = error
        except UpstreamUnreachable:
            failure = UpstreamUnreachable(
                "Airbyte cannot be reached for a token, so the call was not sent."
            )
        except (UpstreamRefused, UpstreamDenied, UpstreamNotAirbyte) as error:
            failure = await _why_no_token(transport, error)
        except AamError as error:
            failure = UpstreamNoToken(
                f"Airbyte's token endpoint does not work now ({error.code}), so the call was not "
                "sent."
            )
        else:
            return answer.access_token
        # It was repeated here already, where that may help.
        failure.retryable = False
        self._failure, self._failed_at = failure, time.monotonic()
        raise failure


_TOKEN_PATH = "applications/token"  # noqa: S105 - a path
_TOKENS_BROKEN_IN = re.compile(r"v?1\.8\.[0-5]\b")
"""These refuse the right client id and secret, too (airbytehq/airbyte#65592 and #65595)."""


async def _why_no_token(transport: Transport, error: Upstream) -> Upstream:
    """What a refused token means, by what Airbyte says of itself to everybody.

    Endpoint: GET instance_configuration
    """
    try:
        instance = await transport.call(
            "instance_configuration",
            None,
            _INSTANCE,
            timeout=_TOKEN_TIMEOUT_S,
            repeat=True,
            anonymous=True,
        )
    except UpstreamNotAirbyte as other:
        return UpstreamNoToken(
            f"{other.detail} So there is no token, and the call was not sent.", code=other.code
        )
    except AamError:
        instance = None
    if instance is not None and instance.auth.mode == "none":
        return UpstreamLoginOff(
            "Airbyte's login is switched off (auth.mode is none), and it gives out no tokens: "
            "leave AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET empty. Where a proxy before it asks "
            "for a password, set AIRBYTE_USERNAME and AIRBYTE_PASSWORD."
        )
    if isinstance(error, UpstreamNotAirbyte) or error.code == UNSUPPORTED:
        return UpstreamNoToken(
            f"{error.detail} So there is no token, and the call was not sent: see AIRBYTE_API_URL."
        )
    if instance is not None and _TOKENS_BROKEN_IN.match(instance.version):
        return UpstreamDenied(
            "Airbyte refused the client id and secret that tokens are fetched with. Its releases "
            "1.8.0 to 1.8.5 refuse right ones, too (airbytehq/airbyte#65592): update Airbyte."
        )
    return UpstreamDenied("Airbyte refused the client id and secret that tokens are fetched with.")


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
        self._has_met_airbyte = False
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

    async def log_in(self) -> None:
        """See that there is a login to send, as far as it is known before a call.

        Raises:
            Upstream: no token can be had; the detail says why.
        """
        await self._credentials.header(self)

    async def call(
        self,
        path: str,
        body: bytes | None,
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float,
        repeat: bool = False,
        anonymous: bool = False,
        only_status: int | None = None,
        runs_connector: bool = False,
    ) -> T:
        """Ask Airbyte once, or, where `repeat` says that this is harmless, up to five times.

        `timeout` is in seconds and total: connecting, waiting, every byte and every repetition.
        What is not Airbyte's answer is asked for again only once Airbyte has been met here: until
        then the address is wrong, and later it is an interruption.

        `body` is JSON, or None for a GET. An empty answer is read as `null`. `only_status` is the
        one success that Airbyte answers this call with, where that tells it from a gateway's. With
        `runs_connector` an error of Airbyte's own is not asked for again: the connector has run.

        Raises:
            Upstream: of the kind that fits.
            Invalid: Airbyte, or a proxy before it, takes no body as large as this one.
        """
        with tracing.asking_airbyte(path):
            return await self._insist(
                path,
                body,
                answer,
                timeout=timeout,
                repeat=repeat,
                anonymous=anonymous,
                only_status=only_status,
                runs_connector=runs_connector,
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
        only_status: int | None,
        runs_connector: bool,
    ) -> T:
        failure: AamError

        def is_worth_repeating(error: Exception) -> bool:
            if not isinstance(error, Upstream) or (runs_connector and error.is_over):
                return False
            return error.retryable

        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._once(
                        path, body, answer, anonymous=anonymous, only_status=only_status
                    )
                except Upstream as error:
                    if not (repeat and is_worth_repeating(error)):
                        raise
                await asyncio.sleep(_FIRST_PAUSE_S)
                async for attempt in stamina.retry_context(
                    on=is_worth_repeating,
                    attempts=_MAX_REPETITIONS,
                    timeout=None,
                    wait_initial=_FIRST_PAUSE_S,
                    wait_max=_LONGEST_PAUSE_S,
                    wait_jitter=0.2,
                ):
                    with attempt:
                        return await self._once(
                            path, body, answer, anonymous=anonymous, only_status=only_status
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
        *,
        anonymous: bool,
        only_status: int | None,
    ) -> T:
        credentials = self._credentials
        if anonymous and credentials.renewable:
            status, content = await self._exchange(path, body, None)
        else:
            header = await credentials.header(self)
            status, content = await self._exchange(path, body, header)
            if status == 401 and credentials.renewable:
                header = await credentials.header(self, refused=header)
                status, content = await self._exchange(path, body, header)
        if 200 <= status < 300 and only_status in {None, status}:
            try:
                decoded = answer.decode(content or b"null")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self._has_met_airbyte = True
                return decoded
        raise self._failure(path, status, content, sent_bytes=len(body or b""))

    def _failure(self, path: str, status: int, content: bytearray, *, sent_bytes: int) -> AamError:
        """The error of a status that is not a success, or of a success that is not the answer."""
        body = classify(status, content)
        is_signed = body.author is not Author.SOMETHING_ELSE
        self._has_met_airbyte |= is_signed
        if 200 <= status < 300:
            return self._not_the_answer(path, status, body)
        if status == 401 and self._may_be_a_refused_login(body, content):
            return self._denied(path, body)
        if status == 413 and (is_signed or sent_bytes >= _LARGE_BODY_BYTES):
            return Invalid(
                f"The body of {path} is larger than Airbyte accepts.", code="catalog_too_large"
            )
        if is_signed:
            return _refusal(path, status, body)
        return self._not_the_answer(path, status, body)

    def _denied(self, path: str, body: ErrorBody) -> UpstreamDenied:
        asked = f"Airbyte answered {path} with status 401: "
        denied = UpstreamDenied(
            f"{asked}it asks for a login, and AAM has none. Set AIRBYTE_CLIENT_ID and "
            "AIRBYTE_CLIENT_SECRET, AIRBYTE_API_KEY, or AIRBYTE_USERNAME and AIRBYTE_PASSWORD."
            if self._credentials.is_none
            else f"{asked}it does not take AAM's login."
        )
        denied.is_over = body.author is Author.AIRBYTE
        return denied

    def _may_be_a_refused_login(self, body: ErrorBody, content: bytearray) -> bool:
        """Whether a 401 is about AAM's own login.

        Airbyte's own has a signature or no body at all; the proxy of the compose release, which
        asks for a user name and a password, answers with nginx's page.
        """
        if body.author is not Author.SOMETHING_ELSE or not content:
            return True
        return body.kind == "a web page" and not self._credentials.is_token

    def _not_the_answer(self, path: str, status: int, body: ErrorBody) -> UpstreamUnknown:
        """The error of what Airbyte did not write, or not to its end."""
        if 200 <= status < 300 and body.kind == "broken JSON":
            return UpstreamUnknown(f"Airbyte's answer to {path} was cut off, or is no JSON.")
        if status in _PASSING:
            return _PASSING[status](
                f"{path} was answered with {status} and {body.kind} by something before Airbyte."
            )
        is_redirection = 300 <= status < 400
        what = "a redirection" if is_redirection else body.kind
        begins = ""
        if is_redirection and self._base.startswith("http:"):
            begins = ", and begins with https where its server asks for TLS"
        failure = UpstreamNotAirbyte(
            f"{path} was answered with {status} and {what}, which is no answer of Airbyte's "
            "Configuration API: it came from a gateway, a login page, or another server than "
            f"AIRBYTE_API_URL should lead to. That URL ends with /api/v1{begins}."
        )
        failure.retryable = self._has_met_airbyte
        return failure

    def _not_sent(self, path: str, error: BaseException) -> Upstream:
        """The error of a connection that could not be opened; waiting does not help without TLS."""
        tls_error = _caused_by(error, aiohttp.ClientSSLError)
        if tls_error is None:
            return UpstreamUnreachable(f"Airbyte cannot be reached; {path} was not sent.")
        is_untrusted = isinstance(tls_error, aiohttp.ClientConnectorCertificateError)
        failure = UpstreamNoTls(
            f"Airbyte's certificate is not valid, or not for the host of AIRBYTE_API_URL; {path} "
            "was not sent. SSL_CERT_FILE names the authorities of your own."
            if is_untrusted
            else f"AIRBYTE_API_URL begins with https, and its server does not speak TLS; {path} "
            "was not sent."
        )
        failure.retryable = self._has_met_airbyte
        return failure

    async def _exchange(
        self, path: str, body: bytes | None, authorization: str | None
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
                return response.status_code, await _content(response)
            finally:
                await response.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, UnicodeError) as error:
            # UnicodeError: the transport stumbles over a reason phrase that is no text.
            failure = self._not_sent(path, error) if _never_connected(error) else _lost(path, error)
        except Unreadable as error:
            failure = UpstreamUnknown(f"Airbyte's {path} answered with {error}.")
        raise failure


def _sliced(body: bytes | None) -> bytes | AsyncIterator[bytes] | None:
    """A large body in slices, between which the event loop breathes; a small one as it is."""
    return body if body is None or len(body) <= _SLICE_BYTES else _slices(body)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _SLICE_BYTES):
        yield body[start : start + _SLICE_BYTES]


async def _content(response: httpx.Response) -> bytearray:
    """The decoded body, as long as it stays within the limit.

    httpx would decode each piece that comes as a whole, and one encoding within another.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Unreadable("an encoding that it was not asked for")
    inflate = zlib.decompressobj(wbits=31).decompress if encoding == "gzip" else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        left = _ANSWER_LIMIT_BYTES - len(content)
        try:
            piece = chunk if inflate is None else inflate(chunk, left + 1)
        except zlib.error:
            raise Unreadable("what is no gzip") from None
        if len(piece) > left:
            raise Unreadable(f"more than {_ANSWER_LIMIT_BYTES} bytes")
        content += piece
    return content


def _never_connected(error: BaseException) -> bool:
    """Whether the connection could not be opened, by what the transport's error was caused by.

    The transport calls a connection that was closed after the request a ConnectTimeout, too.
    """
    return _caused_by(error, aiohttp.ClientConnectorError) is not None


def _caused_by(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__
    return cause


def _lost(path: str, error: BaseException) -> Upstream:
    if _caused_by(error, aiohttp.http_exceptions.BadStatusLine) is not None:
        return UpstreamUnknown(
            f"{path} was answered with what is no HTTP: AIRBYTE_API_URL leads to another server, "
            "or to one that takes https alone."
        )
    return UpstreamUnknown(f"The connection to Airbyte was lost after {path} was sent.")


_PASSING: dict[int, type[UpstreamUnknown]] = {
    408: UpstreamTimeout,
    425: UpstreamUnknown,
    429: UpstreamUnknown,
    500: UpstreamUnknown,
    502: UpstreamUnknown,
    503: UpstreamUnknown,
    504: UpstreamTimeout,
}
"""What anything on the way may answer for a while; it proves nothing, whoever wrote it.

429 included: Airbyte's Configuration API has no rate limit, so a proxy sent it.
"""


_NO_SUCH_ENDPOINT = frozenset({405, 501})
_NOT_OVER = frozenset({408, 425, 429, 504})
"""Statuses after which the work may go on."""


def _refusal(path: str, status: int, body: ErrorBody) -> Upstream:
    """The error class of what Airbyte, or Micronaut in its place, has signed."""
    detail = f"Airbyte answered {path} with status {status}."
    is_airbytes = body.author is Author.AIRBYTE
    error: Upstream
    if status in _NO_SUCH_ENDPOINT or (status == 404 and not is_airbytes):
        error = UpstreamRefused(
            f"This Airbyte has no {path}: it is too old or too new, or AIRBYTE_API_URL does not "
            "lead to its Configuration API, whose URL ends with /api/v1.",
            code=UNSUPPORTED,
        )
    elif status in _PASSING or not 400 <= status < 500:
        error = _PASSING.get(status, UpstreamUnknown)(detail)
    elif status == 403:
        error = UpstreamForbidden(detail)
    elif status == 404:
        error = UpstreamMissing(detail)
    elif body.is_locked:
        error = UpstreamRefused(f"{detail} The connection is locked there.", code=LOCKED)
    elif status in {409, 423}:
        error = UpstreamConflict(detail)
    elif body.part is not None:
        error = UpstreamRefused(f"{detail} It is about the {body.part}.", part=body.part)
    else:
        error = UpstreamRefused(detail)
    error.is_over = status not in _NOT_OVER and (is_airbytes or status < 500)
    return error
