"""Onboarding: what is wired, what is recorded, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.airbyte.catalog import MOST_FIELDS
from tests.fakes.airbyte_server import Fault, catalog, stream
from tests.integration.conftest import CANARY, CREDENTIALS, Mesh

Json = dict[str, Any]
REFERENCE = "https://reference.airbyte.com/reference/errors"


async def test_onboarding_creates_and_records_version_1(mesh: Mesh) -> None:
    """Source, connection and registry agree, and the connector got the real secrets."""
    connection = await mesh.onboard()

    assert connection["status"] == "ACTIVE"
    assert connection["catalog_version"] == 1
    assert connection["source_type"] == "Salesforce"
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert held["sourceId"] == connection["airbyte_source_id"]
    assert held["nonBreakingChangesPreference"] == "ignore"
    assert held["sourceCatalogId"]
    assert {one["stream"]["name"] for one in held["syncCatalog"]["streams"]} == {
        "Account",
        "Contact",
    }
    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    assert source["connectionConfiguration"]["client_secret"] == CANARY

    version = await mesh.orchestrator.get(f"/connections/{connection['id']}/catalog-versions/1")
    assert version.status_code == 200, version.text
    streams = version.json()["streams"]
    assert [one["config"]["syncMode"] for one in streams] == ["incremental", "incremental"]
    assert [one["config"]["destinationSyncMode"] for one in streams] == ["append_dedup"] * 2
    assert all(one["config"]["selected"] for one in streams)


async def test_onboarding_publishes_one_event(mesh: Mesh) -> None:
    """Ids only, in the stream after the commit."""
    connection = await mesh.onboard()

    (event,) = await mesh.events(1)

    assert event["type"] == "connection.onboarded"
    assert event["connection_id"] == connection["id"]
    assert (event["seq"], event["status"], event["version"]) == ("1", "ACTIVE", "1")
    assert set(event) == {
        "event_id", "seq", "type", "connection_id", "ref", "status", "version", "code", "at",
    }  # fmt: skip


async def test_failed_discovery_leaves_nothing_behind(mesh: Mesh) -> None:
    """A source that cannot be read is deleted again, the caller learns why, the name is free."""
    mesh.airbyte.fail_discovery("config_error", "password authentication failed for bob")

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "discovery_failed"
    assert "bob" not in answer.text
    assert mesh.airbyte.sources == {}
    row = await mesh.sql.fetchrow("SELECT * FROM connections")
    assert row is not None
    assert (row["status"], row["failure_code"]) == ("FAILED", "discovery_failed")
    assert "bob" not in row["failure_detail"]
    assert answer.json()["connection_id"] == str(row["id"])
    assert (await mesh.events(1))[0]["type"] == "connection.failed"

    mesh.airbyte.heal()
    assert (await mesh.onboard())["status"] == "ACTIVE"


@pytest.mark.parametrize(
    "path, kind, after_effect, status, code",
    [
        # A refusal means that nothing happened: it is not planted after its effect.
        ("sources/create", 422, False, 422, "upstream_rejected"),
        ("connections/create", 400, False, 422, "upstream_rejected"),
        ("connections/create", 403, False, 502, "upstream_auth"),
        ("connections/create", 403, True, 502, "upstream_auth"),
        ("connections/create", "lie", False, 502, "upstream_mismatch"),
    ],
)
async def test_refused_step_is_undone(
    mesh: Mesh, path: str, kind: Fault, after_effect: bool, status: int, code: str
) -> None:
    """Whether or not the step took effect, nothing of it stays in Airbyte."""
    mesh.airbyte.fault(path, kind, after_effect=after_effect)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert mesh.airbyte.sources == {}
    assert mesh.airbyte.connections == {}
    assert await mesh.sql.fetchval("SELECT status FROM connections") == "FAILED"


@pytest.mark.deep(after=6)
@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("kind", [500, 409, "html_502", "reset", "empty_200"])
@pytest.mark.parametrize("path", ["sources/create", "connections/create"])
async def test_step_with_unknown_outcome_is_continued(
    mesh: Mesh, path: str, kind: Fault, after_effect: bool
) -> None:
    """Whether or not it took effect, there is one of each, and version 1."""
    mesh.airbyte.fault(path, kind, after_effect=after_effect)

    connection = await mesh.onboard()

    assert list(mesh.airbyte.sources) == [connection["airbyte_source_id"]]
    assert list(mesh.airbyte.connections) == [connection["airbyte_connection_id"]]
    assert (connection["status"], connection["catalog_version"]) == ("ACTIVE", 1)
    assert len(mesh.airbyte.called(path)) == (1 if after_effect else 2)


async def test_name_is_unique_among_live_connections(mesh: Mesh) -> None:
    """A duplicate is refused before Airbyte is called; archiving frees the name."""
    first = await mesh.onboard()

    second = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)
    assert (second.status_code, second.json()["code"]) == (409, "name_taken")
    assert len(mesh.airbyte.sources) == 1

    gone = await mesh.orchestrator.delete(f"/connections/{first['id']}")
    assert gone.status_code == 204
    assert mesh.airbyte.sources == {}
    assert mesh.airbyte.connections == {}
    assert (await mesh.onboard())["id"] != first["id"]


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"source_type": "Oracle"}, "unknown_source_type"),
        ({"credential_id": None}, "credential_required"),
        ({"credential_id": "salesforce-test"}, "credential_not_found"),
        ({"credential_id": "../x"}, "invalid_request"),
        ({"streams": ["Account", "Nothing"]}, "unknown_stream"),
        ({"connection_name": " "}, "invalid_request"),
        ({"connection_name": "a\nb"}, "invalid_request"),
        ({"connection_name": "x [aam:1]"}, "invalid_request"),
        ({"status": "ACTIVE"}, "invalid_request"),
        ({"destination_id": "8a7f1d9e-0000-4000-8000-000000000000"}, "unknown_destination"),
    ],
)
async def test_invalid_order_is_refused(mesh: Mesh, changes: dict[str, object], code: str) -> None:
    """422 with a stable code, nothing in Airbyte, no live connection."""
    answer = await mesh.orchestrator.post("/connections/onboard", json={**mesh.order, **changes})

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert mesh.airbyte.sources == {}
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections WHERE status <> 'FAILED'") == 0


async def test_too_large_selection_is_refused_with_advice(mesh: Mesh) -> None:
    """Nothing is left in Airbyte; fewer streams can be onboarded."""
    fields = [f"Field_{number}__c" for number in range(MOST_FIELDS // 50)]
    large = catalog(*(stream(f"Object_{number}__c", fields) for number in range(51)))
    mesh.airbyte.offers(json.dumps(large).encode())
    everything = {**mesh.order, "streams": None}

    answer = await mesh.orchestrator.post("/connections/onboard", json=everything)

    assert (answer.status_code, answer.json()["code"]) == (422, "catalog_too_large")
    assert "Select fewer streams" in answer.json()["detail"]
    assert mesh.airbyte.called("connections/create") == []
    assert mesh.airbyte.sources == {}
    assert await mesh.sql.fetchval("SELECT failure_code FROM connections") == "catalog_too_large"
    assert (await mesh.onboard(streams=["Object_7__c"]))["status"] == "ACTIVE"


async def test_source_without_a_credential(mesh: Mesh) -> None:
    """What the specification does not require is left to the connector."""
    connection = await mesh.onboard(
        source_type="Hardcoded Records", connection_name="Records", credential_id=None
    )

    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    assert source["connectionConfiguration"] == {}


async def test_schedule_is_sent_to_airbyte(mesh: Mesh) -> None:
    """Both forms of a schedule, as Airbyte spells them."""
    every = await mesh.onboard(connection_name="every", schedule={"units": 6, "time_unit": "hours"})
    cron = await mesh.onboard(connection_name="cron", schedule={"cron": "0 0 6 * * ?"})

    held = mesh.airbyte.connections
    assert held[every["airbyte_connection_id"]]["scheduleType"] == "basic"
    assert held[cron["airbyte_connection_id"]]["scheduleType"] == "cron"


async def test_no_secret_is_exposed(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    """In answers, logs at DEBUG, registry or events; also when an onboarding fails."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("sources/create", 422)
    failed = await mesh.orchestrator.post(
        "/connections/onboard", json={**mesh.order, "connection_name": "other"}
    )
    rows = await mesh.sql.fetch("SELECT to_jsonb(c) AS row FROM connections c")
    seen = (
        json.dumps([connection, failed.text, [row["row"] for row in rows], await mesh.events(2)])
        + caplog.text
    )

    assert "operation_ended" in seen, "the positive control: logs are captured"
    for canary in CREDENTIALS.values():
        assert canary not in seen


# Refusals before anything is created


def problem(detail: str, kind: str = REFERENCE) -> Json:
    """A refusal as RFC 9457 has it."""
    return {"status": 400, "type": kind, "title": "bad-request", "detail": detail}


ORDERS: list[tuple[Json, str, str]] = [
    # what is different, the field that is named, a part of the message
    ({"schedule": {"cron": "0 0 * * *"}}, "body.schedule.cron", "6 or 7 fields"),
    ({"schedule": {"cron": "cron(0 4 * * * ?)"}}, "body.schedule.cron", "second is invalid"),
    ({"schedule": {"cron": "0 27 * * * ? * US/Pacific"}}, "body.schedule.cron", "got 8"),
    ({"schedule": {"cron": "0 0 6 * * *"}}, "body.schedule.cron", "`?`, and not both"),
    ({"schedule": {"cron": "*/5 * * * * ?"}}, "body.schedule.cron", "once a minute"),
    ({"schedule": {"cron": ""}}, "body.schedule.cron", "got 0"),
    ({"schedule": {"cron": 5}}, "body.schedule.cron", "valid string"),
    (
        {"schedule": {"cron": "0 20 0 * * ?", "time_zone": "Europe/ Paris"}},
        "body.schedule.time_zone",
        "did you mean 'Europe/Paris'?",
    ),
    (
        {"schedule": {"cron": "0 20 0 * * ?", "time_zone": "Etc/UTC"}},
        "body.schedule.time_zone",
        "Etc/ zones",
    ),
    ({"schedule": {"time_zone": "UTC"}}, "body.schedule.cron", "Field required"),
    ({"schedule": {"units": 0}}, "body.schedule.units", "greater than or equal to 1"),
    ({"schedule": {"units": "6"}}, "body.schedule.units", "valid integer"),
    ({"schedule": {"units": 6, "time_unit": "hour"}}, "body.schedule.time_unit", "'hours'"),
    ({"schedule": {"unit": 6}}, "body.schedule.unit", "did you mean 'units'?"),
    ({"schedule": {"cron": "0 0 6 * * ?", "units": 6}}, "body.schedule.units", "Unknown member"),
    ({"schedule": "0 0 6 * * ?"}, "body.schedule", "an object with `units`"),
    ({"schedule": []}, "body.schedule", "an object with `units`"),
    ({"streams": ["Account", "Account"]}, "body.streams", "each stream once"),
    ({"streams": []}, "body.streams", "at least 1 item"),
    ({"streams": [""]}, "body.streams.0", "at least 1 character"),
    ({"streams": "Account"}, "body.streams", "valid list"),
    ({"connection_name": "\ufb2c" * 200}, "body.connection_name", "when composed"),
    ({"connection_name": "a" * 201}, "body.connection_name", "at most 200"),
    ({"conection_name": "x"}, "body.conection_name", "did you mean 'connection_name'?"),
    ({"Streams": ["Account"]}, "body.Streams", "did you mean 'streams'?"),
    ({"a secret? " * 9: 1}, "body", "Unknown member"),
    ({"destination_id": "warehouse"}, "body.destination_id", "a UUID"),
    ({"source_type": "salesforce"}, "body.source_type", "did you mean 'Salesforce'?"),
    ({"source_type": "Oracle"}, "body.source_type", "GET /source-types lists the known ones"),
    ({"credential_id": None}, "body.credential_id", "needs a `credential_id`"),
    ({"source_type": "Hardcoded Records"}, "body.credential_id", "does not take a `credential_id`"),
    ({"credential_id": "Salesforce_Prod"}, "body.credential_id", "match pattern"),
]


async def test_invalid_order_is_refused_before_any_effect(mesh: Mesh) -> None:
    """422 that names the field and its allowed values; no row, no call, no use of a credential."""
    for changes, field, message in ORDERS:
        answer = await mesh.orchestrator.post(
            "/connections/onboard", json={**mesh.order, **changes}
        )

        body = answer.json()
        assert answer.status_code == 422, (changes, body)
        named = {one["field"]: one["message"] for one in body["fields"]}
        assert message in named[field], (changes, body)
        assert message.rstrip(".") in body["detail"], (changes, body)
    assert mesh.airbyte.sources == {}
    assert mesh.airbyte.called("destination_definition_specifications/get") == []
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations") == 0
    assert await mesh.sql.fetchval("SELECT count(*) FROM credential_audit") == 0


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "0 0 6 * * ?", "time_zone": "America/Toronto"},
        {"cron": "0 45 6 ? * MON,TUE,WED,THU,FRI *", "time_zone": "US/Pacific"},
    ],
)
async def test_valid_cron_expression_is_sent_unchanged(mesh: Mesh, schedule: Json) -> None:
    connection = await mesh.onboard(schedule=schedule)

    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert held["scheduleData"] == {
        "cron": {"cronExpression": schedule["cron"], "cronTimeZone": schedule["time_zone"]}
    }


async def test_unknown_stream_is_answered_with_suggestions(mesh: Mesh) -> None:
    """Case is the commonest mistake; at most three are named."""
    answer = await mesh.orchestrator.post(
        "/connections/onboard", json={**mesh.order, "streams": ["account"]}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_stream")
    assert "no stream 'account'; did you mean 'Account'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path, body, part",
    [
        ("connections/create", {"message": "The cron expression is invalid"}, "schedule"),
        (
            "connections/create",
            problem("AAMCANARY", "error:cron-validation/invalid-timezone"),
            "schedule",
        ),
        ("connections/create", {"message": "Bad", "exceptionStack": ["java.util.stream"]}, None),
        (
            "sources/create",
            {"message": "json schema validation failed: configuration"},
            "credential",
        ),
        ("connections/create", problem("Primary key for stream: AAMCANARY is …"), "streams"),
        ("sources/create", problem("The provided configuration does not fulfill …"), None),
        (
            "sources/create",
            problem(
                "The provided configuration does not fulfill the specification. Errors: AAMCANARY"
            ),
            "credential",
        ),
    ],
)
async def test_refused_part_of_the_order_is_named(
    mesh: Mesh, path: str, body: Json, part: str | None
) -> None:
    """The answer names the schedule and does not repeat Airbyte's message."""
    if "title" not in body:
        body = {"exceptionClassName": "io.airbyte.JsonValidationException", **body}
    mesh.airbyte.answer(path, body, status=400, effect=False)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    refusal = answer.json()
    assert (answer.status_code, refusal["code"]) == (422, "upstream_rejected")
    assert refusal.get("part") == part
    assert part is None or refusal["detail"].endswith(f"with status 400. It is about the {part}.")
    assert str(body.get("message", "AAMCANARY")) not in answer.text
    assert mesh.airbyte.sources == {}
