"""A repair ends once, at the right time."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs, repairs_until
from tests.integration.repairing import put
from tests.waiting import until, until_not

Json = dict[str, Any]
MORE = ACCOUNT | {"Region__c": "string"}


async def verifying(mesh: Mesh) -> tuple[Json, Json]:
    """A connection, and its repair that waits for its sync."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    await drift(mesh, connection, offering(MORE))
    await until(lambda: bool(mesh.airbyte.jobs))
    (repair,) = await repairs_until(mesh, connection, ["verifying"])
    return connection, repair


async def test_running_rollback_does_not_expire(mesh: Mesh) -> None:
    """Its operation has a deadline of its own, and its result is the repair's."""
    connection, repair = await verifying(mesh)
    mesh.airbyte.fault("connections/update", 503, times=None)
    mesh.airbyte.finish_job(max(mesh.airbyte.jobs), "failed", failure=("config_error", "No."))
    began = "SELECT operation_id IS NOT NULL FROM repairs WHERE state = 'rolling_back'"
    await mesh.until_true(began)

    await mesh.sql.execute("UPDATE repairs SET deadline_at = now(), next_at = now()")
    await until_not(lambda: mesh.sql.fetchval("SELECT next_at <= now() FROM repairs"))
    await asyncio.sleep(0.3)  # the step was claimed; it is to change nothing that could be awaited
    assert [one["state"] for one in await repairs(mesh, connection)] == ["rolling_back"]
    mesh.airbyte.heal()

    (ended,) = await repairs_until(mesh, connection, ["rolled_back"])
    assert (ended["version_number"], ended["restored_version"]) == (2, 3)
    assert ended["id"] == repair["id"]
