"""What `make demo` passes over, with the same real connector, org, Airbyte and warehouse.

The demo is the story as it should go; these are its turns: what is never taken in, what a person
decides in part or not at all, what comes too late, and what Airbyte or a person did on their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, ORDER, Mesh, MeshConnection, StepFailed
from local.environment import given_environment
from local.supervisor import temporary_stack

Json = dict[str, Any]

# The connector may have to be installed first.
pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


async def test_connection_is_repaired_by_policy_and_by_decision(tmp_path: Path) -> None:
    """One mesh for all steps: starting it takes longer than most of them."""
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment, keep_logs=tmp_path / "logs") as stack:
        mesh = Mesh(stack)
        connection = await mesh.ask(
            "orchestrator", "POST", "/connections/onboard", ORDER, expect=201
        )
        one = MeshConnection(mesh, connection["id"])
        await one.synced()
        await personal_fields_are_never_taken_in(one)
        await a_hand_picked_list_does_not_grow(one)
        await some_changes_are_approved_and_the_rest_rejected(one)
        await a_newer_plan_takes_the_place_of_an_older(one)
        await what_airbyte_stopped_by_itself_is_resumed(one)
        await an_older_version_comes_back_where_the_source_allows(one)
        await a_sync_brings_what_was_decided(one)


async def personal_fields_are_never_taken_in(one: MeshConnection) -> None:
    """Of two new fields the one that a pattern forbids is left out, without anybody asked."""
    await one.mesh.change("POST", "/Account/fields", {"name": "Tier__c", "values": ["A", "B"]})
    await one.mesh.change("POST", "/Account/fields", {"name": "Owner_SSN__c", "values": ["1"]})

    repair = await one.healed()

    excluded = {change["path"][0]: change["excluded"] for change in repair["changes"]}
    assert excluded == {"Tier__c": False, "Owner_SSN__c": True}
    account = await selected(one, "Account")
    assert "Tier__c" in account
    assert "Owner_SSN__c" not in account


async def a_hand_picked_list_does_not_grow(one: MeshConnection) -> None:
    """Changes of fields that a stream does not select do not matter."""
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


async def some_changes_are_approved_and_the_rest_rejected(one: MeshConnection) -> None:
    """Each change has its own decision, each decision its own repair, and its own reason."""
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


async def a_newer_plan_takes_the_place_of_an_older(one: MeshConnection) -> None:
    """A decision on the older one is refused with the newer one's id."""
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


async def what_airbyte_stopped_by_itself_is_resumed(one: MeshConnection) -> None:
    """A heal makes a connection run again that Airbyte flagged, with all that it remembers."""
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


async def an_older_version_comes_back_where_the_source_allows(one: MeshConnection) -> None:
    """Version 1 has fields that are gone: refused with what is missing. The newest before fits."""
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


async def a_sync_brings_what_was_decided(one: MeshConnection) -> None:
    """The warehouse gets what the catalog asks for, once, and nothing that it leaves out."""
    await one.mesh.change("POST", "/Account/touch", {"count": 200})
    await one.synced()
    assert await one.mesh.count("Account") == 200
    assert await one.mesh.count("Account", "\"Tier__c\" IN ('A', 'B')") == 200
    assert await one.mesh.count("Contact") == 500
    assert not await one.mesh.has_column("Account", "Owner_SSN__c")
    assert not await one.mesh.has_column("Contact", "Nickname__c")


async def selected(one: MeshConnection, name: str) -> Json:
    """The fields of a stream that Airbyte's connection reads, with their schemas."""
    streams = (await one.upstream())["syncCatalog"]["streams"]
    (found,) = [pair["stream"] for pair in streams if pair["stream"]["name"] == name]
    fields: Json = found["jsonSchema"]["properties"]
    return fields


async def date_format(one: MeshConnection) -> str:
    """As what Airbyte's connection reads the date that became a time."""
    return str((await selected(one, "Account"))["SLAExpirationDate__c"]["format"])
