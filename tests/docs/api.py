"""docs/api.md: every route of every service, from the services' OpenAPI descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import Secret

from local.processes.servers import SERVICES
from shared.auth.scopes import KEY_SCOPES
from shared.config import Settings
from tests import access
from tests.docs.markdown import NOTICE, code, page, table

INTRODUCTION = """\
Each service serves the full description of its routes as OpenAPI at `/openapi.json`, and a page to
try them at `/docs`, unless `AAM_DOCS` is `off`. These two, `/health` and `/ready` are open to
everyone. Every other route needs an API key with the route's scope, sent as
`Authorization: Bearer aam_...`; `make key` and `POST /api-keys` create keys. A key can have the
scopes {scopes}. No scope includes another; `credentials:read` is for services only.

Statuses from 400 on come with a problem, whose codes are listed in [Errors](errors.md)."""


def write() -> str:
    """The page."""
    scopes = ", ".join(map(code, KEY_SCOPES))
    services = [part for service in SERVICES for part in _service(service)]
    return page("# API", NOTICE, INTRODUCTION.format(scopes=scopes), *services)


def description(service: str) -> dict[str, Any]:
    """A service's /openapi.json; nothing is connected to for it."""
    build = import_module(f"services.{service}.main").build
    registry = Secret("postgresql://nobody:x@127.0.0.1:1/aam")
    settings = get_type_hints(build)["settings"](
        supabase_db_url=registry, _env_file=None, **access.service_keys()
    )
    described: dict[str, Any] = build(settings).openapi()
    return described


def _service(service: str) -> Iterator[str | list[str]]:
    described = description(service)
    yield f"## {service}"
    address = Settings.model_fields[f"{service}_url"].default
    yield f"{described['info']['description']} Default address: {str(address).rstrip('/')}"
    rows = [
        _row(method, path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    yield table(("method", "path", "scope", "summary", "statuses"), rows)


def _row(method: str, path: str, operation: dict[str, Any]) -> tuple[str, ...]:
    scopes = [
        scope
        for requirement in operation.get("security", ())
        for needed in requirement.values()
        for scope in needed
    ]
    return (
        method.upper(),
        code(path),
        ", ".join(map(code, scopes)) or "none",
        operation["summary"],
        ", ".join(sorted(operation["responses"])),
    )
