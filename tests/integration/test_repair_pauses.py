"""Repairs pause a connection while a decision is due, and resume what they or Airbyte paused."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.applying import seen, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs, repairs_until
from tests.integration.repairing import approve, nothing_was_reset, proposal, types, upstream
from tests.waiting import until

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}


async def test_lost_cursor_pauses_the_connection_until_a_decision(mesh: Mesh) -> None:
    """Proposed, approved with a fallback, resumed; no data is reset."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await until(lambda: upstream(mesh, connection)["status"] == "inactive")
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    lost = {one["entity"] for one in repair["changes"] if one["reaction"] == "pause"}
    assert lost == {"cursor", "mode"}

    async with asyncio.timeout(20):  # Airbyte's answer may be lost, and is then looked up
        while not repair["paused"]:
            (repair,) = await repairs(mesh, connection)
    refused = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_active")
    assert (await seen(mesh, connection))["paused_by"] == repair["id"]

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"], decided["paused"]) == (200, "applied", False)
    assert upstream(mesh, connection)["status"] == "active"
    config = streams_in_airbyte(mesh, connection)["Account"]["config"]
    assert config["syncMode"] == "full_refresh"
    assert await types(mesh, 6) == [
        "repair.proposed",
        "connection.paused",
        "catalog.healing",
        "catalog.applied",
        "connection.resumed",
        "repair.applied",
    ]
    assert nothing_was_reset(mesh)


async def test_restored_cursor_resumes_the_connection(mesh: Mesh) -> None:
    """The proposal is superseded."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await until(lambda: upstream(mesh, connection)["status"] == "inactive")

    await drift(mesh, connection, offering(ACCOUNT))

    await repairs_until(mesh, connection, ["superseded"])
    await until(lambda: upstream(mesh, connection)["status"] == "active")
    assert (await types(mesh, 4))[-1] == "connection.resumed"
    assert await mesh.sql.fetchval("SELECT paused_by FROM connections") is None
    assert (await seen(mesh, connection))["catalog_version"] == 1


async def test_pause_by_a_person_stays(mesh: Mesh) -> None:
    """A repair changes the catalog only."""
    connection = await mesh.onboard()
    upstream(mesh, connection)["status"] = "inactive"

    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    await repairs_until(mesh, connection, ["applied"])
    assert upstream(mesh, connection)["status"] == "inactive"


async def test_breaking_change_flag_is_cleared_by_the_repair(mesh: Mesh) -> None:
    """Airbyte paused the connection for it: the repair resumes it."""
    connection = await mesh.onboard()
    upstream(mesh, connection).update(status="inactive", breakingChange=True)
    repair = await proposal(mesh, connection, offering(LESS))

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    assert upstream(mesh, connection)["status"] == "active"
    assert upstream(mesh, connection)["breakingChange"] is False
