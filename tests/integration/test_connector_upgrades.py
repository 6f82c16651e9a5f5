"""Upgrades of connectors across breaking changes, and the announcement of their deadlines."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import pytest

from local.airbyte.api import reads
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, offering, post, repairs, repairs_until
from tests.integration.repairing import approve, fields
from tests.integration.states import KEY, opened
from tests.waiting import until

Json = dict[str, Any]
SENT = "sources/upgrade_version"
READ = "actor_definition_versions/get_for_source"
SAVED: Json = {"put_back": [], "not_put_back": []}
RENAMED = {"Id": "string", "Name": "string", "AnnualRevenueAmount": "number"}


async def upgrade(mesh: Mesh, connection: Json, **headers: str) -> tuple[int, Json]:
    """Upgrade the connector of a connection's source; return status and body."""
    path = f"/connections/{connection['id']}/connector/upgrade"
    return await post(mesh, path, {"by": "Ada", "reason": "The deadline."}, **headers)


async def published(mesh: Mesh, **catalog: Any) -> Json:
    """Onboard a connection, and publish a version with a breaking change."""
    connection = await mesh.onboard(streams=["Account"])
    mesh.airbyte.publish_version("3.0.0", breaking=True, **catalog)
    return connection


def runs(mesh: Mesh, connection: Json) -> str:
    """Return the version that the connection's source runs in Airbyte."""
    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    return mesh.airbyte.actor_version("source", source).tag


async def test_upgrade_leads_to_a_verified_heal(meshes: Meshes, airbyte: AirbyteServer) -> None:
    """Upgrade, drift with its step, plan; a person approves the rename, and the catalog follows."""
    async with meshes.start(airbyte, state_encryption_keys=KEY) as mesh:
        await _upgrade_and_heal(mesh)


async def _upgrade_and_heal(mesh: Mesh) -> None:
    connection = await published(mesh, offers=offering(RENAMED))
    mesh.airbyte.jobs_end_with("succeeded", polls=1, records=5)
    await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    await mesh.jobs_until_end(connection["id"])

    status, upgraded = await upgrade(mesh, connection)

    assert status == 200, upgraded
    step = upgraded["connector_step"]
    assert (step["from_version"], step["to_version"]) == ("2.10.3", "3.0.0")
    assert [one["version"] for one in step["breaking_changes"]] == ["3.0.0"]
    assert upgraded["observation"] == {"outcome": "changed", "code": None}
    assert (upgraded["by"], upgraded["catalog_version"]) == ("Ada", 1)
    assert runs(mesh, connection) == "3.0.0"
    drift = (await mesh.schema_observer.get(f"/drifts/{upgraded['drift_id']}")).json()
    assert drift["connector_step"] == step
    (repair,) = await until(lambda: repairs(mesh, connection, state="proposed"))
    assert (repair["drift_id"], repair["connector_step"]) == (upgraded["drift_id"], step)
    removed = next(one for one in repair["changes"] if one["kind"] == "field_removed")
    choice = {removed["id"]: {"became": ["AnnualRevenueAmount"], "continuity": "new_column"}}
    status, approved = await approve(mesh, repair, choices=choice)
    assert (status, approved["state"]) == (200, "applied"), approved
    assert fields(mesh, connection) == {*RENAMED, "SystemModstamp"}
    assert upgraded["sync_state"] == {**SAVED, "saved": True, "not_saved": None}
    query = "SELECT * FROM stream_states WHERE kind = 'upgrade'"
    (saved,) = await mesh.sql.fetch(query)
    assert (saved["connector_version"], saved["catalog_version"]) == ("2.10.3", 1)
    assert saved["operation_id"] == UUID(upgraded["operation_id"])
    held = mesh.airbyte.states[connection["airbyte_connection_id"]]
    assert orjson.loads(opened(saved)) == {
        "stateType": "stream",
        "connectionId": connection["airbyte_connection_id"],
        "streamState": held,
    }
    types = [one["type"] for one in await mesh.events(5)]
    assert types.index("connector.changed") < types.index("connector.upgraded")


async def test_policy_heals_what_it_may_after_an_upgrade(mesh: Mesh) -> None:
    """Without a person, since a new field is harmless."""
    grown = ACCOUNT | {"Region__c": "string"}
    connection = await published(mesh, offers=offering(grown))

    status, upgraded = await upgrade(mesh, connection)

    assert status == 200, upgraded
    (healed,) = await repairs_until(mesh, connection, ["applied"])
    assert healed["connector_step"] == upgraded["connector_step"]
    assert fields(mesh, connection) == {*grown, "SystemModstamp"}


@pytest.mark.exact
async def test_nothing_to_upgrade_is_refused(mesh: Mesh) -> None:
    """Neither without a newer version nor with one that has no breaking change."""
    connection = await mesh.onboard()
    for tag in (None, "2.11.0"):
        if tag is not None:
            mesh.airbyte.publish_version(tag)
        status, refused = await upgrade(mesh, connection)
        assert (status, refused["code"]) == (409, "nothing_to_upgrade")
    assert mesh.airbyte.called(SENT) == []
    assert not await mesh.sql.fetchval("SELECT count(*) FROM operations WHERE kind = 'upgrade'")


@pytest.mark.exact
async def test_pinned_source_is_not_upgraded(mesh: Mesh) -> None:
    """Airbyte is not asked: it would answer 500."""
    connection = await published(mesh)
    mesh.airbyte.pin(connection["airbyte_source_id"], "2.10.3")

    status, refused = await upgrade(mesh, connection)

    assert (status, refused["code"]) == (409, "connector_pinned")
    assert mesh.airbyte.called(SENT) == []


@pytest.mark.exact
async def test_source_that_is_pinned_meanwhile_is_told_apart(mesh: Mesh) -> None:
    """Airbyte's 500 is understood by what the source runs afterwards."""
    connection = await published(mesh)
    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    definition = mesh.airbyte.definitions("source")[0]
    version = mesh.airbyte.actor_version("source", source)
    read = reads.actor_version(definition, version, mesh.airbyte.release)
    mesh.airbyte.pin(connection["airbyte_source_id"], "2.10.3")
    mesh.airbyte.answer(READ, read, effect=False)

    status, refused = await upgrade(mesh, connection)

    assert (status, refused["code"]) == (409, "connector_pinned")
    assert len(mesh.airbyte.called(SENT)) == 1
    assert runs(mesh, connection) == "2.10.3"
    view = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert view["status"] == "ACTIVE"


@pytest.mark.exact
async def test_pin_of_a_rollout_is_refused_after_three_attempts(mesh: Mesh) -> None:
    """Airbyte does not show such a pin; only the 500 says that the source is not upgraded."""
    connection = await published(mesh)
    mesh.airbyte.pin(connection["airbyte_source_id"], "2.10.3", by="connector_rollout")

    status, refused = await upgrade(mesh, connection)

    assert (status, refused["code"]) == (422, "connector_upgrade_refused")
    assert len(mesh.airbyte.called(SENT)) == 3


@pytest.mark.exact
@pytest.mark.parametrize("after_effect, sent", [(True, 1), (False, 2)])
async def test_lost_answer_is_settled_by_the_version(
    mesh: Mesh, after_effect: bool, sent: int
) -> None:
    """An upgrade that took effect is not sent again."""
    connection = await published(mesh)
    mesh.airbyte.fault(SENT, "reset", after_effect=after_effect)

    status, upgraded = await upgrade(mesh, connection)

    assert status == 200, upgraded
    assert len(mesh.airbyte.called(SENT)) == sent
    assert runs(mesh, connection) == "3.0.0"


async def test_upgrade_waits_for_no_sync(mesh: Mesh) -> None:
    """A running sync would go on with the old catalog and the new version."""
    connection = await published(mesh)
    mesh.airbyte.start_job(connection["airbyte_connection_id"])

    status, refused = await upgrade(mesh, connection)

    assert (status, refused["code"]) == (409, "sync_running")
    assert runs(mesh, connection) == "2.10.3"


async def test_same_key_upgrades_once(mesh: Mesh) -> None:
    """The repetition gets the same response."""
    connection = await published(mesh)
    first = await upgrade(mesh, connection, idempotency_key="upgrade-0123456789")
    second = await upgrade(mesh, connection, idempotency_key="upgrade-0123456789")

    assert first[0] == 200
    assert second == first


async def test_upgrade_does_not_need_the_observer(meshes: Meshes, airbyte: AirbyteServer) -> None:
    """The response says why the source was not observed; the schedule observes it later."""
    async with meshes.start(airbyte, schema_observer_url="http://127.0.0.1:9") as mesh:
        connection = await published(mesh)
        status, upgraded = await upgrade(mesh, connection)
        assert status == 200, upgraded
        code = "upstream_unreachable"
        assert upgraded["observation"] == {"outcome": None, "code": code}
        assert upgraded["drift_id"] is None


async def test_deadline_is_announced_once(mesh: Mesh) -> None:
    """When it is nearer than UPGRADE_NOTICE; a new deadline is announced again."""
    connection = await mesh.onboard()
    mesh.airbyte.publish_version("3.0.0", breaking=True, days=30)
    await checked(mesh)
    assert await announced(mesh) == []

    near = mesh.airbyte.publish_version("4.0.0", breaking=True, days=5)["upgradeDeadline"]
    await checked(mesh)
    await mesh.until_true("SELECT announced_deadline IS NOT NULL FROM source_connectors")
    await checked(mesh)
    assert await announced(mesh) == [near]

    nearer = mesh.airbyte.publish_version("5.0.0", breaking=True, days=3)["upgradeDeadline"]
    await checked(mesh)
    await mesh.until_true("SELECT announced_deadline = deadline FROM source_connectors")
    assert await announced(mesh) == [near, nearer]
    shown = await mesh.schema_observer.get(f"/connections/{connection['id']}/connector")
    assert shown.json()["deadline"] == nearer


async def checked(mesh: Mesh) -> None:
    """Have the versions of all sources checked now."""
    before = await mesh.sql.fetchval("UPDATE source_connectors SET next_at = now() RETURNING now()")
    await mesh.until_true(
        "SELECT bool_and(checked_at > $1 AND next_at > now()) FROM source_connectors", before
    )


async def announced(mesh: Mesh) -> list[str]:
    """Return the deadlines that were announced, in order."""
    rows = await mesh.sql.fetch(
        "SELECT code FROM events WHERE type = 'connector.upgrade_due' ORDER BY id"
    )
    return [row["code"] for row in rows]


async def test_webhook_gets_the_deadline(meshes: Meshes, airbyte: AirbyteServer) -> None:
    """If it subscribes to it, with the breaking changes and their migration guides."""
    async with meshes.start(airbyte, webhook_signing_key="s" * 40) as mesh:
        connection = await mesh.onboard()
        orders: list[Json] = [{}, {"events": ["connector.upgrade_due"]}]
        for order in orders:
            answer = await mesh.drift_repair_agent.post(
                "/webhooks", json={"url": "http://127.0.0.1:1/", **order}
            )
            assert answer.status_code == 201, answer.text
        change = mesh.airbyte.publish_version("3.0.0", breaking=True, days=5)
        await checked(mesh)
        await mesh.until_true("SELECT announced_deadline IS NOT NULL FROM source_connectors")
        (delivery,) = await mesh.sql.fetch("SELECT * FROM webhook_deliveries")

    assert str(delivery["webhook_id"]) == answer.json()["id"]
    message = orjson.loads(delivery["body"])
    data = message["data"]
    assert (message["type"], data["connection_id"]) == ("connector.upgrade_due", connection["id"])
    assert (data["version"], data["deadline"]) == ("2.10.3", change["upgradeDeadline"])
    (upcoming,) = data["upcoming_breaking_changes"]
    assert upcoming["guide"] == change["migrationDocumentationUrl"]
