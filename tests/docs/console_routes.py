"""services/console/api_routes.txt: which service has which route, from their OpenAPI descriptions.

The console passes these on under `/api/`. A route that several services have, such as
`/operations`, goes to the first of them: their responses are the same.
"""

from __future__ import annotations

from services.console.api import SERVICES
from tests.docs import api

_OF_EACH_PROCESS = frozenset({"/health", "/ready"})


def write() -> str:
    """The text of the file."""
    owners: dict[tuple[str, str], str] = {}
    for service in SERVICES:
        for path, operations in api.description(service)["paths"].items():
            for method in operations:
                if path not in _OF_EACH_PROCESS:
                    owners.setdefault((path, method.upper()), service)
    lines = [f"{service} {method} {path}\n" for (path, method), service in sorted(owners.items())]
    return "".join(lines)
