"""The column of a renamed field: who chooses, what Airbyte has to support, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.applying import streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs
from tests.integration.observing import fetch
from tests.integration.repairing import approve, fields, proposal, put
from tests.waiting import until

Json = dict[str, Any]
RENAMED = {name: of for name, of in ACCOUNT.items() if name != "Name"} | {"Title": ACCOUNT["Name"]}
AGAIN = {name: of for name, of in ACCOUNT.items() if name != "Name"} | {"Label": ACCOUNT["Name"]}


def mappers(mesh: Mesh, connection: Json) -> list[tuple[str, str]]:
    """The renamings of Account in Airbyte, in order."""
    found = streams_in_airbyte(mesh, connection)["Account"]["config"].get("mappers") or []
    made = [one["mapperConfiguration"] for one in found]
    return [(one["originalFieldName"], one["newFieldName"]) for one in made]


def removal(repair: Json) -> Json:
    """The removed field of a repair."""
    (found,) = [one for one in repair["changes"] if one["kind"] == "field_removed"]
    return dict(found)


async def renamed(mesh: Mesh, connection: Json, offered: Json, new: str, **choice: Any) -> Json:
    """Rename Name in the source, and approve it with a choice."""
    repair = await proposal(mesh, connection, offering(offered))
    choices = {removal(repair)["id"]: {"became": [new], **choice}}
    status, decided = await approve(mesh, repair, choices=choices)
    assert (status, decided["state"]) == (200, "applied"), str(decided)
    return decided


async def test_rename_keeps_its_column_until_its_new_name_is_adopted(mesh: Mesh) -> None:
    """Asked for, kept, renamed again, in conflict with its old name, and ended on request."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RENAMED))
    gone = removal(repair)
    order: Json = {"choices": {gone["id"]: {"became": ["Title"]}}}
    status, refused = await approve(mesh, repair, **order)
    assert (status, refused["code"]) == (422, "continuity_required"), refused

    status, decided = await approve(mesh, repair, **order, continuity="keep_column")

    assert (status, decided["state"]) == (200, "applied"), str(decided)
    assert removal(decided)["decision"]["continuity"] == "keep_column"
    assert mappers(mesh, connection) == [("Title", "Name")]
    assert "Name" not in fields(mesh, connection)

    await renamed(mesh, connection, AGAIN, "Label")
    assert mappers(mesh, connection) == [("Label", "Name")]

    drift_id = await drift(mesh, connection, offering(AGAIN | {"Name": ACCOUNT["Name"]}))
    (repair,) = await until(lambda: repairs(mesh, connection, state="proposed"))
    (change,) = repair["changes"]
    assert (change["kind"], change["reaction"]) == ("mapping_conflict", "propose")
    found = await fetch(mesh, f"/drifts/{drift_id}")
    assert [one["kind"] for one in found["changes"]] == ["mapping_conflict"]
    status, decided = await approve(mesh, repair)
    assert (status, decided["state"]) == (200, "applied"), str(decided)
    assert "Name" not in fields(mesh, connection)
    assert mappers(mesh, connection) == [("Label", "Name")]


async def test_adopted_name_ends_the_mapping_and_a_rollback_brings_it_back(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await renamed(mesh, connection, RENAMED, "Title", continuity="keep_column")
    path = f"/connections/{connection['id']}/kept-columns"
    kept = (await mesh.drift_repair_agent.get(path)).json()
    (one,) = kept["items"]
    assert (one["field"], one["column"]) == ("Title", "Name")
    assert "new column" in one["if_adopted"][0]
    stream = {"name": "Account"}
    order: Json = {"stream": stream, "field": "Title", "expected_version": kept["version"]}
    refused = await mesh.drift_repair_agent.post(f"{path}/adopt", json=order | {"field": "Id"})
    assert (refused.status_code, refused.json()["code"]) == (422, "no_kept_column")

    answer = await mesh.drift_repair_agent.post(f"{path}/adopt", json=order)

    assert (answer.status_code, answer.json()["changed"]) == (200, True), answer.text
    assert mappers(mesh, connection) == []
    assert "Title" in fields(mesh, connection)
    assert (await mesh.drift_repair_agent.get(path)).json()["items"] == []
    version = {"version": kept["version"], "by": "Ada"}
    status, back = await post(mesh, f"/connections/{connection['id']}/rollback", version)
    assert (status, back["state"]) == (200, "applied"), back
    assert mappers(mesh, connection) == [("Title", "Name")]


@pytest.mark.parametrize("version", ["1.2", "2.0.0"])
async def test_policy_keeps_columns_where_airbyte_can(mesh: Mesh, version: str) -> None:
    mesh.airbyte.version = version
    connection = await mesh.onboard()
    await put(mesh, connection, {"continuity": "keep_column"})

    await renamed(mesh, connection, RENAMED, "Title")

    assert mappers(mesh, connection) == ([("Title", "Name")] if version == "2.0.0" else [])
    assert "Title" in fields(mesh, connection)


async def test_explicit_choice_that_airbyte_cannot_follow_is_refused(mesh: Mesh) -> None:
    mesh.airbyte.version = "1.2"
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RENAMED))
    choice = {"became": ["Title"], "continuity": "keep_column"}
    status, refused = await approve(mesh, repair, choices={removal(repair)["id"]: choice})
    assert (status, refused["code"]) == (422, "column_not_keepable")


@pytest.mark.exact
async def test_refused_mapper_counts_for_an_hour_for_every_connection(mesh: Mesh) -> None:
    """It is read from the repairs, so that it counts for other replicas and after a restart."""
    first, second = await mesh.onboard(), await mesh.onboard(connection_name="Second")
    orders = []
    for connection in (first, second):
        repair = await proposal(mesh, connection, offering(RENAMED))
        choice = {"became": ["Title"], "continuity": "keep_column"}
        orders.append((repair, {"choices": {removal(repair)["id"]: choice}}))
    mesh.airbyte.fault("connections/update", 403)
    repair, order = orders[0]
    status, failed = await approve(mesh, repair, **order)
    assert (status, failed["failure_code"]) == (200, "upstream_auth"), failed

    repair, order = orders[1]
    status, refused = await approve(mesh, repair, **order)

    assert (status, refused["code"]) == (422, "column_not_keepable")
    assert mappers(mesh, second) == []
    await mesh.sql.execute("UPDATE repairs SET ended_at = ended_at - interval '1 hour'")
    status, decided = await approve(mesh, repair, **order)
    assert (status, decided["state"]) == (200, "applied"), decided
    assert mappers(mesh, second) == [("Title", "Name")]
