"""Sweeping and reconciling: what AAM finds in Airbyte, and what it does about it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from local.processes import servers
from services.orchestrator.catalog_reconciler import ReapplySaga, Reconciler
from services.orchestrator.leftover_sweeper import AT_MOST, Sweeper
from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.errors import Upstream
from shared.job_queue import Jobs
from shared.operations import Operations
from tests import access
from tests.fakes.airbyte_server import WORKSPACE_ID
from tests.integration.conftest import REPOSITORY, Mesh, empty, settings_for
from tests.pools import Sql
from tests.waiting import until, until_not

WORKSPACE = UUID(WORKSPACE_ID)


@dataclass
class Tools:
    """What maintenance is done with, beside the running mesh."""

    settings: Settings
    db: Database
    airbyte: AirbyteClient
    operations: Operations

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.db, self.airbyte, grace=self.settings.sweep_grace)

    def reconciler(self, **changes: str) -> Reconciler:
        settings = self.settings.model_copy(update=changes)
        return Reconciler(settings, self.db, self.airbyte, self.operations)


@pytest.fixture
async def sql(
    sql: Sql,
) -> Sql:
    """A registry whose mesh does not sweep and reconcile by itself: that is for the tools."""
    await sql.execute(
        "INSERT INTO periodic_runs (name, next_at)"
        " SELECT name, now() + interval '1 hour' FROM unnest('{sweep, reconcile}'::text[]) AS name"
    )
    return sql


@pytest.fixture
async def tools(mesh: Mesh, registry_url: str, redis_url: str) -> AsyncIterator[Tools]:
    """Tools over the mesh's registry and Airbyte."""
    url = servers.as_service(registry_url, "orchestrator")
    settings = settings_for(mesh.airbyte, url, redis_url, sweep_grace="600")
    db = Database.at(settings.registry_address, application="test")
    jobs = Jobs(settings.registry_address, application="test")
    operations = Operations(settings, db, jobs, service="orchestrator")
    async with AirbyteClient.from_settings(settings) as airbyte:
        operations.register("reapply", ReapplySaga(settings, db, airbyte))
        async with operations.running():
            yield Tools(settings, db, airbyte, operations)
    await db.close()


async def ended_operation(mesh: Mesh, *, ago: str = "1 hour", workspace: str | None = None) -> UUID:
    """An operation that failed long ago and left its source in Airbyte."""
    connection_id, operation_id = uuid4(), uuid4()
    await mesh.sql.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status,"
        " airbyte_workspace_id) VALUES ($1, $2, 'Salesforce', $3, 'FAILED', $4)",
        connection_id,
        str(connection_id),
        uuid4(),
        workspace,
    )
    await mesh.sql.execute(
        "INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,"
        " deadline, request_id, ended_at) VALUES ($1, 'onboard', $2, 'failed', '{}', 'undo', now(),"
        " now(), '', now() - CAST($3::text AS interval))",
        operation_id,
        connection_id,
        ago,
    )
    return operation_id


async def test_sweeper_deletes_only_leftovers(mesh: Mesh, tools: Tools) -> None:
    """Of eleven leftovers and six lookalikes it deletes ten leftovers, and reports the rest."""
    live = await mesh.onboard()
    unmarked = mesh.airbyte.add_source("somebody's")["sourceId"]
    others = mesh.airbyte.add_source(f"of another installation [aam:{uuid4()}]")["sourceId"]
    young = mesh.airbyte.add_source(f"young [aam:{await ended_operation(mesh, ago='0 s')}]")
    elsewhere = mesh.airbyte.add_source(f"elsewhere [aam:{await ended_operation(mesh)}]")
    elsewhere["workspaceId"] = str(uuid4())
    mesh.airbyte.mixes_workspaces = True
    wired = mesh.airbyte.add_source(f"wired by a person [aam:{await ended_operation(mesh)}]")
    person = deepcopy(mesh.airbyte.connections[live["airbyte_connection_id"]])
    person |= {"connectionId": str(uuid4()), "sourceId": wired["sourceId"], "name": "by hand"}
    mesh.airbyte.connections[person["connectionId"]] = person
    orphans = {
        mesh.airbyte.add_source(f"left {n} [aam:{await ended_operation(mesh)}]")["sourceId"]
        for n in range(AT_MOST + 1)
    }
    kept = {unmarked, others, young["sourceId"], elsewhere["sourceId"], wired["sourceId"]}
    kept.add(live["airbyte_source_id"])
    everything = set(mesh.airbyte.sources)
    assert everything == kept | orphans

    dry = await tools.sweeper.sweep(WORKSPACE, dry_run=True)
    assert set(mesh.airbyte.sources) == everything
    assert (len(dry.deleted), len(dry.left)) == (AT_MOST, 1)
    assert [str(one.id) for one in dry.unknown] == [others]

    swept = await tools.sweeper.sweep(WORKSPACE, dry_run=False)
    assert len(swept.deleted) == AT_MOST
    assert len(set(mesh.airbyte.sources) & orphans) == 1
    assert kept <= set(mesh.airbyte.sources)
    await tools.sweeper.sweep(WORKSPACE, dry_run=False)
    assert set(mesh.airbyte.sources) == kept


async def test_leftovers_of_every_workspace_are_swept(mesh: Mesh, tools: Tools) -> None:
    """Those of previews, too; a workspace that cannot be listed does not stop the others."""
    marketing, trials, closed = (mesh.airbyte.add_workspace(name) for name in "ABC")
    for workspace in (WORKSPACE_ID, marketing, closed):
        operation_id = await ended_operation(mesh, workspace=workspace)
        mesh.airbyte.add_source(f"left [aam:{operation_id}]", workspace=workspace)
    trial_id = uuid4()
    await mesh.sql.execute(
        "INSERT INTO source_trials (id, account, purpose, airbyte_workspace_id, expires_at,"
        " is_left) VALUES ($1, $1, 'preview', $2, now() - interval '1 hour', true)",
        trial_id,
        trials,
    )
    mesh.airbyte.add_source(f"Preview [aam:{trial_id}]", workspace=trials)
    del mesh.airbyte.workspaces[closed]

    swept = await tools.sweeper.sweep(WORKSPACE, dry_run=False)

    assert {str(one.workspace_id) for one in swept.deleted} == {WORKSPACE_ID, marketing, trials}
    assert [str(one) for one in swept.unlisted] == [closed]
    assert [one["workspaceId"] for one in mesh.airbyte.sources.values()] == [closed]
    assert not await mesh.sql.fetchval("SELECT is_left FROM source_trials")


async def test_sweep_fails_if_no_workspace_can_be_listed(mesh: Mesh, tools: Tools) -> None:
    mesh.airbyte.workspaces.clear()

    with pytest.raises(Upstream):
        await tools.sweeper.sweep(WORKSPACE, dry_run=False)


async def test_failed_deletion_does_not_block_the_others(
    mesh: Mesh, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    """It is retried less and less often."""
    now = 0.0
    sweeper = Sweeper(tools.db, tools.airbyte, grace=tools.settings.sweep_grace, clock=lambda: now)
    for number in range(2 * AT_MOST + 1):
        mesh.airbyte.add_source(f"left {number} [aam:{await ended_operation(mesh)}]")
    mesh.airbyte.fault("sources/delete", 403, times=AT_MOST)

    first = await sweeper.sweep(WORKSPACE, dry_run=False)
    assert (len(first.deleted), len(first.failed), len(first.left)) == (0, AT_MOST, AT_MOST + 1)
    assert caplog.text.count("'not_swept'") == AT_MOST
    second = await sweeper.sweep(WORKSPACE, dry_run=False)
    assert (len(second.deleted), len(second.failed), len(second.left)) == (AT_MOST, 0, AT_MOST + 1)
    assert not {one.id for one in first.failed} & {one.id for one in second.deleted}
    third = await sweeper.sweep(WORKSPACE, dry_run=False)
    assert (len(third.deleted), len(third.left)) == (1, AT_MOST)
    now = 301.0
    mesh.airbyte.fault("sources/delete", 403, times=1)
    fourth = await sweeper.sweep(WORKSPACE, dry_run=False)
    assert (len(fourth.deleted), len(fourth.failed)) == (AT_MOST - 1, 1)
    now = 301.0 + 599.0
    assert (await sweeper.sweep(WORKSPACE, dry_run=False)).deleted == []
    now += 2.0
    assert len((await sweeper.sweep(WORKSPACE, dry_run=False)).deleted) == 1
    assert mesh.airbyte.sources == {}


async def test_restored_old_registry_deletes_nothing(mesh: Mesh, tools: Tools) -> None:
    """It names the sources that it does not know, and keeps them."""
    await mesh.onboard()
    held = set(mesh.airbyte.sources)
    await empty(mesh.sql)

    swept = await tools.sweeper.sweep(WORKSPACE, dry_run=False)

    assert swept.deleted == []
    assert {one.kind for one in swept.unknown} == {"source", "connection"}
    assert set(mesh.airbyte.sources) == held


async def test_objects_in_use_are_known(mesh: Mesh, tools: Tools) -> None:
    """Even if the operation that created them is not in the registry any more."""
    await mesh.onboard()
    await mesh.sql.execute("DELETE FROM operations")

    assert (await tools.sweeper.sweep(WORKSPACE, dry_run=True)).unknown == []


async def test_connection_that_has_synced_is_not_swept(mesh: Mesh, tools: Tools) -> None:
    """Nor is its source: a registry from a backup does not know how its onboarding ended."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.finish_job(job["id"])
    operation_id = await ended_operation(mesh)
    for held in (*mesh.airbyte.connections.values(), *mesh.airbyte.sources.values()):
        held["name"] = f"left [aam:{operation_id}]"
    await mesh.sql.execute("UPDATE connections SET status = 'FAILED', airbyte_connection_id = NULL")
    mesh.airbyte.fault("jobs/list", 403, times=None)  # also read by the orchestrator's follower
    unclear = await tools.sweeper.sweep(WORKSPACE, dry_run=False)
    mesh.airbyte.heal()

    swept = await tools.sweeper.sweep(WORKSPACE, dry_run=False)

    assert [one.kind for one in unclear.failed] == ["connection"]
    assert [str(one.id) for one in swept.synced] == [connection["airbyte_connection_id"]]
    assert (unclear.deleted, swept.deleted) == ([], [])
    assert connection["airbyte_source_id"] in mesh.airbyte.sources


async def test_late_duplicate_source_is_deleted(mesh: Mesh, tools: Tools) -> None:
    """A request that takes effect after its answer was given up creates a second source."""
    mesh.airbyte.fault("sources/create", "late", seconds=1.2)
    connection = await mesh.onboard()
    await until(lambda: len(mesh.airbyte.sources) >= 2)
    await mesh.sql.execute("UPDATE operations SET ended_at = now() - interval '1 hour'")

    await tools.sweeper.sweep(WORKSPACE, dry_run=False)

    assert list(mesh.airbyte.sources) == [connection["airbyte_source_id"]]


def _drop_a_stream(mesh: Mesh, connection: dict[str, Any]) -> None:
    mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]["streams"].pop()


async def test_difference_is_reported_once_and_resolved_once(mesh: Mesh, tools: Tools) -> None:
    """Somebody edits the catalog in Airbyte's UI, and reverts it."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    before = deepcopy(held["syncCatalog"])
    _drop_a_stream(mesh, connection)

    dry = await tools.reconciler().reconcile(dry_run=True)
    assert dry.drifted == {UUID(connection["id"]): "catalog_differs"}
    assert await _is_drifted(mesh) is False
    for _ in range(2):
        await tools.reconciler().reconcile(dry_run=False)
    assert await _is_drifted(mesh) is True
    assert len(held["syncCatalog"]["streams"]) == 1

    held["syncCatalog"] = before
    await tools.reconciler().reconcile(dry_run=False)
    assert await _is_drifted(mesh) is False
    events = await mesh.events(3)
    assert [one["type"] for one in events[1:]] == [
        "connection.drifted_upstream",
        "connection.in_step",
    ]
    assert events[1]["code"] == "catalog_differs"


async def test_changes_made_in_airbyte_are_reported(mesh: Mesh, tools: Tools) -> None:
    """Paused by somebody, then marked as broken, then edited."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    path = f"/connections/{connection['id']}"
    before = deepcopy(held["syncCatalog"])

    async def seen() -> str | None:
        for _ in range(2):
            await tools.reconciler(on_upstream_drift="report").reconcile(dry_run=False)
        shown = (await mesh.orchestrator.get(path)).json()
        assert (shown["drifted_upstream_at"] is None) == (shown["upstream_code"] is None)
        code: str | None = shown["upstream_code"]
        return code

    assert await seen() is None
    mesh.airbyte.disable(connection["airbyte_connection_id"], breaking=False)
    assert await seen() == "paused"
    for status, code in (("locked", "locked"), ("suspended", "status_unknown")):
        held["status"] = status
        assert await seen() == code
    since = (await mesh.orchestrator.get(path)).json()["drifted_upstream_at"]
    mesh.airbyte.disable(connection["airbyte_connection_id"])
    assert await seen() == "breaking_change"
    assert (await mesh.orchestrator.get(path)).json()["drifted_upstream_at"] == since
    _drop_a_stream(mesh, connection)
    assert await seen() == "catalog_differs"
    held |= {"syncCatalog": before, "status": "active", "breakingChange": False}
    assert await seen() is None

    published = [(one["type"].split(".")[1], one["code"]) for one in (await mesh.events(7))[1:]]
    assert published == [
        ("drifted_upstream", "paused"),
        ("drifted_upstream", "locked"),
        ("drifted_upstream", "status_unknown"),
        ("drifted_upstream", "breaking_change"),
        ("drifted_upstream", "catalog_differs"),
        ("in_step", ""),
    ]


async def test_pause_by_aam_is_no_difference(mesh: Mesh, tools: Tools) -> None:
    """While it waits for a decision; a breaking change marked by Airbyte is still reported."""
    connection = await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET paused_by = gen_random_uuid()")
    mesh.airbyte.disable(connection["airbyte_connection_id"], breaking=False)
    assert (await tools.reconciler().reconcile(dry_run=False)).drifted == {}
    assert await _is_drifted(mesh) is False
    mesh.airbyte.disable(connection["airbyte_connection_id"])
    assert (await tools.reconciler().reconcile(dry_run=False)).drifted == {
        UUID(connection["id"]): "breaking_change"
    }


async def test_pause_by_a_person_is_no_difference(mesh: Mesh, tools: Tools) -> None:
    """Unless the connection is active in Airbyte again."""
    connection = await mesh.onboard()
    await mesh.orchestrator.patch(f"/connections/{connection['id']}", json={"paused": True})
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert held["status"] == "inactive"
    assert (await tools.reconciler().reconcile(dry_run=False)).drifted == {}
    held["status"] = "active"
    drifted = (await tools.reconciler().reconcile(dry_run=False)).drifted
    assert drifted == {UUID(connection["id"]): "resumed"}


async def test_paused_connection_is_not_resumed(mesh: Mesh, tools: Tools) -> None:
    """The pause may have a reason: only catalogs are reapplied."""
    connection = await mesh.onboard()
    mesh.airbyte.disable(connection["airbyte_connection_id"])

    await tools.reconciler(on_upstream_drift="reapply").reconcile(dry_run=False)

    assert mesh.airbyte.called("connections/update") == []


async def test_difference_is_reverted_with_on_upstream_drift_reapply(
    mesh: Mesh, tools: Tools
) -> None:
    """Airbyte has the newest version again without a new one; its state was saved before."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    _drop_a_stream(mesh, connection)

    await tools.reconciler(on_upstream_drift="reapply").reconcile(dry_run=False)
    await until_not(lambda: _is_drifted(mesh))

    assert len(held["syncCatalog"]["streams"]) == 2
    row = await mesh.sql.fetchrow("SELECT status, catalog_version FROM connections")
    assert row is not None
    assert tuple(row) == ("ACTIVE", 1)
    (saved,) = await mesh.sql.fetch("SELECT kind, catalog_version, not_saved FROM stream_states")
    assert tuple(saved) == ("heal", 1, "no_key")


async def test_refused_version_is_reapplied_once_a_day(mesh: Mesh, tools: Tools) -> None:
    """Each attempt saves the state and records two events, so it is not made every five minutes."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    _drop_a_stream(mesh, connection)
    mesh.airbyte.fault("connections/update", 422, times=None)
    reconciler = tools.reconciler(on_upstream_drift="reapply")
    ended = """
        SELECT count(*) = $1 AND bool_and(status = 'failed') FROM operations WHERE kind = 'reapply'
    """

    for _ in range(2):
        await reconciler.reconcile(dry_run=False)
        await mesh.until_true(ended, 1)
    assert len(mesh.airbyte.called("connections/update")) == 1
    assert await _is_drifted(mesh) is True

    aged = "UPDATE operations SET ended_at = ended_at - interval '1 day' WHERE kind = 'reapply'"
    await mesh.sql.execute(aged)
    await reconciler.reconcile(dry_run=False)
    await mesh.until_true(ended, 2)
    # An attempt that was given up at its deadline was not refused.
    await mesh.sql.execute("UPDATE operations SET response_status = 504 WHERE kind = 'reapply'")
    mesh.airbyte.heal()
    await reconciler.reconcile(dry_run=False)
    await until_not(lambda: _is_drifted(mesh))
    assert len(held["syncCatalog"]["streams"]) == 2


async def test_catalog_is_not_reapplied_during_a_sync(mesh: Mesh, tools: Tools) -> None:
    """The difference is reported at once, and resolved when the job has ended."""
    connection = await mesh.onboard()
    reconciler = tools.reconciler(on_upstream_drift="reapply")
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert started.status_code == 202, started.text
    _drop_a_stream(mesh, connection)

    report = await reconciler.reconcile(dry_run=False)

    assert report.drifted == {UUID(connection["id"]): "catalog_differs"}
    assert await _is_drifted(mesh) is True
    reapplied = "SELECT count(*) FROM operations WHERE kind = 'reapply'"
    assert await mesh.sql.fetchval(reapplied) == 0

    mesh.airbyte.finish_job(started.json()["airbyte_job_id"])
    await reconciler.reconcile(dry_run=False)
    await until_not(lambda: _is_drifted(mesh))
    assert len(mesh.airbyte.called("connections/update")) == 1


async def test_stream_of_a_global_state_is_not_put_back(mesh: Mesh, tools: Tools) -> None:
    """It would miss what changed meanwhile; the difference stays reported."""
    connection = await mesh.onboard()
    airbyte_id = connection["airbyte_connection_id"]
    held = mesh.airbyte.connections[airbyte_id]["syncCatalog"]["streams"]
    states: dict[tuple[str | None, str], Any] = {
        (None, pair["stream"]["name"]): {"at": 1} for pair in held
    }
    mesh.airbyte.put_states(airbyte_id, "global", states)
    _drop_a_stream(mesh, connection)

    report = await tools.reconciler(on_upstream_drift="reapply").reconcile(dry_run=False)

    assert report.drifted == {UUID(connection["id"]): "catalog_differs"}
    assert await _is_drifted(mesh) is True
    assert mesh.airbyte.called("connections/update") == []
    assert await mesh.sql.fetchval("SELECT status FROM connections") == "ACTIVE"


async def test_connection_deleted_in_airbyte_is_reported(mesh: Mesh, tools: Tools) -> None:
    """It is not created again."""
    connection = await mesh.onboard()
    del mesh.airbyte.connections[connection["airbyte_connection_id"]]

    report = await tools.reconciler(on_upstream_drift="reapply").reconcile(dry_run=False)

    assert report.drifted == {UUID(connection["id"]): "upstream_missing"}
    assert await _is_drifted(mesh) is True
    assert mesh.airbyte.called("connections/update") == []


async def test_unreachable_airbyte_is_reported_as_unknown(mesh: Mesh, tools: Tools) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.fault("connections/get", 500, times=None)

    report = await tools.reconciler().reconcile(dry_run=False)

    assert (report.drifted, report.unknown) == ({}, {UUID(connection["id"]): "upstream_unknown"})
    assert await _is_drifted(mesh) is False


async def _is_drifted(mesh: Mesh) -> bool:
    return bool(await mesh.sql.fetchval("SELECT drifted_upstream_at IS NOT NULL FROM connections"))


async def test_failed_recording_does_not_block_the_others(
    mesh: Mesh, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a bug: the differences of the others are recorded in the same run."""
    connections = [await mesh.onboard(connection_name=f"number {n}") for n in range(3)]
    for connection in connections:
        _drop_a_stream(mesh, connection)
    is_busy = registry.is_busy

    async def broken(session: AsyncSession, connection_id: UUID) -> bool:
        if str(connection_id) == connections[0]["id"]:
            raise RuntimeError("a bug")
        return await is_busy(session, connection_id)

    monkeypatch.setattr(registry, "is_busy", broken)
    report = await tools.reconciler().reconcile(dry_run=False)

    assert {str(id_): code for id_, code in report.unknown.items()} == {
        connections[0]["id"]: "internal_error"
    }
    rows = await mesh.sql.fetch("SELECT id FROM connections WHERE drifted_upstream_at IS NOT NULL")
    assert {str(row["id"]) for row in rows} == {one["id"] for one in connections[1:]}


@pytest.mark.process
async def test_maintenance_commands_have_a_dry_run(
    mesh: Mesh, registry_url: str, redis_url: str
) -> None:
    """As JSON, and a dry run changes nothing."""
    observed = await mesh.onboard()
    left = mesh.airbyte.add_source(f"left [aam:{await ended_operation(mesh)}]")["sourceId"]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **mesh.airbyte.environment,
        **access.environment(),
        "SUPABASE_DB_URL": servers.as_service(registry_url, "orchestrator"),
        "REDIS_URL": redis_url,
    }

    async def run_command(*command: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.orchestrator.maintenance_command", *command),
            cwd=REPOSITORY,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output
        return dict(json.loads(output))

    assert [one["id"] for one in (await run_command("sweep", "--dry-run"))["deleted"]] == [left]
    assert left in mesh.airbyte.sources
    assert (await run_command("reconcile", "--dry-run"))["compared"] == 1
    # The health of the other one may be derived again by any observation of its source.
    await mesh.sql.execute(
        "DELETE FROM connection_health WHERE connection_id <> $1", UUID(observed["id"])
    )
    assert await run_command("health") == {"connections": 2, "corrected": 1}


# Jobs of Airbyte's own


async def test_jobs_started_by_airbyte_are_followed(mesh: Mesh) -> None:
    """They are marked as such, read by one call a run, and followed to their end."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.finish_job(job["id"], records=5, bytes=50)

    (seen,) = await mesh.jobs_until_end(connection["id"])

    assert (seen["airbyte_job_id"], seen["started_by"]) == (job["id"], "airbyte")
    assert (seen["status"], seen["records"], seen["bytes"]) == ("succeeded", 5, 50)
    assert seen["duration_seconds"] >= 0
