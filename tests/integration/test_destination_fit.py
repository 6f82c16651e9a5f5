"""Onboarding, applying and importing: what the destination cannot hold is refused or left out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from copy import deepcopy
from typing import Any

import httpx
import pytest

from shared.destinations import shared_tables
from tests.fakes.airbyte_server import POSTGRES, catalog, stream
from tests.integration.applying import apply, discovered, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, offering, post

Json = dict[str, Any]
PATH = "/connections/onboard"


def _selected(mesh: Mesh, connection: Json, name: str = "Account") -> set[str]:
    config = streams_in_airbyte(mesh, connection)[name]["config"]
    return {one["fieldPath"][0] for one in config["selectedFields"]}


async def _refused(mesh: Mesh, **changes: Any) -> Json:
    answer = await mesh.orchestrator.post(PATH, json={**mesh.order, **changes})
    assert answer.status_code == 422, answer.text
    problem: Json = answer.json()
    assert problem["code"] == "destination_cannot_hold"
    return problem


async def test_second_of_two_fields_is_left_out(mesh: Mesh) -> None:
    """So is a name that Postgres refuses; a note names both sides."""
    mesh.airbyte.offers(offering({**ACCOUNT, "name": "string", "xmin": "string"}))

    connection = await mesh.onboard()

    assert _selected(mesh, connection) == {*ACCOUNT, "SystemModstamp"}
    (note,) = connection["notes"]
    assert (note["code"], note["fields"]) == ("column_clash", ["name", "xmin"])
    assert "'Name' and 'name' are one column in Postgres 3.0.14" in note["message"]


async def test_likely_clash_in_an_unknown_destination(mesh: Mesh) -> None:
    """The strictest common rule leaves the second field out; nothing is refused."""
    mesh.airbyte.publish_version("dev", definition=POSTGRES)
    mesh.airbyte.offers(offering({**ACCOUNT, "name": "string", "xmin": "string"}))

    connection = await mesh.onboard()

    assert _selected(mesh, connection) == {*ACCOUNT, "xmin", "SystemModstamp"}


async def test_named_streams_of_one_table_are_refused(mesh: Mesh) -> None:
    """And nothing stays in Airbyte; of a default selection the second is left out."""
    fields = {"Id": "string"}
    mesh.airbyte.offers(catalog(stream("my-table", fields), stream("my_table", fields)))

    problem = await _refused(mesh, streams=["my-table", "my_table"])

    assert "'my-table' and 'my_table' have one table in Postgres 3.0.14" in problem["detail"]
    assert mesh.airbyte.sources == {}

    connection = await mesh.onboard(streams=None)

    assert list(streams_in_airbyte(mesh, connection)) == ["my-table"]
    assert connection["notes"][0]["code"] == "table_clash"


async def test_key_that_no_destination_takes_is_not_chosen(mesh: Mesh) -> None:
    """A stream with a nested key or an object as its key is not deduplicated by it."""
    data = {"type": "object", "properties": {"id": {"type": "string"}}}
    offered = catalog(*(stream(name, {**ACCOUNT, "data": data}) for name in ("A", "B", "C")))
    keys = ([["data", "id"]], [["data"]], [["Id"]])
    for pair, key in zip(offered["streams"], keys, strict=True):
        pair["stream"]["sourceDefinedPrimaryKey"] = key
    mesh.airbyte.offers(offered)

    connection = await mesh.onboard(streams=["A", "B", "C"])

    streams = streams_in_airbyte(mesh, connection)
    modes = [streams[name]["config"]["destinationSyncMode"] for name in "ABC"]
    assert modes == ["overwrite", "overwrite", "append_dedup"]


async def test_table_of_another_connection_is_refused(mesh: Mesh) -> None:
    """Both streams and the other connection are named; with a prefix it is onboarded."""
    mesh.airbyte.offers(offering(ACCOUNT))
    await mesh.onboard(connection_name="CRM", streams=["Account"])

    problem = await _refused(mesh, connection_name="Sandbox", streams=["Account"])

    assert "'Account' of the connection 'CRM'" in problem["detail"]
    other = await mesh.onboard(connection_name="Sandbox", streams=["Account"], prefix="sandbox_")
    assert mesh.airbyte.connections[other["airbyte_connection_id"]]["prefix"] == "sandbox_"
    # The prefix can be changed, and the table then counts under its new name.
    answer = await mesh.orchestrator.patch(f"/connections/{other['id']}", json={"prefix": "s_"})
    assert answer.status_code == 200, answer.text
    await _refused(mesh, connection_name="Third", streams=["Account"], prefix="s_")
    await mesh.onboard(connection_name="Third", streams=["Account"], prefix="sandbox_")


def _patch(mesh: Mesh, connection: Json, **changes: Any) -> Awaitable[httpx.Response]:
    return mesh.orchestrator.patch(f"/connections/{connection['id']}", json=changes)


async def test_edit_to_a_table_of_another_connection_is_refused(mesh: Mesh) -> None:
    """By a prefix or a namespace; nothing is changed, and both sides are named."""
    mesh.airbyte.offers(offering(ACCOUNT))
    await mesh.onboard(connection_name="CRM", streams=["Account"])
    in_schema: Json = {"namespace_definition": "customformat", "namespace_format": "sandbox"}
    prefixed = await mesh.onboard(connection_name="A", streams=["Account"], prefix="s_")
    spaced = await mesh.onboard(connection_name="B", streams=["Account"], prefix=None, **in_schema)

    edits: list[tuple[Json, Json]] = [
        (prefixed, {"prefix": None}),
        (spaced, {"namespace_definition": "destination"}),
        (prefixed, {**in_schema, "prefix": ""}),
    ]
    problems = []
    for connection, changes in edits:
        answer = await _patch(mesh, connection, **changes)
        assert (answer.status_code, answer.json()["code"]) == (422, "destination_cannot_hold")
        problems.append(answer.json()["detail"])

    assert all("'Account' and 'Account' of the connection" in one for one in problems)
    assert ["'CRM'" in one for one in problems] == [True, True, False]
    assert mesh.airbyte.connections[prefixed["airbyte_connection_id"]]["prefix"] == "s_"
    assert (await _patch(mesh, prefixed, prefix="t_")).status_code == 200


async def test_edit_that_merges_tables_is_refused(mesh: Mesh) -> None:
    """Two streams with the same name that were distinct only by their namespaces."""
    two = [stream("Account", {"Id": "string"}, namespace=name) for name in ("east", "west")]
    mesh.airbyte.offers(catalog(*two))
    connection = await mesh.onboard(streams=None)

    answer = await _patch(mesh, connection, namespace_definition="destination")

    assert (answer.status_code, answer.json()["code"]) == (422, "destination_cannot_hold")
    assert "have one table in Postgres 3.0.14" in answer.json()["detail"]


async def test_edit_at_an_unknown_destination_is_noted(mesh: Mesh) -> None:
    """The effects name both sides."""
    mesh.airbyte.publish_version("dev", definition=POSTGRES)
    mesh.airbyte.offers(offering(ACCOUNT))
    await mesh.onboard(connection_name="CRM", streams=["Account"])
    other = await mesh.onboard(connection_name="Sandbox", streams=["Account"], prefix="s_")

    answer = await _patch(mesh, other, prefix="")

    assert answer.status_code == 200, answer.text
    effects = {one["code"]: one["message"] for one in answer.json()["effects"]}
    assert "'Account' of the connection 'CRM'" in effects["table_shared"]


@pytest.mark.parametrize("second", ["onboard", "edit"])
async def test_one_of_two_at_once_gets_the_table(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """Although neither has written it when the tables are compared."""
    mesh.airbyte.offers(offering(ACCOUNT))
    other = await mesh.onboard(connection_name="Sandbox", streams=["Account"], prefix="s_")
    compare, both = shared_tables, asyncio.Barrier(2)

    async def compared(*args: Any, **options: Any) -> Any:
        found = await compare(*args, **options)
        await both.wait()
        return found

    monkeypatch.setattr("services.orchestrator.destination_fit.shared_tables", compared)
    order = {**mesh.order, "streams": ["Account"]}

    answers = await asyncio.gather(
        mesh.orchestrator.post(PATH, json={**order, "connection_name": "A"}),
        _patch(mesh, other, prefix="")
        if second == "edit"
        else mesh.orchestrator.post(PATH, json={**order, "connection_name": "B"}),
    )

    (refused,) = [one for one in answers if one.status_code == 422]
    assert sum(one.is_success for one in answers) == 1
    assert refused.json()["code"] == "destination_cannot_hold"
    assert "are both written to the table" in refused.json()["detail"]
    written = [
        (one.get("prefix") or "", pair["stream"]["name"])
        for one in mesh.airbyte.connections.values()
        for pair in one["syncCatalog"]["streams"]
    ]
    assert sorted(written) == sorted(set(written))


async def test_namespace_format_needs_its_definition(mesh: Mesh) -> None:
    """422 before anything is recorded."""
    answer = await mesh.orchestrator.post(PATH, json={**mesh.order, "namespace_format": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "namespace_format_not_used")


@pytest.mark.parametrize("field, words", [("name", "'Name' and 'name'"), ("xmin", "'xmin'")])
async def test_callers_catalog_is_refused(mesh: Mesh, field: str, words: str) -> None:
    """A clash can be accepted, what Postgres refuses cannot."""
    mesh.airbyte.offers(offering({**ACCOUNT, field: "string"}))
    connection = await mesh.onboard(streams=["Account"])
    order = await discovered(mesh, connection)
    fine = deepcopy(order)
    config = next(
        one["config"]
        for one in order["sync_catalog"]["streams"]
        if one["stream"]["name"] == "Account"
    )
    config |= {"fieldSelectionEnabled": False, "selectedFields": []}

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (422, "destination_cannot_hold"), problem
    assert words in problem["detail"]
    status, applied = await apply(mesh, order | {"accept_clashes": True})
    assert status == (200 if field == "name" else 422), applied
    fine["expected_version"] = applied.get("version_number", fine["expected_version"])
    status, applied = await apply(mesh, fine)
    assert status == 200, applied


async def test_rollback_to_a_table_that_another_connection_has_now_is_refused(mesh: Mesh) -> None:
    """The stream was deselected, and another connection has written its table since."""
    mesh.airbyte.offers(offering(ACCOUNT))
    connection = await mesh.onboard(connection_name="CRM", streams=["Account", "Contact"])
    order = await discovered(mesh, connection)
    for pair in order["sync_catalog"]["streams"]:
        pair["config"]["selected"] = pair["stream"]["name"] == "Account"
    status, applied = await apply(mesh, order)
    assert status == 200, applied
    other = await mesh.onboard(connection_name="Contacts", streams=["Contact"], prefix=None)
    path = f"/connections/{connection['id']}/rollback"

    status, problem = await post(mesh, path, {"version": 1})

    assert (status, problem["code"]) == (422, "destination_cannot_hold"), problem
    assert "'Contact' of the connection 'Contacts'" in problem["detail"]
    assert (await _patch(mesh, other, prefix="c_")).status_code == 200
    status, repair = await post(mesh, path, {"version": 1})
    assert (status, repair["state"]) == (200, "applied"), repair


async def test_import_reports_shared_tables(mesh: Mesh) -> None:
    """An existing connection is imported all the same; the report names both streams."""
    mesh.airbyte.offers(offering(ACCOUNT))
    first = await mesh.onboard(connection_name="CRM", streams=["Account"])
    held = mesh.airbyte.connections[first["airbyte_connection_id"]]
    other = deepcopy(held) | {"connectionId": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4d", "name": "Old"}
    mesh.airbyte.connections[other["connectionId"]] = other

    answer = await mesh.orchestrator.post(
        "/connections/import", json={"airbyte_connection_id": other["connectionId"]}
    )

    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["items"]
    assert item["outcome"] == "imported"
    (shared,) = item["shared_tables"]
    assert shared["stream"]["name"] == "Account"
    assert "'CRM'" in shared["message"]
