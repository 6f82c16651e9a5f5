"""Helpers to discover and apply a catalog, and to inspect the result."""

from __future__ import annotations

from typing import Any

from tests.fakes.airbyte_server import DEFAULT_CATALOG, catalog, stream
from tests.integration.conftest import (
    Mesh,
)

Json = dict[str, Any]


GREW = catalog(
    stream("Account", {"Id": "string", "Name": "string", "Region__c": "string"}),
    *[one["stream"] for one in DEFAULT_CATALOG["streams"][1:]],
)


async def discovered(mesh: Mesh, connection: Json, **parameters: str) -> Json:
    """Return the order in /discover's response."""
    answer = await mesh.orchestrator.post(
        f"/connections/{connection['id']}/discover", params=parameters
    )
    assert answer.status_code == 200, answer.text
    order: Json = answer.json()
    return order


async def apply(mesh: Mesh, order: Json) -> tuple[int, Json]:
    """Post an order; return status and body."""
    answer = await mesh.drift_repair_agent.post("/repair/apply_new_catalog", json=order)
    return answer.status_code, answer.json()


def streams_in_airbyte(mesh: Mesh, connection: Json) -> Json:
    """Return the catalog in Airbyte, by stream name."""
    streams = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"][
        "streams"
    ]
    return {one["stream"]["name"]: one for one in streams}


async def seen(mesh: Mesh, connection: Json) -> Json:
    """Return the connection as the API shows it."""
    view: Json = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    return view
