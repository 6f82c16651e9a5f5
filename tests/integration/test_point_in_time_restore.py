"""A registry restored to an earlier time: Airbyte is ahead, nothing is lost, and all is put right.

`docs/guides/restore.md` describes the same steps.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from local.processes import servers
from tests import access, leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import apply, discovered, seen
from tests.integration.conftest import REPOSITORY, Mesh, Meshes, migrate
from tests.integration.registry_backups import Archived, dump, restored
from tests.waiting import until

Json = dict[str, Any]

pytestmark = pytest.mark.deep


@pytest.fixture
async def archived(server_dir: Path) -> AsyncIterator[Archived]:
    """A migrated registry of the test's own, whose server archives its WAL."""
    backups = Archived(Path(tempfile.mkdtemp(dir=server_dir)))
    with backups.server:
        backups.server.start()
        await asyncio.to_thread(migrate, backups.server.url)
        yield backups


class Work:
    """What a mesh does before and after the time that its registry is restored to."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.edited: Json = {}
        self.archived: Json = {}
        self.later: Json = {}
        self.key = self.key_id = ""
        self.job = 0

    async def before(self) -> datetime:
        """Onboard two connections, label one, make a key; returns the time after that."""
        self.edited = await self._mesh.onboard()
        self.archived = await self._mesh.onboard(connection_name="Archived later")
        await self._label("sales")
        made = await self._mesh.orchestrator.post(
            "/api-keys", json={"owner": "ada@example.com", "scopes": ["connections:read"]}
        )
        self.key, self.key_id = made.json()["key"], made.json()["id"]
        leaks.know("a key that is revoked", self.key.partition(f"_{self.key_id}_")[2])
        now: datetime = await self._mesh.sql.fetchval("SELECT clock_timestamp()")
        return now

    async def after(self) -> None:
        """Apply a version, sync, label, archive, onboard, revoke: all that is lost again."""
        mesh = self._mesh
        order = await discovered(mesh, self.edited)
        order["sync_catalog"]["streams"].pop()
        assert (await apply(mesh, order))[0] == 200
        await self._label("finance")
        started = await mesh.orchestrator.post(f"/connections/{self.edited['id']}/sync")
        self.job = started.json()["airbyte_job_id"]
        mesh.airbyte.finish_job(self.job, records=5)
        await mesh.jobs_until_end(self.edited["id"])
        answer = await mesh.orchestrator.delete(f"/connections/{self.archived['id']}")
        assert answer.status_code == 204
        self.later = await mesh.onboard(connection_name="Onboarded later")
        revoked = await mesh.orchestrator.delete(f"/api-keys/{self.key_id}")
        assert revoked.status_code == 200, revoked.text

    async def _label(self, team: str) -> None:
        path = f"/connections/{self.edited['id']}"
        answer = await self._mesh.orchestrator.patch(path, json={"labels": {"team": team}})
        assert answer.status_code == 200, answer.text


async def command(mesh_settings: dict[str, str], *words: str) -> Json:
    """What a maintenance command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.orchestrator.maintenance_command", *words),
        cwd=REPOSITORY,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        | access.environment()
        | mesh_settings,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return dict(json.loads(output))


def environment(airbyte: AirbyteServer, server: servers.Postgres, meshes: Meshes) -> dict[str, str]:
    """The settings of the commands."""
    return {
        **airbyte.environment,
        "SUPABASE_DB_URL": server.url_for("orchestrator"),
        "REDIS_URL": meshes.redis_url,
    }


async def test_registry_of_an_earlier_time_is_put_right(
    airbyte: AirbyteServer, meshes: Meshes, archived: Archived
) -> None:
    """Everything that differs is reported; a person adopts it or applies the registry's again."""
    sql = await asyncpg.connect(archived.server.url)
    there = replace(meshes, registry_url=archived.server.services_url, sql=sql)
    async with there.start(airbyte) as mesh:
        work = Work(mesh)
        await archived.back_up()
        time = await work.before()
        await work.after()
        published = await mesh.events(8)
        newest = (await mesh.orchestrator.get("/events")).json()["next"]
    await sql.close()
    await archived.archive_all()
    archived.server.stop()
    held = deepcopy((airbyte.sources, airbyte.connections))

    async with archived.restored_to(time) as server:
        # The services are down: look first.
        settings = environment(airbyte, server, meshes)
        compared = await command(settings, "reconcile", "--dry-run")
        assert compared["drifted"] == {
            work.edited["id"]: "catalog_differs",
            work.archived["id"]: "upstream_missing",
        }
        swept = await command(settings, "sweep", "--dry-run")
        assert {one["id"] for one in swept["unknown"]} == {
            work.later["airbyte_source_id"],
            work.later["airbyte_connection_id"],
        }
        assert (swept["deleted"], swept["synced"]) == ([], [])
        sql = await asyncpg.connect(server.url)
        assert not await sql.fetchval("SELECT count(drifted_upstream_at) FROM connections")

        there = replace(meshes, registry_url=server.services_url, sql=sql)
        async with there.start(airbyte) as mesh:
            await command(settings, "reconcile")
            await command(settings, "sweep")
            assert (airbyte.sources, airbyte.connections) == held
            await is_back(mesh, work)
            await continues_from(mesh, published, newest)
            await put_right(mesh, work)
            rest = await command(settings, "reconcile", "--dry-run")
            assert (rest["compared"], rest["drifted"]) == (2, {})
            assert (await command(settings, "sweep", "--dry-run"))["unknown"] == []
        await sql.close()


async def is_back(mesh: Mesh, work: Work) -> None:
    """The registry is that of the earlier time; what Airbyte has since is reported."""
    edited, gone = await seen(mesh, work.edited), await seen(mesh, work.archived)
    assert (edited["catalog_version"], edited["upstream_code"]) == (1, "catalog_differs")
    assert edited["labels"] == {"team": "sales"}
    assert (gone["status"], gone["upstream_code"]) == ("ACTIVE", "upstream_missing")
    assert (await mesh.orchestrator.get(f"/connections/{work.later['id']}")).status_code == 404
    headers = {"Authorization": f"Bearer {work.key}"}
    assert (await mesh.orchestrator.get("/whoami", headers=headers)).status_code == 200

    async def followed() -> list[int]:
        answer = await mesh.orchestrator.get(f"/connections/{work.edited['id']}/jobs")
        return [one["airbyte_job_id"] for one in answer.json()["items"]]

    assert await until(followed) == [work.job]


async def continues_from(mesh: Mesh, published: list[dict[str, str]], newest: str) -> None:
    """Positions of readers stay valid; a number that is used again comes with another id."""
    answer = await mesh.orchestrator.get("/events", params={"after": newest})
    page = answer.json()
    assert page["gap"] is False
    assert "connection.drifted_upstream" in [one["type"] for one in page["items"]]
    every = await mesh.events(len(published) + 2)
    known = {one["event_id"] for one in published}
    numbers = {(one["connection_id"], one["seq"]) for one in published}
    again = every[len(published) :]
    new = [one for one in again if one["event_id"] not in known]
    # What was not marked as published at that time is published again, unchanged.
    assert all(one in published for one in again if one not in new)
    assert any((one["connection_id"], one["seq"]) in numbers for one in new)


async def put_right(mesh: Mesh, work: Work) -> None:
    """Adopt one catalog and apply the earlier one again; adopt a connection; archive another."""
    path = f"/connections/{work.edited['id']}"
    adopted = await mesh.orchestrator.post(f"{path}/catalog-versions/adopt")
    assert (adopted.json()["version_number"], adopted.json()["changed"]) == (2, True)
    rolled = await mesh.drift_repair_agent.post(
        f"{path}/rollback", json={"version": 1, "by": "ada@example.com"}
    )
    assert rolled.status_code == 200, rolled.text
    again = airbyte_streams(mesh, work.edited)
    assert again == ["Account", "Contact"]

    order = {"airbyte_connection_id": work.later["airbyte_connection_id"], "adopt": True}
    taken = await mesh.orchestrator.post("/connections/import", json=order)
    assert [one["outcome"] for one in taken.json()["items"]] == ["imported"]
    listed = (await mesh.orchestrator.get("/connections?q=Onboarded")).json()["items"]
    assert [(one["name"], one["imported"]) for one in listed] == [("Onboarded later", False)]

    answer = await mesh.orchestrator.delete(f"/connections/{work.archived['id']}")
    assert answer.status_code == 204, answer.text


def airbyte_streams(mesh: Mesh, connection: Json) -> list[str]:
    """The streams that Airbyte syncs, by name."""
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    return sorted(one["stream"]["name"] for one in held["streams"])


async def test_dump_without_privileges_is_migrated(
    airbyte: AirbyteServer, meshes: Meshes, postgres: servers.Postgres, tmp_path: Path
) -> None:
    """The migration grants the services' roles what they need; the connection works as before."""
    async with meshes.start(airbyte) as mesh:
        connection = await mesh.onboard()
        await dump(postgres, tmp_path / "dump")
    options = ("--no-owner", "--no-privileges")
    async with restored(postgres, tmp_path / "dump", meshes, *options) as later:
        name = later.registry_url.rpartition("/")[2]
        await asyncio.to_thread(migrate, postgres.url_of(name))
        async with later.start(airbyte) as mesh:
            started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
            assert started.status_code == 202, started.text
            mesh.airbyte.finish_job(started.json()["airbyte_job_id"])
            await mesh.jobs_until_end(connection["id"])
            (first, *_) = await mesh.events(2)

    assert first["type"] == "connection.onboarded"
