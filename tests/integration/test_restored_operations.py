"""Operations that ran when a backup was made: after its restore they end, and nothing is doubled.

Airbyte is ahead of the registry then: what the registry does not know of may exist already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from local.processes import servers
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import ORDER, Mesh, Meshes
from tests.integration.registry_backups import dump, restored
from tests.waiting import until

Json = dict[str, Any]

_IS_STEP = "SELECT EXISTS (SELECT FROM operations WHERE kind = $1 AND step = $2)"
_IS_OPEN = "SELECT EXISTS (SELECT FROM operations WHERE status IN ('running', 'undoing'))"


@asynccontextmanager
async def held_at(mesh: Mesh, path: str) -> AsyncIterator[None]:
    """Let the next request of this path hang within the block, without an effect."""
    mesh.airbyte.fault(path, "hang")
    yield
    mesh.airbyte.heal()


async def ended(mesh: Mesh) -> None:
    """Wait until every operation has ended."""
    await until(lambda: _all_ended(mesh))


async def _all_ended(mesh: Mesh) -> bool:
    return not await mesh.sql.fetchval(_IS_OPEN)


def edit_in_airbyte(airbyte: AirbyteServer, connection: Json) -> Json:
    """Deselect a stream in Airbyte; returns the catalog that it has then."""
    held = airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    held["streams"].pop()
    return held


STEPS = {
    "intent": "sources/create",
    "source": "sources/create",
    "discover": "commands/run/discover",
    "connection": "connections/create",
}


async def onboarded_meanwhile(
    mesh: Mesh, postgres: servers.Postgres, file: Path, step: str
) -> Json:
    """Onboard a connection, with a backup of the registry at a step, and sync it."""
    path = STEPS[step]
    async with asyncio.TaskGroup() as group:
        async with held_at(mesh, path):
            onboarding = group.create_task(mesh.onboard())
            await mesh.until_true(_IS_STEP, "onboard", "source" if step == "intent" else step)
            await dump(postgres, file)
    connection = onboarding.result()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.finish_job(job["id"])
    return connection


@pytest.mark.parametrize("step", STEPS)
async def test_onboarding_is_completed_with_what_exists(
    step: str, airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """It has one source and one connection in Airbyte, whatever step the backup was made at."""
    async with meshes.start(airbyte) as mesh:
        before = await onboarded_meanwhile(mesh, postgres, tmp_path / "dump", step)
    async with restored(postgres, tmp_path / "dump", meshes) as later:
        if step == "intent":
            await later.sql.execute(
                "UPDATE operations SET step = 'intent', steps = '{}', in_flight_until = NULL"
            )
        async with later.start(airbyte) as mesh:
            await ended(mesh)
            after = (await mesh.orchestrator.get(f"/connections/{before['id']}")).json()

    assert list(airbyte.sources) == [before["airbyte_source_id"]]
    assert list(airbyte.connections) == [before["airbyte_connection_id"]]
    assert (after["status"], after["catalog_version"]) == ("ACTIVE", 1)
    names = ("airbyte_source_id", "airbyte_connection_id")
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


async def test_onboarding_accepts_the_catalog_that_was_repaired_since(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """Version 1 is the catalog that Airbyte holds, also while Airbyte is away at first."""
    async with meshes.start(airbyte) as mesh:
        before = await onboarded_meanwhile(mesh, postgres, tmp_path / "dump", "connection")
    held = edit_in_airbyte(airbyte, before)
    async with restored(postgres, tmp_path / "dump", meshes) as later:
        airbyte.fault("*", 502, times=20)
        async with later.start(airbyte) as mesh:
            await ended(mesh)
            path = f"/connections/{before['id']}"
            after = (await mesh.orchestrator.get(path)).json()
            version = (await mesh.orchestrator.get(f"{path}/catalog-versions/1")).json()

    assert list(airbyte.connections) == [before["airbyte_connection_id"]]
    assert (after["status"], after["failure_code"]) == ("ACTIVE", None)
    assert [one["stream"]["name"] for one in version["streams"]] == [
        one["stream"]["name"] for one in held["streams"]
    ]


async def test_onboarding_that_fails_now_deletes_nothing_that_has_synced(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """The connection and its source stay in Airbyte, and the sweeper reports them."""
    async with meshes.start(airbyte) as mesh:
        before = await onboarded_meanwhile(mesh, postgres, tmp_path / "dump", "discover")
    airbyte.fail_discovery("config_error", "password authentication failed")
    async with restored(postgres, tmp_path / "dump", meshes) as later:
        async with later.start(airbyte) as mesh:
            await mesh.until_true("SELECT EXISTS (SELECT FROM operations WHERE status = 'undoing')")
        await later.sql.execute("UPDATE operations SET deadline = now(), lease_until = now()")
        async with later.start(airbyte) as mesh:
            await ended(mesh)
            after = (await mesh.orchestrator.get(f"/connections/{before['id']}")).json()

    assert (after["status"], after["failure_code"]) == ("FAILED", "discover_failed")
    assert list(airbyte.connections) == [before["airbyte_connection_id"]]
    assert list(airbyte.sources) == [before["airbyte_source_id"]]
