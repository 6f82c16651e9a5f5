"""docs/api.md: every route of every service, from the services' OpenAPI descriptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from inspect import getsource
from itertools import pairwise
from textwrap import dedent
from typing import Any, get_type_hints

from pydantic import Secret

from local.processes.servers import SERVICES
from shared.auth.scopes import Scope
from shared.config import Settings
from tests import access
from tests.docs.markdown import NOTICE, code, one_line, page, table

INTRODUCTION = """\
Each service serves the full description of its routes as OpenAPI at `/openapi.json`, and a page to
try them at `/docs`, unless `AAM_DOCS` is `off`. These two, `/health`, `/ready` and `/about` are
open to everyone. Every other route needs an API key with the route's scope, or any key, sent as
`Authorization: Bearer aam_...`; `make key` and `POST /api-keys` create keys. Where `OIDC_ISSUER` is
set, tokens of that issuer are accepted, too. The auth_broker accepts only tokens of
AAM's own services.

The body of a response with a status of 400 or higher is a problem, except the 503 of `/ready`.
[Errors](errors.md) lists the codes of problems.

## Scopes

No scope includes another; a key can have several."""


def write() -> str:
    """The page."""
    services = [part for service in SERVICES for part in _service(service)]
    scopes = table(("scope", "what it allows"), _scopes())
    return page("# API", NOTICE, INTRODUCTION, scopes, *services)


def _scopes() -> Iterator[tuple[str, ...]]:
    """Each scope, with the string below it in the source."""
    (scope,) = ast.parse(dedent(getsource(Scope))).body
    assert isinstance(scope, ast.ClassDef)
    for member, below in pairwise(scope.body):
        match member, below:
            case ast.Assign(value=ast.Constant(str(name))), ast.Expr(ast.Constant(str(words))):
                yield code(name), one_line(words)


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
        ", ".join(map(code, scopes)) or ("any" if "security" in operation else "none"),
        operation["summary"],
        ", ".join(sorted(operation["responses"])),
    )
