"""The login to Airbyte: a fixed header, or tokens fetched with a client id and secret."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from typing import TYPE_CHECKING

import msgspec

from shared.airbyte_client._response_origin import UNSUPPORTED
from shared.airbyte_client._schemas import InstanceRead, Token
from shared.errors import (
    AamError,
    Upstream,
    UpstreamDenied,
    UpstreamLoginOff,
    UpstreamNotAirbyte,
    UpstreamNoTls,
    UpstreamNoToken,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from shared.airbyte_client._transport import Transport

_TOKEN_TIMEOUT_S = 10.0
_TOKEN = msgspec.json.Decoder(Token)
_INSTANCE = msgspec.json.Decoder(InstanceRead)


class Credentials:
    """The Authorization header, either fixed or absent; a subclass fetches it."""

    renewable = False
    token_url: str | None = None
    """Where tokens come from, unless that is `applications/token` under the API's URL."""

    def __init__(self, header: str | None = None) -> None:
        self._header = header

    @property
    def is_none(self) -> bool:
        """Whether calls are sent without a login."""
        return self._header is None and not self.renewable

    @property
    def is_token(self) -> bool:
        """Whether calls are sent with a bearer token, which only Airbyte's own login accepts."""
        return self.renewable or (self._header or "").startswith("Bearer ")

    @classmethod
    def bearer(cls, key: str) -> Credentials:
        """A permanent API key; a trailing newline from its file is removed."""
        return cls(f"Bearer {key.strip()}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credentials:
        """A user name and password, for the proxy of the compose release."""
        return cls("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())

    async def header(self, transport: Transport, *, refused: str | None = None) -> str | None:
        """The header to send; `refused` is one that was just answered with a 401."""
        del transport, refused
        return self._header


class ClientCredentials(Credentials):
    """A client id and secret that are exchanged for tokens, one exchange at a time."""

    renewable = True

    def __init__(self, client_id: str, client_secret: str, *, token_url: str | None = None) -> None:
        super().__init__()
        order = {"client_id": client_id, "client_secret": client_secret}
        self.token_url = token_url
        if token_url is not None:
            order["grant-type"] = "client_credentials"
        self._order = msgspec.json.encode(order)
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()
        self._failure: Upstream | None = None
        self._failed_at = 0.0

    async def header(self, transport: Transport, *, refused: str | None = None) -> str | None:
        """The token, renewed before it expires; a refused one is replaced unless another call did.

        Raises:
            UpstreamDenied: Airbyte rejects this client id and secret.
            UpstreamLoginOff: Airbyte's login is disabled.
            UpstreamUnreachable: no token could be fetched, so the call itself was never sent.
        """
        if self._fresh(refused):
            return self._header
        came_at = time.monotonic()
        async with self._renewing:
            if not self._fresh(refused):
                self._expect_no_failure_since(came_at)
                requested_at = time.time()
                token = await self._fetch(transport)
                self._header = f"Bearer {token.access_token}"
                self._renew_at = _renew_at(token, requested_at)
        return self._header

    def _expect_no_failure_since(self, came_at: float) -> None:
        """Raise the failure of an exchange that this call waited for, instead of retrying it.

        A later call tries again, since Airbyte may be available by then.
        """
        failure = self._failure
        if failure is not None and came_at <= self._failed_at:
            again = type(failure)(failure.detail, code=failure.code)
            again.retryable = failure.retryable
            raise again

    def _fresh(self, refused: str | None) -> bool:
        return self._header is not None and self._header != refused and time.time() < self._renew_at

    async def _fetch(self, transport: Transport) -> Token:
        """Exchange the client id and secret for a token.

        Endpoint: POST applications/token, or the public API's at `token_url`
        Sends:    {"client_id": str, "client_secret": str}, to the public API also "grant-type"
        Receives: {"access_token": JWT}, from the public API also {"expires_in": seconds}
        Time:     Airbyte allows itself one second, then answers 408.
        """
        failure: Upstream
        try:
            return await transport.call(
                TOKEN_PATH,
                self._order,
                _TOKEN,
                timeout=_TOKEN_TIMEOUT_S,
                repeat=True,
                anonymous=True,
            )
        except UpstreamNoTls as error:
            failure = error
        except UpstreamUnreachable as error:
            failure = (
                UpstreamNoToken(
                    f"{error.detail} So there is no token.", code="upstream_rate_limited"
                )
                if error.code == UpstreamRateLimited.code
                else UpstreamUnreachable(
                    "Airbyte cannot be reached for a token, so the call was not sent."
                )
            )
        except (UpstreamRefused, UpstreamDenied, UpstreamNotAirbyte) as error:
            if self.token_url is None:
                failure = await _why_no_token(transport, error)
            elif isinstance(error, UpstreamDenied):
                failure = error
            else:
                failure = UpstreamNoToken(
                    f"{error.detail} So there is no token, and the call was not sent."
                )
        except AamError as error:
            failure = UpstreamNoToken(
                f"Airbyte's token endpoint does not work at the moment ({error.code}), so the call "
                "was not sent."
            )
        # It was already retried here, where that may help.
        failure.retryable = False
        self._failure, self._failed_at = failure, time.monotonic()
        raise failure


TOKEN_PATH = "applications/token"  # noqa: S105 - a path
_TOKENS_BROKEN_IN = re.compile(r"v?1\.8\.[0-5]\b")
"""These releases also reject a correct client id and secret (airbytehq/airbyte#65592, #65595)."""


async def _why_no_token(transport: Transport, error: Upstream) -> Upstream:
    """The reason why a token was refused, from Airbyte's public instance configuration.

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
            "Airbyte's login is switched off (auth.mode is `none`), so it issues no tokens: leave "
            "AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET empty. If a proxy in front of it asks "
            "for a password, set AIRBYTE_USERNAME and AIRBYTE_PASSWORD."
        )
    if isinstance(error, UpstreamNotAirbyte) or error.code == UNSUPPORTED:
        return UpstreamNoToken(
            f"{error.detail} So there is no token, and the call was not sent: see AIRBYTE_API_URL."
        )
    if instance is not None and _TOKENS_BROKEN_IN.match(instance.version):
        return UpstreamDenied(
            "Airbyte refused the client id and secret that tokens are fetched with. Its releases "
            "1.8.0 to 1.8.5 refuse valid ones, too (airbytehq/airbyte#65592): update Airbyte."
        )
    return UpstreamDenied("Airbyte refused the client id and secret that tokens are fetched with.")


class _Claims(msgspec.Struct):
    exp: float | None = None
    iat: float | None = None


_UNSTATED_LIFE_S = 150.0
"""Assumed lifetime of a token that states none: below the three minutes that were documented
for Airbyte Cloud until 2025, when the documentation changed to 15."""
_SHORTEST_LIFE_S = 1.0
"""A token is used for at least this long, since Airbyte's clock may be behind this machine's."""


def _renew_at(token: Token, requested_at: float) -> float:
    """When to replace a token, as epoch seconds: a fifth of its lifetime early, at most a minute.

    Its lifetime is that of its claims, else `expires_in`, else a short one.
    """
    claims = _claims(token.access_token)
    if claims.exp is not None:
        # With `iat`, the lifetime does not depend on the difference between the two clocks.
        life_s = claims.exp - (requested_at if claims.iat is None else claims.iat)
    elif token.expires_in is not None:
        life_s = token.expires_in
    else:
        life_s = _UNSTATED_LIFE_S
    life_s = max(life_s, _SHORTEST_LIFE_S)
    return requested_at + life_s - min(60.0, life_s / 5)


def _claims(token: str) -> _Claims:
    """The claims of a JWT; empty for an opaque token."""
    try:
        payload = token.split(".")[1]
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(raw, type=_Claims)
    except (IndexError, ValueError, msgspec.DecodeError):
        return _Claims()
