"""Who calls, and what that allows: the words of it, and how a route declares what it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from shared.errors import Forbidden


class Scope(StrEnum):
    """What a caller may do. No scope includes another: a caller can have several."""

    CONNECTIONS_READ = "connections:read"
    """Read connections, catalogs, jobs, drifts, repairs and operations; discover schemas."""
    CONNECTIONS_WRITE = "connections:write"
    """Onboard, import, observe, plan and archive connections; manage webhooks."""
    CONNECTIONS_SYNC = "connections:sync"
    """Start syncs."""
    CATALOGS_HEAL = "catalogs:heal"
    """Apply a catalog, or roll back to an older version of it."""
    REPAIRS_DECIDE = "repairs:decide"
    """Approve and reject repairs, change policies, record what a field was renamed to, and accept a
    suspicious discovery."""
    ADMIN = "admin"
    """Create and revoke API keys, rotate credentials."""
    CREDENTIALS_READ = "credentials:read"
    """Read one credential; only services have it, never a key."""


KEY_SCOPES = tuple(scope for scope in Scope if scope is not Scope.CREDENTIALS_READ)
"""The scopes that a key can have."""

SERVICE_CALLS: dict[tuple[str, str], frozenset[Scope]] = {
    ("orchestrator", "auth_broker"): frozenset({Scope.CREDENTIALS_READ}),
    ("drift_repair_agent", "orchestrator"): frozenset({Scope.CONNECTIONS_SYNC}),
    ("drift_repair_agent", "rag_engine"): frozenset({Scope.CONNECTIONS_READ, Scope.REPAIRS_DECIDE}),
}
"""What a service, first, may ask of another; whatever else its token says counts for nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, as its credentials prove."""

    id: str
    """`key:ab12cd34`, `service:orchestrator` or `oidc:<subject>`: for logs and comparisons."""
    name: str
    """For people, and for what is recorded: `ada@example.com (key ab12cd34)`."""
    scopes: frozenset[str]
    credential_id: str | None = None
    """The one credential that a service's token is for."""
    token_id: str | None = None
    """The `jti` of a service's token."""

    @property
    def is_service(self) -> bool:
        """Whether it is a sibling, and not somebody from outside."""
        return self.id.startswith("service:")

    @property
    def may_change_connections(self) -> bool:
        """Whether it is shown why a connector failed, and not only which kind of cause it had."""
        return Scope.CONNECTIONS_WRITE in self.scopes


_current: ContextVar[Caller | None] = ContextVar("caller", default=None)


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """Within the block, and in tasks begun in it, things are done for this caller."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)


def asked_by() -> str | None:
    """The name of whom this is done for; None where AAM does it by itself."""
    caller = _current.get()
    return None if caller is None else caller.name


def named(by: str | None) -> str:
    """The person that something is done for: the one who was named, else the caller."""
    return by or asked_by() or "AAM"


def shown(by: str | None) -> str:
    """The same for a single line: where somebody else was named, the caller is there, too."""
    caller = asked_by()
    if by is None or caller is None or by == caller:
        return named(by)
    return f"{by}, requested by {caller}"


def require(scope: Scope) -> None:
    """See that the caller has a scope that only some orders of a route need.

    Raises:
        Forbidden: the caller does not have it.
    """
    caller = _current.get()
    if caller is None or scope not in caller.scopes:
        raise Forbidden(f"This needs the scope {scope}.", scope=scope)


def caller_of(request: HTTPConnection) -> Caller:
    """Who the request comes from; on a route that the gate guards there always is one."""
    caller: Caller = request.state.caller
    return caller


class _Bearer(SecurityBase):
    """What the OpenAPI description says of credentials; the gate has checked them before."""

    def __init__(self) -> None:
        self.model = HTTPBearer(
            bearerFormat="aam_<env>_<id>_<secret>",
            description="A key, as `make key` or POST /api-keys told it once.",
        )
        self.scheme_name = "key"

    async def __call__(self, request: HTTPConnection) -> Caller:
        return caller_of(request)


_bearer = _Bearer()


def may(scope: Scope) -> Any:
    """What a route needs of its caller, for its `dependencies`; the gate enforces it.

    FastAPI reads the body before it looks at dependencies, so nothing is checked in one.
    """
    return Security(_bearer, scopes=[scope.value])


def declared(dependencies: Sequence[Any]) -> frozenset[str] | None:
    """The scopes that a route's dependencies declare; None where they declare nothing."""
    found = [one for one in dependencies if getattr(one, "dependency", None) is _bearer]
    return frozenset(scope for one in found for scope in one.scopes) if found else None
