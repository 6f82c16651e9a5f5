"""The control of the hostile requests; a separate module, since it changes the world."""

from __future__ import annotations

from tests.hostile.attempts import APPLY, JSON, World


async def test_valid_order_is_accepted(world: World) -> None:
    """The control: each hostile request differs from this one in one aspect."""
    taken = await world.mesh.drift_repair_agent.post(
        APPLY, content=world.poisoned(b'"fine"'), headers=JSON
    )
    assert (taken.status_code, taken.json()["changed"]) == (200, True)
