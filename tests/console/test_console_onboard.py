"""Onboarding and import: forms that are filled in, tried, refused and sent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.console import samples
from tests.console.browser import Browser
from tests.console.double import Double, json, problem

FORM = f"/onboard/{samples.SOURCE_TYPE['id']}"
FILLED = {
    "name": "Planning",
    "credential": "vault:postgres-planning",
    "destination": samples.DESTINATION["id"],
    "schedule": "every",
    "units": "6",
    "time_unit": "hours",
    "v/host": "db.example.com",
    "v/port": "5432",
    "v/database": "planning",
    "v/username": "aam",
    "n/schemas": "1",
    "v/schemas/0": "public",
    "b/replication_method": "0",
    "v/replication_method/~@0/method": '"CDC"',
    "v/replication_method/~@0/replication_slot": "slot",
    "w/ssl": "absent",
    "v/ssl": "on",
}
CONFIGURATION = {
    "host": "db.example.com",
    "port": 5432,
    "database": "planning",
    "username": "aam",
    "schemas": ["public"],
    "replication_method": {"method": "CDC", "replication_slot": "slot"},
}


@pytest.fixture(autouse=True)
def answering(double: Double) -> None:
    """Give the double an answer to everything."""
    double.answers = samples.answers()


async def test_source_types_are_searched(signed_in: Browser, double: Double) -> None:
    """By the orchestrator; each leads to its form."""
    shown = await signed_in.get("/onboard?q=post")

    assert f'href="{FORM}"' in shown.html
    assert double.of("GET", "/source-types")[0].query == "search=post&limit=50"


async def test_form_of_a_source_type(signed_in: Browser) -> None:
    """Required fields bare, others optional; no field for the secret; a credential is named."""
    shown = await signed_in.get(FORM)

    assert shown.status == 200
    assert "Hostname of the database." in shown.text
    assert "From 0 to 65536. Default: 5432." in shown.text
    assert "Schemas (optional)" in shown.text
    assert "Password From the credential." in shown.text
    assert "v/password" not in shown.html
    assert '<option value="vault:postgres-planning">' in shown.html
    assert "Warehouse (Postgres 3.0.14)" in shown.text
    assert "Advanced: 2 more settings with a default" in shown.text


async def test_rows_without_a_script(signed_in: Browser, double: Double) -> None:
    """A button adds a row and another removes it; everything typed is still there."""
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"do": "add:/schemas"})

    assert shown.status == 200
    assert 'name="v/schemas/1"' in shown.html
    assert 'value="db.example.com"' in shown.html
    shown = await signed_in.post(FORM, FILLED | {"n/schemas": "2", "do": "remove:/schemas/0"})
    assert 'name="v/schemas/1"' not in shown.html
    assert not double.of("POST", "/connections/onboard")


async def test_check(signed_in: Browser, double: Double) -> None:
    """The source is tried with what is filled in, and nothing is created."""
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"do": "check"})

    assert "The source can be reached" in shown.text
    (asked,) = double.of("POST", "/sources/check")
    assert asked.json == {
        "source_type": samples.SOURCE_TYPE["id"],
        "credential_id": "vault:postgres-planning",
        "configuration": CONFIGURATION,
    }


async def test_preview_offers_streams(signed_in: Browser) -> None:
    """To be ticked; what is ticked is remembered."""
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"do": "preview"})

    assert "The source offers 2 streams" in shown.text
    assert 'name="stream" value="orders"' in shown.html
    ticked = {"offered": ["orders", "customers"], "stream": "orders", "do": "show"}
    shown = await signed_in.post(FORM, FILLED | ticked)
    assert 'name="stream" value="orders" checked' in shown.html
    assert 'name="stream" value="customers" checked' not in shown.html


async def test_onboard(signed_in: Browser, double: Double) -> None:
    """With the form's key; then the connection is opened."""
    await signed_in.get(FORM)
    key = signed_in.page.fields["idempotency_key"]
    answer = await signed_in.post(FORM, FILLED | {"stream": "orders", "do": "onboard"})

    assert (answer.status, answer.location) == (303, f"/connections/{samples.ID}")
    (asked,) = double.of("POST", "/connections/onboard")
    assert asked.headers["idempotency-key"] == key
    assert asked.json == {
        "source_type": samples.SOURCE_TYPE["id"],
        "credential_id": "vault:postgres-planning",
        "configuration": CONFIGURATION,
        "connection_name": "Planning",
        "destination": samples.DESTINATION["id"],
        "streams": ["orders"],
        "schedule": {"units": 6, "time_unit": "hours"},
    }


async def test_longer_onboarding_is_an_operation(signed_in: Browser, double: Double) -> None:
    """It goes on, and its page shows how far it is."""
    accepted = {"operation_id": samples.OPERATION_ID, "status": "running"}
    double.answers["POST /connections/onboard"] = lambda _: json(accepted, 202)
    await signed_in.get(FORM)
    answer = await signed_in.post(FORM, FILLED | {"do": "onboard"})

    assert answer.location == f"/operations/{samples.OPERATION_ID}"


async def test_faults_are_at_their_fields(signed_in: Browser, double: Double) -> None:
    """The summary has the focus and leads to each field by the service's JSON path."""
    fields = [
        {
            "field": "body.configuration.port",
            "path": "$.port",
            "type": "invalid",
            "message": "must be at most 65536.",
        },
        {
            "field": "body.configuration.password",
            "path": "$.password",
            "type": "missing",
            "message": "is missing.",
        },
        {"field": "connection_name", "type": "aam", "message": "Input should be shorter"},
        {"field": "schedule", "type": "aam", "message": "Input should be more"},
        {"field": "body.configuration.schemas", "path": "$.schemas", "type": "x", "message": "no."},
        {"field": "body.configuration.x", "path": "$.x", "type": "unknown", "message": "is new."},
    ]
    double.answers["POST /connections/onboard"] = lambda _: problem(
        422, "configuration_invalid", "$.port must be at most 65536.", fields=fields
    )
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"v/port": "70000", "do": "onboard"})

    assert shown.status == 422
    assert "6 fields need attention" in shown.text
    assert "Port must be at most 65536." in shown.text
    assert "Password is missing. It comes from the credential." in shown.text
    assert "$.x is new." in shown.text
    assert 'href="#name"' in shown.html
    assert 'value="70000"' in shown.html
    assert "autofocus" in shown.html
    groups = re.findall(r'<fieldset[^>]+aria-describedby="([^ "]+-error)', shown.html)
    assert len(groups) == 2
    assert all(f'id="{one}"' in shown.html for one in groups)


async def test_credential_is_refused(signed_in: Browser, double: Double) -> None:
    """The sentence of the service is at the credential's field."""
    sentence = "The credential store has no credential with this id."
    double.answers["POST /sources/check"] = lambda _: problem(422, "credential_not_found", sentence)
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"do": "check"})

    assert f"Credential : {sentence}" in shown.text
    assert 'id="credential-error"' in shown.html


async def test_failed_check_is_explained(signed_in: Browser, double: Double) -> None:
    """No field is blamed, since it may be the network."""
    double.answers["POST /sources/check"] = lambda _: problem(
        422, "check_failed", "The connection check failed.", explanation="The host is unknown."
    )
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, FILLED | {"do": "check"})

    assert "The check did not succeed The connection check failed. The host is unknown." in (
        shown.text
    )
    assert "needs attention" not in shown.text


async def test_lost_answer_keeps_the_key(signed_in: Browser, double: Double) -> None:
    """Sending the form again must not onboard twice."""

    def lost(_: Request) -> Response:
        return Response(b"{", 200, media_type="application/json")

    double.answers["POST /connections/onboard"] = lambda _: problem(
        504, "service_timeout", "The orchestrator did not answer in time."
    )
    await signed_in.get(FORM)
    key = signed_in.page.fields["idempotency_key"]
    shown = await signed_in.post(FORM, FILLED | {"do": "onboard"})

    assert "It is not known whether it was onboarded" in shown.text
    assert shown.fields["idempotency_key"] == key
    double.answers["POST /connections/onboard"] = lost
    shown = await signed_in.post(FORM, FILLED | {"do": "onboard"})
    assert shown.status == 502


async def test_invalid_json_is_not_sent(signed_in: Browser, double: Double) -> None:
    """The person's text is shown again, with what is wrong."""
    schema = {"type": "object", "properties": {"map": {"type": "object", "title": "Map"}}}
    double.answers[f"GET /source-types/{samples.SOURCE_TYPE['id']}/specification"] = {
        **samples.SPECIFICATION,
        "specification": schema,
    }
    await signed_in.get(FORM)
    shown = await signed_in.post(FORM, {"name": "x", "j/map": "{'a'", "do": "onboard"})

    assert shown.status == 422
    assert "Map must be JSON." in shown.text
    assert "{&#39;a&#39;" in shown.html
    assert not double.of("POST", "/connections/onboard")


async def test_without_the_scope(signed_in: Browser, double: Double) -> None:
    """The buttons stay, and say what they need."""
    double.scopes = ("connections:read",)
    await signed_in.post("/logout")
    await signed_in.sign_in(double.key)
    shown = await signed_in.get(FORM)

    assert "Needs connections:write" in shown.text
    assert 'value="onboard"' not in shown.html


async def test_lists_that_are_away(signed_in: Browser, double: Double) -> None:
    """Destinations and credentials can be typed."""
    away: Any = lambda _: problem(502, "upstream_failed", "Airbyte failed.")  # noqa: E731
    double.answers["GET /destinations"] = away
    double.answers["GET /credentials"] = away
    shown = await signed_in.get(FORM)

    assert shown.status == 200
    assert "The list is not available now (Airbyte failed.)" in shown.text
    assert '<input class="input" id="destination"' in shown.html


async def test_typed_destination_stays_chosen(signed_in: Browser, double: Double) -> None:
    """One that was typed by its name, or is not listed, does not become the default."""
    await signed_in.get(FORM)
    for typed in (samples.DESTINATION["name"], "Elsewhere"):
        shown = await signed_in.post(FORM, FILLED | {"do": "show", "destination": typed})
        chosen = shown.html.partition(f">{typed}")[0].rpartition("<option")[2]
        assert chosen.endswith(" selected"), typed


async def test_dry_run_and_import(signed_in: Browser, double: Double) -> None:
    """The dry run is listed; those ticked are imported one by one, and one may fail."""
    await signed_in.get("/import")
    answer = await signed_in.post("/import", {"do": "dry_run"})
    assert answer.location == f"/import/{samples.OPERATION_ID}"
    assert double.of("POST", "/connections/import")[0].json == {"dry_run": True}

    shown = await signed_in.get(answer.location)
    assert "Salesforce → Warehouse Can be imported" in shown.text
    assert "Syncs fields that the policy never selects: Contact (Email, Phone)" in shown.text
    assert "connection_deprecated" in shown.text
    first, second = (one["airbyte_connection_id"] for one in samples.IMPORT["items"][:2])

    def importing(_: Request) -> Response:
        asked = double.of("POST", "/connections/import")[-1].json
        if asked["airbyte_connection_id"] == first:
            imported = samples.IMPORT["items"][0] | {"outcome": "imported"}
            return json({"items": [imported], "status": "done"})
        return problem(422, "upstream_missing", "Airbyte no longer has it.")

    double.answers["POST /connections/import"] = importing
    shown = await signed_in.post(answer.location, {"connection": [first, second]})
    assert "1 of 2 imported." in shown.text
    assert "Airbyte no longer has it." in shown.text
    asked = [one.json for one in double.of("POST", "/connections/import")[1:]]
    assert {"airbyte_connection_id": first, "dry_run": False} in asked


async def test_running_import_is_polled(signed_in: Browser, double: Double) -> None:
    """Without a script a link refreshes it."""
    report = {**samples.IMPORT, "status": "running", "outcomes": {"pending": 1}, "items": []}
    double.answers[f"GET /imports/{samples.OPERATION_ID}"] = report
    shown = await signed_in.get(f"/import/{samples.OPERATION_ID}")
    assert "1 connection found, 1 not read yet." in shown.text
    report["outcomes"] = {"pending": 7}
    double.answers[f"GET /imports/{samples.OPERATION_ID}"] = report
    path = f"/import/{samples.OPERATION_ID}"
    shown = await signed_in.get(path)

    assert "7 connections found, 7 not read yet." in shown.text
    assert 'hx-trigger="every 3s"' in shown.html
    part = await signed_in.get(path, headers={"HX-Request": "true"})
    assert "<html" not in part.html
    assert 'id="import"' in part.html


async def test_import_that_runs_already(signed_in: Browser, double: Double) -> None:
    """Its progress is shown instead."""
    double.answers["POST /connections/import"] = lambda _: problem(
        409, "import_running", "It runs.", operation_id=samples.OPERATION_ID
    )
    await signed_in.get("/import")
    answer = await signed_in.post("/import", {"do": "dry_run"})
    assert answer.location == f"/import/{samples.OPERATION_ID}"


async def test_refused_import_keeps_its_workspace(signed_in: Browser, double: Double) -> None:
    """The id stays in its field, which is open."""
    double.answers["POST /connections/import"] = lambda _: problem(422, "invalid_request", "No.")
    await signed_in.get("/import")

    shown = await signed_in.post("/import", {"do": "dry_run", "workspace_id": "<ours>"})

    assert shown.status == 422
    assert '<details class="advanced" open>' in shown.html
    assert 'name="workspace_id" value="&lt;ours&gt;"' in shown.html


async def test_chosen_of_a_page_are_shown_on_that_page(signed_in: Browser, double: Double) -> None:
    """The filter and the page are in the form's address."""
    path = f"/import/{samples.OPERATION_ID}?outcome=would_import&after=100"
    shown = await signed_in.get(path)
    assert f'action="{path.replace("&", "&amp;")}" id="choose"' in shown.html

    shown = await signed_in.post(path, {})

    assert shown.status == 422
    asked = double.of("GET", f"/imports/{samples.OPERATION_ID}")[-1]
    assert asked.query == "outcome=would_import&after=100&limit=100"


async def test_nothing_ticked(signed_in: Browser) -> None:
    """Says what to do."""
    await signed_in.get(f"/import/{samples.OPERATION_ID}")
    shown = await signed_in.post(f"/import/{samples.OPERATION_ID}", {})
    assert (shown.status, "Tick the connections to import." in shown.text) == (422, True)
