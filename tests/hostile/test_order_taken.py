"""The control of the hostile orders, in a world of its own, since it changes it."""

from __future__ import annotations

from tests.hostile.attempts import APPLY, JSON, World


async def test_valid_order_is_accepted(world: World) -> None:
    """The control of the hostile orders: each of them changes one thing of this order."""
    taken = await world.mesh.drift_repair_agent.post(
        APPLY, content=world.poisoned(b'"fine"'), headers=JSON
    )
    assert (taken.status_code, taken.json()["changed"]) == (200, True)
