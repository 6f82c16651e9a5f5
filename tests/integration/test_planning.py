"""Planning: what becomes of a change, with and without suggestions of the rag_engine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest

from local.processes import servers
from services.drift_repair_agent import main as drift_repair_agent
from services.rag_engine import main as rag_engine
from shared.config import RagEngineSettings
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import seen, streams_in_airbyte
from tests.integration.conftest import (
    Mesh,
    Meshes,
    as_service,
    serving,
)
from tests.integration.drifting import (
    ACCOUNT,
    drift,
    offering,
    planned,
    post,
    repairs,
    repairs_until,
)
from tests.integration.repairing import approve, fields, nothing_was_reset, proposal, put

Json = dict[str, Any]
TOTAL = {"Id": "string", "Name": "string", "Total_Amount__c": "number"}
RENAMED = {"Id": "string", "Name": "string", "TotalAmount__c": "number"}
HINTED: Json = {
    "Id": "string",
    "Name": "string",
    "Sum__c": {"type": ["number", "null"], "x-renamed-from": "Total_Amount__c"},
}


async def onboarded(mesh: Mesh, offered: Json) -> Json:
    """A connection whose source offers this from the start."""
    mesh.airbyte.offers(offered)
    return await mesh.onboard()


async def knowledge(mesh: Mesh, count: int) -> list[Json]:
    """What people decided, once the rag_engine knows so much."""
    query = "SELECT removed::text, became::text, verdict, decided_by, reason FROM knowledge"
    await mesh.until_true("SELECT count(*) >= $1 FROM knowledge", count)
    return [dict(row) for row in await mesh.sql.fetch(query)]


async def test_renamed_field_is_one_suggestion_with_evidence(mesh: Mesh) -> None:
    """Removed and added become one proposal; approved, the new name takes the old one's place."""
    connection = await onboarded(mesh, offering(TOTAL))

    repair = await proposal(mesh, connection, offering(RENAMED))

    gone, new = sorted(repair["changes"], key=lambda one: one["kind"], reverse=True)
    assert (gone["path"], new["path"]) == (["Total_Amount__c"], ["TotalAmount__c"])
    assert (gone["pair"], new["pair"]) == (new["id"], gone["id"])
    suggestion = gone["suggestion"]
    assert suggestion["became"] == ["TotalAmount__c"]
    assert 0 < suggestion["confidence"] <= 1
    assert {one["kind"] for one in suggestion["evidence"]} >= {"name", "type"}
    assert repair["suggestions_missing"] is False

    status, decided = await approve(mesh, repair, changes=[gone["id"]], continuity="new_column")

    assert (status, decided["state"], len(decided["changes"])) == (200, "applied", 2)
    assert fields(mesh, connection) == {"Id", "Name", "TotalAmount__c", "SystemModstamp"}
    (known,) = await knowledge(mesh, 1)
    assert (known["removed"], known["became"]) == ('["Total_Amount__c"]', '["TotalAmount__c"]')
    assert (known["verdict"], known["decided_by"]) == ("accepted", "Ada")
    assert nothing_was_reset(mesh)


async def test_person_may_reject_the_rename_and_approve_the_removal(mesh: Mesh) -> None:
    """`became: null`: the old field is removed, the new one is added; both are learned."""
    connection = await onboarded(mesh, offering(TOTAL))
    repair = await proposal(mesh, connection, offering(RENAMED))
    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")

    status, decided = await approve(mesh, repair, choices={gone["id"]: {"became": None}})

    assert (status, decided["state"]) == (200, "applied")
    assert fields(mesh, connection) == {"Id", "Name", "TotalAmount__c", "SystemModstamp"}
    verdicts = {(one["became"], one["verdict"]) for one in await knowledge(mesh, 2)}
    assert verdicts == {(None, "accepted"), ('["TotalAmount__c"]', "rejected")}


async def test_weak_suggestion_is_not_applied_unless_named(
    mesh: Mesh,
) -> None:
    """The removal and the addition are applied separately, and nothing is learned from it."""
    connection = await onboarded(mesh, offering(TOTAL | {"Is_Active__c": "string"}))

    repair = await proposal(mesh, connection, offering(TOTAL | {"IsActive__c": "boolean"}))

    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")
    assert gone["suggestion"]["became"] == ["IsActive__c"]
    assert gone["suggestion"]["taken_by_approve"] is False
    assert "types are incompatible" in gone["suggestion"]["not_taken_because"]
    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    kinds = {one["kind"] for one in shown["catalog"]["schema_changes"]}
    assert kinds == {"field_removed", "field_added"}

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    assert [one["decision"]["became"] for one in decided["changes"]] == [None, None]
    assert fields(mesh, connection) == {*TOTAL, "IsActive__c", "SystemModstamp"}
    is_learned = "SELECT is_learned FROM repairs WHERE id = $1"
    assert await mesh.sql.fetchval(is_learned, UUID(decided["id"])) is True
    assert await mesh.sql.fetchval("SELECT count(*) FROM knowledge") == 0


async def test_weak_suggestion_is_applied_if_named(mesh: Mesh) -> None:
    """It is learned, and the new field is decided with it."""
    connection = await onboarded(mesh, offering(TOTAL | {"Is_Active__c": "string"}))
    repair = await proposal(mesh, connection, offering(TOTAL | {"IsActive__c": "boolean"}))
    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")

    choices = {gone["id"]: {"became": ["IsActive__c"]}}
    status, decided = await approve(mesh, repair, changes=[gone["id"]], choices=choices)

    assert (status, decided["state"], len(decided["changes"])) == (200, "applied", 2)
    (known,) = await knowledge(mesh, 1)
    assert (known["became"], known["verdict"]) == ('["IsActive__c"]', "accepted")


async def test_half_of_a_weak_suggestion_is_decided_alone(mesh: Mesh) -> None:
    """A rejection says nothing about the pair."""
    connection = await onboarded(mesh, offering(TOTAL | {"Is_Active__c": "string"}))
    repair = await proposal(mesh, connection, offering(TOTAL | {"IsActive__c": "boolean"}))
    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")

    order = {"by": "Ada", "changes": [gone["id"]]}
    status, rejected = await post(mesh, f"/repairs/{repair['id']}/reject", order)

    assert (status, len(rejected["changes"])) == (200, 1)
    is_learned = "SELECT is_learned FROM repairs WHERE id = $1"
    assert await mesh.sql.fetchval(is_learned, UUID(rejected["id"])) is True
    (rest,) = await repairs(mesh, connection, state="proposed")
    assert [one["kind"] for one in rest["changes"]] == ["field_added"]


async def test_rejected_rename_is_learned(mesh: Mesh) -> None:
    """It counts against the pair the next time."""
    connection = await onboarded(mesh, offering(TOTAL))
    repair = await proposal(mesh, connection, offering(RENAMED))

    await post(mesh, f"/repairs/{repair['id']}/reject", {"by": "Ada", "reason": "Another field."})

    (known,) = await knowledge(mesh, 1)
    assert (known["verdict"], known["reason"]) == ("rejected", "Another field.")


async def test_selected_field_is_followed_to_its_new_name(mesh: Mesh) -> None:
    """The list of fields has the new name in the old one's place, and nothing else is added."""
    connection = await onboarded(mesh, offering(TOTAL | {"Other__c": "string"}))
    order = (await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")).json()
    for one in order["sync_catalog"]["streams"]:
        if one["stream"]["name"] == "Account":
            picked = ("Id", "Total_Amount__c", "SystemModstamp")
            one["config"] |= {
                "fieldSelectionEnabled": True,
                "selectedFields": [{"fieldPath": [name]} for name in picked],
            }
    status, _ = await post(mesh, "/repair/apply_new_catalog", order)
    assert status == 200

    repair = await proposal(mesh, connection, offering(RENAMED | {"Other__c": "string"}))
    status, _ = await approve(mesh, repair, continuity="new_column")

    assert status == 200
    account = streams_in_airbyte(mesh, connection)["Account"]
    chosen = {one["fieldPath"][0] for one in account["config"]["selectedFields"]}
    assert chosen == {"Id", "TotalAmount__c", "SystemModstamp"}


@pytest.mark.parametrize("continuity", ["keep_column", "new_column"])
async def test_declared_rename_is_applied_by_policy(mesh: Mesh, continuity: str) -> None:
    """With `field.renamed: apply`, more evidence than names, and a choice about the column."""
    connection = await onboarded(mesh, offering(TOTAL))
    order = {"reactions": {"field": {"renamed": "apply"}}, "continuity": continuity}
    await put(mesh, connection, order)

    await drift(mesh, connection, offering(HINTED))

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")
    assert gone["suggestion"]["more_than_names"] is True
    assert gone["decision"]["became"] == ["Sum__c"]
    assert (gone["decision"]["by"], gone["decision"]["continuity"]) == ("policy", continuity)
    mappers = streams_in_airbyte(mesh, connection)["Account"]["config"]["mappers"]
    assert len(mappers) == (continuity == "keep_column")
    assert fields(mesh, connection) == {"Id", "Name", "Sum__c", "SystemModstamp"}


async def test_declared_rename_waits_for_a_choice_about_its_column(mesh: Mesh) -> None:
    """The default policy asks: both choices are offered with what follows from them."""
    connection = await onboarded(mesh, offering(TOTAL))
    await put(mesh, connection, {"reactions": {"field": {"renamed": "apply"}}})

    repair = await proposal(mesh, connection, offering(HINTED))

    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")
    assert [one["choice"] for one in gone["continuity"]] == ["keep_column", "new_column"]
    assert "slower transport" in gone["continuity"][0]["effect"]
    assert "'Total_Amount__c'" in gone["continuity"][1]["effect"]


async def test_view_is_shown_where_airbyte_cannot_keep_the_column(mesh: Mesh) -> None:
    mesh.airbyte.version = "1.2"
    connection = await onboarded(mesh, offering(TOTAL))

    repair = await proposal(mesh, connection, offering(RENAMED))

    gone = next(one for one in repair["changes"] if one["kind"] == "field_removed")
    (option,) = gone["continuity"]
    assert option["choice"] == "new_column"
    assert 'COALESCE("TotalAmount__c", "Total_Amount__c") AS "Total_Amount__c"' in option["view"]
    status, decided = await approve(mesh, repair)
    assert (status, decided["state"]) == (200, "applied"), decided


async def test_names_alone_need_a_decision(mesh: Mesh) -> None:
    """The policy would apply it, and requires no confidence: it is proposed all the same."""
    connection = await onboarded(mesh, offering(TOTAL))
    order = {"reactions": {"field": {"renamed": "apply"}}, "rename_min_confidence": 0}
    await put(mesh, connection, order)

    repair = await proposal(mesh, connection, offering(RENAMED))

    assert {one["reaction"] for one in repair["changes"]} == {"propose"}
    assert (await seen(mesh, connection))["catalog_version"] == 1


async def test_rename_waits_while_the_rag_engine_is_unavailable(
    airbyte: AirbyteServer, meshes: Meshes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`suggestions_missing`; a possible new name is not applied; the suggestion comes later."""
    monkeypatch.setattr(
        drift_repair_agent, "_ASK_AGAIN_INTERVAL", drift_repair_agent._EXPIRE_INTERVAL / 10
    )
    async with AsyncExitStack() as stack:
        # An engine whose registry is away: it answers 503, and then it is there.
        settings = RagEngineSettings(
            _env_file=None,
            supabase_db_url=servers.as_service(meshes.registry_url, "rag_engine"),
            **access.service_keys(),
        )
        engine = rag_engine.build(settings)
        away = True

        async def door(scope: Any, receive: Any, send: Any) -> None:
            if away and scope["type"] == "http":
                await httpx_answer(send, 503)
                return
            await engine(scope, receive, send)

        url = await stack.enter_async_context(serving(door))
        mesh = await stack.enter_async_context(meshes.start(airbyte, rag_engine_url=url))
        connection = await onboarded(mesh, offering(TOTAL))

        repair = await proposal(mesh, connection, offering(RENAMED))

        assert repair["suggestions_missing"] is True
        assert {one["reaction"] for one in repair["changes"]} == {"propose"}
        assert (await seen(mesh, connection))["catalog_version"] == 1
        away = False
        _, again = await repairs_until(mesh, connection, ["superseded", "proposed"])
        assert again["suggestions_missing"] is False
        assert any(one["suggestion"] for one in again["changes"])


async def httpx_answer(send: Any, status: int) -> None:
    """An answer of this status, a problem without a word."""
    headers = [(b"content-type", b"application/problem+json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"code": "unavailable"}'})


async def test_drift_is_planned_without_its_job(mesh: Mesh) -> None:
    """The job was lost: the periodic task finds the drift."""
    connection = await mesh.onboard()
    await mesh.sql.execute(_LOSE_PLANS)
    try:
        drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
        await planned(mesh, connection, drift_id)
    finally:
        await mesh.sql.execute("DROP TRIGGER lost ON pgqueuer; DROP FUNCTION lose")
    await repairs_until(mesh, connection, ["applied"])


_LOSE_PLANS = """
    CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER lost BEFORE INSERT ON pgqueuer FOR EACH ROW
        WHEN (NEW.entrypoint = 'plan') EXECUTE FUNCTION lose()
"""


async def test_two_replicas_plan_and_apply_once(mesh: Mesh) -> None:
    """One plan, one repair and one version per drift."""
    connection = await mesh.onboard()
    second = drift_repair_agent.build(as_service(mesh.settings, "drift_repair_agent"))
    async with second.router.lifespan_context(second):
        names = []
        for number in range(4):
            names.append(f"Field{number}__c")
            more = dict.fromkeys(names, "string")
            await drift(mesh, connection, offering(ACCOUNT | more))
            await repairs_until(mesh, connection, ["applied"] * len(names))
        repair = None
        await drift(mesh, connection, offering({"Id": "string"} | more))
        *_, repair = await repairs_until(mesh, connection, ["applied"] * 4 + ["proposed"])
        transport = httpx.ASGITransport(second, raise_app_exceptions=False)
        async with access.client(transport=transport) as other:
            path, order = f"/repairs/{repair['id']}/approve", {"by": "Ada"}
            answers = await asyncio.gather(
                *(client.post(path, json=order) for client in (mesh.drift_repair_agent, other) * 3)
            )
    assert sorted({answer.status_code for answer in answers}) in ([200, 409], [200, 202, 409])
    assert sum(answer.status_code < 300 for answer in answers) == 1
    numbers = await mesh.sql.fetch("SELECT version_number FROM sync_catalog_versions ORDER BY 1")
    assert [row["version_number"] for row in numbers] == [1, 2, 3, 4, 5, 6]


async def test_new_name_may_be_approved_alone(mesh: Mesh) -> None:
    """The new field is added; the removal stays open, no longer as its former name."""
    connection = await onboarded(mesh, offering(TOTAL))
    repair = await proposal(mesh, connection, offering(RENAMED))
    new = next(one for one in repair["changes"] if one["kind"] == "field_added")

    status, child = await approve(mesh, repair, changes=[new["id"]])

    assert (status, child["state"], len(child["changes"])) == (200, "applied", 1)
    assert {"Total_Amount__c", "TotalAmount__c"} < fields(mesh, connection)
    (rest,) = [one for one in await repairs(mesh, connection) if one["state"] == "proposed"]
    (gone,) = rest["changes"]
    assert (gone["suggestion"], gone["pair"]) == (None, None)


async def test_removed_stream_is_deselected_after_a_decision(mesh: Mesh) -> None:
    """What it will destroy is shown before; then Airbyte syncs the rest."""
    connection = await mesh.onboard()
    without = offering(ACCOUNT)
    without["streams"] = [one for one in without["streams"] if one["stream"]["name"] != "Contact"]

    repair = await proposal(mesh, connection, without)

    (gone,) = repair["changes"]
    assert (gone["kind"], gone["severity"]) == ("stream_removed", "breaking")
    assert any("sync state" in sentence for sentence in gone["resets"])
    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    assert {one["code"] for one in shown["catalog"]["effects"]} == {"stream_deselected"}
    assert {one["kind"] for one in shown["catalog"]["config_changes"]} == {"stream_deselected"}
    status, _ = await approve(mesh, repair)
    assert status == 200
    assert set(streams_in_airbyte(mesh, connection)) == {"Account"}
    assert nothing_was_reset(mesh)


async def test_renamed_stream_keeps_its_settings(mesh: Mesh) -> None:
    """One removed, one added: a person confirms the rename, and it is synced as before."""
    connection = await mesh.onboard()
    renamed = offering(ACCOUNT)
    for one in renamed["streams"]:
        if one["stream"]["name"] == "Contact":
            one["stream"]["name"] = "Contacts"
            one["config"]["aliasName"] = "Contacts"

    repair = await proposal(mesh, connection, renamed)
    gone = next(one for one in repair["changes"] if one["kind"] == "stream_removed")
    choices = {gone["id"]: {"became": ["Contacts"]}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert (status, decided["state"]) == (200, "applied")
    assert set(streams_in_airbyte(mesh, connection)) == {"Account", "Contacts"}
    (known,) = await knowledge(mesh, 1)
    assert (known["removed"], known["became"]) == ('["Contact"]', '["Contacts"]')


async def test_person_chooses_a_cursor_for_a_lost_one(mesh: Mesh) -> None:
    """The source-defined cursor is gone: the stream is read by the chosen one from now on."""
    kinds = {"Id": "string", "Changed": "string", "Created": "string"}
    before = offering(kinds, cursor="Changed")
    before["streams"][0]["stream"]["sourceDefinedCursor"] = False
    connection = await onboarded(mesh, before)
    assert streams_in_airbyte(mesh, connection)["Account"]["config"]["syncMode"] == "incremental"
    after = offering({"Id": "string", "Created": "string"}, cursor="Created")
    after["streams"][0]["stream"] |= {"sourceDefinedCursor": False, "defaultCursorField": []}

    await drift(mesh, connection, after)
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    lost = next(one for one in repair["changes"] if one["what"] == "lost")
    choices = {lost["id"]: {"cursor": ["Created"], "became": None}}
    status, decided = await approve(mesh, repair, choices=choices)

    assert status in (200, 202), decided
    await repairs_until(mesh, connection, ["applied"])
    config = streams_in_airbyte(mesh, connection)["Account"]["config"]
    assert (config["syncMode"], config["cursorField"]) == ("incremental", ["Created"])


async def test_webhook_message_lists_the_changes(mesh: Mesh) -> None:
    """Each step that people are notified of is a message, in the same transaction."""
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO webhooks (id, url, events) VALUES (gen_random_uuid(),"
        """ 'http://127.0.0.1:9/hook', '["repair.proposed", "repair.applied"]')"""
    )
    repair = await proposal(mesh, connection, offering({"Id": "string", "Name": "string"}))
    await approve(mesh, repair)

    rows = await mesh.sql.fetch("SELECT type, body FROM webhook_deliveries ORDER BY created_at")

    assert [row["type"] for row in rows] == ["repair.proposed", "repair.applied"]
    assert '"path":["AnnualRevenue"]' in rows[0]["body"].replace(" ", "")


async def test_loss_seen_only_by_a_requested_discovery_is_not_planned(mesh: Mesh) -> None:
    """A hidden stream is suspicious to the observer; no other discovery makes a repair of it."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    await repairs_until(mesh, connection, ["applied"])
    mesh.airbyte.hide("Contact")

    discovered = await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")
    assert discovered.status_code == 200, discovered.text
    path = f"/connections/{connection['id']}"
    observed = await mesh.schema_observer.post(f"{path}/observe")
    assert observed.json()["outcome"] == "suspicious"
    answer = await mesh.drift_repair_agent.post(f"{path}/plan")
    assert answer.status_code < 300, answer.text
    assert len(await repairs(mesh, connection)) == 1
