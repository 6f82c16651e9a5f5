"""What is wrong with an order is said before a credential is read or anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Mesh

Json = dict[str, Any]

ORDERS: list[tuple[Json, str, str]] = [
    # what is different, the field that is named, a part of what is said
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
    ({"source_type": "Oracle"}, "body.source_type", "Known entries:"),
    ({"credential_id": None}, "body.credential_id", "needs a `credential_id`"),
    ({"source_type": "Hardcoded Records"}, "body.credential_id", "does not take a `credential_id`"),
    ({"credential_id": "Salesforce_Prod"}, "body.credential_id", "match pattern"),
]


async def test_invalid_order_is_refused_before_any_effect(mesh: Mesh) -> None:
    """422 that names the field and its allowed values; no row, no call, no use of a credential."""
    for changes, field, said in ORDERS:
        answer = await mesh.orchestrator.post(
            "/connections/onboard", json={**mesh.order, **changes}
        )

        told = answer.json()
        assert answer.status_code == 422, (changes, told)
        named = {one["field"]: one["message"] for one in told["fields"]}
        assert said in named[field], (changes, told)
        assert said.rstrip(".") in told["detail"], (changes, told)
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
            {"title": "Bad", "type": "error:cron-validation/invalid-timezone", "status": 400},
            "schedule",
        ),
        ("connections/create", {"message": "Bad", "exceptionStack": ["java.util.stream"]}, None),
        (
            "sources/create",
            {"message": "json schema validation failed: configuration"},
            "credential",
        ),
    ],
)
async def test_refused_part_of_the_order_is_named(
    mesh: Mesh, path: str, body: Json, part: str | None
) -> None:
    """Airbyte's message is not repeated; that it is about the schedule is said."""
    body = {"exceptionClassName": "io.airbyte.JsonValidationException", **body}
    mesh.airbyte.answer(path, body, status=400, effect=False)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    told = answer.json()
    assert (answer.status_code, told["code"]) == (422, "upstream_rejected")
    assert told.get("part") == part
    assert part is None or told["detail"].endswith(f"with status 400. It is about the {part}.")
    assert str(body.get("message", "Bad")) not in answer.text
    assert mesh.airbyte.sources == {}
