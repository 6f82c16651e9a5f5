"""Helpers to change a source, observe it, and wait for the repairs."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from typing import Any
from uuid import UUID

from tests.fakes.airbyte_server import DEFAULT_CATALOG, catalog, stream
from tests.integration.conftest import FAULT_RATE, Mesh
from tests.waiting import until

Json = dict[str, Any]
ACCOUNT = {"Id": "string", "Name": "string", "AnnualRevenue": "number"}


def offering(account: Json, **settings: Any) -> Json:
    """Build a catalog with these fields of Account, and the other streams by default."""
    others = [one["stream"] for one in DEFAULT_CATALOG["streams"]]
    rest = [one for one in others if one["name"] != "Account"]
    return deepcopy(catalog(stream("Account", account, **settings), *rest))


async def drift(mesh: Mesh, connection: Json, offered: Json) -> str:
    """Let the source offer this catalog and observe it; return the drift's id."""
    mesh.airbyte.offers(offered)
    path = f"/connections/{connection['id']}/observe"
    while True:
        answer = await mesh.schema_observer.post(path, json={"accept_missing": True})
        assert answer.status_code == 200, answer.text
        # With injected faults an observation may fail, and is repeated.
        if not FAULT_RATE or answer.json()["outcome"] != "failed":
            break
    drift_id = answer.json()["drift_id"]
    assert drift_id is not None, answer.text
    return str(drift_id)


async def repairs(mesh: Mesh, connection: Json, **parameters: Any) -> list[Json]:
    """Return the connection's repairs with their changes, newest first."""
    answer = await mesh.drift_repair_agent.get(
        "/repairs", params={"connection_id": connection["id"], **parameters}
    )
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    for item in items:
        path = f"/repairs/{item['id']}/changes"
        changes = await mesh.drift_repair_agent.get(path, params={"limit": 500})
        assert changes.status_code == 200, changes.text
        item["changes"] = changes.json()["items"]
    return items


async def repairs_until(
    mesh: Mesh, connection: Json, states: Collection[str], *, within: float = 60
) -> list[Json]:
    """Wait until the connection's repairs have exactly these states; return them in this order."""
    found: list[Json] = []

    async def are_there() -> bool:
        nonlocal found
        found = (await repairs(mesh, connection))[::-1]
        return sorted(one["state"] for one in found) == sorted(states)

    try:
        await until(are_there, within=within)
    except TimeoutError:
        raise AssertionError([(one["state"], one["waits_for"]) for one in found]) from None
    return [
        found.pop(next(at for at, one in enumerate(found) if one["state"] == state))
        for state in states
    ]


async def planned(mesh: Mesh, connection: Json, drift_id: str, *, within: float = 60) -> None:
    """Wait until the drift_repair_agent has planned the connection for this drift."""
    query = (
        "SELECT p.connection_id FROM plans p JOIN drifts d"
        " ON d.after_snapshot_id = p.snapshot_id WHERE d.id = $1 AND p.connection_id = $2"
    )
    asked = UUID(drift_id), UUID(connection["id"])
    await until(lambda: mesh.sql.fetchval(query, *asked), within=within)


async def post(mesh: Mesh, path: str, body: Json, **headers: str) -> tuple[int, Json]:
    """Post to the drift_repair_agent; return status and body."""
    sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await mesh.drift_repair_agent.post(path, json=body, headers=sent_headers)
    return answer.status_code, answer.json()
