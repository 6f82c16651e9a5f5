"""The gate before every service: who asks is known before a byte of the body is read.

What each route needs is what it declares (`access.may`); a route that declares nothing keeps the
service from starting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.auth import scopes
from shared.auth.api_keys import KeyRing
from shared.auth.guesses import Guesses
from shared.auth.oidc import Issuer
from shared.auth.scopes import SERVICE_CALLS, Caller
from shared.auth.service_tokens import BadKey, BadToken, Signer, Verifier, read_public_keys
from shared.config import ProcessSettings
from shared.database import Database
from shared.errors import AamError, Forbidden, TooManyRequests, Unauthenticated, Unavailable
from shared.http import docs_page
from shared.http.rate_limit import Rates
from shared.observability import logs, metrics

log = logs.get(__name__)

_LONGEST = 8192
_PRESENTED = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/=-]+)")
OPEN = frozenset({"/health", "/ready"})
_LOOKS = frozenset({"GET", "HEAD"})
DOCS = docs_page.PATHS

Answer = Callable[[AamError], Response]


class NobodyCanCall(Unavailable):
    """No API key is valid: none has been created yet, or all were revoked."""

    retryable = False
    code = "nobody_can_call"


class Proof(Protocol):
    """One way to know a caller; None where it is not one of these, or proves nothing."""

    async def caller(self, presented: str) -> Caller | None:
        """Whose this is.

        Raises:
            Unavailable: nobody can tell now.
        """


class Services:
    """The siblings of a service, by their tokens."""

    def __init__(self, service: str, verifier: Verifier) -> None:
        self._service = service
        self._verifier = verifier

    async def caller(self, presented: str) -> Caller | None:
        """Which service it is, with the scopes that it may have here."""
        try:
            claims = self._verifier.claims(presented)
        except BadToken as error:
            # nosemgrep: logged-exception-text - fixed sentences, none quotes the token
            log.info("token_refused", reason=str(error))
            return None
        allowed = SERVICE_CALLS.get((claims.service, self._service), frozenset())
        return Caller(
            f"service:{claims.service}",
            f"service {claims.service}",
            claims.scopes & allowed,
            credential_id=claims.credential_id,
            token_id=claims.token_id,
        )


@dataclass(frozen=True, slots=True)
class Access:
    """How a service knows its callers, and whether anybody can be one."""

    proofs: Sequence[Proof]
    anybody: Callable[[], Awaitable[bool]] | None = None
    """Whether there is a key at all; None where callers need none: at the broker, with OIDC."""
    rates: Rates | None = None
    """How often each may ask; None for as often as they like."""
    guesses: Guesses | None = None
    """How often an address may fail to prove a caller; None for as often as it likes."""
    docs_are_open: bool = True

    async def require_anybody(self) -> None:
        """See that somebody can call.

        Raises:
            NobodyCanCall: there is no key.
            Unavailable: the registry is away.
        """
        if self.anybody is not None and not await self.anybody():
            raise NobodyCanCall("Nobody can call: there is no key. `make key` makes one.")


def access_for(service: str, settings: ProcessSettings, db: Database | None = None) -> Access:
    """How a service knows its callers: by its siblings' tokens; with a registry also by keys.

    And, where OIDC_ISSUER is set, by that issuer's tokens; then nobody needs a key.

    Raises:
        SystemExit: SERVICE_PUBLIC_KEYS_DIR names no folder with the keys of services.
    """
    proofs: list[Proof] = []
    if db is not None:
        proofs.append(ring := KeyRing(db))
        if settings.oidc_issuer is not None and settings.oidc_audience is not None:
            proofs.append(
                Issuer(
                    settings.oidc_issuer,
                    audience=settings.oidc_audience,
                    scope_claim=settings.oidc_scope_claim,
                )
            )
    if any(called == service for _, called in SERVICE_CALLS):
        folder = settings.service_public_keys_dir
        if folder is None or not read_public_keys(folder):
            raise SystemExit("SERVICE_PUBLIC_KEYS_DIR names no folder with the services' keys")
        proofs.append(Services(service, Verifier(service, folder)))
    return Access(
        proofs,
        anybody=None if db is None or settings.oidc_issuer is not None else ring.any,
        rates=Rates(settings.requests_per_second),
        guesses=Guesses(settings.failed_keys_per_minute),
        docs_are_open=settings.aam_docs == "on",
    )


def signer_for(service: str, settings: ProcessSettings) -> Signer:
    """What a service signs its calls with.

    Raises:
        SystemExit: SERVICE_PRIVATE_KEY_DIR has none.
    """
    if settings.service_private_key_dir is None:
        raise SystemExit("SERVICE_PRIVATE_KEY_DIR is not set")
    try:
        return Signer(service, settings.service_private_key_dir / f"{service}.pem")
    except BadKey as error:
        raise SystemExit(f"{service}.pem in SERVICE_PRIVATE_KEY_DIR {error}") from None


class UndeclaredRoute(RuntimeError):
    """A route says nothing about who may call it."""


class Gate:
    """Answers 401 and 403 by the request's head alone, and tells the rest who asks."""

    def __init__(
        self, app: ASGIApp, *, known: Access, routes: Sequence[BaseRoute], answer: Answer
    ) -> None:
        self._app = app
        self._known = known
        self._routes = routes
        self._answer = answer
        self._table: list[tuple[re.Pattern[str], frozenset[str], frozenset[str]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no route for WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            caller = await self._caller(scope)
            self._measure(caller)
            self._require(caller, scope)
        except AamError as error:
            _count(error, scope)
            refusal = self._answer(error)
            refusal.headers["connection"] = "close"  # its body is not read
            if isinstance(error, TooManyRequests):
                refusal.headers["retry-after"] = f"{math.ceil(error.members['wait_s'])}"
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        with scopes.acting(caller), structlog.contextvars.bound_contextvars(caller=caller.id):
            await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in _LOOKS:
            return False
        path = get_route_path(scope)
        return path in OPEN or (self._known.docs_are_open and path in DOCS)

    async def _caller(self, scope: Scope) -> Caller:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and len(given[0]) <= _LONGEST:
            presented = _PRESENTED.fullmatch(given[0])
            told = presented[1].decode("ascii") if presented else ""
            guesses, address = self._known.guesses, (scope.get("client") or ("", 0))[0]
            if guesses is not None:
                guesses.expect_few(address, told)
            for proof in self._known.proofs if told else ():
                if (caller := await proof.caller(told)) is not None:
                    if guesses is not None:
                        guesses.prove(told)
                    return caller
            if guesses is not None:
                guesses.fail(address)
        raise Unauthenticated("Send a key: `Authorization: Bearer aam_...`.")

    def _measure(self, caller: Caller) -> None:
        if self._known.rates is None or caller.is_service:
            return
        wait_s = self._known.rates.wait_s(caller.id)
        if wait_s:
            raise TooManyRequests("This caller asks too often.", wait_s=round(wait_s, 3))

    def _require(self, caller: Caller, scope: Scope) -> None:
        if self._table is None:
            self._table = requirements(self._routes)
        path = get_route_path(scope)
        for pattern, methods, needed in self._table:
            if scope["method"] in methods and pattern.match(path):
                lacking = sorted(needed - caller.scopes)
                if lacking:
                    raise Forbidden(f"This needs the scope {lacking[0]}.", scope=lacking[0])
                return


def _count(error: AamError, scope: Scope) -> None:
    """Have the metrics know of a refusal; nobody can tell a forged key from one of yesterday."""
    if isinstance(error, Forbidden):
        metrics.REFUSALS.add(reason="scope")
    elif isinstance(error, TooManyRequests):
        metrics.REFUSALS.add(reason="too_many")
    elif isinstance(error, Unauthenticated):
        has_any = any(name == b"authorization" for name, _ in scope["headers"])
        metrics.REFUSALS.add(reason="not_valid" if has_any else "missing")


def requirements(
    routes: Sequence[BaseRoute],
) -> list[tuple[re.Pattern[str], frozenset[str], frozenset[str]]]:
    """What each route needs, in their order: its path, its methods, the scopes.

    Raises:
        UndeclaredRoute: one declares nothing and is not open to all.
    """
    table = []
    for route in iter_route_contexts(routes):
        methods = frozenset(getattr(route, "methods", None) or ())
        if route.path in OPEN | DOCS and methods and methods <= _LOOKS:
            continue
        required = scopes.declared(getattr(route, "dependencies", None) or ())
        if not required or not methods:
            raise UndeclaredRoute(f"{route.path} declares no scope: who may call it?")
        table.append((route.path_regex, methods, required))
    return table
