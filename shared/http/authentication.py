"""Authentication and authorization: every request is checked before its body is read.

A route declares the scope it needs with `scopes.may`; a service with a route that declares none
does not start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shared import registry
from shared.auth import label_limits, scopes
from shared.auth.api_keys import KeyRing
from shared.auth.failed_attempts import Guesses, network
from shared.auth.forwarded_addresses import forwarded_address
from shared.auth.oidc import Issuer
from shared.auth.refusals import Refusals
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
ABOUT = "/about"
"""Open to callers without credentials; those of others are checked, and it shows them more."""
OPEN = frozenset({"/health", "/ready", ABOUT})
_READ_METHODS = frozenset({"GET", "HEAD"})
DOCS = docs_page.PATHS

Answer = Callable[[AamError], Response]


class NoApiKey(Unavailable):
    """No API key is valid: none has been created yet, or all were revoked."""

    retryable = False
    code = "no_api_key"


class Proof(Protocol):
    """One way to authenticate a caller."""

    async def caller(self, presented: str) -> Caller | None:
        """The caller that a credential belongs to; None if it is of another kind or invalid.

        Raises:
            Unavailable: the credential cannot be checked now.
        """


class Services:
    """Authenticates other AAM services by their tokens."""

    def __init__(self, service: str, verifier: Verifier) -> None:
        self._service = service
        self._verifier = verifier

    async def caller(self, presented: str) -> Caller | None:
        """The calling service, with the scopes it has here by SERVICE_CALLS; None if invalid."""
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
            expires_at=claims.expires_at,
            labels=claims.labels,
        )


@dataclass(frozen=True, slots=True)
class Access:
    """How a service authenticates and limits its callers."""

    proofs: Sequence[Proof]
    anybody: Callable[[], Awaitable[bool]] | None = None
    """Whether any API key exists; None if callers need none (the auth broker, or with OIDC)."""
    rates: Rates | None = None
    """The request rate of each caller; None for no limit."""
    guesses: Guesses | None = None
    """How often authentication from one address may fail; None for no limit."""
    forwarded: Verifier | None = None
    """Verifies the addresses that the console forwards; None where it never calls."""
    docs_are_open: bool = True
    refusals: Refusals | None = None
    """Records what is refused; None where there is no registry."""

    async def caller(self, presented: str) -> Caller | None:
        """The caller that a credential belongs to; None if it is not valid now.

        Raises:
            Unavailable: the credential cannot be checked now.
        """
        for proof in self.proofs:
            if (caller := await proof.caller(presented)) is not None:
                return caller
        return None

    async def recheck(self, presented: str, caller: Caller) -> bool:
        """Whether the credential of a caller is still valid.

        Raises:
            Unavailable: the credential cannot be checked now.
        """
        if caller.is_service:  # its token is for one request, and ends within a minute
            return True
        with label_limits.registry_wide():
            return await self.caller(presented) is not None

    async def require_anybody(self) -> None:
        """Check that at least one caller can authenticate.

        Raises:
            NoApiKey: there is no valid API key.
            Unavailable: the registry is unavailable.
        """
        if self.anybody is not None and not await self.anybody():
            raise NoApiKey("No API key exists. `make key` creates one.")


def access_for(service: str, settings: ProcessSettings, db: Database | None = None) -> Access:
    """How a service authenticates callers: service tokens, API keys (with `db`) and OIDC tokens.

    Where OIDC_ISSUER is set, a service starts without an API key.

    Raises:
        SystemExit: SERVICE_PUBLIC_KEYS_DIR is not set or holds no valid public key.
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
    folder = settings.service_public_keys_dir
    if any(called == service for _, called in SERVICE_CALLS):
        if folder is None or not read_public_keys(folder):
            raise SystemExit("SERVICE_PUBLIC_KEYS_DIR is not a directory with the services' keys")
        proofs.append(Services(service, Verifier(service, folder)))
    return Access(
        proofs,
        anybody=None if db is None or settings.oidc_issuer is not None else ring.any,
        rates=Rates(settings.requests_per_second),
        guesses=Guesses(settings.failed_keys_per_minute),
        forwarded=None if db is None or folder is None else Verifier(service, folder),
        docs_are_open=settings.aam_docs == "on",
        refusals=None if db is None else Refusals(db, service),
    )


def signer_for(service: str, settings: ProcessSettings) -> Signer:
    """The key with which a service signs its calls.

    Raises:
        SystemExit: SERVICE_PRIVATE_KEY_DIR is not set, or its key cannot be used.
    """
    if settings.service_private_key_dir is None:
        raise SystemExit("SERVICE_PRIVATE_KEY_DIR is not set")
    try:
        return Signer(service, settings.service_private_key_dir / f"{service}.pem")
    except BadKey as error:
        raise SystemExit(f"{service}.pem in SERVICE_PRIVATE_KEY_DIR {error}") from None


class UndeclaredRoute(RuntimeError):
    """A route does not declare the scope it needs."""


class Gate:
    """ASGI middleware that authenticates and authorizes requests by their headers alone.

    Refused requests get 401, 403 or 429, or 503 while their credentials cannot be checked; others
    have their caller in `scope["state"]`.
    """

    def __init__(
        self, app: ASGIApp, *, known: Access, routes: Sequence[BaseRoute], answer: Answer
    ) -> None:
        self._app = app
        self._known = known
        self._routes = routes
        self._answer = answer
        self._table: list[Requirement] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no service has WebSocket routes
            await send({"type": "websocket.close", "code": 1008})
            return
        caller: Caller | None = None
        address = self._address(scope)
        try:
            caller, presented = await self._caller(scope, address)
            self._measure(caller)
            self._require(caller, scope)
        except AamError as error:
            _count(error, scope)
            self._record(error, scope, caller, address)
            refusal = self._answer(error)
            refusal.headers["connection"] = "close"  # the request's body is not read
            if isinstance(error, TooManyRequests):
                refusal.headers["retry-after"] = f"{math.ceil(error.members['wait_s'])}"
            await refusal(scope, receive, send)
            return
        recheck = partial(self._known.recheck, presented, caller)
        scope.setdefault("state", {}).update(caller=caller, recheck=recheck)
        with scopes.acting(caller), structlog.contextvars.bound_contextvars(caller=caller.id):
            await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in _READ_METHODS:
            return False
        path = get_route_path(scope)
        if path == ABOUT:
            return not any(name == b"authorization" for name, _ in scope["headers"])
        return path in OPEN or (self._known.docs_are_open and path in DOCS)

    def _address(self, scope: Scope) -> str:
        """Where a request comes from: what the console forwards, or else the other side."""
        forwarded = None
        if self._known.forwarded is not None:
            forwarded = forwarded_address(self._known.forwarded, scope["headers"])
        return forwarded or (scope.get("client") or ("", 0))[0]

    async def _caller(self, scope: Scope, address: str) -> tuple[Caller, str]:
        """The caller of a request, and the credential that it presents."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and len(given[0]) <= _LONGEST:
            presented = _PRESENTED.fullmatch(given[0])
            token = presented[1].decode("ascii") if presented else ""
            guesses = self._known.guesses
            if guesses is not None:
                guesses.expect_few(address, token)
            if token and (caller := await self._known.caller(token)) is not None:
                if guesses is not None:
                    guesses.prove(token)
                return caller, token
            if guesses is not None:
                guesses.fail(address)
        raise Unauthenticated("An API key is required: `Authorization: Bearer aam_...`.")

    def _measure(self, caller: Caller) -> None:
        if self._known.rates is None or caller.is_service:
            return
        wait_s = self._known.rates.wait_s(caller.id)
        if wait_s:
            raise TooManyRequests("This caller sends too many requests.", wait_s=round(wait_s, 3))

    def _require(self, caller: Caller, scope: Scope) -> None:
        route = self._route(scope)
        if route is None:
            return
        lacking = sorted(route.needed_by(caller) - caller.scopes)
        if lacking:
            raise Forbidden(f"The scope {lacking[0]} is required.", scope=lacking[0])
        if route.spans_installation:
            with label_limits.limited_to(caller.labels):
                scopes.expect_unlimited()

    def _route(self, scope: Scope) -> Requirement | None:
        """The requirement of the requested route; None if there is no such route."""
        if self._table is None:
            self._table = requirements(self._routes)
        path = get_route_path(scope)
        for route in self._table:
            if scope["method"] in route.methods and route.pattern.match(path):
                return route
        return None

    def _record(self, error: AamError, scope: Scope, caller: Caller | None, address: str) -> None:
        """Count who was refused what; an outage is no refusal."""
        if self._known.refusals is None or isinstance(error, Unavailable):
            return
        route = self._route(scope)
        self._known.refusals.add(
            registry.ADDRESS + network(address) if caller is None else caller.id,
            method=scope["method"],
            route="-" if route is None else route.path,
            status=error.status,
            code=error.code,
        )


def _count(error: AamError, scope: Scope) -> None:
    """Count a refusal in the metrics; a forged key and a revoked one look the same."""
    if isinstance(error, Forbidden):
        metrics.REFUSALS.labels(reason="scope").inc()
    elif isinstance(error, TooManyRequests):
        metrics.REFUSALS.labels(reason="too_many").inc()
    elif isinstance(error, Unauthenticated):
        has_any = any(name == b"authorization" for name, _ in scope["headers"])
        metrics.REFUSALS.labels(reason="not_valid" if has_any else "missing").inc()


@dataclass(frozen=True, slots=True)
class Requirement:
    """The scopes that a route requires."""

    path: str
    """With the names of its parameters."""
    pattern: re.Pattern[str]
    methods: frozenset[str]
    scopes: frozenset[str]
    service_scopes: frozenset[str] | None
    """What another AAM service needs instead; None if it needs `scopes`, too."""
    spans_installation: bool
    """Whether callers that are limited by labels are refused."""

    def needed_by(self, caller: Caller) -> frozenset[str]:
        """The scopes that this caller needs."""
        if caller.is_service and self.service_scopes is not None:
            return self.service_scopes
        return self.scopes


def requirements(routes: Sequence[BaseRoute]) -> list[Requirement]:
    """What each route requires, in the routes' order.

    Raises:
        UndeclaredRoute: a route declares no scope and is not public.
    """
    table = []
    for route in iter_route_contexts(routes):
        methods = frozenset(getattr(route, "methods", None) or ())
        if route.path in OPEN | DOCS and methods and methods <= _READ_METHODS:
            continue
        dependencies = getattr(route, "dependencies", None) or ()
        required = scopes.declared(dependencies)
        if required is None or not methods:
            raise UndeclaredRoute(f"{route.path} declares no scope: who may call it?")
        instead = scopes.declared_for_services(dependencies)
        spans = scopes.spans_installation(dependencies)
        table.append(
            Requirement(str(route.path), route.path_regex, methods, required, instead, spans)
        )
    return table
