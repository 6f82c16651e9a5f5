"""A refused read after a change was sent says nothing about the change: AAM reads again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import GREW, apply, discovered, seen, streams_in_airbyte
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.refusing import refuse_read_back
from tests.integration.repairing import approve, upstream

pytestmark = pytest.mark.exact

Json = dict[str, Any]
UPDATE = "connections/update"
FAILED = "SELECT count(*) FROM operations WHERE status = 'failed'"


@pytest.mark.parametrize("is_late, status", [(True, 403), (True, 422), (False, 403)])
async def test_catalog_that_takes_effect_late_is_recorded(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, is_late: bool, status: int
) -> None:
    """The connection is not ACTIVE at the version before while Airbyte still acts on the update."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(GREW)
    order = await discovered(mesh, connection)
    if is_late:
        mesh.airbyte.fault(UPDATE, "late", seconds=0.2)
    refuse_read_back(monkeypatch, mesh, "update_connection", status=status)

    answered, applied = await apply(mesh, order)

    assert (answered, applied.get("version_number")) == (200, 2), applied
    assert (
        "Region__c"
        in streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
    )
    assert len(mesh.airbyte.called(UPDATE)) == 1


@pytest.mark.parametrize("is_late", [True, False])
async def test_pause_that_takes_effect_is_the_repairs(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """So that its approval ends the pause."""
    connection = await mesh.onboard()
    if is_late:
        mesh.airbyte.fault(UPDATE, "late", seconds=0.2)
    refuse_read_back(monkeypatch, mesh, "set_status")

    await drift(mesh, connection, offering(ACCOUNT, cursor=None))

    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    await mesh.until_true("SELECT ended_at IS NOT NULL FROM operations WHERE kind = 'pause'")
    assert (await seen(mesh, connection))["paused_by"] == repair["id"]
    assert await mesh.sql.fetchval(FAILED) == 0
    assert (await approve(mesh, repair))[0] == 200
    assert upstream(mesh, connection)["status"] == "active"


@pytest.mark.parametrize("is_late", [True, False])
async def test_settings_that_take_effect_are_recorded(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """They are not left changed in Airbyte alone."""
    connection = await mesh.onboard()
    if is_late:
        mesh.airbyte.fault(UPDATE, "late", seconds=0.2)
    refuse_read_back(monkeypatch, mesh, "update_settings")

    answer = await mesh.orchestrator.patch(
        f"/connections/{connection['id']}", json={"paused": True, "by": "Ada"}
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["connection"]["pause_requested_by"] == "Ada"
    assert upstream(mesh, connection)["status"] == "inactive"
    assert len(mesh.airbyte.called(UPDATE)) == 1


async def test_credential_that_the_source_has_is_recorded(
    meshes: Meshes, airbyte: AirbyteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source is not left with another credential than the connection names."""
    second = {
        name.replace("SALESFORCE_PROD", "SALESFORCE_SECOND"): value
        for name, value in CREDENTIALS.items()
        if "SALESFORCE_PROD" in name
    }
    async with meshes.start(airbyte, credentials=CREDENTIALS | second) as mesh:
        connection = await mesh.onboard()
        refuse_read_back(monkeypatch, mesh, "update_source", path="sources/get")

        answer = await mesh.orchestrator.patch(
            f"/connections/{connection['id']}", json={"credential_id": "salesforce-second"}
        )

        assert answer.status_code == 200, answer.text
        assert (await seen(mesh, connection))["credential_id"] == "salesforce-second"
        assert len(airbyte.called("sources/update")) == 1


async def test_upgrade_that_takes_effect_is_recorded(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await mesh.onboard(streams=["Account"])
    mesh.airbyte.publish_version("3.0.0", breaking=True)
    path = "actor_definition_versions/get_for_source"
    refuse_read_back(monkeypatch, mesh, "upgrade_source_version", path=path)

    answer = await mesh.drift_repair_agent.post(
        f"/connections/{connection['id']}/connector/upgrade", json={}
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["connector_step"]["to_version"] == "3.0.0"
