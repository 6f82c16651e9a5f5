"""Who may change what happens without a person, and who is recorded for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared import registry
from shared.auth.scopes import Scope
from shared.database import Database
from tests import access
from tests.integration.callers import ALL_BUT_DECIDE, caller, history
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.observing import by_hand

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}


async def test_setting_a_policy_needs_repairs_decide(mesh: Mesh) -> None:
    """A policy decides in its caller's place."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    order = {"reactions": {"field": {"removed": "apply"}}}

    async with caller(mesh, mesh.drift_repair_agent, *ALL_BUT_DECIDE) as other:
        answer = await other.put(path, json=order)

    assert (answer.status_code, answer.json()["scope"]) == (403, "repairs:decide")
    assert (await mesh.drift_repair_agent.get(path)).json()["own"] == {}
    async with caller(mesh, mesh.drift_repair_agent, Scope.REPAIRS_DECIDE) as other:
        assert (await other.put(path, json=order)).status_code == 200


async def test_confirming_an_observation_needs_repairs_decide(mesh: Mesh) -> None:
    """What is missing might be removed at once."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}"
    mesh.airbyte.hide("Contact")

    async with caller(mesh, mesh.schema_observer, *ALL_BUT_DECIDE) as other:
        refused = await other.post(f"{path}/observe", json={"accept_missing": True})
        answer = await other.post(f"{path}/observe", json={"accept_missing": False})

    assert (refused.status_code, refused.json()["scope"]) == (403, "repairs:decide")
    assert answer.json()["outcome"] == "suspicious"
    assert (await history(mesh, f"{path}/observation"))["items"] == []
    await mesh.schema_observer.post(f"{path}/observe", json={"accept_missing": True})
    (believed,) = (await history(mesh, f"{path}/observation"))["items"]
    assert (believed["change"], believed["by"]) == ({"accept_missing": True}, access.NAME)


async def test_version_by_policy_names_its_author(mesh: Mesh) -> None:
    """The author of the entry that decided, not of the newest change; so does the repair."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    async with caller(mesh, mesh.drift_repair_agent, Scope.REPAIRS_DECIDE) as other:
        name = other.headers["x-name"]
        await other.put(path, json={"reactions": {"field": {"removed": "apply"}}, "by": "Bob"})
    await mesh.drift_repair_agent.put(path, json={"verify": "read_back"})

    offered = offering(LESS)
    offered["streams"][1]["stream"]["jsonSchema"]["properties"]["Extra"] = {"type": "string"}
    await drift(mesh, connection, offered)

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    author = f"Bob, requested by {name}"
    by_kind = {one["kind"]: one["decision"] for one in repair["changes"]}
    assert {kind: one["policy_set_by"] for kind, one in by_kind.items()} == {
        "field_removed": author,
        "field_added": None,
    }
    assert repair["decisions"][0]["policy_set_by"] == author
    versions = f"/connections/{connection['id']}/catalog-versions"
    listed = (await mesh.orchestrator.get(versions)).json()
    newest = (listed["items"] if isinstance(listed, dict) else listed)[0]
    assert (newest["decided_by"], newest["policy_set_by"]) == ("policy", author)


async def test_changes_of_a_policy_are_listed_with_their_author(mesh: Mesh) -> None:
    """Newest first, paged; an update without effect is no change."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    orders: list[Json] = [
        {"reactions": {"field": {"added": "propose"}}, "by": "Ada"},
        {"verify": "sync"},
        {"verify": "sync"},
        {"reactions": {"field": {"added": None}}},
    ]
    for order in orders:
        assert (await mesh.drift_repair_agent.put(path, json=order)).status_code == 200

    first = await history(mesh, path, limit=2)
    rest = await history(mesh, path, limit=2, after=first["next"])

    assert (len(first["items"]), rest["next"]) == (2, None)
    found = [(one["by"], one["requested_by"], one["change"]) for one in first["items"]]
    assert found == [
        (access.NAME, access.NAME, {"reactions": {"field": {"added": None}}}),
        (access.NAME, access.NAME, {"verify": "sync"}),
    ]
    (oldest,) = rest["items"]
    assert (oldest["by"], oldest["requested_by"]) == ("Ada", access.NAME)
    policy = (await mesh.drift_repair_agent.get(path)).json()
    assert (policy["updated_by"], policy["requested_by"]) == (access.NAME, access.NAME)


@pytest.mark.parametrize(
    "order", [{}, {"by": "Ada"}, {"reactions": {}}, {"reactions": {"field": {}}}]
)
async def test_empty_update_is_refused(mesh: Mesh, order: Json) -> None:
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"

    answer = await mesh.drift_repair_agent.put(path, json=order)

    assert (answer.status_code, answer.json()["code"]) == (422, "empty_policy")
    assert (await history(mesh, path))["items"] == []


async def test_changes_of_an_interval_are_listed(mesh: Mesh) -> None:
    """With whose credentials asked for them."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/observation"
    await mesh.schema_observer.put(path, json={"interval_seconds": 300})
    (change,) = (await history(mesh, path))["items"]
    assert (change["change"], change["by"]) == ({"interval_seconds": 300}, access.NAME)


async def test_decision_is_recorded_for_its_caller(mesh: Mesh) -> None:
    """Approve, reject and roll back; with a named person, the caller is recorded, too."""
    connection = await mesh.onboard()
    agent = mesh.drift_repair_agent

    async def proposed(offered: Json, states: list[str]) -> str:
        await drift(mesh, connection, offered)
        found = await repairs_until(mesh, connection, states)
        return f"/repairs/{next(one['id'] for one in found if one['state'] == 'proposed')}"

    path = await proposed(offering(LESS), ["proposed"])
    approved = (await agent.post(f"{path}/approve", json={})).json()
    (decision,) = approved["decisions"]
    assert (decision["by"], decision["requested_by"]) == (access.NAME, access.NAME)
    created = approved["changes"][0]["decision"]
    assert (created["by"], created["requested_by"]) == (access.NAME, access.NAME)

    path = await proposed(offering({"Id": "string"}), ["applied", "proposed"])
    rejected = (await agent.post(f"{path}/reject", json={"by": "Ada"})).json()
    assert [(one["by"], one["requested_by"]) for one in rejected["decisions"]] == [
        ("Ada", access.NAME)
    ]
    created = rejected["changes"][0]["decision"]
    assert (created["by"], created["requested_by"]) == ("Ada", access.NAME)

    mesh.airbyte.offers(offering(ACCOUNT))
    discovered = await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")
    assert discovered.status_code == 200
    rolled = await agent.post(
        f"/connections/{connection['id']}/rollback", json={"version": 1, "by": "Bob"}
    )
    assert rolled.json()["decisions"][0]["requested_by"] == access.NAME, rolled.text
    listed = (
        await mesh.orchestrator.get(f"/connections/{connection['id']}/catalog-versions")
    ).json()
    versions = listed["items"] if isinstance(listed, dict) else listed
    found = [(one["decided_by"], one["requested_by"]) for one in versions[:2]]
    assert found == [("Bob", access.NAME), (access.NAME, access.NAME)]


async def test_name_policy_is_reserved(mesh: Mesh) -> None:
    """It stands for AAM's own decisions."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(LESS))
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    for by in ("policy", " Policy ", "ＰＯＬＩＣＹ", "AAM"):  # noqa: RUF001 (letters of another kind)
        answer = await mesh.drift_repair_agent.post(
            f"/repairs/{repair['id']}/approve", json={"by": by}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_policy_survives_archiving_and_import(mesh: Mesh) -> None:
    """So does a rejection: both need another scope than changing the policy."""
    whole = await mesh.onboard()
    held = await by_hand(mesh, whole)
    await mesh.orchestrator.delete(f"/connections/{whole['id']}")
    order = {"reactions": {"field": {"added": "propose"}}, "discoveries_per_day": 77, "by": "Ada"}
    put = await mesh.drift_repair_agent.put(f"/connections/{held['id']}/policy", json=order)
    assert put.status_code == 200, put.text
    policies = []
    async with caller(mesh, mesh.orchestrator, *ALL_BUT_DECIDE) as other:
        for _ in range(2):
            assert (await other.delete(f"/connections/{held['id']}")).status_code == 204
            ordered = {"airbyte_connection_id": held["airbyte_connection_id"]}
            again = await other.post("/connections/import", json=ordered)
            held["id"] = again.json()["items"][0]["connection_id"]
            answer = await mesh.drift_repair_agent.get(f"/connections/{held['id']}/policy")
            policies.append(answer.json())

    for policy in policies:
        assert policy["own"] == put.json()["own"]
        assert policy["updated_by"] == "Ada"
    source_id = UUID(whole["airbyte_source_id"])
    db = Database.at(mesh.settings.registry_address, application="test")
    async with db.read() as session:
        hour = timedelta(hours=1)
        loads = await registry.source_loads(
            session, [source_id], every=hour, recent=hour, renewing_types=()
        )
    await db.close()
    assert loads[source_id].policy_limit == 77
    (change,) = (await history(mesh, f"/connections/{held['id']}/policy"))["items"]
    assert change["by"] == "Ada"
    mesh.airbyte.add_field("Account", "Tier__c")
    observe = f"/connections/{held['id']}/observe"
    assert (await mesh.schema_observer.post(observe)).json()["outcome"] == "changed"
    (proposed,) = await repairs_until(mesh, held, ["proposed"])

    rejected = await mesh.drift_repair_agent.post(f"/repairs/{proposed['id']}/reject", json={})
    assert rejected.status_code == 200, rejected.text
    path = f"/connections/{held['id']}/policy"
    await mesh.drift_repair_agent.put(path, json={"reactions": {"field": {"added": None}}})
    policy = (await mesh.drift_repair_agent.get(path)).json()
    assert policy["own"] == {"discoveries_per_day": 77}
    await mesh.orchestrator.delete(f"/connections/{held['id']}")
    again = await mesh.orchestrator.post("/connections/import", json=ordered)
    held["id"] = again.json()["items"][0]["connection_id"]
    mesh.airbyte.add_field("Account", "Other__c")
    observe = f"/connections/{held['id']}/observe"
    assert (await mesh.schema_observer.post(observe)).json()["outcome"] == "changed"
    repairs = await repairs_until(mesh, held, ["applied", "proposed"])
    assert {repair["state"]: repair["changes"][0]["path"] for repair in repairs} == {
        "applied": ["Other__c"],
        "proposed": ["Tier__c"],
    }
