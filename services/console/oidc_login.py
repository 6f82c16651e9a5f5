"""Signing in at the OpenID Connect issuer: authorization code with PKCE, state and nonce.

What a sign-in needs until the issuer leads back is in an encrypted cookie of five minutes, so that
any replica can finish it, and only the browser that started it.
Source: OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE); RFC 9207 (`iss`); RFC 9700.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec

from services.console.cookies import SIGN_IN_S
from services.console.problems import PageProblem
from services.console.sealing import SealingKeys
from services.console.settings import ConsoleSettings
from shared.auth import issuer_http
from shared.auth.issuer_http import IssuerAway, IssuerRefused
from shared.auth.oidc import Issuer, LoginEndpoints
from shared.errors import Unavailable
from shared.observability import logs

log = logs.get(__name__)

CALLBACK: Final = "/login/callback"
_PURPOSE: Final = b"aam console sign-in"
_NEEDS_A_PERSON: Final = frozenset(
    {
        "login_required",
        "interaction_required",
        "consent_required",
        "account_selection_required",
    }
)
_REFUSALS: Final = _NEEDS_A_PERSON | {
    "access_denied",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
}
_LONGEST: Final = 16_000


class NeedsAPerson(Exception):
    """The issuer cannot sign somebody in without asking; `then` is where they wanted to go."""

    def __init__(self, then: str) -> None:
        super().__init__("the issuer has to ask")
        self.then = then


class ExchangeFailed(PageProblem):
    """The issuer was asked for tokens, and gave none. Whoever sends codes can cause it."""


class _SignIn(msgspec.Struct, frozen=True):
    """A sign-in that is under way at the issuer."""

    state: str
    nonce: str
    verifier: str
    then: str
    started_at: int
    is_silent: bool

    def __repr__(self) -> str:
        """Nothing of it: its values are secret."""
        return "_SignIn()"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whom the issuer signed in, its token for the services, and where they wanted to go."""

    subject: str
    access_token: str
    then: str

    def __repr__(self) -> str:
        """Whom, never the token."""
        return f"SignedIn({self.subject!r})"


class OidcLogin:
    """Leads people to the issuer and back."""

    def __init__(
        self, settings: ConsoleSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        if settings.oidc_issuer is None or settings.oidc_client_id is None:
            raise ValueError("OIDC_ISSUER and OIDC_CLIENT_ID must be set")
        self.issuer_name = urlsplit(settings.oidc_issuer).netloc
        """The issuer's host, as people see it."""
        self._url = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._audience = settings.oidc_audience
        self._scopes = settings.oidc_requested_scopes
        self._redirect_uri = str(settings.console_url).rstrip("/") + CALLBACK
        self._issuer = Issuer(self._url, audience=self._client_id)
        self._keys = SealingKeys(settings.console_session_keys)
        self._clock = clock

    async def start(self, then: str, *, is_silent: bool) -> tuple[str, str]:
        """Where to send a browser, and what its cookie must hold until it comes back.

        A silent sign-in shows nothing: it succeeds where the issuer still has its own session.

        Raises:
            PageProblem: the issuer is away.
        """
        endpoints = await self._endpoints()
        sign_in = _SignIn(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            then=then,
            started_at=int(self._clock()),
            is_silent=is_silent,
        )
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._scopes,
            "audience": self._audience or "",  # where the issuer has several APIs, as Auth0 has
            "state": sign_in.state,
            "nonce": sign_in.nonce,
            "code_challenge": _s256(sign_in.verifier),
            "code_challenge_method": "S256",
        }
        if is_silent:
            query["prompt"] = "none"
        separator = "&" if urlsplit(endpoints.authorization).query else "?"
        url = f"{endpoints.authorization}{separator}{urlencode(query)}"
        return url, self._keys.seal(msgspec.json.encode(sign_in), _PURPOSE)

    async def finish(self, sealed: str | None, answer: Mapping[str, str]) -> SignedIn:
        """Finish a sign-in with its cookie and the query that the issuer led back with.

        Raises:
            ExchangeFailed: the issuer did not accept the code, or did not answer.
            PageProblem: it is another sign-in's, the issuer refused it, or is away.
            NeedsAPerson: a silent sign-in was not possible.
        """
        sign_in = self._opened(sealed)
        if sign_in is None or not hmac.compare_digest(
            sign_in.state.encode(), answer.get("state", "").encode()
        ):
            raise _refused("sign_in_expired", "state")
        endpoints = await self._endpoints()
        if answer.get("iss", None if endpoints.names_itself else self._url) != self._url:
            raise _refused("sign_in_mismatch", "iss")
        if error := answer.get("error"):
            if sign_in.is_silent and error in _NEEDS_A_PERSON:
                raise NeedsAPerson(sign_in.then)
            raise _refused("sign_in_refused", error if error in _REFUSALS else "error")
        tokens = await self._exchange(endpoints, answer.get("code", ""), sign_in.verifier)
        claims = await self._claims(tokens.get("id_token"))
        if claims is None or claims.get("azp", self._client_id) != self._client_id:
            raise _refused("sign_in_mismatch", "id_token")
        if not hmac.compare_digest(str(claims.get("nonce")).encode(), sign_in.nonce.encode()):
            raise _refused("sign_in_mismatch", "nonce")
        access_token = tokens.get("access_token")
        if not _is_token(access_token):
            raise _refused("sign_in_mismatch", "access_token")
        return SignedIn(str(claims["sub"]), access_token, sign_in.then)

    def _opened(self, sealed: str | None) -> _SignIn | None:
        plain = None if sealed is None else self._keys.open(sealed, _PURPOSE)
        if plain is None:
            return None
        sign_in = msgspec.json.decode(plain, type=_SignIn)
        is_late = self._clock() - sign_in.started_at >= SIGN_IN_S
        return None if is_late else sign_in

    async def _endpoints(self) -> LoginEndpoints:
        try:
            return await self._issuer.login_endpoints()
        except Unavailable as error:
            raise _away(error.detail) from None

    async def _claims(self, id_token: object) -> Mapping[str, Any] | None:
        try:
            return await self._issuer.claims(id_token) if _is_token(id_token) else None
        except Unavailable as error:
            raise _away(error.detail) from None

    async def _exchange(
        self, endpoints: LoginEndpoints, code: str, verifier: str
    ) -> dict[str, Any]:
        """Exchange a code for tokens, once: an issuer accepts a code one time.

        Endpoint: POST its `token_endpoint`
        Sends:    grant_type, code, redirect_uri, code_verifier, and the client's id and secret
        Receives: {"access_token": str, "id_token": str, "token_type": "Bearer", ...}

        Raises:
            ExchangeFailed: it was refused, or there was no answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        basic = None
        if self._secret is not None and endpoints.takes_basic:
            secret = self._secret.get_secret_value()
            basic = httpx.BasicAuth(quote(self._client_id, safe=""), quote(secret, safe=""))
        else:
            form["client_id"] = self._client_id
            if self._secret is not None:
                form["client_secret"] = self._secret.get_secret_value()
        try:
            async with (
                asyncio.timeout(issuer_http.DEADLINE_S),
                issuer_http.issuer_client() as client,
            ):
                return await issuer_http.submit(client, endpoints.token, form, basic)
        except IssuerRefused as error:
            # nosemgrep: logged-exception-text - one of a few fixed words
            raise _refused("sign_in_code_refused", str(error), ExchangeFailed) from None
        except (IssuerAway, TimeoutError):
            sentence = "The issuer of OIDC_ISSUER did not answer in time."
            raise _away(sentence, ExchangeFailed) from None


_SENTENCES: Final = {
    "sign_in_expired": "This sign-in was not started in this browser within the last five minutes, "
    "or is already finished.",
    "sign_in_mismatch": "The issuer's answer does not belong to this sign-in.",
    "sign_in_refused": "The issuer did not sign you in.",
    "sign_in_code_refused": "The issuer did not accept this sign-in: it was used before, took too "
    "long, or OIDC_CLIENT_ID or OIDC_CLIENT_SECRET is wrong.",
}


def _refused(code: str, reason: str, kind: type[PageProblem] = PageProblem) -> PageProblem:
    log.warning("oidc_sign_in_refused", code=code, reason=reason)
    return kind(403, code, _SENTENCES[code])


def _away(sentence: str, kind: type[PageProblem] = PageProblem) -> PageProblem:
    return kind(503, "issuer_unavailable", f"{sentence} You can try again in a moment.")


def _is_token(value: object) -> TypeGuard[str]:
    """Whether it can be sent in a header."""
    return (
        isinstance(value, str) and value.isascii() and value.isprintable() and len(value) < _LONGEST
    )


def _s256(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
