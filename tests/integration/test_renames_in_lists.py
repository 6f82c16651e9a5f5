"""A rename is one change wherever changes are counted: repairs, groups, drifts and timelines."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.integration.conftest import Mesh
from tests.integration.drifting import drift, offering, post, repairs_until
from tests.integration.repairing import approve

Json = dict[str, Any]
RENAMED = {"Id": "string", "Name": "string", "AnnualRevenueAmount": "number"}
ACCOUNT = {"namespace": None, "name": "Account"}


async def got(mesh: Mesh, service: str, path: str, **query: Any) -> Any:
    """What a service answers."""
    answer = await getattr(mesh, service).get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_rename_is_counted_once(mesh: Mesh) -> None:
    """While it is proposed, and after it was approved; the lists name both fields."""
    connection = await mesh.onboard()
    drift_id = await drift(mesh, connection, offering(RENAMED | {"Other__c": "string"}))
    # The policy applies the new field in a repair of its own.
    proposed, _ = await repairs_until(mesh, connection, ["proposed", "applied"])
    renamed = {
        "kind": "field_renamed",
        "path": ["AnnualRevenue"],
        "became": ["AnnualRevenueAmount"],
    }

    assert (proposed["change_count"], proposed["decided_count"]) == (1, 0)
    assert proposed["changes_by_kind"] == {"field_renamed": 1}
    assert sum(proposed["changes_by_severity"].values()) == 1
    (shown,) = proposed["first_changes"]
    assert {name: shown[name] for name in renamed} == renamed
    assert len(proposed["changes"]) == 2
    (view,) = (await got(mesh, "orchestrator", "/connections", include="health"))["items"]
    assert view["health"]["reason"].startswith("1 change waits for review")
    (listed,) = (await got(mesh, "schema_observer", "/drifts"))["items"]
    whole = await got(mesh, "schema_observer", f"/drifts/{drift_id}")
    assert (listed["change_count"], whole["change_count"], len(whole["changes"])) == (2, 2, 3)
    assert [{name: one[name] for name in renamed} for one in whole["renames"]] == [renamed]

    choices = {shown["id"]: {"became": shown["became"], "continuity": "new_column"}}
    status, _ = await approve(mesh, proposed, choices=choices, reason="Renamed.")
    assert status == 200
    await repairs_until(mesh, connection, ["applied", "applied"])
    timeline = await got(mesh, "orchestrator", f"/connections/{connection['id']}/timeline")
    details = {
        one["kind"]: one["details"]
        for one in timeline["items"]
        if one["kind"] == "drift" or one["repair_id"] == proposed["id"]
    }
    del details["version"]
    assert {kind: of["change_count"] for kind, of in details.items()} == {
        "drift": 2,
        "repair_proposed": 1,
        "repair_decided": 1,
        "repair_ended": 1,
    }
    assert [one["change_count"] for one in details["repair_decided"]["decisions"]] == [1]
    assert details["drift"]["renames"] == whole["renames"]


async def test_other_answers_are_two_changes(mesh: Mesh) -> None:
    """If the field was removed, and the new one is another, that is what the lists say."""
    connection = await mesh.onboard()
    drift_id = await drift(mesh, connection, offering(RENAMED))
    (proposed,) = await repairs_until(mesh, connection, ["proposed"])
    gone = next(one for one in proposed["changes"] if one["kind"] == "field_removed")

    choices = {gone["id"]: {"became": None}}
    status, _ = await approve(mesh, proposed, choices=choices, reason="It is gone.")
    assert status == 200
    (applied,) = await repairs_until(mesh, connection, ["applied"])

    assert applied["changes_by_kind"] == {"field_removed": 1, "field_added": 1}
    whole = await got(mesh, "schema_observer", f"/drifts/{drift_id}")
    assert (whole["change_count"], whole["renames"]) == (2, [])


async def test_group_of_a_rename(mesh: Mesh) -> None:
    """One group with both names; approving it decides both halves in each repair."""
    found = [await mesh.onboard(connection_name=f"Org {number}") for number in range(2)]
    for connection in found:
        await drift(mesh, connection, offering(RENAMED))
        await repairs_until(mesh, connection, ["proposed"])

    (group,) = (await got(mesh, "drift_repair_agent", "/repairs/groups"))["items"]

    assert (group["kind"], group["path"], group["became"]) == (
        "field_renamed",
        ["AnnualRevenue"],
        ["AnnualRevenueAmount"],
    )
    assert group["connection_count"] == 2
    order = {
        "verdict": "approve",
        "group": group["id"],
        "by": "Ada",
        "reason": "Renamed.",
        "choice": {"became": group["became"], "continuity": "new_column"},
    }
    status, decided = await post(mesh, "/repairs/decide", order)
    assert (status, [one["code"] for one in decided["items"]]) == (200, [None, None])
    for connection in found:
        (applied,) = await repairs_until(mesh, connection, ["applied"])
        assert (applied["change_count"], applied["decided_count"]) == (1, 1)


def _gone(**members: Any) -> Json:
    suggestion = {"became": ["New"], "confidence": 0.9, "taken_by_approve": True}
    return {
        "id": "c1",
        "kind": "field_removed",
        "stream": ACCOUNT,
        "path": ["Old"],
        "pair": "c2",
        "suggestion": suggestion,
        "severity": "breaking",
        "reaction": "propose",
        "decision": None,
        **members,
    }


def _new(name: str = "New", **members: Any) -> Json:
    return {
        "id": "c2",
        "kind": "field_added",
        "stream": ACCOUNT,
        "path": [name],
        "severity": "harmless",
        "reaction": "apply",
        "decision": None,
        **members,
    }


WEAK = {"became": ["New"], "confidence": 0.3, "taken_by_approve": False}
STREAM: Json = {"stream": {"namespace": "crm", "name": "Old"}, "kind": "stream_removed", "path": []}
NEW_STREAM: Json = {
    "stream": {"namespace": "crm", "name": "New"},
    "kind": "stream_added",
    "path": [],
}
KEPT, APPLIED = {"action": "keep"}, {"action": "apply"}
RENAME, TWO = {"field_renamed": 1}, {"field_removed": 1, "field_added": 1}
SUMMARIES: dict[str, tuple[list[Json], Json]] = {
    "proposed": ([_gone(), _new()], RENAME),
    "the other half comes first": ([_new(), _gone()], RENAME),
    "weak suggestion": ([_gone(suggestion=WEAK), _new()], TWO),
    "no suggestion": ([_gone(suggestion=None, pair=None), _new()], TWO),
    "not paired, since two compete": ([_gone(pair=None), _new()], TWO),
    "decided": ([_gone(decision=APPLIED | {"became": ["New"]}), _new(decision=APPLIED)], RENAME),
    "decided to be gone": (
        [_gone(decision=APPLIED | {"became": None}), _new(decision=APPLIED)],
        TWO,
    ),
    "decided to be another field": (
        [
            _gone(decision=APPLIED | {"became": ["Third"]}),
            _new(decision=APPLIED),
            _new("Third", id="c3", decision=APPLIED),
        ],
        {"field_renamed": 1, "field_added": 1},
    ),
    "both stay as they are": ([_gone(decision=KEPT), _new(decision=KEPT)], RENAME),
    "only one stays": ([_gone(decision=KEPT), _new(decision=APPLIED)], TWO),
    "of a stream": ([_gone(**STREAM), _new(**NEW_STREAM)], {"stream_renamed": 1}),
    "of a stream in another namespace": (
        [_gone(**STREAM), _new(**NEW_STREAM | {"stream": ACCOUNT | {"name": "New"}})],
        {"stream_removed": 1, "stream_added": 1},
    ),
    "same name in another stream": (
        [_gone(), _new(stream=ACCOUNT | {"name": "Contact"})],
        TWO,
    ),
}


@pytest.mark.parametrize("case", SUMMARIES)
async def test_summary_of_changes(mesh: Mesh, case: str) -> None:
    """What is one change, by the suggestion and the decisions; its severity is the removal's."""
    changes, by_kind = SUMMARIES[case]
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO repairs (id, connection_id, state, base_version, changes, ended_at)"
        " VALUES ($1, $2, 'expired', 1, $3, now())",
        uuid4(),
        UUID(connection["id"]),
        json.dumps(changes),
    )

    (item,) = (await got(mesh, "drift_repair_agent", "/repairs"))["items"]

    assert item["changes_by_kind"] == by_kind
    count = sum(by_kind.values())
    assert item["change_count"] == len(item["first_changes"]) == count
    assert sum(item["changes_by_severity"].values()) == count
    assert [one["kind"] for one in item["first_changes"]].count("field_renamed") == (
        by_kind.get("field_renamed", 0)
    )
