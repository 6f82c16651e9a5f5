"""Renames that compete for one new field, and which decision counts."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from tests.fakes.airbyte_server import catalog, stream
from tests.integration.applying import streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import drift, offering, repairs_until
from tests.integration.repairing import approve, fields, proposal

Json = dict[str, Any]
TWO = {"Id": "string", "Name": "string", "Total_Amount__c": "number", "Sum_Gross__c": "number"}
ONE = {"Id": "string", "Name": "string", "TotalAmount__c": "number"}


async def proposed_rename(mesh: Mesh) -> tuple[Json, Json, Json, Json]:
    """A connection two of whose fields are gone, of which one is suggested to be the new one."""
    mesh.airbyte.offers(offering(TWO))
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(ONE))
    gone = {one["path"][0]: one for one in repair["changes"]}
    first, other = gone["Total_Amount__c"], gone["Sum_Gross__c"]
    assert first["suggestion"]["became"] == ["TotalAmount__c"]
    assert first["suggestion"]["taken_by_approve"] is True
    assert other["suggestion"] is None
    return connection, repair, first, other


async def test_chosen_rename_takes_precedence_over_a_suggested_one(mesh: Mesh) -> None:
    """The competing suggestion need not be rejected as well."""
    connection, repair, first, other = await proposed_rename(mesh)

    choices = {other["id"]: {"became": ["TotalAmount__c"], "continuity": "new_column"}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert (status, decided["state"]) == (200, "applied"), decided
    became = {one["id"]: one["decision"]["became"] for one in decided["changes"]}
    assert (became[first["id"]], became[other["id"]]) == (None, ["TotalAmount__c"])
    assert fields(mesh, connection) == {*ONE, "SystemModstamp"}
    learned = "SELECT removed->>0, became->>0, verdict FROM knowledge"
    await mesh.until_true("SELECT count(*) >= 3 FROM knowledge")
    assert {tuple(row) for row in await mesh.sql.fetch(learned)} == {
        ("Sum_Gross__c", "TotalAmount__c", "accepted"),
        ("Total_Amount__c", None, "accepted"),
        ("Total_Amount__c", "TotalAmount__c", "rejected"),
    }


async def test_decision_that_contradicts_an_approved_one_is_refused(mesh: Mesh) -> None:
    """Two fields cannot both have become the new one; the first decision is applied."""
    connection, repair, first, other = await proposed_rename(mesh)
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    status, decided = await approve(mesh, repair, changes=[first["id"]], continuity="new_column")
    assert (status, decided["state"]) == (202, "approved")

    choices = {other["id"]: {"became": ["TotalAmount__c"], "continuity": "new_column"}}
    status, refused = await approve(mesh, repair, changes=[other["id"]], choices=choices)

    assert (status, refused["code"]) == (422, "heal_impossible")
    assert "TotalAmount__c" in refused["detail"]
    mesh.airbyte.finish_job(job["id"])
    applied, _ = await repairs_until(mesh, connection, ["applied", "proposed"])
    assert applied["id"] == decided["id"]
    assert fields(mesh, connection) == {*ONE, "Sum_Gross__c", "SystemModstamp"}


async def test_new_field_waiting_for_a_sync_may_be_chosen(mesh: Mesh) -> None:
    """The policy adds it when a sync ends; meanwhile a person says what it was before."""
    mesh.airbyte.offers(offering({"Id": "string", "Region__c": "string"}))
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO knowledge (id, source_type, entity, stream, removed, became, verdict,"
        " decided_by, connection_id) VALUES ($1, 'Salesforce', 'field', 'Account',"
        """ '["Region__c"]', '["Fax_Consent__c"]', 'rejected', 'Bob', $2)""",
        uuid4(),
        UUID(connection["id"]),
    )
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await drift(mesh, connection, offering({"Id": "string", "Fax_Consent__c": "boolean"}))
    proposed, safe = await repairs_until(mesh, connection, ["proposed", "approved"])
    assert [one["path"] for one in safe["changes"]] == [["Fax_Consent__c"]]
    (gone,) = proposed["changes"]
    assert gone["suggestion"] is None

    choices = {gone["id"]: {"became": ["Fax_Consent__c"]}}
    status, decided = await approve(mesh, proposed, choices=choices)

    assert (status, decided["state"], len(decided["changes"])) == (202, "approved", 2)
    mesh.airbyte.finish_job(job["id"])
    applied, _ = await repairs_until(mesh, connection, ["applied", "superseded"])
    assert applied["id"] == decided["id"]
    assert fields(mesh, connection) == {"Id", "Fax_Consent__c", "SystemModstamp"}


async def test_chosen_stream_rename_takes_precedence(mesh: Mesh) -> None:
    """The suggestion for the other stream becomes a removal."""
    person = {"Id": "string", "Email": "string", "First": "string", "Last": "string"}
    account = stream("Account", {"Id": "string", "Name": "string"})
    mesh.airbyte.offers(catalog(account, stream("Person", person), stream("Human", person)))
    connection = await mesh.onboard(streams=["Account", "Person", "Human"])
    offered = catalog(account, stream("Persons", person))
    repair = await proposal(mesh, connection, offered)
    gone = {one["stream"]["name"]: one for one in repair["changes"]}
    assert gone["Person"]["suggestion"]["became"] == ["Persons"]

    choices = {gone["Human"]["id"]: {"became": ["Persons"]}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert (status, decided["state"]) == (200, "applied"), decided
    assert set(streams_in_airbyte(mesh, connection)) == {"Account", "Persons"}
