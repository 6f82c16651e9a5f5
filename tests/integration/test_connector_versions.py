"""The version of a source's connector: on snapshots and drifts, in plans, and shown by itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs
from tests.integration.observing import fetch, observe
from tests.waiting import until

Json = dict[str, Any]
READ = "actor_definition_versions/get_for_source"
RENAMED = {name: of for name, of in ACCOUNT.items() if name != "AnnualRevenue"} | {
    "AnnualRevenueAmount": "number"
}


async def check(mesh: Mesh) -> None:
    """Have the versions of all sources checked now."""
    before = await mesh.sql.fetchval("UPDATE source_connectors SET next_at = now() RETURNING now()")
    await mesh.until_true(
        "SELECT bool_and(checked_at > $1 AND next_at > now()) FROM source_connectors", before
    )


async def upgrade(mesh: Mesh, connection: Json, tag: str = "3.0.0", **catalog: Any) -> Json:
    """Publish a breaking version, have it checked, and upgrade the source as a user would."""
    change = mesh.airbyte.publish_version(tag, breaking=True, **catalog)
    await check(mesh)
    mesh.airbyte.pins.pop(connection["airbyte_source_id"])
    return change


@pytest.mark.exact
async def test_a_snapshot_has_the_version_of_its_connector(mesh: Mesh) -> None:
    """Read once for each new snapshot, and not while the source is unchanged."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    await observe(mesh, connection)

    (snapshot,) = (await fetch(mesh, f"/connections/{connection['id']}/snapshots"))["items"]
    assert (snapshot["connector_version"], snapshot["manifest_version"]) == ("2.10.3", None)
    seen = await fetch(mesh, f"/connections/{connection['id']}/observation")
    assert seen["connector_version"] == "2.10.3"
    assert len(mesh.airbyte.called(READ)) == 1


@pytest.mark.exact
async def test_the_connector_is_shown_as_it_was_read(mesh: Mesh) -> None:
    """With its support, its pins and the breaking changes ahead; GET asks Airbyte for nothing."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/connector"
    shown = await fetch(mesh, path)
    assert (shown["version"], shown["support_state"], shown["pinned"]) == (
        "2.10.3",
        "supported",
        False,
    )
    assert (shown["upcoming_breaking_changes"], shown["deadline"]) == ([], None)

    change = mesh.airbyte.publish_version("3.0.0", breaking=True)
    await check(mesh)
    calls = len(mesh.airbyte.called(READ))
    shown = await fetch(mesh, path)

    assert shown["repository"] == "airbyte/source-salesforce"
    assert (shown["version"], shown["support_state"]) == ("2.10.3", "deprecated")
    (upcoming,) = shown["upcoming_breaking_changes"]
    assert upcoming == {
        "version": "3.0.0",
        "message": change["message"],
        "guide": change["migrationDocumentationUrl"],
        "deadline": change["upgradeDeadline"],
        "action": "disable",
    }
    assert shown["deadline"] == change["upgradeDeadline"]
    assert len(mesh.airbyte.called(READ)) == calls
    mesh.airbyte.pin(connection["airbyte_source_id"], "2.10.3")
    await check(mesh)
    assert (await fetch(mesh, path))["pinned"]


async def test_the_connector_is_read_if_it_never_was(mesh: Mesh) -> None:
    """Airbyte's error is the response while it does not return the version."""
    connection = await mesh.onboard()
    await mesh.sql.execute("DELETE FROM source_connectors")
    path = f"/connections/{connection['id']}/connector"
    mesh.airbyte.fault(READ, 500, times=None)
    answer = await mesh.schema_observer.get(path)
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_unknown")
    mesh.airbyte.heal()
    assert (await fetch(mesh, path))["version"] == "2.10.3"


async def test_a_drift_names_the_step_of_the_connector(mesh: Mesh) -> None:
    """In its response, its event and the plan, with the migration guide as evidence of renames."""
    connection = await mesh.onboard(streams=["Account"])
    change = await upgrade(mesh, connection, offers=offering(RENAMED))

    drift_id = await drift(mesh, connection, offering(ACCOUNT))

    found = await fetch(mesh, f"/drifts/{drift_id}")
    guide = change["migrationDocumentationUrl"]
    step = {
        "from_version": "2.10.3",
        "to_version": "3.0.0",
        "from_manifest": None,
        "to_manifest": None,
        "breaking_changes": [{"version": "3.0.0", "guide": guide}],
    }
    assert found["connector_step"] == step
    (listed,) = (await fetch(mesh, "/drifts"))["items"]
    assert listed["connector_step"] == step
    snapshots = (await fetch(mesh, f"/connections/{connection['id']}/snapshots"))["items"]
    assert [one["connector_version"] for one in snapshots] == ["3.0.0", "2.10.3"]
    events = [one for one in await mesh.events(3) if one["ref"] == drift_id]
    assert [(one["type"], one["code"]) for one in events] == [
        ("connector.changed", "2.10.3 → 3.0.0"),
        ("drift.detected", "needs_review"),
    ]
    (repair,) = await until(lambda: repairs(mesh, connection, state="proposed"))
    assert repair["connector_step"] == step
    (suggestion,) = [one["suggestion"] for one in repair["changes"] if one["suggestion"]]
    (stated,) = [one for one in suggestion["evidence"] if one["kind"] == "connector_version"]
    assert guide in stated["detail"]


async def test_a_change_of_the_source_is_not_blamed_on_an_earlier_upgrade(mesh: Mesh) -> None:
    """A version that changed nothing was seen with the schema before: it is no step."""
    connection = await mesh.onboard(streams=["Account"])
    await upgrade(mesh, connection)
    await check(mesh)
    await observe(mesh, connection)
    (snapshot,) = (await fetch(mesh, f"/connections/{connection['id']}/snapshots"))["items"]
    assert snapshot["connector_version"] == "3.0.0"

    drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    assert (await fetch(mesh, f"/drifts/{drift_id}"))["connector_step"] is None
    assert "connector.changed" not in {one["type"] for one in await mesh.events(2)}


async def test_an_upgrade_checked_before_the_drift_is_its_step(mesh: Mesh) -> None:
    """The version was read after the last observation of the schema before."""
    connection = await mesh.onboard(streams=["Account"])
    await upgrade(mesh, connection, offers=offering(RENAMED))
    await check(mesh)

    drift_id = await drift(mesh, connection, offering(ACCOUNT))

    step = (await fetch(mesh, f"/drifts/{drift_id}"))["connector_step"]
    assert (step["from_version"], step["to_version"]) == ("2.10.3", "3.0.0")


async def test_a_manifest_is_a_version_too(mesh: Mesh) -> None:
    """A connector of the connector builder keeps its image; its active manifest is recorded."""
    mesh.airbyte.publish_manifest(4)
    connection = await mesh.onboard(streams=["Account"])
    mesh.airbyte.publish_manifest(5)

    drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    step = (await fetch(mesh, f"/drifts/{drift_id}"))["connector_step"]
    assert (step["from_manifest"], step["to_manifest"]) == (4, 5)
    assert step["from_version"] == step["to_version"]
    (changed,) = [one for one in await mesh.events(3) if one["type"] == "connector.changed"]
    assert changed["code"] == "manifest 4 → manifest 5"


async def test_a_version_that_cannot_be_read_keeps_no_snapshot_from_being_stored(
    mesh: Mesh,
) -> None:
    """The connection is onboarded; the next check finds the version."""
    mesh.airbyte.fault(READ, 500, times=None)
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/snapshots"
    (snapshot,) = (await fetch(mesh, path))["items"]
    assert snapshot["connector_version"] is None
    mesh.airbyte.heal()
    await mesh.until_true("SELECT count(*) > 0 FROM source_connectors")
    await check(mesh)
    await observe(mesh, connection)
    (snapshot,) = (await fetch(mesh, path))["items"]
    assert snapshot["connector_version"] == "2.10.3"
