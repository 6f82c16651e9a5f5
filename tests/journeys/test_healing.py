"""Healing beyond the happy path of `make demo`, with the same connector, org and warehouse.

Excluded fields, partial approvals, superseded repairs, connections that Airbyte disabled, and
rollbacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, ORDER
from local.environment import given_environment
from local.mesh_client import Mesh, MeshConnection, StepFailed
from local.supervisor import temporary_stack

Json = dict[str, Any]

# The connector may have to be installed first.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


async def test_connection_is_repaired_by_policy_and_by_decision(tmp_path: Path) -> None:
    """One mesh for all steps, since its start takes longer than most of them."""
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment, keep_logs=tmp_path / "logs") as stack:
        mesh = Mesh(stack)
        connection = await mesh.ask(
            "orchestrator", "POST", "/connections/onboard", ORDER, expect=201
        )
        one = MeshConnection(mesh, connection["id"])
        await one.synced()
        await excluded_fields_are_not_selected(one)
        await unselected_fields_cause_no_repair(one)
        await changes_are_decided_separately(one)
        await newer_repair_supersedes_the_older(one)
        await heal_reactivates_a_disabled_connection(one)
        await rollback_needs_the_fields_of_the_version(one)
        await sync_loads_the_selected_fields(one)


async def excluded_fields_are_not_selected(one: MeshConnection) -> None:
    """Of two new fields, the one that matches an exclusion pattern is not selected."""
    await one.mesh.change("POST", "/Account/fields", {"name": "Tier__c", "values": ["A", "B"]})
    await one.mesh.change("POST", "/Account/fields", {"name": "Owner_SSN__c", "values": ["1"]})

    repair = await one.healed()

    excluded = {change["path"][0]: change["excluded"] for change in repair["changes"]}
    assert excluded == {"Tier__c": False, "Owner_SSN__c": True}
    account = await selected(one, "Account")
    assert "Tier__c" in account
    assert "Owner_SSN__c" not in account


async def unselected_fields_cause_no_repair(one: MeshConnection) -> None:
    """Changes of unselected fields cause no repair."""
    catalog = await one.mesh.ask("orchestrator", "POST", f"{one.path}/discover", {})
    (contact,) = [
        pair for pair in catalog["sync_catalog"]["streams"] if pair["stream"]["name"] == "Contact"
    ]
    chosen = ["Id", "SystemModstamp", "LastName", "Email"]
    contact["config"].update(
        fieldSelectionEnabled=True, selectedFields=[{"fieldPath": [name]} for name in chosen]
    )
    await one.mesh.ask("drift_repair_agent", "POST", "/repair/apply_new_catalog", catalog)
    before = (await one.version(), len(await one.repairs()))

    await one.mesh.change("POST", "/Contact/fields", {"name": "Nickname__c"})
    await one.mesh.change("DELETE", "/Contact/fields/Languages__c")
    observation = await one.observed("changed")

    assert not any(change["affects_sync"] for change in observation["changes"])
    assert (await one.version(), len(await one.repairs())) == before
    assert sorted(await selected(one, "Contact")) == sorted(chosen)


async def changes_are_decided_separately(one: MeshConnection) -> None:
    """Some changes of a repair are approved, the rest is rejected as a separate repair."""
    for name in ("Active__c", "UpsellOpportunity__c"):
        await one.mesh.change("DELETE", f"/Account/fields/{name}")
    version = await one.version()
    repair = await one.proposed()
    ids = {change["path"][0]: change["id"] for change in repair["changes"]}
    assert set(ids) == {"Active__c", "UpsellOpportunity__c"}

    order = {"by": "Ada", "reason": "Not used.", "changes": [ids["Active__c"]]}
    path = f"/repairs/{repair['id']}"
    part = await one.mesh.ask("drift_repair_agent", "POST", f"{path}/approve", order)

    assert (part["state"], part["parent_id"]) == ("applied", repair["id"])
    assert part["version_number"] == version + 1
    rest = await one.mesh.ask("drift_repair_agent", "GET", path)
    assert (rest["state"], rest["base_version"]) == ("proposed", version + 1)
    assert [change["path"] for change in rest["changes"]] == [["UpsellOpportunity__c"]]

    rest = await one.decide(rest, "reject", "It comes back.")
    assert rest["state"] == "rejected"
    account = await selected(one, "Account")
    assert "UpsellOpportunity__c" in account
    assert "Active__c" not in account
    repairs = len(await one.repairs())
    await one.observed("unchanged")
    assert len(await one.repairs()) == repairs


async def newer_repair_supersedes_the_older(one: MeshConnection) -> None:
    """A decision on the superseded repair is a conflict that names the newer repair."""
    await one.mesh.change("DELETE", "/Account/fields/SLA__c")
    older = await one.proposed()
    await one.mesh.change("DELETE", "/Account/fields/SLASerialNumber__c")
    newer = await one.proposed()
    version = await one.version()

    with pytest.raises(StepFailed, match="409"):
        await one.decide(older, "approve", "Too late.")

    older = await one.mesh.ask("drift_repair_agent", "GET", f"/repairs/{older['id']}")
    assert (older["state"], older["superseded_by"]) == ("superseded", newer["id"])
    assert await one.version() == version
    paths = {tuple(change["path"]) for change in newer["changes"]}
    assert {("SLA__c",), ("SLASerialNumber__c",)} <= paths
    assert (await one.decide(newer, "approve", "Both are gone."))["state"] == "applied"


async def heal_reactivates_a_disabled_connection(one: MeshConnection) -> None:
    """A heal reactivates a connection with a breaking change and preserves its state."""
    held = await one.upstream()
    by_id = {"connectionId": held["connectionId"]}
    state = await one.mesh.in_airbyte("state/get", **by_id)
    await one.mesh.in_airbyte("connections/update", **by_id, status="inactive", breakingChange=True)
    await one.mesh.change(
        "POST", "/Account/fields/SLAExpirationDate__c/retype", {"type": "datetime"}
    )

    repair = await one.healed()

    assert [change["what"] for change in repair["changes"]] == ["widened"]
    assert await date_format(one) == "date-time"
    held = await one.upstream()
    assert (held["status"], held["breakingChange"]) == ("active", False)
    assert await one.mesh.in_airbyte("state/get", **by_id) == state
    kinds = ["sync", "reset_connection", "refresh", "clear"]
    jobs = await one.mesh.in_airbyte("jobs/list", configTypes=kinds, configId=by_id["connectionId"])
    assert {job["job"]["configType"] for job in jobs["jobs"]} == {"sync"}


async def rollback_needs_the_fields_of_the_version(one: MeshConnection) -> None:
    """Version 1 has removed fields and is rejected with their names; a later one succeeds."""
    version = await one.version()
    order = {"version": 1, "by": "Ada", "reason": "As it was."}
    path = f"{one.path}/rollback"
    refused = await one.mesh.ask("drift_repair_agent", "POST", path, order, expect=409)
    assert refused["code"] == "rollback_impossible"
    assert any("SLA__c" in str(problem) for problem in refused["problems"])
    assert await one.version() == version

    order["version"] = version - 1
    answer = await one.mesh.ask("drift_repair_agent", "POST", path, order)

    assert (answer["kind"], answer["state"]) == ("rollback", "applied")
    assert answer["version_number"] == await one.version() == version + 1
    diff = await one.mesh.ask(
        "orchestrator", "GET", f"{one.path}/catalog-versions/{version - 1}/diff/{version + 1}"
    )
    assert (diff["schema_changes"], diff["config_changes"]) == ([], [])
    assert await date_format(one) == "date"


async def sync_loads_the_selected_fields(one: MeshConnection) -> None:
    """The warehouse has exactly the selected fields, and each record once."""
    await one.mesh.change("POST", "/Account/touch", {"count": 200})
    await one.synced()
    assert await one.mesh.count("Account") == 200
    assert await one.mesh.count("Account", "\"Tier__c\" IN ('A', 'B')") == 200
    assert await one.mesh.count("Contact") == 500
    assert not await one.mesh.has_column("Account", "Owner_SSN__c")
    assert not await one.mesh.has_column("Contact", "Nickname__c")


async def selected(one: MeshConnection, name: str) -> Json:
    """Return the selected fields of a stream in Airbyte's connection, with their schemas."""
    streams = (await one.upstream())["syncCatalog"]["streams"]
    (found,) = [pair["stream"] for pair in streams if pair["stream"]["name"] == name]
    fields: Json = found["jsonSchema"]["properties"]
    return fields


async def date_format(one: MeshConnection) -> str:
    """Return the format of the retyped field in Airbyte's connection."""
    return str((await selected(one, "Account"))["SLAExpirationDate__c"]["format"])
