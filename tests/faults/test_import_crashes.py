"""The import of a workspace survives a crash: another replica continues it."""

from __future__ import annotations

from copy import deepcopy
from uuid import uuid4

import httpx
import pytest

from tests.faults.world import ORDER, T_CONVERGED, World
from tests.waiting import until

pytestmark = pytest.mark.process


@pytest.mark.deep(after=1)
@pytest.mark.parametrize(
    "failpoint",
    [
        "items.after",
        "intent.after",
        "list.after",
        "items.before",
        "finish.before",
    ],
)
async def test_import_continues_after_a_crash(world: World, failpoint: str) -> None:
    """Each connection is imported once, with one event."""
    orchestrator = await world.replace("orchestrator")
    onboarding = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert onboarding.status_code == 201, onboarding.text
    held = world.airbyte.connections[onboarding.json()["airbyte_connection_id"]]
    for number in range(3):
        source = world.airbyte.add_source(f"source {number}")
        copy = deepcopy(held) | {"connectionId": str(uuid4()), "name": f"by hand {number}"}
        world.airbyte.connections[copy["connectionId"]] = copy | {"sourceId": source["sourceId"]}
    armed = await world.replace("orchestrator", failpoints=f"import.{failpoint}=kill")

    with pytest.raises(httpx.TransportError):
        await armed.client.post("/connections/import", json={"dry_run": False})
    assert await armed.died(within=30) == -9
    heir = await world.replace("orchestrator/2")

    async def ended() -> bool:
        rows = await world.fetch("SELECT status FROM operations WHERE kind = 'import'")
        return [row["status"] for row in rows] == ["done"]

    await until(ended, within=T_CONVERGED)
    (row,) = await world.fetch("SELECT id FROM operations WHERE kind = 'import'")
    report = (await heir.client.get(f"/imports/{row['id']}")).json()
    assert report["outcomes"] == {"already_managed": 1, "imported": 3}
    events = await world.fetch("SELECT type FROM events WHERE type = 'connection.imported'")
    assert len(events) == 3
    await world.converged()
