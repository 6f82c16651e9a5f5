"""The catalog of a connection: its pages, and the editor of the selection."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from services.console.pages.connection import catalog_edit, selection
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.connection_samples import BASE, JOB, REPAIR
from tests.console.double import Double, page, problem


async def test_catalog(signed_in: Browser, mesh: Double) -> None:
    """Streams on the left; the fields of one, with what waits for a decision."""
    shown = await signed_in.get(f"{BASE}/catalog?q=a&stream=Account&fields=r")

    assert "38 of 42 fields are synced" in shown.text
    assert "Incremental, deduplicated" in shown.text
    assert "2 changes of this stream wait for a decision." in shown.text
    assert "Region__c string Synced Gone in the source" in shown.text
    (streams,) = mesh.of("GET", f"{BASE}/catalog-versions/14/streams")
    assert streams.query == "search=a&limit=50"
    (fields,) = mesh.of("GET", f"{BASE}/catalog-versions/14/fields")
    assert fields.query == "stream=Account&search=r&limit=100"
    assert "fields_after=100" in shown.html


async def test_changes_of_a_large_repair(signed_in: Browser, mesh: Double) -> None:
    """They are read on up to a limit, from which on the counts are lower bounds."""
    route = f"GET /repairs/{REPAIR}/changes"
    rest = [samples.change("field_added", "Account", f"New{n}__c") for n in range(3)]
    mesh.answers[route] = page(*samples.CHANGES, next="500")
    mesh.by_query[route, "after=500"] = page(*rest)

    shown = await signed_in.get(f"{BASE}/catalog?stream=Account")
    mesh.by_query.clear()
    partial = await signed_in.get(f"{BASE}/catalog?stream=Shipment__c")

    assert " 5 changes of this stream wait for a decision." in shown.text
    assert "At least" not in shown.text
    assert "At least 4 changes of this stream wait for a decision." in partial.text
    assert "8+ changes" in partial.text
    assert len(mesh.of("GET", f"/repairs/{REPAIR}/changes")) == 2 + 4


async def test_stream_of_another_page(signed_in: Browser, mesh: Double) -> None:
    """An address leads to its stream, also if the list does not have it."""
    shown = await signed_in.get(f"{BASE}/catalog?stream=Zebra&namespace=crm")

    (fields,) = mesh.of("GET", f"{BASE}/catalog-versions/14/fields")
    assert fields.query == "stream=Zebra&namespace=crm&limit=100"
    assert "AnnualRevenue" in shown.text


PICKED = {
    "stream": "Account",
    "namespace": "",
    "stream_selected": "yes",
    "field": ["Region__c"],
}
PREVIEWED = {"snapshot_id": samples.DRIFT, "expected_version": "14"}


async def test_selection_is_previewed_and_applied(signed_in: Browser, mesh: Double) -> None:
    """The newest version with one stream changed; its key and cursor stay selected."""
    await signed_in.get(f"{BASE}/catalog")
    form = await signed_in.post(f"{BASE}/catalog/edit", {"stream": "Account", "namespace": ""})
    assert 'value="Name" checked' in form.html
    assert 'value="Id" checked disabled' in form.html
    assert 'value="Region__c">' in form.html

    preview = await signed_in.post(f"{BASE}/catalog/preview", PICKED)

    assert preview.status == 200
    assert "It would become version 15" in preview.text
    assert "Added: Region__c in Account" in preview.text
    assert "Account : The column 'Name' keeps its values." in preview.text
    applied = await signed_in.post(f"{BASE}/catalog/apply", PICKED | PREVIEWED)

    assert applied.location == f"{BASE}/timeline?done=applied"
    rehearsed, done = mesh.of("POST", "/repair/apply_new_catalog")
    assert (rehearsed.query, done.query) == ("dry_run=true", "wait=5")
    assert rehearsed.json == done.json
    account, contact = done.json["sync_catalog"]["streams"]
    assert contact["stream"]["name"] == "Contact"
    assert [one["fieldPath"] for one in account["config"]["selectedFields"]] == [
        ["Id"],
        ["Region__c"],
        ["SystemModstamp"],
    ]
    assert done.json["expected_version"] == 14


async def test_selection_without_a_change(signed_in: Browser, mesh: Double) -> None:
    """The preview names no next version."""
    catalog = samples.REHEARSAL["catalog"] | {"config_changes": [], "effects": []}
    mesh.answers["POST /repair/apply_new_catalog"] = samples.REHEARSAL | {"catalog": catalog}
    await signed_in.get(f"{BASE}/catalog")

    preview = await signed_in.post(f"{BASE}/catalog/preview", PICKED)

    assert "Nothing would change." in preview.text
    assert "It would become version" not in preview.text


async def test_selection_of_another_source(signed_in: Browser, mesh: Double) -> None:
    """Not applied if the source changed since the preview; what was picked is kept."""
    await signed_in.get(f"{BASE}/catalog")

    shown = await signed_in.post(f"{BASE}/catalog/apply", PICKED | PREVIEWED | {"snapshot_id": JOB})

    assert shown.status == 409
    assert "The source or the catalog changed since the preview." in shown.text
    assert 'value="Region__c" checked' in shown.html
    assert not mesh.of("POST", "/repair/apply_new_catalog")


async def test_slow_discovery(signed_in: Browser, mesh: Double) -> None:
    """Can be waited for: the next request gets its result."""
    mesh.answers[f"POST {BASE}/discover"] = lambda _: problem(504, "service_timeout", "Late.")
    await signed_in.get(f"{BASE}/catalog")

    shown = await signed_in.post(f"{BASE}/catalog/edit", {"stream": "Account", "namespace": ""})

    assert shown.status == 504
    assert "longer than this page waits, and continues: try again in a minute." in shown.text
    assert f'action="{BASE}/catalog/edit"' in shown.html


async def test_discovery_takes_minutes(console: Console, mesh: Double) -> None:
    """A page waits for it longer than for other answers."""
    app = console(peer_timeout=timedelta(milliseconds=100))
    api = app.state.clients.acting_with(mesh.key)
    mesh.delays[f"POST {BASE}/discover"] = 0.3

    merged = await catalog_edit._discovered(api, UUID(samples.ID))

    assert merged["sync_catalog"]["streams"]


@pytest.mark.parametrize("action", ["preview", "apply"])
async def test_failed_discovery_keeps_the_selection(
    signed_in: Browser, mesh: Double, action: str
) -> None:
    """What was picked is sent again, to the preview."""
    mesh.answers[f"POST {BASE}/discover"] = lambda _: problem(504, "service_timeout", "Late.")
    await signed_in.get(f"{BASE}/catalog")

    shown = await signed_in.post(f"{BASE}/catalog/{action}", PICKED | PREVIEWED)

    assert shown.status == 504
    assert f'action="{BASE}/catalog/preview"' in shown.html
    assert shown.fields.items() >= {"stream": "Account", "field": "Region__c"}.items()
    assert shown.fields["stream_selected"] == "yes"


async def test_older_agent_has_no_previews_of_selections(signed_in: Browser, mesh: Double) -> None:
    """It would apply what it is asked to preview."""
    del mesh.answers["GET /repairs/summary"]
    await signed_in.get(f"{BASE}/catalog")

    shown = await signed_in.post(f"{BASE}/catalog/preview", PICKED)

    assert shown.status == 503
    assert "dry_run_unsupported" in shown.text
    assert not mesh.of("POST", "/repair/apply_new_catalog")


async def test_selection_in_a_global_state(signed_in: Browser, mesh: Double) -> None:
    """A stream is selected again once a person chooses what to do about the gap."""
    mesh.answers["POST /repair/apply_new_catalog"] = lambda _: problem(
        409, "global_state", "Its state is global.", choices=["refresh", "accept_gap"]
    )
    await signed_in.get(f"{BASE}/catalog")
    refused = await signed_in.post(f"{BASE}/catalog/preview", PICKED)
    assert refused.status == 409
    assert 'name="on_global_state" value="refresh"' in refused.html
    assert 'name="on_global_state" value="accept_gap"' in refused.html
    mesh.answers["POST /repair/apply_new_catalog"] = samples.REHEARSAL

    preview = await signed_in.post(
        f"{BASE}/catalog/preview", PICKED | {"on_global_state": "accept_gap"}
    )
    assert preview.fields["on_global_state"] == "accept_gap"
    await signed_in.post(
        f"{BASE}/catalog/apply", PICKED | PREVIEWED | {"on_global_state": "accept_gap"}
    )

    first, *others = mesh.of("POST", "/repair/apply_new_catalog")
    assert "on_global_state" not in first.json
    assert [one.json["on_global_state"] for one in others] == ["accept_gap", "accept_gap"]


async def test_destination_without_refreshes(signed_in: Browser, mesh: Double) -> None:
    """Only the choice that it supports is offered."""
    mesh.answers["POST /repair/apply_new_catalog"] = lambda _: problem(
        409, "global_state", "Its state is global.", choices=["accept_gap"]
    )
    await signed_in.get(f"{BASE}/catalog")

    shown = await signed_in.post(f"{BASE}/catalog/preview", PICKED)

    assert 'value="refresh"' not in shown.html
    assert 'value="accept_gap"' in shown.html


def test_whole_stream_has_no_list_of_fields() -> None:
    """Every field selected is Airbyte's selection without a list; none keeps what is needed."""
    (stream,) = samples.merged()["sync_catalog"]["streams"]
    names = [one.name for one in selection.read(stream).fields]

    selection.change(stream, is_selected=True, names=names)
    assert (stream["config"]["fieldSelectionEnabled"], stream["config"]["selectedFields"]) == (
        False,
        [],
    )
    selection.change(stream, is_selected=True, names=[])
    assert selection.read(stream).names == ["Id", "SystemModstamp"]
    selection.change(stream, is_selected=False, names=[])
    assert stream["config"]["selected"] is False
