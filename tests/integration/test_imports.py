"""Importing connections that were created in Airbyte: one at once, a workspace by an operation."""

from __future__ import annotations

from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer
from tests.integration.conftest import Mesh, empty
from tests.waiting import until

KEY = "import-of-the-workspace"


def add_by_hand(airbyte: AirbyteServer, connection: dict[str, Any], name: str) -> dict[str, Any]:
    """A connection that somebody made in Airbyte's pages."""
    source = airbyte.add_source(f"source of {name}")
    held = deepcopy(airbyte.connections[connection["airbyte_connection_id"]])
    held |= {"connectionId": str(uuid4()), "sourceId": source["sourceId"], "name": name}
    airbyte.connections[held["connectionId"]] = held
    return held


async def test_import_takes_over_an_existing_connection(mesh: Mesh) -> None:
    """Version 1 is Airbyte's catalog; repairs and syncs work; archiving leaves it in Airbyte."""
    held = add_by_hand(mesh.airbyte, await mesh.onboard(), "by hand")
    order = {"airbyte_connection_id": held["connectionId"]}

    dry = await mesh.orchestrator.post("/connections/import", json={**order, "dry_run": True})
    assert [one["outcome"] for one in dry.json()["items"]] == ["would_import"]
    imported = await mesh.orchestrator.post("/connections/import", json=order)
    assert imported.status_code == 200, imported.text
    again = await mesh.orchestrator.post("/connections/import", json=order)
    assert (again.status_code, again.json()["code"]) == (409, "already_managed")

    (item,) = imported.json()["items"]
    path = f"/connections/{item['connection_id']}"
    view = (await mesh.orchestrator.get(path)).json()
    assert (view["status"], view["catalog_version"], view["imported"]) == ("ACTIVE", 1, True)
    assert (await mesh.orchestrator.post(f"{path}/sync")).status_code == 202
    (version,) = (await mesh.orchestrator.get(f"{path}/catalog-versions")).json()["items"]
    assert version["origin"] == "import"

    assert (await mesh.orchestrator.delete(path)).status_code == 204
    assert held["connectionId"] in mesh.airbyte.connections
    assert held["sourceId"] in mesh.airbyte.sources


async def imported(mesh: Mesh, **order: Any) -> dict[str, Any]:
    """The report of a workspace's import."""
    answer = await mesh.orchestrator.post("/connections/import", json=order)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    assert report["status"] == "done"
    return report


def outcomes_of(report: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    """The outcome and the code of each Airbyte connection."""
    return {
        one["airbyte_connection_id"]: (one["outcome"], one.get("code")) for one in report["items"]
    }


async def test_workspace_import_is_a_dry_run_by_default(mesh: Mesh) -> None:
    """Each connection with its outcome, and with the reason where it cannot be imported."""
    ours = await mesh.onboard()
    good = add_by_hand(mesh.airbyte, ours, "good")
    empty = add_by_hand(mesh.airbyte, ours, "empty")
    empty["syncCatalog"] = {"streams": []}

    dry = await imported(mesh)
    assert outcomes_of(dry) == {
        ours["airbyte_connection_id"]: ("already_managed", None),
        good["connectionId"]: ("would_import", None),
        empty["connectionId"]: ("not_importable", "no_selected_stream"),
    }
    assert dry["outcomes"] == {"already_managed": 1, "not_importable": 1, "would_import": 1}
    assert (dry["dry_run"], dry["workspace_id"]) == (True, WORKSPACE_ID)
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 1

    real = await imported(mesh, dry_run=False)
    assert outcomes_of(real)[good["connectionId"]] == ("imported", None)
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 2
    again = await imported(mesh, dry_run=False)
    assert again["outcomes"] == {"already_managed": 2, "not_importable": 1}


async def test_report_is_paged_and_filtered_by_outcome(mesh: Mesh) -> None:
    ours = await mesh.onboard()
    copies = [add_by_hand(mesh.airbyte, ours, f"copy {number}") for number in range(3)]
    path = f"/imports/{(await imported(mesh))['operation_id']}"

    first = (await mesh.orchestrator.get(path, params={"limit": 2})).json()
    rest = (await mesh.orchestrator.get(path, params={"limit": 2, "after": first["next"]})).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (2, 2, None)
    seen = {one["airbyte_connection_id"] for one in first["items"] + rest["items"]}
    assert seen == set(mesh.airbyte.connections)
    filtered = (await mesh.orchestrator.get(path, params={"outcome": "would_import"})).json()
    assert {one["airbyte_connection_id"] for one in filtered["items"]} == {
        copy["connectionId"] for copy in copies
    }
    assert (await mesh.orchestrator.get(f"/imports/{uuid4()}")).status_code == 404


@pytest.mark.exact
async def test_failed_import_does_not_block_the_others(mesh: Mesh) -> None:
    """It is reported with the reason, and another import processes it again."""
    ours = await mesh.onboard()
    for number in range(3):
        add_by_hand(mesh.airbyte, ours, f"copy {number}")
    mesh.airbyte.fault("sources/get", 403, times=1)

    report = await imported(mesh, dry_run=False)
    assert report["outcomes"] == {"already_managed": 1, "failed": 1, "imported": 2}
    (failed,) = (one for one in report["items"] if one["outcome"] == "failed")
    assert failed["code"] == "upstream_auth"
    assert (await imported(mesh, dry_run=False))["outcomes"] == {
        "already_managed": 3,
        "imported": 1,
    }


@pytest.mark.exact
async def test_import_waits_while_airbyte_is_unavailable(mesh: Mesh) -> None:
    """It is not counted against a connection; a second import of the workspace is refused."""
    ours = await mesh.onboard()
    add_by_hand(mesh.airbyte, ours, "by hand")
    mesh.airbyte.fault("connections/get", 503, times=None)
    mesh.airbyte.fault("health", 503, times=None)
    headers = {"Idempotency-Key": KEY}

    answer = await mesh.orchestrator.post(
        "/connections/import?wait=0", json={"dry_run": False}, headers=headers
    )
    assert answer.status_code == 202, answer.text
    operation_id = answer.json()["operation_id"]
    other = await mesh.orchestrator.post("/connections/import", json={})
    assert (other.status_code, other.json()["code"]) == (409, "import_running")
    assert other.json()["operation_id"] == operation_id
    await mesh.until_true("SELECT waits_for IS NOT NULL FROM operations WHERE kind = 'import'")
    pending = (await mesh.orchestrator.get(f"/imports/{operation_id}")).json()
    assert (pending["status"], pending["outcomes"]) == ("running", {"pending": 2})
    view = (await mesh.orchestrator.get(f"/operations/{operation_id}")).json()
    assert (view["kind"], view.get("connection_id")) == ("import", None)

    mesh.airbyte.heal()

    async def ended() -> bool:
        report = (await mesh.orchestrator.get(f"/imports/{operation_id}")).json()
        return bool(report["status"] == "done")

    await until(ended, within=60)
    repeated = await mesh.orchestrator.post(
        "/connections/import", json={"dry_run": False}, headers=headers
    )
    assert repeated.headers["idempotency-replayed"] == "true"
    assert repeated.json()["outcomes"] == {"already_managed": 1, "imported": 1}
    assert repeated.json()["operation_id"] == operation_id


async def test_import_of_an_unknown_workspace_fails_with_a_reason(mesh: Mesh) -> None:
    answer = await mesh.orchestrator.post(
        "/connections/import", json={"workspace_id": str(uuid4())}
    )
    assert answer.status_code in (404, 422, 502), answer.text
    assert answer.json()["operation_id"]
    assert "connection_id" not in answer.json()


async def test_import_of_an_unknown_connection_is_422(mesh: Mesh) -> None:
    answer = await mesh.orchestrator.post(
        "/connections/import", json={"airbyte_connection_id": str(uuid4())}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_airbyte_connection")
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0


async def test_adoption_takes_back_what_aam_created(mesh: Mesh) -> None:
    """A registry that does not know a connection any more manages it as before, and only such."""
    ours = await mesh.onboard()
    by_hand = add_by_hand(mesh.airbyte, ours, "by hand")
    await empty(mesh.sql)

    dry = await imported(mesh, adopt=True)
    assert outcomes_of(dry) == {
        ours["airbyte_connection_id"]: ("would_import", None),
        by_hand["connectionId"]: ("not_importable", "not_created_by_aam"),
    }
    real = await imported(mesh, adopt=True, dry_run=False)
    (item,) = [one for one in real["items"] if one["outcome"] == "imported"]
    path = f"/connections/{item['connection_id']}"
    view = (await mesh.orchestrator.get(path)).json()
    assert (view["name"], view["imported"], view["credential_id"]) == (ours["name"], False, None)

    given = await mesh.orchestrator.patch(path, json={"credential_id": ours["credential_id"]})
    assert given.status_code == 200, given.text
    assert given.json()["connection"]["credential_id"] == ours["credential_id"]
    assert (await mesh.orchestrator.delete(path)).status_code == 204
    assert ours["airbyte_connection_id"] not in mesh.airbyte.connections
    assert list(mesh.airbyte.sources) == [by_hand["sourceId"]]
