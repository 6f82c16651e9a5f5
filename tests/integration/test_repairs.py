"""Repairs: what a changed source needs is done by itself where it is safe, else by a decision."""

from __future__ import annotations

from typing import Any

from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until
from tests.integration.test_apply import held, seen

Json = dict[str, Any]


async def test_a_new_field_is_applied_by_itself(mesh: Mesh) -> None:
    """A field was added: the policy decides, Airbyte holds it, the version says who decided."""
    connection = await mesh.onboard()

    drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert (repair["drift_id"], repair["version_number"]) == (drift_id, 2)
    (change,) = repair["changes"]
    assert (change["kind"], change["path"]) == ("field_added", ["Region__c"])
    assert (change["reaction"], change["decision"]["by"]) == ("apply", "policy")
    fields = held(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
    assert "Region__c" in fields
    versions = await mesh.sql.fetch(
        "SELECT version_number, repair_id, decided_by, origin FROM sync_catalog_versions"
        " ORDER BY version_number"
    )
    assert [tuple(map(str, row)) for row in versions][1] == ("2", repair["id"], "policy", "repair")
    types = [one["type"] for one in await mesh.events(4)]
    assert types[1:] == ["catalog.healing", "catalog.applied", "repair.applied"]


async def test_a_dropped_field_waits_for_a_person(mesh: Mesh) -> None:
    """A field is gone: nothing is done until somebody approves, and then it is gone."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering({"Id": "string", "Name": "string"}))
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    assert repair["changes"][0]["loses"] == ["AnnualRevenue"]
    assert (await seen(mesh, connection))["catalog_version"] == 1

    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    assert [one["kind"] for one in shown["catalog"]["schema_changes"]] == ["field_removed"]

    status, decided = await post(
        mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada", "why": "It is not needed."}
    )

    assert (status, decided["state"], decided["version_number"]) == (200, "applied", 2)
    assert decided["decisions"][0]["by"] == "Ada"
    fields = held(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
    assert "AnnualRevenue" not in fields
