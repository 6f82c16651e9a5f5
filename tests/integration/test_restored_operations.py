"""Operations that ran when a backup was made: after its restore they end, and nothing is doubled.

Airbyte is ahead of the registry then: what the registry does not know of may exist already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.processes import servers
from tests import leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import apply, discovered, seen
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes
from tests.integration.registry_backups import dump, restored
from tests.waiting import until

Json = dict[str, Any]

SECRET = "CREDENTIAL_SALESFORCE_PROD__CLIENT_SECRET"
ROTATE = "/credentials/salesforce-prod/rotate"
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
    held: Json = airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    held["streams"].pop()
    return held


STEPS = {
    "discover": "commands/run/discover",
    "intent": "sources/create",
    "source": "sources/create",
    "connection": "connections/create",
}


async def onboarded_meanwhile(
    mesh: Mesh, postgres: servers.Postgres, file: Path, step: str
) -> Json:
    """Onboard a connection, with a backup of the registry at a step, and sync it."""
    path = STEPS[step]
    async with asyncio.TaskGroup() as group, held_at(mesh, path):
        onboarding = group.create_task(mesh.onboard())
        await mesh.until_true(_IS_STEP, "onboard", "source" if step == "intent" else step)
        await dump(postgres, file)
    connection = onboarding.result()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.finish_job(job["id"])
    return connection


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("step", STEPS)
async def test_onboarding_is_completed_with_what_exists(
    step: str, airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """It has one source and one connection in Airbyte, whatever step the backup was made at."""
    async with meshes.start(airbyte) as mesh:
        before = await onboarded_meanwhile(mesh, postgres, tmp_path / "dump", step)
    async with restored(postgres, tmp_path / "dump", meshes) as later:
        if step == "intent":
            # A rotation since then has given the source a marker of its own.
            airbyte.sources[before["airbyte_source_id"]]["name"] = f"rotated [aam:{uuid4()}]"
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


@pytest.mark.deep
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


@pytest.mark.deep
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

    assert (after["status"], after["failure_code"]) == ("FAILED", "discovery_failed")
    assert list(airbyte.connections) == [before["airbyte_connection_id"]]
    assert list(airbyte.sources) == [before["airbyte_source_id"]]


@pytest.mark.deep
async def test_sync_is_not_started_again(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """The job that was started after the backup is recorded as that of the request."""
    async with meshes.start(airbyte) as mesh:
        connection = await mesh.onboard()
        path = f"/connections/{connection['id']}"
        async with asyncio.TaskGroup() as group, held_at(mesh, "connections/sync"):
            syncing = group.create_task(mesh.orchestrator.post(f"{path}/sync"))
            await mesh.until_true(_IS_STEP, "sync", "job")
            await dump(postgres, tmp_path / "dump")
        started = syncing.result().json()
        airbyte.finish_job(started["airbyte_job_id"], records=3)
    async with restored(postgres, tmp_path / "dump", meshes) as later:
        await later.sql.execute(
            "UPDATE operations SET step = 'intent', steps = '{}', in_flight_until = NULL"
            " WHERE kind = 'sync'"
        )
        async with later.start(airbyte) as mesh:
            await ended(mesh)
            (job,) = await mesh.jobs_until_end(connection["id"])

    assert len(airbyte.jobs) == 1
    assert (job["airbyte_job_id"], job["started_by"], job["records"]) == (
        started["airbyte_job_id"],
        "aam",
        3,
    )


@pytest.mark.deep
async def test_heal_is_recorded_once(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """Airbyte has its catalog already, and is not sent it again."""
    async with meshes.start(airbyte) as mesh:
        connection = await mesh.onboard()
        order = await discovered(mesh, connection)
        order["sync_catalog"]["streams"].pop()
        async with asyncio.TaskGroup() as group, held_at(mesh, "connections/update"):
            applying = group.create_task(apply(mesh, order))
            await mesh.until_true(_IS_STEP, "apply", "update")
            await dump(postgres, tmp_path / "dump")
        assert applying.result()[0] == 200
    updates = len(airbyte.called("connections/update"))
    async with restored(postgres, tmp_path / "dump", meshes) as later, later.start(airbyte) as mesh:
        await ended(mesh)
        after = await seen(mesh, connection)

    assert (after["status"], after["catalog_version"]) == ("ACTIVE", 2)
    assert len(airbyte.called("connections/update")) == updates


@pytest.mark.deep
async def test_rotation_is_recorded_once(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """The source has the credential already, and is not given it again; nor is it created again."""
    credentials = {**CREDENTIALS, SECRET: leaks.canary("a rotated credential")}
    async with meshes.start(airbyte) as mesh:
        connection = await mesh.onboard()
    async with meshes.start(airbyte, credentials=credentials) as mesh:
        async with asyncio.TaskGroup() as group, held_at(mesh, "sources/update"):
            rotating = group.create_task(mesh.orchestrator.post(ROTATE))
            await mesh.until_true(_IS_STEP, "rotate", "update")
            await dump(postgres, tmp_path / "dump")
        assert rotating.result().status_code == 200, rotating.result().text
    updates = len(airbyte.called("sources/update"))
    async with (
        restored(postgres, tmp_path / "dump", meshes) as later,
        later.start(airbyte, credentials=credentials) as mesh,
    ):
        await ended(mesh)
        again = (await mesh.orchestrator.post(ROTATE)).json()

    assert [one["outcome"] for one in again["connections"]] == ["unchanged"]
    assert len(airbyte.called("sources/update")) == updates
    assert list(airbyte.sources) == [connection["airbyte_source_id"]]
