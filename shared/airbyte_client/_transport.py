"""HTTP transport to Airbyte: a total deadline, and translation of failures to errors.

The only module that uses httpx. Only a connection that could not be opened means "not sent"; any
later failure may have taken effect. Only a response with Airbyte's own signature is conclusive.
Errors name the endpoint and the status, never the request's or the response's content, and they
hold no exception that does.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import aiohttp
import httpx
import msgspec
import stamina
from httpx_aiohttp import AiohttpTransport

from shared.airbyte_client._access_tokens import TOKEN_PATH, Credentials
from shared.airbyte_client._refused_mappers import RefusedMapper
from shared.airbyte_client._response_origin import UNSUPPORTED, Author, ErrorBody, classify
from shared.errors import (
    AamError,
    Invalid,
    MapperRefused,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamNotAirbyte,
    UpstreamNoTls,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.observability import logs, tracing
from shared.tls import authorities

T = TypeVar("T")

LOCKED = "connection_locked"
"""Error code when Airbyte has locked the connection."""

_ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
_SLICE_BYTES = 256 * 1024
_LARGE_BODY_BYTES = 64 * 1024
"""No proxy rejects a body smaller than this for its size."""
# Shorter than the idle timeout of any server in front of Airbyte (uvicorn 5 s, nginx 75 s), so that
# no POST is written to a connection that is just being closed.
_KEEP_IDLE_S = 3.0
_CONNECTIONS = 200
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_MAX_REPETITIONS = 4
_LONGEST_RETRY_AFTER_S = 300.0
"""No `Retry-After` stops the calls to Airbyte for longer, whatever its value is."""


class Unreadable(Exception):
    """Internal: a response is over the limit, or has an encoding that was not requested."""


class Transport:
    """One connection pool to one Airbyte, for the event loop that uses it first.

    A user name and password in the URL are removed from it, and used if no other login is set.
    """

    def __init__(self, base_url: str, credentials: Credentials) -> None:
        url = httpx.URL(base_url)
        if url.username and credentials.is_none:
            credentials = Credentials.basic(url.username, url.password)
        self._base = str(url.copy_with(userinfo=b"")).rstrip("/") + "/"
        self._credentials = credentials
        self._urls: dict[str, httpx.URL] = {}
        self._token_url = credentials.token_url
        if self._token_url is not None:
            self._urls[TOKEN_PATH] = httpx.URL(self._token_url)
        self._may_send_at: dict[bool, float] = {}
        self._has_met_airbyte = False
        # Without an httpx.AsyncClient: its features (redirects, cookies, timeouts per read, a log
        # line per call) are unwanted here, and they cost time.
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
        """Check that there is a login to send, as far as that is known before a call.

        Raises:
            Upstream: no token can be fetched; the detail says why.
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
        """Send a request once, or up to five times if `repeat` says that retrying is safe.

        `timeout` is in seconds and total: connecting, waiting, every byte and every retry. After a
        `Retry-After`, no call is sent before that time; one whose deadline is earlier fails. A
        response that Airbyte did not write is retried only if this client has received one that it
        did write; otherwise the address is probably wrong.

        `body` is JSON, or None for a GET. An empty response is read as `null`. `only_status` is the
        single success status of this call, where that distinguishes Airbyte from a gateway. With
        `runs_connector`, an error written by Airbyte is not retried: the connector has run.

        Raises:
            Upstream: a subclass for the kind of failure.
            Invalid: Airbyte, or a proxy in front of it, rejects the body for its size.
        """
        with tracing.asking_airbyte(path):
            return await self._send_repeatedly(
                path,
                body,
                answer,
                timeout=timeout,
                repeat=repeat,
                anonymous=anonymous,
                only_status=only_status,
                runs_connector=runs_connector,
            )

    async def _send_repeatedly(
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
        earlier: Upstream | None = None
        is_given_up = False
        deadline = time.monotonic() + timeout

        def is_retryable(error: Exception) -> bool:
            if not isinstance(error, Upstream) or (runs_connector and error.is_over):
                return False
            return error.retryable and not is_given_up

        async def attempt_once() -> T:
            nonlocal earlier, is_given_up
            if not await self._is_sendable_before(deadline, path):
                is_given_up = True
                raise earlier or self._rate_limited(path)
            try:
                return await self._once(
                    path, body, answer, anonymous=anonymous, only_status=only_status
                )
            except Upstream as error:
                earlier = error
                raise

        try:
            async with asyncio.timeout(timeout):
                try:
                    return await attempt_once()
                except Upstream as error:
                    if not (repeat and is_retryable(error)):
                        raise
                await asyncio.sleep(_FIRST_PAUSE_S)
                async for attempt in stamina.retry_context(
                    on=is_retryable,
                    attempts=_MAX_REPETITIONS,
                    timeout=None,
                    wait_initial=_FIRST_PAUSE_S,
                    wait_max=_LONGEST_PAUSE_S,
                    wait_jitter=0.2,
                ):
                    with attempt:
                        return await attempt_once()
        except TimeoutError:
            failure = UpstreamTimeout(f"Airbyte's {path} gave no answer within {timeout:g} s.")
        else:
            raise AssertionError("A retried call returns or raises.")
        # Raised here, so that it has no context: contexts from httpx hold the request.
        raise failure

    async def _is_sendable_before(self, deadline: float, path: str) -> bool:
        """Wait until the time that the newest `Retry-After` gave; False if the deadline is before.

        All calls to the same server wait, since it counts the requests of the login, not of a call.
        """
        while (wait_s := self._wait_s(path)) > 0:
            if time.monotonic() + wait_s >= deadline:
                return False
            await asyncio.sleep(wait_s)
        return True

    def _wait_s(self, path: str) -> float:
        return self._may_send_at.get(self._issues_tokens(path), 0.0) - time.monotonic()

    def _issues_tokens(self, path: str) -> bool:
        """Whether an endpoint is that of AIRBYTE_TOKEN_URL, which may be another server."""
        return path == TOKEN_PATH and self._token_url is not None

    def _rate_limited(self, path: str) -> UpstreamUnreachable:
        wait_s = max(self._wait_s(path), 0.0)
        return UpstreamUnreachable(
            f"Airbyte limits the rate of requests for another {wait_s:.0f} s; {path} was not sent.",
            code="upstream_rate_limited",
            wait_s=round(wait_s, 1),
        )

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
            status, content, wait_s = await self._exchange(path, body, None)
        else:
            header = await credentials.header(self)
            status, content, wait_s = await self._exchange(path, body, header)
            if status == 401 and credentials.renewable:
                header = await credentials.header(self, refused=header)
                status, content, wait_s = await self._exchange(path, body, header)
        if 200 <= status < 300 and only_status in {None, status}:
            try:
                decoded = answer.decode(content or b"null")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self._has_met_airbyte |= not self._issues_tokens(path)
                return decoded
        failure = self._failure(path, status, content, sent_bytes=len(body or b""))
        if wait_s is not None:
            wait_s = min(wait_s, _LONGEST_RETRY_AFTER_S)
            self._may_send_at[self._issues_tokens(path)] = time.monotonic() + wait_s
            failure.members["wait_s"] = round(wait_s, 1)
        raise failure

    def _failure(self, path: str, status: int, content: bytearray, *, sent_bytes: int) -> AamError:
        """The error for a status that is not a success, or for a success that is not Airbyte's."""
        body = classify(status, content)
        is_signed = body.author is not Author.SOMETHING_ELSE
        if self._issues_tokens(path):
            return _no_token(path, status, body)
        self._has_met_airbyte |= is_signed
        if 200 <= status < 300:
            return self._foreign_response(path, status, body)
        if status == 401 and self._is_login_refused(body, content):
            return self._denied(path, body)
        if status == 413 and (is_signed or sent_bytes >= _LARGE_BODY_BYTES):
            return Invalid(
                f"The body of {path} is larger than Airbyte accepts.", code="catalog_too_large"
            )
        if is_signed:
            return _refusal(path, status, body)
        return self._foreign_response(path, status, body)

    def _denied(self, path: str, body: ErrorBody) -> UpstreamDenied:
        denial = f"Airbyte answered {path} with status 401: "
        denied = UpstreamDenied(
            f"{denial}it requires authentication, but AAM has no credentials for it. Set "
            "AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET, AIRBYTE_API_KEY, or AIRBYTE_USERNAME "
            "and AIRBYTE_PASSWORD."
            if self._credentials.is_none
            else f"{denial}it does not accept AAM's credentials."
        )
        denied.is_over = body.author is Author.AIRBYTE
        return denied

    def _is_login_refused(self, body: ErrorBody, content: bytearray) -> bool:
        """Whether a 401 is about AAM's own login.

        Airbyte's own 401 has a signature or no body; the compose release's proxy, which requires a
        user name and password, answers with nginx's page.
        """
        if body.author is not Author.SOMETHING_ELSE or not content:
            return True
        return body.kind == "a web page" and not self._credentials.is_token

    def _foreign_response(self, path: str, status: int, body: ErrorBody) -> UpstreamUnknown:
        """The error for a response that Airbyte did not write, or that is incomplete."""
        if 200 <= status < 300 and body.kind == "broken JSON":
            return UpstreamUnknown(f"Airbyte's answer to {path} is incomplete or not JSON.")
        if status in _PASSING:
            return _PASSING[status](
                f"{path} was answered with {status} and {body.kind} by something in front of "
                "Airbyte."
            )
        is_redirection = 300 <= status < 400
        what = "a redirection" if is_redirection else body.kind
        begins = ""
        if is_redirection and self._base.startswith("http:"):
            begins = ", and begins with https where its server asks for TLS"
        failure = UpstreamNotAirbyte(
            f"{path} was answered with {status} and {what}, which is not a response of Airbyte's "
            "Configuration API: it came from a gateway, a login page, or another server than "
            f"AIRBYTE_API_URL should point to. That URL ends with /api/v1{begins}."
        )
        failure.retryable = self._has_met_airbyte
        return failure

    def _not_sent(self, path: str, error: BaseException) -> Upstream:
        """The error for a failed connect; a TLS error is retryable after an earlier success."""
        tls_error = _caused_by(error, aiohttp.ClientSSLError)
        if tls_error is None:
            return UpstreamUnreachable(f"Airbyte cannot be reached; {path} was not sent.")
        is_untrusted = isinstance(tls_error, aiohttp.ClientConnectorCertificateError)
        variable = "AIRBYTE_TOKEN_URL" if self._issues_tokens(path) else "AIRBYTE_API_URL"
        failure = UpstreamNoTls(
            f"Airbyte's certificate is not valid, or not for the host of {variable}; {path} "
            "was not sent. Set SSL_CERT_FILE to your own certificate authorities."
            if is_untrusted
            else (
                f"{variable} begins with https, but its server does not speak TLS; {path} was "
                "not sent."
            )
        )
        failure.retryable = self._has_met_airbyte
        return failure

    async def _exchange(
        self, path: str, body: bytes | None, authorization: str | None
    ) -> tuple[int, bytearray, float | None]:
        """Send a request; return the status, the body, and the seconds to wait after a refusal."""
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
                wait_s = None
                if response.status_code in _ANSWERED_WITH_RETRY_AFTER:
                    wait_s = _retry_after_s(response.headers)
                return response.status_code, await _content(response), wait_s
            finally:
                await response.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, UnicodeError) as error:
            # UnicodeError: raised by the transport for a reason phrase that is not text.
            failure = self._not_sent(path, error) if _never_connected(error) else _lost(path, error)
        except Unreadable as error:
            failure = UpstreamUnknown(f"Airbyte's {path} answered with {error}.")
        raise failure


def _sliced(body: bytes | None) -> bytes | AsyncIterator[bytes] | None:
    """A large body in slices, so that the event loop can run in between; a small one unchanged."""
    return body if body is None or len(body) <= _SLICE_BYTES else _slices(body)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _SLICE_BYTES):
        yield body[start : start + _SLICE_BYTES]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header gives, as a number or a date; None without one.

    A date is compared with that of the response, since the clocks may differ.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):  # neither, or one of the two dates has no time zone
        return None


async def _content(response: httpx.Response) -> bytearray:
    """The decoded body, up to the size limit.

    httpx would decode each chunk in full, and nested encodings as well.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Unreadable("an encoding that was not requested")
    inflate = zlib.decompressobj(wbits=31).decompress if encoding == "gzip" else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        left = _ANSWER_LIMIT_BYTES - len(content)
        try:
            piece = chunk if inflate is None else inflate(chunk, left + 1)
        except zlib.error:
            raise Unreadable("invalid gzip data") from None
        if len(piece) > left:
            raise Unreadable(f"more than {_ANSWER_LIMIT_BYTES} bytes")
        content += piece
    return content


def _never_connected(error: BaseException) -> bool:
    """Whether the connection could not be opened, according to the cause of the error.

    The transport also raises ConnectTimeout for a connection that closed after the request.
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
            f"The response to {path} is not HTTP: AIRBYTE_API_URL points to another server, or to "
            "one that accepts only https."
        )
    return UpstreamUnknown(f"The connection to Airbyte was lost after {path} was sent.")


_PASSING: dict[int, type[UpstreamUnknown]] = {
    408: UpstreamTimeout,
    425: UpstreamUnknown,
    429: UpstreamRateLimited,
    500: UpstreamUnknown,
    502: UpstreamUnknown,
    503: UpstreamUnknown,
    504: UpstreamTimeout,
}
"""Statuses that anything on the way may answer temporarily; inconclusive, whoever wrote them.

429 included: whether a proxy has forwarded the request is not certain.
"""

_ANSWERED_WITH_RETRY_AFTER = frozenset({429, 503})


_NO_SUCH_ENDPOINT = frozenset({405, 501})
_NOT_OVER = frozenset({408, 425, 429, 504})
"""Statuses after which Airbyte may still be processing the request."""


def _no_token(path: str, status: int, body: ErrorBody) -> Upstream:
    """The error for a response of AIRBYTE_TOKEN_URL that has no token.

    The server is not known, so a JSON body with one of these statuses is a refusal, whoever signed
    it.
    """
    if status in _PASSING:
        return _PASSING[status](f"AIRBYTE_TOKEN_URL answered with status {status}.")
    if status in {400, 401, 403} and body.kind in {"JSON", "no body"}:
        denied = UpstreamDenied(
            "AIRBYTE_TOKEN_URL refused AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET with status "
            f"{status}."
        )
        denied.is_over = True
        return denied
    return UpstreamNotAirbyte(
        f"AIRBYTE_TOKEN_URL answered {path} with status {status} and {body.kind} instead of a "
        "token: it is wrong, or a gateway or a login page answered."
    )


def _refusal(path: str, status: int, body: ErrorBody) -> Upstream:
    """The error for a response that carries the signature of Airbyte or of Micronaut."""
    detail = f"Airbyte answered {path} with status {status}."
    is_airbytes = body.author is Author.AIRBYTE
    error: Upstream
    if status in _NO_SUCH_ENDPOINT or (status == 404 and not is_airbytes):
        error = UpstreamRefused(
            f"This Airbyte has no {path}: it is too old or too new, or AIRBYTE_API_URL does not "
            "point to its Configuration API, whose URL ends with /api/v1.",
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
    elif body.mappers is not None:
        error = MapperRefused(f"{detail} {_of_mappers(body.mappers)}", part=body.part)
        error.members["mappers"] = list(msgspec.to_builtins(body.mappers))
    elif body.part is not None:
        error = UpstreamRefused(f"{detail} It is about the {body.part}.", part=body.part)
    else:
        error = UpstreamRefused(detail)
    error.is_over = status not in _NOT_OVER and (is_airbytes or status < 500)
    return error


def _of_mappers(refused: tuple[RefusedMapper, ...]) -> str:
    first = refused[0]
    what = f"the {first.type or 'first'} mapper"
    if first.field is not None:
        what += f" of {first.field!r}"
    if first.stream is not None:
        what += f" in {first.stream!r}"
    others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"It refuses {what}{others}: {first.error}."
