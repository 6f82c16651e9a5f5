"""Archiving: what AAM created in Airbyte is deleted, whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.operations import Intent, Operations
from tests.integration.conftest import Mesh
from tests.waiting import until


async def test_archiving_as_an_onboarding_ends_deletes_what_it_created(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request came before the onboarding had recorded anything of Airbyte."""
    begin, is_archiving, may_archive = Operations.begin, asyncio.Event(), asyncio.Event()

    async def held_back(self: Operations, intent: Intent, *rest: Any) -> Any:
        if intent.kind == "archive":
            is_archiving.set()
            await may_archive.wait()
        return await begin(self, intent, *rest)

    monkeypatch.setattr(Operations, "begin", held_back)
    mesh.airbyte.fault("commands/run/discover", "hang")
    begun = await mesh.orchestrator.post("/connections/onboard?wait=0", json=mesh.order)
    assert begun.status_code == 202, begun.text
    await until(lambda: mesh.airbyte.called("commands/run/discover"))
    connection_id = await mesh.sql.fetchval("SELECT id FROM connections")

    archiving = asyncio.create_task(mesh.orchestrator.delete(f"/connections/{connection_id}"))
    await is_archiving.wait()
    mesh.airbyte.heal()
    onboarded = """
        SELECT status = 'ACTIVE' AND NOT EXISTS (SELECT FROM operations WHERE status = 'running')
        FROM connections
    """
    await mesh.until_true(onboarded)
    assert len(mesh.airbyte.connections) == 1
    may_archive.set()

    assert (await archiving).status_code == 204
    assert await mesh.sql.fetchval("SELECT archived_at IS NOT NULL FROM connections")
    assert mesh.airbyte.connections == {}
    assert mesh.airbyte.sources == {}
