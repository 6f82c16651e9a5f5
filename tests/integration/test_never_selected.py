"""A field that the policy excludes reaches no catalog, however the catalog is made."""

from __future__ import annotations

from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.airbyte_server import catalog, stream
from tests.integration.applying import discovered
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until

Json = dict[str, Any]
SECRETS = {"SSN__c": "string", "Password_Hint__c": "string"}


def account_in_airbyte(mesh: Mesh, connection: Json) -> Json:
    """Return the stream Account as Airbyte stores it."""
    one = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    (account,) = [
        pair for pair in one["syncCatalog"]["streams"] if pair["stream"]["name"] == "Account"
    ]
    return dict(account)


def synced(mesh: Mesh, connection: Json) -> set[str]:
    """The fields of Account that Airbyte syncs."""
    account = account_in_airbyte(mesh, connection)
    if account["config"].get("fieldSelectionEnabled"):
        return {one["fieldPath"][0] for one in account["config"]["selectedFields"]}
    return set(account["stream"]["jsonSchema"]["properties"])


async def imported(mesh: Mesh, *, dry_run: bool = False) -> tuple[Json, Json]:
    """A connection that syncs such fields, made by hand and imported; what the import reported."""
    onboarded = await mesh.onboard()
    copied = deepcopy(mesh.airbyte.connections[onboarded["airbyte_connection_id"]])
    copied |= {"connectionId": str(uuid4()), "name": "by hand"}
    (account,) = [p for p in copied["syncCatalog"]["streams"] if p["stream"]["name"] == "Account"]
    account["stream"]["jsonSchema"]["properties"]["SSN__c"] = {"type": ["string", "null"]}
    account["config"] |= {"fieldSelectionEnabled": False, "selectedFields": []}
    mesh.airbyte.connections[copied["connectionId"]] = copied
    order = {"airbyte_connection_id": copied["connectionId"], "dry_run": dry_run}
    answer = await mesh.orchestrator.post("/connections/import", json=order)
    assert answer.status_code == 200, answer.text
    (report,) = answer.json()["items"]
    connection = {
        "id": report.get("connection_id"),
        "airbyte_connection_id": copied["connectionId"],
    }
    return connection, report


# Onboarding


async def test_onboarding_excludes_the_field_and_reports_it(mesh: Mesh) -> None:
    """With the default policy, in the answer, in the operation, and in version 1."""
    mesh.airbyte.offers(offering(ACCOUNT | SECRETS))

    connection = await mesh.onboard()

    assert synced(mesh, connection) == {*ACCOUNT, "SystemModstamp"}
    (note,) = connection["notes"]
    assert (note["code"], note["stream"]["name"]) == ("never_selected", "Account")
    assert note["fields"] == sorted(SECRETS)
    assert "'SSN__c'" in note["message"]
    path = f"/connections/{connection['id']}"
    version = (await mesh.orchestrator.get(f"{path}/catalog-versions/1")).json()
    assert "SSN__c" not in str(version["streams"][0]["config"])
    (operation,) = (await mesh.orchestrator.get("/operations")).json()["items"]
    assert operation["notes"] == [note]


@pytest.mark.parametrize(
    "field",
    [
        {"$ref": "#/definitions/person"},
        {"type": "array", "items": [{"properties": {"Ssn": {}}}]},
        {"type": "object", "additionalProperties": {"properties": {"ssn": {}}}},
        {"type": "object", "patternProperties": {"^ssn_": {"type": "string"}}},
        {"oneOf": [{"type": "null"}, {"allOf": [{"$ref": "#/definitions/person"}]}]},
    ],
)
async def test_onboarding_excludes_fields_that_contain_it(mesh: Mesh, field: Json) -> None:
    """However the schema declares it, the first-level field is left out."""
    offered = offering(ACCOUNT | {"Contact__c": field})
    (account,) = [one["stream"] for one in offered["streams"] if one["stream"]["name"] == "Account"]
    account["jsonSchema"]["definitions"] = {"person": {"properties": {"ssn": {"type": "string"}}}}
    mesh.airbyte.offers(offered)

    connection = await mesh.onboard()

    assert "Contact__c" not in synced(mesh, connection)
    assert connection["notes"][0]["fields"] == ["Contact__c"]


async def test_stream_whose_key_is_excluded_is_refused(mesh: Mesh) -> None:
    """Nothing is left in Airbyte."""
    offered = offering(ACCOUNT | SECRETS, key="SSN__c")
    mesh.airbyte.offers(offered)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "never_selected")
    assert "'SSN__c' of 'Account'" in problem["detail"]
    assert (mesh.airbyte.sources, mesh.airbyte.connections) == ({}, {})


async def test_unnamed_stream_whose_key_is_excluded_is_left_out(mesh: Mesh) -> None:
    """All other streams are synced; named, it is refused."""
    rows = stream("Rows", {"Id": "string"}, cursor=None)
    rows["jsonSchema"] = {"oneOf": [{"properties": {"Id": {}, "password": {}}}]}
    mesh.airbyte.offers(catalog(rows, stream("Ledger", ACCOUNT)))

    connection = await mesh.onboard(streams=None)

    (note,) = connection["notes"]
    assert (note["code"], note["stream"]["name"]) == ("never_selected", "Rows")
    one = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert [p["stream"]["name"] for p in one["syncCatalog"]["streams"]] == ["Ledger"]
    order = mesh.order | {"connection_name": "other", "streams": ["Rows"]}
    answer = await mesh.orchestrator.post("/connections/onboard", json=order)
    assert (answer.status_code, answer.json()["code"]) == (422, "never_selected")


# Orders


async def test_apply_that_selects_it_is_refused(mesh: Mesh) -> None:
    """In a list of fields, or synced with all fields: each stream and field is listed."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(offering(ACCOUNT | SECRETS))
    order = await discovered(mesh, connection)
    assert [note["code"] for note in order["notes"]] == ["never_selected"]
    (account,) = [p for p in order["sync_catalog"]["streams"] if p["stream"]["name"] == "Account"]
    everything = deepcopy(order)
    account["config"]["selectedFields"].append({"fieldPath": ["SSN__c"]})
    for pair in everything["sync_catalog"]["streams"]:
        pair["config"] |= {"fieldSelectionEnabled": False, "selectedFields": []}

    for wrong, fields in ((order, ["SSN__c"]), (everything, sorted(SECRETS))):
        status, problem = await post(mesh, "/repair/apply_new_catalog", wrong)
        assert (status, problem["code"]) == (422, "never_selected")
        found = [(one["stream"]["name"], one["code"]) for one in problem["problems"]]
        assert found == [("Account", "never_selected")] * len(fields)
        assert [one["message"].split(" of ")[0] for one in problem["problems"]] == [
            repr(field) for field in fields
        ]
    assert synced(mesh, connection) == {*ACCOUNT, "SystemModstamp"}
    assert await mesh.sql.fetchval("SELECT count(*) FROM sync_catalog_versions") == 1


async def test_apply_that_hides_it_is_refused(mesh: Mesh) -> None:
    """The source sends the whole field, whatever the order's schema says of it."""
    connection = await mesh.onboard()
    owner = {"type": "object", "properties": {"Name": {}, "Password": {}}}
    mesh.airbyte.offers(offering(ACCOUNT | {"Owner__c": owner}))
    order = await discovered(mesh, connection)
    (account,) = [p for p in order["sync_catalog"]["streams"] if p["stream"]["name"] == "Account"]
    del account["stream"]["jsonSchema"]["properties"]["Owner__c"]["properties"]["Password"]
    account["config"] |= {"fieldSelectionEnabled": False, "selectedFields": []}

    status, problem = await post(mesh, "/repair/apply_new_catalog", order)

    assert (status, problem["code"]) == (422, "never_selected")
    assert "'Owner__c' of 'Account'" in problem["detail"]


async def test_apply_without_a_schema_is_refused(mesh: Mesh) -> None:
    """It selects everything the source sends."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(offering(ACCOUNT | SECRETS))
    order = await discovered(mesh, connection)
    (account,) = [p for p in order["sync_catalog"]["streams"] if p["stream"]["name"] == "Account"]
    account["stream"]["jsonSchema"] = {"type": "object", "additionalProperties": True}
    account["config"] |= {
        "syncMode": "full_refresh",
        "destinationSyncMode": "overwrite",
        "fieldSelectionEnabled": False,
        "selectedFields": [],
    }

    status, problem = await post(mesh, "/repair/apply_new_catalog", order)

    assert (status, problem["code"]) == (422, "never_selected")


async def test_discovered_order_excludes_it_and_can_be_applied(mesh: Mesh) -> None:
    """Also where the connection syncs it now, since it was imported so."""
    connection, _ = await imported(mesh)
    mesh.airbyte.offers(offering(ACCOUNT | SECRETS))

    order = await discovered(mesh, connection)
    status, applied = await post(mesh, "/repair/apply_new_catalog", order)

    assert (status, applied["version_number"]) == (200, 2)
    assert synced(mesh, connection) == {*ACCOUNT, "SystemModstamp"}


async def test_installation_without_patterns_allows_it(mesh: Mesh) -> None:
    """A connection's own policy does not, since it only adds to the patterns."""
    connection = await mesh.onboard()
    await mesh.drift_repair_agent.put("/policies/installation", json={"never_select": []})
    mesh.airbyte.offers(offering(ACCOUNT | SECRETS))

    order = await discovered(mesh, connection)
    status, _ = await post(mesh, "/repair/apply_new_catalog", order)

    assert status == 200
    assert synced(mesh, connection) >= set(SECRETS)


# Imports and rollbacks


@pytest.mark.parametrize("dry_run", [True, False])
async def test_import_reports_it_and_changes_nothing(mesh: Mesh, *, dry_run: bool) -> None:
    """Version 1 is Airbyte's catalog; the report lists the fields."""
    connection, report = await imported(mesh, dry_run=dry_run)

    assert report["never_selected"] == [
        {"stream": {"namespace": None, "name": "Account"}, "fields": ["SSN__c"]}
    ]
    assert "SSN__c" in synced(mesh, connection)


async def test_rollback_to_a_version_that_selects_it_is_refused(mesh: Mesh) -> None:
    """By name, and nothing is recorded."""
    connection, _ = await imported(mesh)
    await post(mesh, "/repair/apply_new_catalog", await discovered(mesh, connection))
    assert "SSN__c" not in synced(mesh, connection)

    order = {"version": 1, "by": "Ada"}
    status, problem = await post(mesh, f"/connections/{connection['id']}/rollback", order)

    assert (status, problem["code"]) == (422, "never_selected")
    (one,) = problem["problems"]
    assert (one["stream"]["name"], one["code"]) == ("Account", "never_selected")
    assert "SSN__c" not in synced(mesh, connection)
    assert await mesh.sql.fetchval("SELECT count(*) FROM repairs") == 0


async def test_imported_connection_with_it_is_still_repaired(mesh: Mesh) -> None:
    """A change elsewhere is applied; the field stays, and no other such field is added."""
    connection, _ = await imported(mesh)

    await drift(mesh, connection, offering(ACCOUNT | SECRETS | {"Region__c": "string"}))

    await repairs_until(mesh, connection, ["applied"])
    assert synced(mesh, connection) == {*ACCOUNT, "SystemModstamp", "SSN__c", "Region__c"}


# Heals


async def test_excluded_field_inside_a_synced_one_needs_a_decision(mesh: Mesh) -> None:
    """Approved, the surrounding field is left out."""
    owner: Json = {"type": ["null", "object"], "properties": {"Name": {"type": "string"}}}
    mesh.airbyte.offers(offering(ACCOUNT | {"Owner__c": owner}))
    connection = await mesh.onboard()
    grown = deepcopy(owner)
    grown["properties"] |= {"Password": {"type": "string"}}

    await drift(mesh, connection, offering(ACCOUNT | {"Owner__c": grown}))

    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    (change,) = repair["changes"]
    assert (change["path"], change["excluded"]) == (["Owner__c", "Password"], True)
    detail = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    codes = [effect["code"] for effect in detail["catalog"]["effects"]]
    assert codes == ["field_excluded_whole", "fields_hand_picked"]
    await post(mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada"})
    await repairs_until(mesh, connection, ["applied"])
    assert synced(mesh, connection) == {*ACCOUNT, "SystemModstamp"}


async def test_new_stream_is_selected_without_it(mesh: Mesh) -> None:
    """Where the policy selects new streams."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    await mesh.drift_repair_agent.put(path, json={"reactions": {"stream": {"added": "apply"}}})
    offered = offering(ACCOUNT)
    offered["streams"].append(catalog(stream("User", {"Id": "string"} | SECRETS))["streams"][0])

    await drift(mesh, connection, offered)

    await repairs_until(mesh, connection, ["applied"])
    streams = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    (user,) = [one for one in streams["streams"] if one["stream"]["name"] == "User"]
    picked = {one["fieldPath"][0] for one in user["config"]["selectedFields"]}
    assert picked == {"Id", "SystemModstamp"}
