"""Send one signed message to one webhook, by Standard Webhooks. The receiver is not trusted.

Redirects are not followed, response bodies are not read, and proxies of the environment are not
used. The addresses of a host are checked before the call, which uses exactly those addresses.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from uuid import UUID

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr
from standardwebhooks import Webhook as Signature

from services.drift_repair_agent.webhooks.addresses import (
    LOOPBACK,
    AddressRefused,
    AllowedAddresses,
    ReachableOnly,
    is_localhost,
    written,
)
from shared.errors import Unavailable
from shared.tls import authorities

DEADLINE = timedelta(seconds=10)
_USER_AGENT = "AAM/0.1.0"
_REFUSED_ADDRESS = "address_refused"


class Signer:
    """Derives the secrets of webhooks from one key; they are not stored."""

    def __init__(self, key: SecretStr | None) -> None:
        self._key = key

    @property
    def is_able(self) -> bool:
        """Whether there is a key to derive secrets from."""
        return self._key is not None

    def require_key(self) -> SecretStr:
        """Return the signing key.

        Raises:
            Unavailable: WEBHOOK_SIGNING_KEY is not set.
        """
        if self._key is None:
            raise Unavailable(
                "Webhooks are disabled: WEBHOOK_SIGNING_KEY is not set.",
                code="webhooks_not_configured",
            )
        return self._key

    def secret(self, webhook_id: UUID, generation: int) -> str:
        """The secret that a receiver verifies messages with, as `whsec_…`.

        Raises:
            Unavailable: WEBHOOK_SIGNING_KEY is not set.
        """
        key = self.require_key().get_secret_value()
        name = f"{webhook_id}:{generation}"
        derived = hmac.digest(key.encode(), name.encode(), hashlib.sha256)
        return "whsec_" + base64.b64encode(derived).decode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt."""

    status: int | None
    """The HTTP status; None if there was no response."""
    code: str | None
    """Why the message was not delivered; None if it was."""
    retry_after: timedelta
    """The pause that the receiver's Retry-After header asks for; zero without the header."""
    took: timedelta


class Sender:
    """HTTP client for receivers; opens one connection per message."""

    def __init__(self, reach: AllowedAddresses, *, deadline: timedelta = DEADLINE) -> None:
        """Set up without connecting; `deadline` limits an attempt from DNS lookup to the status."""
        self.deadline = deadline
        self._reach = reach
        # Used without an httpx.AsyncClient, as in shared/airbyte_client: no redirects, no cookies,
        # no timeout other than the total one, and no log line with the URL.
        self._pool = AiohttpTransport(client=self._session, verify=authorities())

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The receiver could close a kept-alive connection just as the next message is written.
            connector=aiohttp.TCPConnector(
                force_close=True,
                ssl=self._pool.ssl_context,
                resolver=ReachableOnly(self._reach),
                use_dns_cache=False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def expect(self, url: str) -> None:
        """Check the address in a receiver's URL; host names other than localhost always pass.

        Raises:
            AddressRefused: the host is an address, or localhost, outside the allowed networks.
        """
        host = httpx.URL(url).host.rstrip(".")
        address = written(host)
        if address is not None:
            self._reach.expect(address)
        elif is_localhost(host):
            self._reach.expect_any(LOOPBACK)

    async def aclose(self) -> None:
        """Close open connections."""
        await self._pool.aclose()

    async def send(self, url: str, message_id: UUID, body: str, secrets: Sequence[str]) -> Outcome:
        """Post a message, signed with each of the secrets; failures are returned, not raised."""
        began = time.monotonic()
        status, code, retry_after = None, None, timedelta(0)
        try:
            request = _request(url, message_id, body, secrets)
            if (address := written(request.url.host)) is not None:
                self._reach.expect(address)  # the resolver is not called for an IP address
            async with asyncio.timeout(self.deadline.total_seconds()):
                response = await self._pool.handle_async_request(request)
                status, retry_after = response.status_code, _retry_after(response)
                code = _code(status)
                with suppress(httpx.HTTPError, aiohttp.ClientError):
                    await response.aclose()
        except TimeoutError:
            if status is None:  # otherwise the receiver answered, but did not close the connection
                code = "timeout"
        except AddressRefused:
            code = _REFUSED_ADDRESS
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, UnicodeError) as error:
            # UnicodeError: the transport cannot decode the reason phrase.
            code = _trouble(error)
        took = timedelta(seconds=time.monotonic() - began)
        return Outcome(status=status, code=code, retry_after=retry_after, took=took)


def is_readable(label: str) -> bool:
    """Whether a label of a host name is plain ASCII or valid punycode (`xn--…`)."""
    try:
        httpx.URL(scheme="https", host=label).host  # noqa: B018 - it decodes
    except (httpx.InvalidURL, UnicodeError):
        return False
    return True


def _request(url: str, message_id: UUID, body: str, secrets: Sequence[str]) -> httpx.Request:
    now = datetime.now(UTC)
    signatures = [Signature(secret).sign(str(message_id), now, body) for secret in secrets]
    return httpx.Request(
        "POST",
        url,
        content=body.encode(),
        headers={
            "content-type": "application/json",
            "user-agent": _USER_AGENT,
            "webhook-id": str(message_id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        },
    )


def _code(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return "redirected"
    return "gone" if status == 410 else "refused"


def _retry_after(response: httpx.Response) -> timedelta:
    """Parse the Retry-After header, in seconds or as a date; zero if it is missing or invalid."""
    header = response.headers.get("retry-after", "").strip()
    with suppress(ValueError, OverflowError):
        if header.isdecimal():
            return timedelta(seconds=int(header))
        at = parsedate_to_datetime(header).replace(tzinfo=UTC)  # HTTP's dates are GMT
        return max(at - datetime.now(UTC), timedelta(0))
    return timedelta(0)


def _trouble(error: BaseException) -> str:
    """The code of an attempt without a response, by the cause of the transport's error.

    The error's own type does not suffice: the transport also raises ConnectTimeout for a connection
    that was closed after the request.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientSSLError):
            return "tls_failed"
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return (
                _REFUSED_ADDRESS if isinstance(cause.__cause__, AddressRefused) else "unreachable"
            )
        if isinstance(cause, aiohttp.ClientConnectorError):
            return "unreachable"
        cause = cause.__cause__
    return "no_answer"
