"""Idempotency keys are scoped to a route; a separate module, since its sync changes the world."""

from __future__ import annotations

from uuid import uuid4

from tests.hostile.attempts import APPLY, JSON, World


async def test_c24_idempotency_key_is_scoped_to_its_route(world: World) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    first = await world.mesh.orchestrator.post(
        f"/connections/{world.connection['id']}/sync", headers=key
    )
    again = await world.mesh.orchestrator.post(
        f"/connections/{world.connection['id']}/sync", headers=key
    )
    other = await world.mesh.drift_repair_agent.post(APPLY, content=b"{}", headers={**JSON, **key})
    assert (first.status_code, again.text) == (202, first.text)
    assert "idempotency-replayed" in again.headers
    assert other.status_code == 422
