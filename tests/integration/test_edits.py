"""Settings of a connection are changed in Airbyte and in the registry together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.auth.scopes import Scope
from tests import access
from tests.fakes.airbyte_server import AirbyteServer, Fault
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes
from tests.integration.refusing import deadline_passes
from tests.waiting import until

UPDATE = "connections/update"
OTHER = "AAMCANARY-other"
SECOND = {
    name.replace("SALESFORCE_PROD", "SALESFORCE_SECOND"): f"{value}-2"
    if name.endswith(("SECRET", "TOKEN"))
    else value
    for name, value in CREDENTIALS.items()
    if "SALESFORCE_PROD" in name
}

pytestmark = pytest.mark.exact


@pytest.fixture
async def mesh(airbyte: AirbyteServer, meshes: Meshes) -> AsyncIterator[Mesh]:
    """The services, with a second credential in the store."""
    async with meshes.start(
        airbyte, repairs=False, credentials=CREDENTIALS | SECOND, airbyte_timeout="4"
    ) as mesh:
        yield mesh


async def edit(mesh: Mesh, connection: dict[str, Any], **order: Any) -> httpx.Response:
    return await mesh.orchestrator.patch(
        f"/connections/{connection['id']}", json=order, params={"wait": 20}
    )


async def edited(mesh: Mesh, connection: dict[str, Any], **order: Any) -> dict[str, Any]:
    """The response's body; the request succeeds."""
    answer = await edit(mesh, connection, **order)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def held(mesh: Mesh, connection: dict[str, Any]) -> dict[str, Any]:
    """The connection as Airbyte holds it."""
    return mesh.airbyte.connections[connection["airbyte_connection_id"]]


async def history(mesh: Mesh, connection: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await mesh.orchestrator.get(f"/connections/{connection['id']}/history")
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_settings_are_changed_in_airbyte_and_recorded(mesh: Mesh) -> None:
    """One update with only what changes; the marker stays, and so does the catalog's version."""
    connection = await mesh.onboard()
    marker = held(mesh, connection)["name"].rpartition(" ")[2]
    catalog = held(mesh, connection)["syncCatalog"]

    body = await edited(
        mesh,
        connection,
        name="CRM",
        schedule={"units": 6, "time_unit": "hours"},
        description="For sales.",
        labels={"team": "sales"},
        by="Ada",
    )

    assert body["changed"] == {
        "description": {"from": None, "to": "For sales."},
        "labels": {"from": {}, "to": {"team": "sales"}},
        "name": {"from": "Salesforce production", "to": "CRM"},
        "schedule": {"from": None, "to": {"units": 6, "time_unit": "hours"}},
    }
    assert body["effects"] == []
    shown = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert body["connection"] == shown
    assert (shown["name"], shown["description"]) == ("CRM", "For sales.")
    assert (shown["labels"], shown["catalog_version"]) == ({"team": "sales"}, 1)
    assert held(mesh, connection)["name"] == f"CRM {marker}"
    assert held(mesh, connection)["scheduleData"] == {
        "basicSchedule": {"units": 6, "timeUnit": "hours"}
    }
    assert held(mesh, connection)["syncCatalog"] == catalog
    (sent,) = mesh.airbyte.called(UPDATE)
    assert set(sent) == {"connectionId", "name", "scheduleType", "scheduleData"}
    (entry,) = await history(mesh, connection)
    assert (entry["by"], entry["change"]) == ("Ada", body["changed"])
    assert entry["requested_by"].startswith("tests")
    operation = (await mesh.orchestrator.get(f"/operations/{body['operation_id']}")).json()
    assert (operation["kind"], operation["status"]) == ("edit", "done")
    event = (await mesh.events(2))[1]
    assert (event["type"], event["ref"]) == ("connection.edited", body["operation_id"])


async def test_same_settings_change_nothing(mesh: Mesh) -> None:
    """No operation, no event, no history; and no update is sent."""
    connection = await mesh.onboard()
    await edited(mesh, connection, prefix="crm_", labels={"a": "1"})

    body = await edited(
        mesh,
        connection,
        name="Salesforce production",
        prefix="crm_",
        schedule=None,
        labels={"a": "1", "b": None},
        description=None,
        paused=False,
        namespace_definition="source",
        credential_id="salesforce-prod",
    )

    assert (body["changed"], body["operation_id"]) == ({}, None)
    assert len(mesh.airbyte.called(UPDATE)) == 1
    assert len(await history(mesh, connection)) == 1
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations WHERE kind = 'edit'") == 1


async def test_schedule_and_description_are_removed_by_null(mesh: Mesh) -> None:
    """A label by null, too; the other labels stay."""
    schedule = {"cron": "0 0 6 * * ?", "time_zone": "Europe/Paris"}
    connection = await mesh.onboard(schedule=schedule)
    await edited(mesh, connection, description="x", labels={"a": "1", "b": "2"})

    body = await edited(mesh, connection, schedule=None, description=None, labels={"a": None})

    assert body["changed"]["schedule"] == {"from": schedule, "to": None}
    assert held(mesh, connection)["scheduleType"] == "manual"
    assert "scheduleData" not in held(mesh, connection)
    assert body["connection"]["description"] is None
    assert body["connection"]["labels"] == {"b": "2"}


async def test_other_tables_are_announced(mesh: Mesh) -> None:
    """With an effect; a format needs its definition, and the reverse."""
    connection = await mesh.onboard()
    body = await edited(mesh, connection, prefix="crm_")
    assert [one["code"] for one in body["effects"]] == ["new_tables"]
    assert held(mesh, connection)["prefix"] == "crm_"

    for order, code in (
        ({"namespace_definition": "customformat"}, "namespace_format_required"),
        ({"namespace_format": "x"}, "namespace_format_not_used"),
    ):
        refused = await edit(mesh, connection, **order)
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    both = {"namespace_definition": "customformat", "namespace_format": "${SOURCE_NAMESPACE}_x"}
    body = await edited(mesh, connection, **both)
    assert [one["code"] for one in body["effects"]] == ["new_tables"]
    assert both["namespace_format"] == held(mesh, connection)["namespaceFormat"]

    mesh.airbyte.start_job(connection["airbyte_connection_id"])
    refused = await edit(mesh, connection, prefix="")
    assert (refused.status_code, refused.json()["code"]) == (409, "sync_running")
    await edited(mesh, connection, description="Not about tables.")


@pytest.mark.parametrize(
    "order, code, named",
    [
        ({}, "empty_change", "no setting"),
        ({"by": "Ada"}, "empty_change", "no setting"),
        ({"prefiks": "x"}, "invalid_request", "'prefix'"),
        ({"name": None}, "invalid_request", "body.name"),
        ({"paused": "yes"}, "invalid_request", "body.paused"),
        ({"prefix": "a b"}, "invalid_request", "body.prefix"),
        ({"labels": {"Team": "x"}}, "invalid_request", "body.labels"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "invalid_request", "body.labels"),
        ({"schedule": {"cron": "x"}}, "invalid_request", "body.schedule"),
        ({"namespace_definition": "elsewhere"}, "invalid_request", "namespace_definition"),
        ({"name": "x [aam:1]"}, "invalid_request", "body.name"),
    ],
)
async def test_invalid_request_is_refused_by_name(
    mesh: Mesh, order: dict[str, Any], code: str, named: str
) -> None:
    connection = await mesh.onboard()
    before = dict(held(mesh, connection))

    refused = await edit(mesh, connection, **order)

    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert named in refused.json()["detail"]
    assert held(mesh, connection) == before


async def test_name_of_another_connection_is_refused(mesh: Mesh) -> None:
    """Before anything is sent; an archived connection's name is free."""
    one, other = await mesh.onboard(), await mesh.onboard(connection_name="Other")

    refused = await edit(mesh, one, name="Other")

    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert mesh.airbyte.called(UPDATE) == []
    await mesh.orchestrator.delete(f"/connections/{other['id']}")
    assert (await edited(mesh, one, name="Other"))["connection"]["name"] == "Other"


async def test_name_taken_meanwhile_is_undone(mesh: Mesh) -> None:
    """An onboarding takes the name while Airbyte hangs: 409, and Airbyte has the old name."""
    connection = await mesh.onboard()
    before = held(mesh, connection)["name"]
    mesh.airbyte.fault(UPDATE, "hang", after_effect=True)
    editing = asyncio.create_task(edit(mesh, connection, name="Wanted"))
    await until(lambda: mesh.airbyte.called(UPDATE))
    await mesh.sql.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " VALUES (gen_random_uuid(), 'Wanted', 'Salesforce', gen_random_uuid(), 'PENDING')"
    )
    mesh.airbyte.heal()

    answer = await editing

    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert held(mesh, connection)["name"] == before
    shown = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert shown["name"] == "Salesforce production"
    assert await history(mesh, connection) == []


async def test_archived_and_busy_connections_are_refused(mesh: Mesh) -> None:
    """409 as elsewhere, and 404 for an unknown one."""
    connection = await mesh.onboard()
    mesh.airbyte.fault(UPDATE, "hang", after_effect=True)
    first = await mesh.orchestrator.patch(
        f"/connections/{connection['id']}", json={"name": "A"}, params={"wait": 0}
    )
    assert first.status_code == 202
    busy = await edit(mesh, connection, description="x")
    assert (busy.status_code, busy.json()["code"]) == (409, "editing")
    assert busy.json()["operation_id"] == first.json()["operation_id"]
    mesh.airbyte.heal()
    await mesh.until_true("SELECT count(*) = 1 FROM connections WHERE name = 'A'")

    await mesh.orchestrator.delete(f"/connections/{connection['id']}")
    archived = await edit(mesh, connection, description="x")
    assert (archived.status_code, archived.json()["code"]) == (409, "not_active")
    unknown = await edit(mesh, {"id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"}, description="x")
    assert unknown.status_code == 404


async def test_key_repeats_the_answer(mesh: Mesh) -> None:
    """One effect; another body with the same key is refused."""
    connection = await mesh.onboard()
    path, key = f"/connections/{connection['id']}", {"Idempotency-Key": "edit-one-connection"}
    first = await mesh.orchestrator.patch(path, json={"prefix": "a_"}, headers=key)
    await edited(mesh, connection, prefix="b_")

    again = await mesh.orchestrator.patch(path, json={"prefix": "a_"}, headers=key)

    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert held(mesh, connection)["prefix"] == "b_"
    other = await mesh.orchestrator.patch(path, json={"prefix": "c_"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    "kind, after_effect", [("reset", True), ("reset", False), (500, True), (409, False)]
)
async def test_lost_answer_takes_effect_once(mesh: Mesh, kind: Any, after_effect: bool) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.fault(UPDATE, kind, after_effect=after_effect)

    body = await edited(mesh, connection, prefix="crm_")

    assert held(mesh, connection)["prefix"] == "crm_"
    assert len(mesh.airbyte.called(UPDATE)) == (1 if after_effect else 2)
    assert body["changed"] == {"prefix": {"from": "", "to": "crm_"}}
    assert len(await history(mesh, connection)) == 1


async def test_what_airbyte_does_not_keep_is_undone(mesh: Mesh) -> None:
    """502 where it reports success but has something else; 422 where it refuses."""
    connection = await mesh.onboard()
    before = dict(held(mesh, connection))
    refusals: list[tuple[Fault, int, str]] = [
        ("lie", 502, "upstream_mismatch"),
        (422, 422, "upstream_rejected"),
    ]
    for kind, status, code in refusals:
        mesh.airbyte.fault(UPDATE, kind)
        answer = await edit(mesh, connection, prefix="crm_", name="CRM")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert held(mesh, connection) == before
    shown = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert shown["name"] == "Salesforce production"
    assert await history(mesh, connection) == []


async def test_unavailable_airbyte_records_nothing(mesh: Mesh) -> None:
    """503; labels and descriptions are AAM's own, and need no Airbyte."""
    connection = await mesh.onboard()
    await mesh.airbyte.stop()

    refused = await edit(mesh, connection, prefix="crm_")
    assert refused.status_code == 503
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations WHERE kind = 'edit'") == 0
    body = await edited(mesh, connection, labels={"team": "crm"})
    assert body["connection"]["labels"] == {"team": "crm"}


# Pause and resume


async def test_person_pauses_and_resumes(mesh: Mesh) -> None:
    """The status is sent only if it changes; events, history and the connection name the person."""
    connection = await mesh.onboard()

    body = await edited(mesh, connection, paused=True, by="Ada")

    assert held(mesh, connection)["status"] == "inactive"
    assert body["connection"]["pause_requested_by"] == "Ada"
    assert body["changed"] == {"paused": {"from": False, "to": True}}
    refused = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_active")
    assert (await edited(mesh, connection, paused=True))["changed"] == {}
    await edited(mesh, connection, prefix="x_")
    assert [set(one) for one in mesh.airbyte.called(UPDATE)] == [
        {"connectionId", "status"},
        {"connectionId", "prefix"},
    ]

    body = await edited(mesh, connection, paused=False)

    assert held(mesh, connection)["status"] == "active"
    assert body["connection"]["pause_requested_by"] is None
    events = [(one["type"], one["code"]) for one in (await mesh.events(4))[1:]]
    assert events == [
        ("connection.paused", "requested"),
        ("connection.edited", ""),
        ("connection.resumed", "requested"),
    ]
    assert [one["change"].keys() for one in await history(mesh, connection)] == [
        {"paused"},
        {"prefix"},
        {"paused"},
    ]


async def test_pause_made_in_airbyte_can_be_taken_over(mesh: Mesh) -> None:
    """Nothing is sent; from then on it is a person's pause."""
    connection = await mesh.onboard()
    mesh.airbyte.disable(connection["airbyte_connection_id"], breaking=False)

    body = await edited(mesh, connection, paused=True, by="Ada")

    assert [one["code"] for one in body["effects"]] == ["pause_taken_over"]
    assert body["connection"]["pause_requested_by"] == "Ada"
    assert mesh.airbyte.called(UPDATE) == []


async def test_locked_connection_is_neither_paused_nor_resumed(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    held(mesh, connection)["status"] = "locked"
    for paused in (True, False):
        refused = await edit(mesh, connection, paused=paused)
        assert (refused.status_code, refused.json()["code"]) == (422, "connection_locked")
    assert mesh.airbyte.called(UPDATE) == []


async def test_ending_a_repairs_pause_needs_the_scope_of_decisions(mesh: Mesh) -> None:
    """403 without it, and the pause stays."""
    connection = await mesh.onboard()
    mesh.airbyte.disable(connection["airbyte_connection_id"], breaking=False)
    await mesh.sql.execute("UPDATE connections SET paused_by = gen_random_uuid()")
    repair = await mesh.sql.fetchval("SELECT paused_by FROM connections")
    key = await access.insert(mesh.sql, Scope.CONNECTIONS_WRITE)
    for paused in (False, True, False):
        refused = await mesh.orchestrator.patch(
            f"/connections/{connection['id']}",
            json={"paused": paused},
            headers={"Authorization": f"Bearer {key.key}"},
        )
        assert (refused.status_code, refused.json()["scope"]) == (403, "repairs:decide")
        assert held(mesh, connection)["status"] == "inactive"
    assert await mesh.sql.fetchval("SELECT paused_by FROM connections") == repair

    body = await edited(mesh, connection, paused=False)

    assert [one["code"] for one in body["effects"]] == ["repair_stays_open"]
    assert (body["connection"]["paused_by"], held(mesh, connection)["status"]) == (None, "active")


# Credentials


def configuration(mesh: Mesh, connection: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the connection's source in Airbyte."""
    found: dict[str, Any] = mesh.airbyte.sources[connection["airbyte_source_id"]][
        "connectionConfiguration"
    ]
    return found


async def test_credential_is_checked_and_then_replaced(mesh: Mesh) -> None:
    """In place; a rotation of the new credential finds it unchanged, and nothing is leaked."""
    connection = await mesh.onboard()

    body = await edited(mesh, connection, credential_id="salesforce-second")

    assert body["changed"] == {
        "credential_id": {"from": "salesforce-prod", "to": "salesforce-second"}
    }
    secret = SECOND["CREDENTIAL_SALESFORCE_SECOND__CLIENT_SECRET"]
    assert configuration(mesh, connection)["client_secret"] == secret
    assert secret not in str(body)
    assert body["connection"]["credential_id"] == "salesforce-second"
    paths = [one.path for one in mesh.airbyte.requests if one.path.startswith("sources/")]
    assert paths.index("sources/check_connection_for_update") < paths.index("sources/update")
    rotated = await mesh.orchestrator.post("/credentials/salesforce-second/rotate")
    assert [one["outcome"] for one in rotated.json()["connections"]] == ["unchanged"]
    rows = await mesh.sql.fetch("SELECT o::text FROM operations o")
    assert not [row for row in rows if secret in row[0]]


async def test_failed_check_changes_nothing(mesh: Mesh) -> None:
    """422 with the cause; the other settings of the request are not changed either."""
    connection = await mesh.onboard()
    before, source = dict(held(mesh, connection)), dict(configuration(mesh, connection))
    mesh.airbyte.fail_check("invalid_grant: expired")

    refused = await edit(mesh, connection, credential_id="salesforce-second", prefix="x_")

    assert (refused.status_code, refused.json()["code"]) == (422, "check_failed")
    assert refused.json()["cause"] == "authentication_failed"
    assert held(mesh, connection) == before
    assert configuration(mesh, connection) == source
    assert mesh.airbyte.called("sources/update") == []
    shown = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert shown["credential_id"] == "salesforce-prod"
    unknown = await edit(mesh, connection, credential_id="not-there")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "credential_not_found")


async def test_refused_source_restores_the_settings(mesh: Mesh) -> None:
    """Airbyte refuses the new configuration after the check: the prefix is as before."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("sources/update", 422)

    refused = await edit(mesh, connection, credential_id="salesforce-second", prefix="x_")

    assert (refused.status_code, refused.json()["code"]) == (422, "upstream_rejected")
    assert (held(mesh, connection).get("prefix") or "") == ""
    assert await history(mesh, connection) == []


@pytest.mark.parametrize("refused_path", ["sources/update", UPDATE])
async def test_credential_renewed_by_the_check_is_recorded(mesh: Mesh, refused_path: str) -> None:
    """Airbyte has stored it with the check, so it stays, whichever later step is refused."""
    connection = await mesh.onboard()
    mesh.airbyte.renew_on_check(refresh_token="renewed")
    mesh.airbyte.fault(refused_path, 422)

    refused = await edit(mesh, connection, credential_id="salesforce-second", prefix="x_")

    assert (refused.status_code, refused.json()["code"]) == (422, "upstream_rejected")
    assert (held(mesh, connection).get("prefix") or "") == ""
    await expect_second_credential(mesh, connection)
    assert configuration(mesh, connection)["refresh_token"] == "renewed"


async def test_credential_is_recorded_though_its_operation_fails(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response was lost, and Airbyte could not show the source until the deadline."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("sources/update", "reset", after_effect=True)
    editing = asyncio.create_task(
        edit(mesh, connection, credential_id="salesforce-second", prefix="x_")
    )
    await until(lambda: mesh.airbyte.called("sources/update"))
    mesh.airbyte.fault("sources/get", 500, times=None)
    await deadline_passes(mesh, "edit", monkeypatch)
    mesh.airbyte.heal()

    assert (await editing).status_code == 504

    assert (held(mesh, connection).get("prefix") or "") == ""
    await expect_second_credential(mesh, connection)
    assert len(mesh.airbyte.called("sources/update")) == 1


async def expect_second_credential(mesh: Mesh, connection: dict[str, Any]) -> None:
    """The registry has the second credential, and the source what is stored of it."""
    shown = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    assert shown["credential_id"] == "salesforce-second"
    (entry,) = await history(mesh, connection)
    assert list(entry["change"]) == ["credential_id"]
    rotated = await mesh.orchestrator.post("/credentials/salesforce-second/rotate")
    assert [one["outcome"] for one in rotated.json()["connections"]] == ["unchanged"]


async def test_settings_are_restored_though_airbyte_is_away_meanwhile(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have been changed: the response was lost, and Airbyte is away past the deadline."""
    connection = await mesh.onboard()
    read = "connections/get"
    mesh.airbyte.fault(UPDATE, "reset", after_effect=True)
    mesh.airbyte.fault(read, 500, times=None, skip=2)
    editing = asyncio.create_task(edit(mesh, connection, prefix="x_"))
    await deadline_passes(mesh, "edit", monkeypatch)
    await mesh.until_true("SELECT status = 'undoing' AND step = 'undo' AND waits_for IS NOT NULL"
                          " FROM operations WHERE kind = 'edit'")  # fmt: skip
    mesh.airbyte.heal()

    assert (await editing).status_code == 504
    assert (held(mesh, connection).get("prefix") or "") == ""


async def test_shared_or_imported_source_keeps_its_credential(mesh: Mesh) -> None:
    """409 where another connection would get it, too; 422 where AAM did not create the source."""
    connection = await mesh.onboard()
    source_id = connection["airbyte_source_id"]
    await mesh.sql.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_source_id,"
        " airbyte_connection_id, airbyte_destination_id, status, catalog_version, imported)"
        " SELECT gen_random_uuid(), 'shares', source_type, airbyte_source_id, gen_random_uuid(),"
        " airbyte_destination_id, 'FAILED', 0, true FROM connections"
    )
    refused = await edit(mesh, connection, credential_id="salesforce-second")
    assert (refused.status_code, refused.json()["code"]) == (409, "source_shared")
    assert len(refused.json()["connection_ids"]) == 1

    await mesh.sql.execute("UPDATE connections SET imported = true")
    refused = await edit(mesh, connection, credential_id="salesforce-second")
    assert (refused.status_code, refused.json()["code"]) == (422, "source_not_managed")
    assert mesh.airbyte.sources[source_id]["connectionConfiguration"]["client_id"]


# Destinations


async def test_destinations_are_listed_without_their_configurations(mesh: Mesh) -> None:
    """By name, in pages; with the connector's name and version."""
    for name in ("beta", "Alpha", "alpha"):
        mesh.airbyte.add_destination(name, password="AAMCANARY-destination")
    first = (await mesh.orchestrator.get("/destinations", params={"limit": 3})).json()
    assert [one["name"].casefold() for one in first["items"]] == ["alpha", "alpha", "beta"]
    assert first["items"][0]["type"] == "Postgres"
    assert first["items"][0]["version"]
    second = (await mesh.orchestrator.get("/destinations", params={"after": first["next"]})).json()
    assert [one["name"] for one in second["items"]] == ["Warehouse"]
    assert second["next"] is None
    assert "AAMCANARY" not in f"{first}{second}"
    refused = await mesh.orchestrator.get(
        "/destinations", params={"after": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_cursor")


async def test_onboarding_names_a_destination(mesh: Mesh) -> None:
    """By id or unique name; an ambiguous name has candidates, an unknown one the nearest."""
    lake = mesh.airbyte.add_destination("Lake")["destinationId"]
    twice = [mesh.airbyte.add_destination("Twice")["destinationId"] for _ in range(2)]
    for number, given in enumerate(("Lake", "lake", lake)):
        connection = await mesh.onboard(destination=given, connection_name=f"to lake {number}")
        assert connection["airbyte_destination_id"] == lake
    path = "/connections/onboard"

    ambiguous = await mesh.orchestrator.post(path, json={**mesh.order, "destination": "Twice"})
    assert (ambiguous.status_code, ambiguous.json()["code"]) == (422, "ambiguous_destination")
    assert {one["id"] for one in ambiguous.json()["candidates"]} == set(twice)
    unknown = await mesh.orchestrator.post(path, json={**mesh.order, "destination": "Warehous"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_destination")
    assert "'Warehouse'" in unknown.json()["detail"]
    both = await mesh.orchestrator.post(
        path, json={**mesh.order, "destination": "Lake", "destination_id": lake}
    )
    assert (both.status_code, both.json()["code"]) == (422, "one_destination")
    assert (await mesh.onboard())["airbyte_destination_id"] != lake
