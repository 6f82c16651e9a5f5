"""An Airbyte that is newer than AAM: what it has and AAM does not know is no typo."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.integration.applying import discovered
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until

Json = dict[str, Any]
NEWER = {"recordMapping": {"kind": "later"}}


def newer(account: Json) -> Json:
    """What the source offers, with a setting in each stream that is newer than AAM."""
    offered = deepcopy(offering(account))
    for pair in offered["streams"]:
        pair["config"] |= NEWER
    return offered


async def test_discovered_order_with_unknown_settings_can_be_applied(mesh: Mesh) -> None:
    """Another stream may be selected; a typo is refused as before."""
    mesh.airbyte.offers(newer(ACCOUNT))
    connection = await mesh.onboard()
    order = await discovered(mesh, connection, all="true", fresh="true")
    for pair in order["sync_catalog"]["streams"]:
        pair["config"]["selected"] = pair["stream"]["name"] != "Describe"
    wrong = deepcopy(order)
    wrong["sync_catalog"]["streams"][0]["config"]["selectd"] = False

    status, problem = await post(mesh, "/repair/apply_new_catalog", wrong)
    assert (status, problem["code"]) == (422, "unknown_setting")
    assert [one["field"] for one in problem["problems"]] == ["streams[0].config.'selectd'"]
    status, applied = await post(mesh, "/repair/apply_new_catalog", order)
    assert (status, applied["version_number"]) == (200, 2)


async def test_repair_keeps_unknown_settings(mesh: Mesh) -> None:
    """Also in the very stream that changes."""
    connection = await mesh.onboard()
    copied = deepcopy(mesh.airbyte.connections[connection["airbyte_connection_id"]])
    copied |= {"connectionId": "6c3f4e5d-0000-4000-8000-000000000001", "name": "by hand"}
    for pair in copied["syncCatalog"]["streams"]:
        pair["config"] |= NEWER
    mesh.airbyte.connections[copied["connectionId"]] = copied
    order = {"airbyte_connection_id": copied["connectionId"]}
    answer = await mesh.orchestrator.post("/connections/import", json=order)
    (report,) = answer.json()["items"]

    await drift(mesh, {"id": report["connection_id"]}, offering(ACCOUNT | {"Region__c": "string"}))

    await repairs_until(mesh, {"id": report["connection_id"]}, ["applied"])
    path = f"/connections/{report['connection_id']}/catalog-versions/2"
    version = (await mesh.orchestrator.get(path)).json()
    assert [pair["config"]["recordMapping"] for pair in version["streams"]] == [
        NEWER["recordMapping"]
    ] * 2
