"""Helpers to observe a source on request, and to inspect the result."""

from __future__ import annotations

from copy import deepcopy
from typing import Any
from uuid import uuid4

from tests.integration.conftest import FAULT_RATE, Mesh
from tests.waiting import until

Json = dict[str, Any]


async def observe(mesh: Mesh, connection: Json, **body: bool) -> Json:
    """Observe now and return the result; repeat failures if faults are injected."""
    while True:
        answer = await mesh.schema_observer.post(
            f"/connections/{connection['id']}/observe", json=body or None
        )
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        if not FAULT_RATE or found["outcome"] != "failed":
            return found


async def fetch(mesh: Mesh, path: str, **parameters: Any) -> Any:
    """Return the observer's response to a GET."""
    answer = await mesh.schema_observer.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def counts(mesh: Mesh) -> dict[str, int]:
    """Count the rows of the tables that an observation may add to."""
    tables = ("events", "sync_catalog_versions", "drifts", "snapshots", "stream_schemas")
    return {
        table: await mesh.sql.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - no input
        for table in tables
    }


async def planned(mesh: Mesh) -> list[str]:
    """Return the connections for which the drift_repair_agent has a queued plan job."""
    jobs = await mesh.sql.fetch("SELECT payload FROM pgqueuer WHERE entrypoint = 'plan'")
    return [job["payload"].decode() for job in jobs]


async def by_hand(mesh: Mesh, connection: Json, name: str = "by hand") -> Json:
    """Create a second connection on the same source in Airbyte, and import it."""
    held = deepcopy(mesh.airbyte.connections[connection["airbyte_connection_id"]])
    held |= {"connectionId": str(uuid4()), "name": name}
    mesh.airbyte.connections[held["connectionId"]] = held
    answer = await mesh.orchestrator.post(
        "/connections/import", json={"airbyte_connection_id": held["connectionId"]}
    )
    assert answer.status_code == 200, answer.text
    return {
        "id": answer.json()["items"][0]["connection_id"],
        "airbyte_connection_id": held["connectionId"],
    }


async def drifts(mesh: Mesh) -> list[Json]:
    """Wait until there is a drift; return all drifts."""

    async def found() -> list[Json]:
        items: list[Json] = (await fetch(mesh, "/drifts"))["items"]
        return items

    seen: list[Json] = await until(found)
    return seen
