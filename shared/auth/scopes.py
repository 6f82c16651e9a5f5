"""Callers and their scopes, and how a route declares the scope it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from shared.auth import label_limits
from shared.auth.label_limits import Labels
from shared.errors import Forbidden


class Scope(StrEnum):
    """A permission. No scope includes another; a caller can have several."""

    CONNECTIONS_READ = "connections:read"
    """Read connections, catalogs, jobs, events, drifts, repairs and operations; discover
    schemas."""
    CONNECTIONS_WRITE = "connections:write"
    """Onboard, import, edit, observe, plan and archive connections; read logs; manage webhooks."""
    CONNECTIONS_SYNC = "connections:sync"
    """Start syncs, refresh streams, and cancel jobs."""
    CATALOGS_HEAL = "catalogs:heal"
    """Apply a catalog, roll back to an older version of it, or upgrade a connector."""
    REPAIRS_DECIDE = "repairs:decide"
    """Approve and reject repairs, change policies, record what a field was renamed to, and accept a
    suspicious discovery."""
    ADMIN = "admin"
    """Create and revoke API keys, rotate credentials, list who read which."""
    CREDENTIALS_READ = "credentials:read"
    """Read one credential; only for service tokens, never for an API key."""
    EVENTS_READ = "events:read"
    """Follow the lifecycle events, which hold ids and codes; only for service tokens."""


_SERVICE_SCOPES = frozenset({Scope.CREDENTIALS_READ, Scope.EVENTS_READ})
KEY_SCOPES = tuple(scope for scope in Scope if scope not in _SERVICE_SCOPES)
"""The scopes that an API key can have."""

SERVICE_CALLS: dict[tuple[str, str], frozenset[Scope]] = {
    ("orchestrator", "auth_broker"): frozenset({Scope.CREDENTIALS_READ}),
    ("drift_repair_agent", "orchestrator"): frozenset({Scope.CONNECTIONS_SYNC}),
    ("drift_repair_agent", "schema_observer"): frozenset(
        {Scope.CONNECTIONS_READ, Scope.CONNECTIONS_WRITE}
    ),
    ("drift_repair_agent", "rag_engine"): frozenset({Scope.CONNECTIONS_READ, Scope.REPAIRS_DECIDE}),
    ("console", "orchestrator"): frozenset({Scope.EVENTS_READ}),
}
"""Allowed scopes by (calling service, called service); other scopes of a token are ignored."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of a request."""

    id: str
    """`key:ab12cd34`, `service:orchestrator` or `oidc:<subject>`: for logs and comparisons."""
    name: str
    """For display and for records: `ada@example.com (key ab12cd34)`."""
    scopes: frozenset[str]
    credential_id: str | None = None
    """The one credential that a service token is valid for."""
    token_id: str | None = None
    """The `jti` of a service token."""
    owner: str | None = None
    """Whose API key it is; None for other callers."""
    expires_at: datetime | None = None
    """When the credentials expire; None for never."""
    labels: Labels = ()
    """The labels that connections must have for it; empty if it sees all."""

    @property
    def kind(self) -> Literal["api_key", "oidc", "service"]:
        """How it authenticated."""
        if self.is_service:
            return "service"
        return "oidc" if self.id.startswith("oidc:") else "api_key"

    @property
    def is_service(self) -> bool:
        """Whether it is another AAM service."""
        return self.id.startswith("service:")

    @property
    def may_change_connections(self) -> bool:
        """Whether it has connections:write, and so sees explanations of connector failures."""
        return Scope.CONNECTIONS_WRITE in self.scopes


_current: ContextVar[Caller | None] = ContextVar("caller", default=None)


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """Set the current caller for the block and the tasks started in it."""
    token = _current.set(caller)
    try:
        with label_limits.limited_to(caller.labels):
            yield
    finally:
        _current.reset(token)


def requested_by() -> str | None:
    """The name of the current caller; None if AAM acts on its own."""
    caller = _current.get()
    return None if caller is None else caller.name


def person() -> str | None:
    """Who the current caller is, whichever of their API keys they use; None for AAM itself."""
    caller = _current.get()
    if caller is None:
        return None
    return caller.id if caller.owner is None else f"owner:{caller.owner.strip().casefold()}"


def named(by: str | None) -> str:
    """The person on whose behalf something is done: `by`, or else the caller, or else AAM."""
    return by or requested_by() or "AAM"


def shown(by: str | None) -> str:
    """The same as one text that adds the caller if `by` is someone else."""
    caller = requested_by()
    if by is None or caller is None or by == caller:
        return named(by)
    return f"{by}, requested by {caller}"


def require(scope: Scope) -> None:
    """Check a scope that only some requests of a route need.

    Raises:
        Forbidden: the caller does not have it.
    """
    caller = _current.get()
    if caller is None or scope not in caller.scopes:
        raise Forbidden(f"The scope {scope} is required.", scope=scope)


class LabelLimited(Forbidden):
    """The request spans the installation, and the API key is limited to connections by label."""

    code = "label_limited"


def expect_unlimited() -> None:
    """Check that the current caller sees all connections, for some requests of a route.

    Raises:
        LabelLimited: its API key is limited by labels.
    """
    if label_limits.current():
        raise LabelLimited(
            "This spans the installation, and the API key is limited to connections by label."
        )


def caller_of(request: HTTPConnection) -> Caller:
    """The caller of a request; every route behind the gate has one."""
    caller: Caller = request.state.caller
    return caller


Recheck = Callable[[], Awaitable[bool]]
"""Whether the credentials of a request are still valid; an AamError if they cannot be checked."""


def recheck_of(request: HTTPConnection) -> Recheck:
    """Checks a request's credentials again, for a response that takes minutes."""
    recheck: Recheck = request.state.recheck
    return recheck


class _Bearer(SecurityBase):
    """Describes credentials in OpenAPI; the gate has already checked them."""

    def __init__(
        self, service_scope: Scope | None = None, *, spans_installation: bool = False
    ) -> None:
        self.service_scope = service_scope
        self.spans_installation = spans_installation
        self.model = HTTPBearer(
            bearerFormat="aam_<env>_<id>_<secret>",
            description="An API key, as shown once by `make key` or POST /api-keys.",
        )
        self.scheme_name = "key"

    async def __call__(self, request: HTTPConnection) -> Caller:
        return caller_of(request)


_bearer = _Bearer()


def may(scope: Scope, *, service: Scope | None = None, spans_installation: bool = False) -> Any:
    """Declare the scope a route needs, in its `dependencies`; the gate enforces it.

    Another AAM service needs the scope `service` instead, where it is given. A route that
    `spans_installation` is refused to callers that are limited by labels. FastAPI reads the body
    before it resolves dependencies, so they do not check anything.
    """
    spans_installation = spans_installation or scope is Scope.ADMIN
    is_plain = service is None and not spans_installation
    bearer = _bearer if is_plain else _Bearer(service, spans_installation=spans_installation)
    return Security(bearer, scopes=[scope.value])


def any_caller() -> Any:
    """Declare that a route needs valid credentials, but no scope."""
    return Security(_bearer, scopes=[])


def declared(dependencies: Sequence[Any]) -> frozenset[str] | None:
    """The scopes that a route's dependencies declare; None if they declare nothing."""
    found = _declarations(dependencies)
    return frozenset(scope for one in found for scope in one.scopes) if found else None


def declared_for_services(dependencies: Sequence[Any]) -> frozenset[str] | None:
    """The scopes that other AAM services need instead; None if they need the same ones."""
    scopes = [one.dependency.service_scope for one in _declarations(dependencies)]
    return frozenset(scope for scope in scopes if scope is not None) or None


def spans_installation(dependencies: Sequence[Any]) -> bool:
    """Whether the route is refused to callers that are limited by labels."""
    return any(one.dependency.spans_installation for one in _declarations(dependencies))


def _declarations(dependencies: Sequence[Any]) -> list[Any]:
    return [one for one in dependencies if isinstance(getattr(one, "dependency", None), _Bearer)]
