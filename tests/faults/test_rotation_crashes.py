"""A rotation survives a crash: after a kill at each step another replica continues."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.faults.world import ORDER, World

pytestmark = pytest.mark.process

TOKEN = "CREDENTIAL_SALESFORCE_PROD__REFRESH_TOKEN"
PATH = "/credentials/salesforce-prod/rotate"
_WITHIN_S = 40
_NOTHING_CHANGED = ("rotation_unchecked", "auth_broker_unavailable")


@pytest.mark.deep(after=1)
@pytest.mark.parametrize(
    "failpoint",
    [
        "update.after",
        "intent.after",
        "update.before",
        "finish.before",
        "finish.after",
    ],
)
async def test_rotation_is_sent_once_despite_a_crash(world: World, failpoint: str) -> None:
    """One update, one event; a token that is renewed later is not overwritten."""
    orchestrator = await world.replace("orchestrator")
    onboarding = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert onboarding.status_code == 201, onboarding.text
    source_id = onboarding.json()["airbyte_source_id"]
    world.credentials[TOKEN] = "new token"
    armed = await world.replace("orchestrator", failpoints=f"rotate.{failpoint}=kill")

    with pytest.raises(httpx.TransportError):
        await _asked(armed.client)
    assert await armed.died(within=30) == -9
    if failpoint in ("update.after", "finish.before", "finish.after"):
        world.airbyte.renew(source_id, refresh_token="renewed")
    heir = await world.replace("orchestrator/2")

    assert await _settled(heir.client) == "unchanged"
    held: dict[str, Any] = world.airbyte.sources[source_id]["connectionConfiguration"]
    arrived_before = failpoint not in ("intent.after", "update.before")
    assert held["refresh_token"] == ("renewed" if arrived_before else "new token")
    assert len(world.airbyte.called("sources/update")) == 1
    rows = await world.fetch("SELECT type FROM events WHERE type = 'credential.rotated'")
    assert len(rows) == 1
    await world.converged()


async def _settled(client: httpx.AsyncClient) -> str:
    """Return the outcome of a rotation, once no other is running."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            answer = await _asked(client)
            outcome: str = answer.json()["connections"][0]["outcome"]
            if outcome != "busy":
                return outcome
            await asyncio.sleep(0.2)


async def _asked(client: httpx.AsyncClient) -> httpx.Response:
    """Request a rotation, again after a 503, which means that nothing was changed.

    A world's request timeout is half a second, which a busy machine can exceed.
    """
    async with asyncio.timeout(_WITHIN_S):
        while True:
            answer = await client.post(PATH)
            if answer.status_code != 503:
                return answer
            assert answer.json()["code"] in _NOTHING_CHANGED, answer.text
            await asyncio.sleep(0.2)
