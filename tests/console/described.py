"""The query parameters of the services' routes, as their OpenAPI documents describe them."""

from __future__ import annotations

import functools
import re

from tests.docs.api import description

_SERVICES = ("orchestrator", "drift_repair_agent", "schema_observer", "rag_engine")


def unknown_parameters(method: str, path: str, names: set[str]) -> set[str]:
    """Those of these names that no route with this method and path has."""
    routes = [known for template, known in _routes()[method.lower()] if template.fullmatch(path)]
    return names.difference(*routes) if routes else set()


@functools.cache
def _routes() -> dict[str, list[tuple[re.Pattern[str], frozenset[str]]]]:
    found: dict[str, list[tuple[re.Pattern[str], frozenset[str]]]] = {
        method: [] for method in ("get", "head", "post", "put", "patch", "delete", "options")
    }
    for service in _SERVICES:
        for path, operations in description(service)["paths"].items():
            template = re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))
            for method, operation in operations.items():
                listed = operation.get("parameters", ())
                names = frozenset(one["name"] for one in listed if one["in"] == "query")
                found[method].append((template, names))
    return found
