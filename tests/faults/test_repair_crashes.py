"""Repairs survive a crash: after a kill at each step another replica continues."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.faults.world import ORDER, World
from tests.integration.drifting import ACCOUNT, offering

pytestmark = pytest.mark.process

Json = dict[str, Any]
_WITHIN_S = 40


async def _connection(world: World) -> Json:
    """Start the services and onboard a connection."""
    url = f"http://127.0.0.1:{world.port_of('orchestrator')}"
    world.settings = {"ORCHESTRATOR_URL": url}
    orchestrator = await world.replace("orchestrator")
    await world.replace("schema_observer")
    answer = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert answer.status_code == 201, answer.text
    connection: Json = answer.json()
    return connection


async def _drift(world: World, connection: Json, offered: Json) -> None:
    """Change the source's catalog, and observe it."""
    world.airbyte.offers(offered)
    observer = await world.running_or_armed("schema_observer")
    path = f"/connections/{connection['id']}/observe"
    seen = await observer.client.post(path, json={"accept_missing": True}, params={"wait": 20})
    assert seen.status_code == 200, seen.text


async def _repair_in(world: World, *states: str) -> Json:
    """Wait until the newest repair is in one of these states, and return it."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            rows = await world.fetch(
                "SELECT id::text, state, version_number, restored_version FROM repairs"
                " ORDER BY created_at DESC LIMIT 1"
            )
            if rows and rows[0]["state"] in states:
                return dict(rows[0])
            await asyncio.sleep(0.1)


async def _versions(world: World) -> list[int]:
    rows = await world.fetch("SELECT version_number FROM sync_catalog_versions ORDER BY 1")
    return [row["version_number"] for row in rows]


async def _events(world: World, kind: str) -> int:
    rows = await world.fetch("SELECT type FROM events")
    return sum(row["type"] == kind for row in rows)


def _fields(world: World, connection: Json) -> set[str]:
    """Return the fields of Account in Airbyte's connection."""
    held = world.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    account = next(one for one in held["streams"] if one["stream"]["name"] == "Account")
    return set(account["stream"]["jsonSchema"]["properties"])


async def _killed_then_another(world: World, armed: Any) -> None:
    """Wait until the agent with the failpoint has been killed, and start another."""
    assert await armed.died(within=30) == -9
    await world.replace("drift_repair_agent/2")


@pytest.mark.deep(after=1)
@pytest.mark.parametrize(
    "failpoint",
    [
        "apply.update.after",
        "repair.weighed",
        "repair.recorded",
        "repair.approved",
        "apply.intent.after",
        "apply.finish.before",
    ],
)
async def test_safe_change_is_applied_once_despite_a_crash(world: World, failpoint: str) -> None:
    """There is one new version, one event, and the field is added."""
    await world.end("drift_repair_agent/2")
    connection = await _connection(world)
    armed = await world.replace("drift_repair_agent", failpoints=f"{failpoint}=kill")

    await _drift(world, connection, offering(ACCOUNT | {"Region__c": "string"}))

    await _killed_then_another(world, armed)
    await _repair_in(world, "applied")
    assert await _versions(world) == [1, 2]
    assert await _events(world, "repair.applied") == 1
    assert "Region__c" in _fields(world, connection)


async def test_decision_survives_a_crash(world: World) -> None:
    """After a kill between a decision and its operation, the decision is applied."""
    await world.end("drift_repair_agent/2")
    connection = await _connection(world)
    armed = await world.replace("drift_repair_agent", failpoints="repair.decided=kill")
    await _drift(world, connection, offering({"Id": "string", "Name": "string"}))
    repair = await _repair_in(world, "proposed")

    with pytest.raises(httpx.TransportError):
        await armed.client.post(f"/repairs/{repair['id']}/approve", json={"by": "Ada"})

    await _killed_then_another(world, armed)
    again = await _repair_in(world, "applied")
    assert again["id"] == repair["id"]
    assert await _versions(world) == [1, 2]


@pytest.mark.deep
@pytest.mark.parametrize(
    "failpoint",
    [
        "pause.set.after",
        "pause.intent.after",
    ],
)
async def test_pause_is_finished_by_another_replica(world: World, failpoint: str) -> None:
    """After a kill before or after the pause in Airbyte, it is paused and recorded as such."""
    await world.end("drift_repair_agent/2")
    connection = await _connection(world)
    armed = await world.replace("drift_repair_agent", failpoints=f"{failpoint}=kill")

    await _drift(world, connection, offering(ACCOUNT, cursor=None))

    await _killed_then_another(world, armed)
    repair = await _repair_in(world, "proposed")
    async with asyncio.timeout(_WITHIN_S):
        while True:
            (row,) = await world.fetch("SELECT paused_by::text FROM connections")
            if row["paused_by"] == repair["id"]:
                break
            await asyncio.sleep(0.1)
    assert world.airbyte.connections[connection["airbyte_connection_id"]]["status"] == "inactive"
    assert await _events(world, "connection.paused") == 1


@pytest.mark.deep
@pytest.mark.parametrize(
    "failpoint",
    [
        "repair.sync_started",
        "repair.taken_back",
    ],
)
async def test_failed_repair_is_rolled_back_once_despite_a_crash(
    world: World, failpoint: str
) -> None:
    """After a sync that fails because of the schema, one version restores the old catalog."""
    await world.end("drift_repair_agent/2")
    connection = await _connection(world)
    armed = await world.replace("drift_repair_agent", failpoints=f"{failpoint}=kill")
    path = f"/connections/{connection['id']}/policy"
    assert (await armed.client.put(path, json={"verify": "sync"})).status_code == 200
    await _drift(world, connection, offering(ACCOUNT | {"Region__c": "string"}))
    async with asyncio.timeout(_WITHIN_S):
        while not world.airbyte.jobs:  # noqa: ASYNC110 (changed by another process)
            await asyncio.sleep(0.1)

    if failpoint == "repair.sync_started":
        await _killed_then_another(world, armed)
    world.airbyte.finish_job(1, "failed", failure=("config_error", "No such column."))
    if failpoint == "repair.taken_back":
        await _killed_then_another(world, armed)

    repair = await _repair_in(world, "rolled_back")
    assert (repair["version_number"], repair["restored_version"]) == (2, 3)
    assert await _versions(world) == [1, 2, 3]
    assert len(world.airbyte.jobs) == 1
    assert "Region__c" not in _fields(world, connection)
