"""Authentication by tokens of an OpenID Connect issuer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

import jwt
from jwt.types import Options

from shared.auth.issuer_http import DEADLINE_S, IssuerAway, fetch, issuer_client
from shared.auth.scopes import KEY_SCOPES, Caller
from shared.config import is_secure_or_local
from shared.errors import Unavailable
from shared.observability import logs

log = logs.get(__name__)

_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
_OPTIONS: Options = {
    "require": ["exp", "iss", "aud", "sub"],
    "enforce_minimum_key_length": True,
}
_LEEWAY_S = 5
_FRESH_S = 600.0
_USED_ON_S = 3600.0
_FETCH_INTERVAL_S = 30.0
_FIRST_FETCH_INTERVAL_S = 1.0
_MOST_KEYS = 100
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """Where people sign in at an issuer, and where their code is exchanged for tokens."""

    authorization: str
    token: str
    takes_basic: bool
    """Whether a client's secret may be sent as HTTP Basic credentials, else only in the form."""
    names_itself: bool
    """Whether its redirects name it as `iss` (RFC 9207)."""


class Issuer:
    """Authenticates callers by an issuer's tokens, verified with its keys.

    The keys are fetched when a token needs them, and again after ten minutes or for an unknown key,
    at most every 30 seconds. While the issuer is unavailable, they stay in use for one hour.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        scope_claim: str = "scope",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._scope_claim = scope_claim
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._document: dict[str, Any] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def caller(self, presented: str) -> Caller | None:
        """The caller of a token; None if it has another issuer or audience, or is not valid now.

        Raises:
            Unavailable: the issuer's keys cannot be fetched, and those known are too old.
        """
        claims = await self.claims(presented)
        return None if claims is None else self._caller(claims)

    async def claims(self, presented: str) -> Mapping[str, Any] | None:
        """The verified claims of a token; None in the same cases.

        Raises:
            Unavailable: as above.
        """
        try:
            header = jwt.get_unverified_header(presented)
            unverified = jwt.decode(presented, options={"verify_signature": False})
        except (jwt.PyJWTError, OverflowError):
            return None
        if unverified.get("iss") != self._issuer or "crit" in header:
            return None
        key = await self._key(header.get("kid"))
        if key is None:
            log.info("oidc_refused", reason="the issuer has no such key")
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                presented,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, OverflowError) as error:
            log.info("oidc_refused", reason=type(error).__name__)
            return None
        return claims

    async def login_endpoints(self) -> LoginEndpoints:
        """Where people sign in, from the issuer's discovery document.

        Raises:
            Unavailable: the document cannot be fetched, or names no such https URLs.
        """
        if self._age_s() >= _FRESH_S:
            await self._ask()
        if self._age_s() >= _USED_ON_S:
            raise Unavailable("The issuer of OIDC_ISSUER cannot be asked where people sign in now.")
        authorization = self._document.get("authorization_endpoint")
        token = self._document.get("token_endpoint")
        if not _is_address(authorization) or not _is_address(token):
            raise Unavailable("The issuer of OIDC_ISSUER names no https URL where people sign in.")
        methods = self._document.get("token_endpoint_auth_methods_supported")
        return LoginEndpoints(
            authorization,
            token,
            takes_basic=not isinstance(methods, list) or "client_secret_basic" in methods,
            names_itself=self._document.get("authorization_response_iss_parameter_supported")
            is True,
        )

    def _caller(self, claims: Mapping[str, Any]) -> Caller | None:
        subject = _plain(claims["sub"])
        if subject is None:
            return None
        display_name = _plain(claims.get("email")) or _plain(claims.get("preferred_username"))
        granted = claims.get(self._scope_claim)
        words = granted.split() if isinstance(granted, str) else granted
        scopes = frozenset(
            scope.value for scope in KEY_SCOPES if isinstance(words, list) and scope in words
        )
        name = subject if display_name is None else f"{display_name} (oidc {subject})"
        expires_at = _time(claims["exp"])
        return Caller(f"oidc:{subject}", name, scopes, expires_at=expires_at)

    async def _key(self, kid: object) -> jwt.PyJWK | None:
        """The issuer's key with this id, fetched if unknown or old, or None."""
        if not isinstance(kid, str):
            return None
        if kid not in self._keys or self._age_s() >= _FRESH_S:
            may_wait = kid not in self._keys or self._age_s() >= _USED_ON_S
            if may_wait or not self._asking.locked():
                await self._ask()
        if self._age_s() >= _USED_ON_S:
            raise Unavailable("The issuer of OIDC_ISSUER cannot be asked for its keys now.")
        return self._keys.get(kid)

    def _age_s(self) -> float:
        return self._clock() - self._fetched_at

    async def _ask(self) -> None:
        async with self._asking:  # a task that waited finds the keys just fetched
            pause_s = _FETCH_INTERVAL_S if self._keys else _FIRST_FETCH_INTERVAL_S
            if self._clock() - self._asked_at < pause_s:
                return
            self._asked_at = self._clock()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    self._document, self._keys = await _fetch_documents(self._issuer)
            except TimeoutError:
                log.warning("oidc_issuer_away", reason="it did not answer in time")
            except IssuerAway as error:
                # nosemgrep: logged-exception-text - fixed sentences, none quotes the issuer
                log.warning("oidc_issuer_away", reason=str(error))
            else:
                self._fetched_at = self._clock()


def _time(seconds: Any) -> datetime | None:
    """The time of a verified `exp`, which converts to int; None if it is after the year 9999."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _plain(text: object) -> str | None:
    """A name from a token; None if it is too long or unprintable for logs and the registry."""
    if isinstance(text, str) and 0 < len(text) <= _LONGEST_NAME and text.isprintable():
        return text
    return None


def _is_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and is_secure_or_local(value)


async def _fetch_documents(issuer: str) -> tuple[dict[str, Any], dict[str, jwt.PyJWK]]:
    """Read the issuer's discovery document, and fetch its keys.

    Endpoint: GET <issuer>/.well-known/openid-configuration, then GET its `jwks_uri`
    Receives: {"issuer": str, "jwks_uri": str}; {"keys": [{"kty": str, "kid": str, ...}]}
    Source:   OpenID Connect Discovery 1.0, section 4; RFC 7517

    Raises:
        IssuerAway: one of them is unavailable or invalid.
    """
    async with issuer_client() as client:
        document = await fetch(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        place = document.get("jwks_uri")
        if document.get("issuer") != issuer:
            raise IssuerAway("its discovery document is another issuer's")
        if not _is_address(place):
            raise IssuerAway("its discovery document names no https URL for its keys")
        found = (await fetch(client, place)).get("keys")
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        raise IssuerAway("its keys are no list of keys")
    return document, _signing_keys(found)


def _signing_keys(found: list[Any]) -> dict[str, jwt.PyJWK]:
    """The keys for signatures by their ids; the library leaves out keys that it cannot use."""
    try:
        keys = jwt.PyJWKSet(found).keys
    except jwt.PyJWKSetError:  # none of them is usable
        return {}
    except (TypeError, ValueError):
        raise IssuerAway("one of its keys is malformed") from None
    return {
        key.key_id: key
        for key in keys
        if isinstance(key.key_id, str) and key.public_key_use in ("sig", None)
    }
