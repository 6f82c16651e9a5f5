"""The policy: what may happen to a connection without a person."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from services.drift_repair_agent.repairs.suggestions import Suggestions
from shared.domain.catalog import NEVER_SELECT
from tests.fakes.airbyte_server import catalog, stream
from tests.integration.applying import seen, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, planned, repairs, repairs_until
from tests.integration.repairing import put

Json = dict[str, Any]


async def test_default_policy_loses_nothing(mesh: Mesh) -> None:
    """Additions and widenings are applied, losses are proposed, and what stops a sync pauses."""
    connection = await mesh.onboard()

    answer = await mesh.drift_repair_agent.get(f"/connections/{connection['id']}/policy")

    policy = answer.json()
    by_reaction: dict[str, set[str]] = {}
    for entity, whats in policy["reactions"].items():
        for what, reaction in whats.items():
            by_reaction.setdefault(reaction, set()).add(f"{entity}.{what}")
    assert by_reaction == {
        "apply": {"field.added", "type.widened"},
        "ignore": {"stream.added"},
        "pause": {"cursor.lost", "key.lost", "mode.lost", "mapper.lapsed"},
        "propose": {
            "stream.removed",
            "stream.renamed",
            "field.removed",
            "field.renamed",
            "type.narrowed",
            "type.clashing",
            "key.changed",
            "cursor.changed",
        },
    }
    assert (policy["own"], policy["verify"], policy["updated_by"]) == ({}, "read_back", None)


async def test_update_changes_named_entries_and_null_resets_them(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    order = {
        "reactions": {"field": {"added": "propose", "removed": "apply"}},
        "never_select": ["*birth*"],
        "verify": "sync",
        "rename_min_confidence": 0.5,
        "by": "Ada",
    }
    status, policy = await put(mesh, connection, order)
    assert (status, policy["reactions"]["field"]["added"]) == (200, "propose")
    assert (policy["never_select"], policy["verify"]) == ([*NEVER_SELECT, "*birth*"], "sync")
    assert policy["updated_by"] == "Ada"

    status, policy = await put(
        mesh, connection, {"reactions": {"field": {"added": None}}, "never_select": None}
    )

    assert policy["own"] == {
        "reactions": {"field": {"removed": "apply"}},
        "verify": "sync",
        "rename_min_confidence": 0.5,
    }
    assert policy["reactions"]["field"] == {
        "added": "apply",
        "removed": "apply",
        "renamed": "propose",
    }


@pytest.mark.parametrize(
    "order, code",
    [
        ({"reactions": {"table": {"added": "apply"}}}, "unknown_policy_entry"),
        ({"reactions": {"mode": {"renamed": "apply"}}}, "unknown_policy_entry"),
        ({"reactions": {"field": {"added": "perhaps"}}}, "invalid_request"),
        ({"verify": "twice"}, "invalid_request"),
        ({"rename_min_confidence": 1.5}, "invalid_request"),
        ({"never_select": [""]}, "invalid_request"),
        ({"unheard": True}, "invalid_request"),
    ],
)
async def test_invalid_update_changes_nothing(mesh: Mesh, order: Json, code: str) -> None:
    connection = await mesh.onboard()

    status, problem = await put(mesh, connection, order)

    assert (status, problem["code"]) == (422, code)
    assert "perhaps" not in str(problem)
    assert await mesh.sql.fetchval("SELECT count(*) FROM policies") == 0


async def test_unknown_connection_has_no_policy(mesh: Mesh) -> None:
    """404, reading and writing."""
    nobody = {"id": str(uuid4())}
    assert (await put(mesh, nobody, {}))[0] == 404
    answer = await mesh.drift_repair_agent.get(f"/connections/{nobody['id']}/policy")
    assert answer.status_code == 404


async def test_policy_change_plans_open_repairs_again(mesh: Mesh) -> None:
    """A proposal that the policy now applies is applied, without a newer drift."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering({"Id": "string", "Name": "string"}))
    await repairs_until(mesh, connection, ["proposed"])

    status, _ = await put(mesh, connection, {"reactions": {"field": {"removed": "apply"}}})

    assert status == 200
    _, applied = await repairs_until(mesh, connection, ["superseded", "applied"])
    assert applied["changes"][0]["path"] == ["AnnualRevenue"]
    assert (await seen(mesh, connection))["catalog_version"] == 2


async def test_policy_that_changes_during_a_plan_decides(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan by the policy before is not written, and another one is made."""
    connection = await mesh.onboard()
    ask = Suggestions.ask
    policy = '{"reactions": {"field": {"removed": "apply"}}}'

    async def meanwhile(self: Suggestions, *rest: Any, **more: Any) -> Any:
        await mesh.sql.execute(
            "INSERT INTO policies (connection_id, policy) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            UUID(connection["id"]),
            policy,
        )
        return await ask(self, *rest, **more)

    monkeypatch.setattr(Suggestions, "ask", meanwhile)

    await drift(mesh, connection, offering({"Id": "string", "Name": "string"}))

    (applied,) = await repairs_until(mesh, connection, ["applied"])
    assert applied["changes"][0]["path"] == ["AnnualRevenue"]


async def test_ignored_change_is_planned_without_a_repair(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    status, body = await put(mesh, connection, {"reactions": {"field": {"added": "ignore"}}})
    assert status == 200, body

    drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    await planned(mesh, connection, drift_id)
    assert await repairs(mesh, connection) == []
    assert (await seen(mesh, connection))["catalog_version"] == 1


async def test_excluded_field_is_left_out(mesh: Mesh) -> None:
    """A new password field: the stream is reduced to its other fields, with the reason."""
    connection = await mesh.onboard()

    await drift(mesh, connection, offering(ACCOUNT | {"Portal_Password__c": "string"}))

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    (change,) = repair["changes"]
    assert (change["excluded"], change["decision"]["action"]) == (True, "exclude")
    account = streams_in_airbyte(mesh, connection)["Account"]
    picked = {one["fieldPath"][0] for one in account["config"]["selectedFields"]}
    assert picked == {"Id", "Name", "AnnualRevenue", "SystemModstamp"}
    assert "Portal_Password__c" not in account["stream"]["jsonSchema"]["properties"]


async def test_new_object_with_an_excluded_field_is_left_out(mesh: Mesh) -> None:
    """Airbyte selects fields of the first level only."""
    connection = await mesh.onboard()
    offered = offering(ACCOUNT)
    (account,) = [one["stream"] for one in offered["streams"] if one["stream"]["name"] == "Account"]
    account["jsonSchema"]["properties"]["Portal__c"] = {
        "type": ["null", "object"],
        "properties": {"logins": {"type": "array", "items": {"properties": {"Password": {}}}}},
    }

    await drift(mesh, connection, offered)

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert [change["excluded"] for change in repair["changes"]] == [True]
    assert (
        "Portal__c"
        not in streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
    )


async def test_rename_to_an_excluded_field_is_refused(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    fields = {name: kind for name, kind in ACCOUNT.items() if name != "AnnualRevenue"}
    await drift(mesh, connection, offering(fields | {"Password__c": "string"}))
    (waiting, _) = await repairs_until(mesh, connection, ["proposed", "applied"])
    (change,) = [one for one in waiting["changes"] if one["kind"] == "field_removed"]
    order = {"by": "Ada", "choices": {change["id"]: {"became": ["Password__c"]}}}
    answer = await mesh.drift_repair_agent.post(f"/repairs/{waiting['id']}/approve", json=order)
    assert (answer.status_code, answer.json()["code"]) == (422, "never_selected")


async def test_new_stream_is_selected_by_policy(mesh: Mesh) -> None:
    """`stream.added: apply` selects new streams, and not those that were unselected before."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"reactions": {"stream": {"added": "apply"}}})
    offered = offering(ACCOUNT)
    offered["streams"].append(catalog(stream("Invoice"), stream("Other"))["streams"][0])

    await drift(mesh, connection, offered)

    await repairs_until(mesh, connection, ["applied"])
    assert set(streams_in_airbyte(mesh, connection)) == {"Account", "Contact", "Invoice"}
