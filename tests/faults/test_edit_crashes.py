"""A credential is replaced once, even if the process is killed at any step of the edit."""

from __future__ import annotations

import httpx
import pytest

from tests.faults.world import ORDER, World
from tests.waiting import until_not

pytestmark = pytest.mark.process

SECOND = "CREDENTIAL_SALESFORCE_SECOND__"
EDIT = {"credential_id": "salesforce-second", "prefix": "crm_"}
_OPEN = "SELECT 1 FROM operations WHERE status IN ('running', 'undoing')"


@pytest.mark.deep
@pytest.mark.parametrize(
    "failpoint",
    [
        "settings.after",
        "intent.after",
        "check.before",
        "check.after",
        "settings.before",
        "source.before",
        "source.after",
        "finish.before",
        "finish.after",
    ],
)
async def test_credential_is_replaced_once_despite_a_crash(world: World, failpoint: str) -> None:
    """Another replica continues: one source update, one event, one history entry."""
    for name, value in list(world.credentials.items()):
        world.credentials[name.replace("CREDENTIAL_SALESFORCE_PROD__", SECOND)] = value
    world.credentials[f"{SECOND}CLIENT_ID"] = "the second client"
    # A check may take several times AIRBYTE_TIMEOUT; the default would be minutes.
    world.settings = {"CHECK_TIMEOUT": "1"}
    orchestrator = await world.replace("orchestrator")
    onboarding = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert onboarding.status_code == 201, onboarding.text
    connection = onboarding.json()
    armed = await world.replace("orchestrator", failpoints=f"edit.{failpoint}=kill")

    with pytest.raises(httpx.TransportError):
        await armed.client.patch(f"/connections/{connection['id']}", json=EDIT)
    assert await armed.died(within=30) == -9
    await world.replace("orchestrator/2")

    await until_not(lambda: world.fetch(_OPEN))
    await world.converged()
    held = world.airbyte.sources[connection["airbyte_source_id"]]["connectionConfiguration"]
    assert held["client_id"] == "the second client"
    assert world.airbyte.connections[connection["airbyte_connection_id"]]["prefix"] == "crm_"
    assert len(world.airbyte.called("sources/update")) == 1
    assert len(world.airbyte.called("sources/check_connection_for_update")) <= 2
    rows = await world.fetch("SELECT credential_id FROM connections")
    assert [row["credential_id"] for row in rows] == ["salesforce-second"]
    for table in ("setting_changes", "events WHERE type = 'connection.edited'"):
        assert len(await world.fetch(f"SELECT id FROM {table}")) == 1  # noqa: S608 (two literals)
