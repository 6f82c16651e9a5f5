"""Rollback: by a person to any older version that still fits, automatically when a sync fails."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.service_clients import Orchestrator
from tests.integration.applying import seen, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, planned, post, repairs_until
from tests.integration.repairing import (
    approve,
    fields,
    nothing_was_reset,
    put,
    types,
    upstream,
)
from tests.waiting import until

Json = dict[str, Any]
MORE = ACCOUNT | {"Region__c": "string"}


async def roll_back(mesh: Mesh, connection: Json, version: int) -> tuple[int, Json]:
    """Ask for an older version; the answer's status and body."""
    order = {"version": version, "by": "Ada", "reason": "It was better."}
    return await post(mesh, f"/connections/{connection['id']}/rollback", order)


async def grown(mesh: Mesh) -> Json:
    """A connection whose source grew a field, at version 2."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(MORE))
    await repairs_until(mesh, connection, ["applied"])
    return connection


async def synced(mesh: Mesh, connection: Json) -> int:
    """The Airbyte job that verifies a repair, once it runs."""
    await until(lambda: bool(mesh.airbyte.jobs))
    return max(mesh.airbyte.jobs)


async def test_older_version_is_appended_as_the_newest(mesh: Mesh) -> None:
    """Version 3 equals version 1; requester and reason are recorded, and nothing is re-applied."""
    connection = await grown(mesh)

    status, repair = await roll_back(mesh, connection, 1)

    assert (status, repair["kind"], repair["state"]) == (200, "rollback", "applied")
    assert (repair["target_version"], repair["version_number"]) == (1, 3)
    assert (repair["decisions"][0]["by"], repair["decisions"][0]["reason"]) == (
        "Ada",
        "It was better.",
    )
    assert "Region__c" not in fields(mesh, connection)
    rows = await mesh.sql.fetch(
        "SELECT origin, decided_by, fingerprint FROM sync_catalog_versions ORDER BY version_number"
    )
    assert [row["origin"] for row in rows] == ["onboard", "repair", "rollback"]
    assert rows[2]["decided_by"] == "Ada"
    assert rows[2]["fingerprint"] == rows[0]["fingerprint"]
    assert (await types(mesh, 6))[3:] == [
        "catalog.healing",
        "catalog.applied",
        "repair.rolled_back",
    ]
    assert nothing_was_reset(mesh)

    # The source still has the field; a newer drift brings it up again, for a person to decide.
    newer = await drift(mesh, connection, offering(MORE | {"Zone__c": "string"}))
    await planned(mesh, connection, newer)
    found = await repairs_until(mesh, connection, ["applied", "applied", "proposed", "applied"])
    assert [one["path"] for one in found[2]["changes"]] == [["Region__c"]]
    assert {"Zone__c"} == fields(mesh, connection) - {"SystemModstamp"} - set(ACCOUNT)


async def test_version_that_no_longer_fits_the_source_is_refused(
    mesh: Mesh,
) -> None:
    """409 `rollback_impossible` with the reasons: version 2 needs a removed field."""
    connection = await grown(mesh)
    await drift(mesh, connection, offering(ACCOUNT))
    repair = (await repairs_until(mesh, connection, ["applied", "proposed"]))[1]
    status, _ = await approve(mesh, repair)
    assert status == 200

    status, problem = await roll_back(mesh, connection, 2)

    assert (status, problem["code"]) == (409, "rollback_impossible")
    (reason,) = problem["problems"]
    assert (reason["stream"]["name"], reason["code"]) == ("Account", "field_gone")
    assert (await seen(mesh, connection))["catalog_version"] == 3


async def test_rollback_to_the_current_version_changes_nothing(mesh: Mesh) -> None:
    """404 for unknown versions and connections."""
    connection = await grown(mesh)

    assert await roll_back(mesh, connection, 2) == (
        200,
        {"connection_id": connection["id"], "changed": False},
    )
    assert (await roll_back(mesh, connection, 9))[1]["code"] == "not_found"
    assert (await roll_back(mesh, {"id": str(uuid4())}, 1))[0] == 404
    status, _ = await post(mesh, f"/connections/{connection['id']}/rollback", {"by": "Ada"})
    assert status == 422
    assert (await seen(mesh, connection))["catalog_version"] == 2


async def test_rollback_supersedes_the_open_repair(mesh: Mesh) -> None:
    connection = await grown(mesh)
    await drift(mesh, connection, offering({"Id": "string", "Region__c": "string"}))
    await repairs_until(mesh, connection, ["applied", "proposed"])
    await mesh.sql.execute("UPDATE sync_catalog_versions SET fingerprint = fingerprint")
    path = f"/connections/{connection['id']}/rollback"
    # Version 1 needs two fields that are gone: it cannot be, and the proposal stays.
    status, problem = await post(mesh, path, {"version": 1, "by": "Ada"})
    assert (status, problem["code"]) == (409, "rollback_impossible")
    mesh.airbyte.offers(offering(MORE))
    await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")

    status, repair = await post(mesh, path, {"version": 1, "by": "Ada"})

    assert (status, repair["state"]) == (200, "applied")
    found = await repairs_until(mesh, connection, ["applied", "superseded", "applied"])
    assert found[1]["superseded_by"] == repair["id"]


async def test_successful_sync_verifies_the_repair(mesh: Mesh) -> None:
    """The policy requires a sync: the repair is applied, and reported, when it ends."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    await drift(mesh, connection, offering(MORE))
    job = await synced(mesh, connection)
    (repair,) = await repairs_until(mesh, connection, ["verifying"])
    assert repair["version_number"] == 2

    mesh.airbyte.finish_job(job, records=5)

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert (repair["failure_code"], repair["verify"]) == (None, "sync")
    recorded = await mesh.sql.fetchrow("SELECT id, catalog_version FROM job_history")
    assert recorded is not None
    assert (str(recorded["id"]), recorded["catalog_version"]) == (repair["job_id"], 2)


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("kind", ["clear", "reset_connection"])
async def test_clear_job_verifies_nothing(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It reads no data with the new catalog: when it has ended, a sync begins."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    sync = Orchestrator.sync

    async def beside(self: Orchestrator, connection_id: UUID, *, key: str) -> UUID:
        if not mesh.airbyte.jobs:
            mesh.airbyte.start_job(connection["airbyte_connection_id"], kind)
        return await sync(self, connection_id, key=key)

    monkeypatch.setattr(Orchestrator, "sync", beside)
    await drift(mesh, connection, offering(MORE))
    clearing = await synced(mesh, connection)
    await until(lambda: len(mesh.airbyte.called("connections/status")) > 1)
    mesh.airbyte.finish_job(clearing)

    await until(lambda: len(mesh.airbyte.jobs) == 2)
    (repair,) = await repairs_until(mesh, connection, ["verifying"])
    mesh.airbyte.finish_job(clearing + 1)
    (repair,) = await repairs_until(mesh, connection, ["applied"])
    number = "SELECT airbyte_job_id FROM job_history WHERE id = $1"
    assert await mesh.sql.fetchval(number, UUID(repair["job_id"])) == clearing + 1


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("reason", ["config_error", "system_error", "refresh_schema"])
async def test_sync_failing_for_the_schema_restores_the_previous_version(
    mesh: Mesh, reason: str
) -> None:
    """Once, automatically; the repair says so, and the change then needs a decision."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    await drift(mesh, connection, offering(MORE))
    job = await synced(mesh, connection)

    mesh.airbyte.finish_job(job, "failed", failure=(reason, "The column does not exist."))

    (repair,) = await repairs_until(mesh, connection, ["rolled_back"])
    assert (repair["version_number"], repair["restored_version"]) == (2, 3)
    assert (repair["failure_code"], repair["failure_detail"]) == ("sync_failed", reason)
    assert "Region__c" not in fields(mesh, connection)
    rows = await mesh.sql.fetch(
        "SELECT origin, decided_by, repair_id FROM sync_catalog_versions ORDER BY version_number"
    )
    assert [(row["origin"], row["decided_by"]) for row in rows[1:]] == [
        ("repair", "policy"),
        ("rollback", "policy"),
    ]
    assert {row["repair_id"] for row in rows[1:]} == {UUID(repair["id"])}
    assert len(mesh.airbyte.jobs) == 1

    await drift(mesh, connection, offering(MORE | {"Zone__c": "string"}))
    await until(lambda: len(mesh.airbyte.jobs) == 2)
    mesh.airbyte.finish_job(2)
    found = await repairs_until(mesh, connection, ["rolled_back", "proposed", "applied"])
    assert [one["path"] for one in found[1]["changes"]] == [["Region__c"]]


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("reason", ["transient_error", "heartbeat_timeout", "destination_timeout"])
async def test_sync_failing_for_another_reason_keeps_the_repair(mesh: Mesh, reason: str) -> None:
    """With a note."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    await drift(mesh, connection, offering(MORE))
    job = await synced(mesh, connection)

    mesh.airbyte.finish_job(job, "failed", failure=(reason, "It is over."))

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert repair["failure_code"] == "verification_inconclusive"
    assert "Region__c" in fields(mesh, connection)


async def test_connection_is_paused_again_when_its_repair_is_rolled_back(mesh: Mesh) -> None:
    """The lost cursor was decided, and the sync failed."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    await drift(mesh, connection, offering(ACCOUNT, cursor=None))
    await until(lambda: upstream(mesh, connection)["status"] == "inactive")
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    status, _ = await approve(mesh, repair)
    assert status == 202
    job = await synced(mesh, connection)
    assert upstream(mesh, connection)["status"] == "active"

    mesh.airbyte.finish_job(job, "failed", failure=("config_error", "No."))

    (repair,) = await repairs_until(mesh, connection, ["rolled_back"])
    assert upstream(mesh, connection)["status"] == "inactive"
    assert streams_in_airbyte(mesh, connection)["Account"]["config"]["syncMode"] == "incremental"
    assert await mesh.sql.fetchval("SELECT paused_by FROM connections") == UUID(repair["id"])


async def test_rollback_refused_by_airbyte_fails_with_the_code(mesh: Mesh) -> None:
    """The connection is as it was."""
    connection = await grown(mesh)
    mesh.airbyte.fault("connections/update", 422)

    status, repair = await roll_back(mesh, connection, 1)

    assert (status, repair["state"], repair["failure_code"]) == (
        200,
        "failed",
        "upstream_rejected",
    )
    assert (await seen(mesh, connection))["catalog_version"] == 2


async def test_rollback_is_refused_during_a_repair(mesh: Mesh) -> None:
    """409 `repair_in_progress` names it; afterwards it is accepted."""
    connection = await grown(mesh)
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    repair = await proposal_of(mesh, connection)
    status, decided = await approve(mesh, repair)
    assert (status, decided["state"]) == (202, "approved")

    status, problem = await roll_back(mesh, connection, 1)

    assert (status, problem["code"], problem["repair_id"]) == (
        409,
        "repair_in_progress",
        repair["id"],
    )
    mesh.airbyte.finish_job(job["id"])
    await repairs_until(mesh, connection, ["applied", "applied"])


async def proposal_of(mesh: Mesh, connection: Json) -> Json:
    """A dropped field that waits for a person."""
    await drift(mesh, connection, offering(ACCOUNT))
    return (await repairs_until(mesh, connection, ["applied", "proposed"]))[1]


async def test_one_of_two_concurrent_rollbacks_counts(mesh: Mesh) -> None:
    """The other is refused, or changes nothing."""
    connection = await grown(mesh)

    answers = await asyncio.gather(*(roll_back(mesh, connection, 1) for _ in range(6)))

    applied = [body for _, body in answers if body.get("state") == "applied"]
    assert len(applied) == 1
    codes = {body.get("code", body.get("changed")) for _, body in answers if "state" not in body}
    assert codes <= {"repair_in_progress", "stale_catalog", "heal_in_progress", False}
    assert await mesh.sql.fetchval("SELECT count(*) FROM sync_catalog_versions") == 3
