"""One signed message to one webhook, as Standard Webhooks has it. The receiver is not trusted.

No redirect is followed, no answer read, no proxy of the environment used. What a host's name
resolves to is looked at before it is called, and is what is called.
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
    Reach,
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
    """The secrets of webhooks: derived when they are needed, stored nowhere."""

    def __init__(self, key: SecretStr | None) -> None:
        self._key = key

    @property
    def is_able(self) -> bool:
        """Whether there is a key to derive secrets from."""
        return self._key is not None

    def require_key(self) -> SecretStr:
        """The key.

        Raises:
            Unavailable: WEBHOOK_SIGNING_KEY is not set.
        """
        if self._key is None:
            raise Unavailable(
                "There are no webhooks while WEBHOOK_SIGNING_KEY is not set.",
                code="webhooks_not_configured",
            )
        return self._key

    def secret(self, webhook_id: UUID, generation: int) -> str:
        """What a receiver verifies with, as `whsec_…`.

        Raises:
            Unavailable: WEBHOOK_SIGNING_KEY is not set.
        """
        key = self.require_key().get_secret_value()
        name = f"{webhook_id}:{generation}"
        derived = hmac.digest(key.encode(), name.encode(), hashlib.sha256)
        return "whsec_" + base64.b64encode(derived).decode()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try went."""

    status: int | None
    """The HTTP status; None where there was no answer."""
    code: str | None
    """Why it was not delivered; None where it was."""
    retry_after: timedelta
    """How long the receiver asks to be left alone."""
    took: timedelta


class Sender:
    """A client for receivers; one connection a message."""

    def __init__(self, reach: Reach, *, deadline: timedelta = DEADLINE) -> None:
        """Open nothing yet; `deadline` is a try's whole time, from the name to the status."""
        self.deadline = deadline
        self._reach = reach
        # Without an httpx.AsyncClient around it, as in shared/airbyte_client: no redirects, no
        # cookies, no time limit but the total one, and no log line with the URL.
        self._pool = AiohttpTransport(client=self._session, verify=authorities())

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # A kept connection might be closed by the receiver just as the next message is written.
            connector=aiohttp.TCPConnector(
                force_close=True,
                ssl=self._pool.ssl_context,
                resolver=ReachableOnly(self._reach),
                use_dns_cache=False,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def expect(self, url: str) -> None:
        """See that a receiver may be called, as far as its URL says where it is.

        Raises:
            AddressRefused: it names an address, or this machine, in no network that may be called.
        """
        host = httpx.URL(url).host.rstrip(".")
        address = written(host)
        if address is not None:
            self._reach.expect(address)
        elif is_localhost(host):
            self._reach.expect_any(LOOPBACK)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._pool.aclose()

    async def send(self, url: str, message_id: UUID, body: str, secrets: Sequence[str]) -> Outcome:
        """Post a message, signed with each of the secrets; what goes wrong is in the outcome."""
        began = time.monotonic()
        status, code, retry_after = None, None, timedelta(0)
        try:
            request = _request(url, message_id, body, secrets)
            if (address := written(request.url.host)) is not None:
                self._reach.expect(address)  # which no resolver is asked for
            async with asyncio.timeout(self.deadline.total_seconds()):
                response = await self._pool.handle_async_request(request)
                status, retry_after = response.status_code, _retry_after(response)
                code = _code(status)
                with suppress(httpx.HTTPError, aiohttp.ClientError):
                    await response.aclose()
        except TimeoutError:
            if status is None:  # else it has answered, and does not let go
                code = "timeout"
        except AddressRefused:
            code = _REFUSED_ADDRESS
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, UnicodeError) as error:
            # UnicodeError: the transport stumbles over a reason phrase that is no text.
            code = _trouble(error)
        took = timedelta(seconds=time.monotonic() - began)
        return Outcome(status=status, code=code, retry_after=retry_after, took=took)


def is_readable(label: str) -> bool:
    """Whether a part of a host's name is plain, or encodes (`xn--…`) one that there may be."""
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
    """What the Retry-After header asks for, in seconds or as a date; nothing where it cannot be."""
    told = response.headers.get("retry-after", "").strip()
    with suppress(ValueError, OverflowError):
        if told.isdecimal():
            return timedelta(seconds=int(told))
        at = parsedate_to_datetime(told).replace(tzinfo=UTC)  # HTTP's dates are GMT
        return max(at - datetime.now(UTC), timedelta(0))
    return timedelta(0)


def _trouble(error: BaseException) -> str:
    """The code of a try without an answer, by what the transport's error was caused by.

    The transport calls a connection that was closed after the request a ConnectTimeout, too.
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
