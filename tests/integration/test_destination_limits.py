"""Repairs and the destination: what it does not hold for certain needs a person."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.airbyte_server import POSTGRES
from tests.integration.applying import apply, discovered, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs, repairs_until
from tests.integration.repairing import approve, fields, proposal, put

Json = dict[str, Any]


def _only(repair: Json) -> Json:
    (change,) = repair["changes"]
    return dict(change)


async def _effects(mesh: Mesh, repair: Json) -> list[Json]:
    answer = await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["catalog"]["effects"])


async def _onboarded(mesh: Mesh, **policy: Json) -> Json:
    mesh.airbyte.offers(offering(ACCOUNT))
    connection = await mesh.onboard()
    if policy:
        assert (await put(mesh, connection, {"reactions": policy}))[0] == 200
    return connection


async def test_plain_field_is_applied_and_its_twin_waits(mesh: Mesh) -> None:
    """`Phone` has a column of its own; `name` would share that of `Name`."""
    connection = await _onboarded(mesh)

    await drift(mesh, connection, offering({**ACCOUNT, "Phone": "string", "name": "string"}))

    _, proposed = await repairs_until(mesh, connection, ["applied", "proposed"])
    assert fields(mesh, connection) == {*ACCOUNT, "Phone", "SystemModstamp"}
    change = _only(proposed)
    (finding,) = change["destination"]
    assert (finding["verdict"], finding["code"]) == ("ask", "column_clash")
    assert finding["names"] == ["Name", "name"]
    assert finding["message"] == (
        "'Name' and 'name' are one column in Postgres 3.0.14: the latter is written to 'name_1'."
    )
    assert [one["message"] for one in await _effects(mesh, proposed)] == [finding["message"]]

    status, approved = await approve(mesh, proposed)

    assert (status, approved["state"]) == (200, "applied")
    assert "name" in fields(mesh, connection)


async def test_field_before_its_twin_takes_the_column(mesh: Mesh) -> None:
    """The values of two fields would be mixed: the effect names both columns."""
    connection = await _onboarded(mesh)

    proposed = await proposal(mesh, connection, offering({"NAME": "string", **ACCOUNT}))

    (finding,) = _only(proposed)["destination"]
    assert (finding["verdict"], finding["code"]) == ("refuse", "column_moves")
    assert (finding["names"], finding["columns"]) == (["Name", "NAME"], ["Name", "Name_1"])


@pytest.mark.deep(after=2)
@pytest.mark.parametrize(
    "version, code, words",
    [
        ("3.0.14", "column_kept", "keeps the column 'AnnualRevenue'; it is NULL"),
        ("3.0.13", "column_dropped", "drops the column 'AnnualRevenue' with its history; 3.0.14"),
        ("2.4.0", "column_rebuilt", "rebuilds the table without the column 'AnnualRevenue'"),
        ("dev", "column_fate_unknown", "may drop the column"),
    ],
)
async def test_removed_field_names_what_this_version_does(
    mesh: Mesh, version: str, code: str, words: str
) -> None:
    """The change says what is lost, and the repair's effects too."""
    mesh.airbyte.publish_version(version, definition=POSTGRES)
    connection = await _onboarded(mesh)
    less = {name: type_ for name, type_ in ACCOUNT.items() if name != "AnnualRevenue"}

    proposed = await proposal(mesh, connection, offering(less))

    change = _only(proposed)
    assert code in [one["code"] for one in change["destination"]]
    assert words in change["resets"][0]
    assert code in [one["code"] for one in await _effects(mesh, proposed)]


async def test_policy_does_not_drop_a_column_with_its_history(mesh: Mesh) -> None:
    """`removed: apply` is for columns that are kept."""
    mesh.airbyte.publish_version("3.0.13", definition=POSTGRES)
    connection = await _onboarded(mesh, field={"removed": "apply"})
    less = {name: type_ for name, type_ in ACCOUNT.items() if name != "AnnualRevenue"}

    proposed = await proposal(mesh, connection, offering(less))

    assert _only(proposed)["kind"] == "field_removed"


async def test_policy_does_not_cast_a_column_that_may_fail(mesh: Mesh) -> None:
    """`clashing: apply` cannot make Postgres cast a text to a number."""
    connection = await _onboarded(mesh, type={"clashing": "apply"})

    proposed = await proposal(mesh, connection, offering({**ACCOUNT, "Name": "number"}))

    (finding,) = _only(proposed)["destination"]
    assert (finding["verdict"], finding["code"]) == ("ask", "column_retyped")


async def _removed(mesh: Mesh, version: str = "3.0.14") -> Json:
    """A connection that synced `status` and `имя` before, until the source lost them."""
    mesh.airbyte.publish_version(version, definition=POSTGRES)
    mesh.airbyte.offers(offering({**ACCOUNT, "status": "string", "имя": "string"}))
    connection = await mesh.onboard()
    assert (await put(mesh, connection, {"reactions": {"field": {"removed": "apply"}}}))[0] == 200
    await drift(mesh, connection, offering(ACCOUNT))
    await repairs_until(mesh, connection, ["applied"])
    assert fields(mesh, connection) == {*ACCOUNT, "SystemModstamp"}
    return connection


@pytest.mark.parametrize(
    "field, type_, code, names",
    [
        ("status", "integer", "column_retyped", ["status"]),
        ("год", "string", "column_reused", ["имя", "год"]),
    ],
)
async def test_new_field_of_a_kept_column_waits(
    mesh: Mesh, field: str, type_: str, code: str, names: list[str]
) -> None:
    """Its column has the type, and the values, of a field that was removed before."""
    connection = await _removed(mesh)

    await drift(mesh, connection, offering({**ACCOUNT, "Phone": "string"}))
    await repairs_until(mesh, connection, ["applied", "applied"])
    await drift(mesh, connection, offering({**ACCOUNT, "Phone": "string", field: type_}))

    *_, proposed = await repairs_until(mesh, connection, ["applied", "applied", "proposed"])
    (finding,) = _only(proposed)["destination"]
    assert (finding["verdict"], finding["code"], finding["names"]) == ("ask", code, names)
    assert [one["message"] for one in await _effects(mesh, proposed)] == [finding["message"]]
    assert field not in fields(mesh, connection)
    assert (await approve(mesh, proposed))[0] == 200
    assert field in fields(mesh, connection)


async def test_field_that_comes_back_as_it_was_is_applied(mesh: Mesh) -> None:
    """It goes on in its own column."""
    connection = await _removed(mesh)

    await drift(mesh, connection, offering({**ACCOUNT, "status": "string"}))

    await repairs_until(mesh, connection, ["applied", "applied"])
    assert "status" in fields(mesh, connection)


async def test_callers_catalog_with_a_field_of_a_kept_column(mesh: Mesh) -> None:
    """Refused unless clashes are accepted."""
    connection = await _removed(mesh)
    assert (await put(mesh, connection, {"reactions": {"field": {"added": "ignore"}}}))[0] == 200
    mesh.airbyte.offers(offering({**ACCOUNT, "год": "string"}))
    order = await discovered(mesh, connection)
    for pair in order["sync_catalog"]["streams"]:
        pair["config"] |= {"fieldSelectionEnabled": False, "selectedFields": []}

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (422, "destination_cannot_hold"), problem
    assert "has kept the column '___' of 'имя'" in problem["detail"]
    status, applied = await apply(mesh, order | {"accept_clashes": True})
    assert status == 200, applied
    assert "год" in fields(mesh, connection)


async def test_unknown_destination_is_asked_about(mesh: Mesh) -> None:
    """A new field waits for a person, who can still apply it."""
    mesh.airbyte.publish_version("dev", definition=POSTGRES)
    connection = await _onboarded(mesh)

    proposed = await proposal(mesh, connection, offering({**ACCOUNT, "Phone": "string"}))

    (finding,) = _only(proposed)["destination"]
    assert (finding["verdict"], finding["code"]) == ("ask", "unknown_destination")
    assert (await approve(mesh, proposed))[0] == 200
    assert "Phone" in fields(mesh, connection)


async def test_never_selected_field_reaches_no_destination(mesh: Mesh) -> None:
    """It is excluded without a question, even if its column would clash."""
    connection = await _onboarded(mesh)
    assert (await put(mesh, connection, {"never_select": ["name2*"]}))[0] == 200

    await drift(mesh, connection, offering({**ACCOUNT, "name2": "string", "NAME2": "string"}))

    (applied,) = await repairs_until(mesh, connection, ["applied"])
    assert [one["excluded"] for one in applied["changes"]] == [True, True]


async def test_new_stream_of_a_taken_table_waits(mesh: Mesh) -> None:
    """The stream `account` and `Account` differ in Postgres; `Acc-1` and `Acc_1` do not."""
    connection = await _onboarded(mesh, stream={"added": "apply"})
    offered = offering(ACCOUNT)
    for name in ("account", "Acc-1", "Acc_1"):
        one = offering(ACCOUNT)["streams"][0]
        one["stream"]["name"] = one["config"]["aliasName"] = name
        offered["streams"].append(one)

    await drift(mesh, connection, offered)

    _, proposed = await repairs_until(mesh, connection, ["applied", "proposed"])
    change = _only(proposed)
    assert change["kind"] == "stream_added"
    (finding,) = change["destination"]
    assert (finding["verdict"], finding["code"]) == ("ask", "table_clash")
    assert sorted(finding["names"]) == ["'Acc-1'", "'Acc_1'"]
    assert {"account", "Account"} <= streams_in_airbyte(mesh, connection).keys()


async def test_destination_that_is_not_reported_postpones_the_plan(mesh: Mesh) -> None:
    """Nothing is applied until it is known what the destination does."""
    connection = await _onboarded(mesh)
    path = "actor_definition_versions/get_for_destination"
    mesh.airbyte.fault(path, 503, times=5)

    await drift(mesh, connection, offering({**ACCOUNT, "Phone": "string"}))

    await repairs_until(mesh, connection, ["applied"])
    assert len(mesh.airbyte.called(path)) > 1
    assert [one["state"] for one in await repairs(mesh, connection)] == ["applied"]
