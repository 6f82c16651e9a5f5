"""The pages of one connection: what they show, what their forms send, and what may be missing."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import Any

import pytest

from services.console import text
from services.console.pages.connection import chart, selection, words
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.connection_samples import BASE, CONNECTION, ID, JOB, REPAIR, entry
from tests.console.double import Double, json, page, problem
from tests.console.test_console_security import HOSTILE, injected

TABS = ("timeline", "catalog", "versions", "schema", "syncs", "policy")
PAGES = (*TABS, "archive", f"syncs/{JOB}")


@pytest.fixture
def mesh(double: Double) -> Double:
    """The double with answers about one connection."""
    samples.answer(double)
    return double


async def test_head(signed_in: Browser, mesh: Double) -> None:
    """The health with its reason and what to do, the facts, and the actions."""
    shown = await signed_in.get(BASE)

    assert shown.status == 200
    assert "Paused by repair" in shown.text
    assert "3 changes wait for review, 1 is breaking." in shown.text
    assert "Decide the repair to resume the connection" in shown.text
    assert f'href="/repairs/{REPAIR}">Review repair' in shown.html
    assert "Version 14" in shown.text
    assert "28 Nov 2026, 09:46 UTC" in shown.text
    assert "salesforce-prod" in shown.text
    assert f'action="{BASE}/resume"' in shown.html
    assert f'action="{BASE}/pause"' not in shown.html
    (asked,) = mesh.of("GET", "/connections")
    assert asked.query == f"q={ID}&include=health&limit=10"


@pytest.mark.parametrize("path", PAGES)
async def test_one_filled_button(signed_in: Browser, mesh: Double, path: str) -> None:
    """At most one action of a page is the main one."""
    shown = await signed_in.get(f"{BASE}/{path}")

    assert shown.status == 200
    assert shown.html.count("button primary") <= 1
    assert shown.html.count("<h1") == 1


@pytest.mark.parametrize("path", PAGES)
async def test_unknown_connection(signed_in: Browser, double: Double, path: str) -> None:
    """An id that the orchestrator does not know is a page that says it."""
    double.answers[f"GET {BASE}"] = lambda _: problem(404, "not_found", "No such connection.")

    shown = await signed_in.get(f"{BASE}/{path}")

    assert shown.status == 404
    assert "No such connection." in shown.text


async def test_other_pages_below_connections_are_free(signed_in: Browser) -> None:
    """Only ids lead here."""
    assert (await signed_in.get("/connections/7")).status == 404


@pytest.mark.parametrize("path", TABS)
async def test_services_away(signed_in: Browser, mesh: Double, path: str) -> None:
    """Whatever does not answer is missing alone; the rest of the page stays."""
    for route in list(mesh.answers):
        if route != f"GET {BASE}":
            mesh.answers[route] = lambda _: problem(503, "unavailable", "The registry is away.")

    shown = await signed_in.get(f"{BASE}/{path}")

    assert shown.status == 200
    assert "not available now. The registry is away." in shown.text
    assert "Salesforce production" in shown.text


async def test_orchestrator_away(signed_in: Browser, mesh: Double) -> None:
    """The policy is still there, under the connection's id."""
    for route in (f"GET {BASE}", "GET /connections"):
        mesh.answers[route] = lambda _: problem(503, "unavailable", "The registry is away.")

    shown = await signed_in.get(f"{BASE}/policy")

    assert shown.status == 200
    assert f"<h1><bdi>{ID}</bdi></h1>" in shown.html
    assert "The connection: not available now." in shown.text
    assert "A new field" in shown.text
    assert "Sync now" not in shown.text


async def test_archived(signed_in: Browser, mesh: Double) -> None:
    """It can be read, not changed."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "archived_at": "2026-11-28T09:00:00Z"}
    mesh.answers["GET /connections"] = page()

    for tab in TABS:
        shown = await signed_in.get(f"{BASE}/{tab}")
        assert "Archived" in shown.text
        assert f'action="{BASE}/sync"' not in shown.html
        assert "Roll back" not in shown.text


@pytest.mark.deep(after=3)
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_of_a_connection(signed_in: Browser, mesh: Double, name: str) -> None:
    """Everything that comes from a source or a person is shown as text."""
    samples_of = {
        f"GET {BASE}": {**CONNECTION, "name": name, "source_type": name, "description": name},
        f"GET {BASE}/observation": {**samples.OBSERVATION, "detail": name, "code": name},
        f"GET {BASE}/timeline": page(_hostile_entry(name), _hostile_setting(name)),
        f"GET {BASE}/jobs": page(samples.job("2026-11-25T10:00:00Z", failure_code=name)),
        f"GET {BASE}/jobs/{JOB}/logs": {**samples.LOG, "items": [name], "failures": []},
        f"GET {BASE}/catalog-versions": page({**samples.VERSIONS[0], "decided_by": name}),
        f"GET {BASE}/catalog-versions/14/streams": page(
            samples.stream(name, 1, 1, namespace=name, cursor_field=[name], primary_key=[[name]])
        ),
        f"GET {BASE}/catalog-versions/14/fields": page(samples.field(name, {"type": name})),
        f"GET {BASE}/policy": {**samples.policy({"never_select": [name]}), "updated_by": name},
    }
    mesh.answers |= samples_of
    for path in PAGES:
        shown = await signed_in.get(f"{BASE}/{path}")

        assert shown.status == 200, path
        assert f"<bdi>{text.visible_name(name)}</bdi>" in unescape(shown.html), path
        assert not injected(shown.html), path


def _hostile_entry(name: str) -> dict[str, Any]:
    changes = [samples.change("field_removed", name, name)]
    return entry(
        *("repair_decided", "2026-11-28T09:00:00Z", "approved"),
        actor=name,
        reason=name,
        code=name,
        repair_id=REPAIR,
        details={"change_count": 1, "first_changes": changes},
    )


def _hostile_setting(name: str) -> dict[str, Any]:
    change = {"name": {"from": name, "to": name}}
    return entry(
        *("setting", "2026-11-28T08:00:00Z", "changed"),
        actor=name,
        details={"subject": "connection", "settings": ["name"], "change": change},
    )


async def test_timeline(signed_in: Browser, mesh: Double) -> None:
    """Days with sentences, syncs in a row folded, quiet days in one line."""
    shown = await signed_in.get(f"{BASE}/timeline")

    assert "Repair proposed: 3 changes" in shown.text
    assert "3 syncs succeeded" in shown.text
    assert "The last one: 1,204,881 records, 612 MB in 8 min." in shown.text
    assert "Opportunity history belongs to the forecasting team." in shown.text
    assert "Sync failed" in shown.text
    assert "Quota exceeded." in shown.text
    assert "3 quiet days 3 syncs succeeded." in shown.text
    assert "23\u201325 Nov" in shown.text
    assert "schedule: nothing → every 3 hours" in shown.text
    assert f'href="{BASE}/versions/13..14"' in shown.html
    assert "before=older-1" in shown.html
    assert "Records of the last 23 syncs" in shown.html


async def test_times_of_folded_syncs(signed_in: Browser, mesh: Double) -> None:
    """Both are shown in the chosen zone, and the days of every page in UTC."""
    mesh.answers[f"GET {BASE}/timeline"] = page(*samples.TIMELINE)

    shown = await signed_in.get(f"{BASE}/timeline")

    since = '<time datetime="2026-11-28T01:00:00Z" title="28 Nov 2026, 01:00 UTC">01:00</time>'
    assert f'{since}\u2013<time datetime="2026-11-28T07:00:00Z"' in shown.html
    assert "Days are in UTC." in shown.text


async def test_versions_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """Older ones are no longer active."""
    applied = entry("repair_ended", "2026-11-26T10:00:00Z", "applied", version=13)
    mesh.answers[f"GET {BASE}/timeline"] = page(
        *(entry("version", f"2026-11-{n}T10:00:00Z", "repair", version=n) for n in (14, 13)),
        applied,
    )

    shown = await signed_in.get(f"{BASE}/timeline")

    assert "Version 14 became active" in shown.text
    assert "Version 13 became active" in shown.text
    assert "Version 13 was applied, and read back from Airbyte." in shown.text


def test_chart_with_empty_syncs() -> None:
    """A sync without new records counts; one whose records are unknown does not."""
    records = (0, 0, 900, None)
    jobs = [samples.job("2026-11-28T10:00:00Z", records=count) for count in records]

    found = chart.chart_of(jobs)

    assert found is not None
    assert "median 0 records" in found.summary


async def test_rollback_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """It names the version, and what has ended does not wait for a review."""
    of_repair = {"severity": "needs_review", "repair_id": REPAIR, "reason": None, "code": None}
    rollback = {"kind": "rollback", "target_version": 3, "decisions": []}
    mesh.answers[f"GET {BASE}/timeline"] = page(
        _entry("4", "repair_ended", "applied", version=5, details=rollback, **of_repair),
        _entry("3", "repair_decided", "rolled_back", details=rollback, **of_repair),
        _entry("2", "repair_ended", "superseded", details={"kind": "heal"}, **of_repair),
        _entry("1", "repair_decided", "approved", details={"kind": "heal"}, **of_repair),
    )

    shown = await signed_in.get(f"{BASE}/timeline?kind=repairs")

    assert "Rolled back to version 3" in shown.text
    assert "Rollback to version 3 requested" in shown.text
    assert "Repair replaced by a newer one" in shown.text
    assert "Needs review" not in shown.text


async def test_schema_checks_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """The empty list says which checks it has."""
    mesh.answers[f"GET {BASE}/timeline"] = page()

    shown = await signed_in.get(f"{BASE}/timeline?kind=checks")

    assert "Nothing of this kind Only checks that failed or were suspicious" in shown.text


def _entry(id: str, kind: str, outcome: str, **more: Any) -> dict[str, Any]:
    entry = {"id": id, "at": "2026-11-28T09:16:00Z", "actor": "ada", "requested_by": "ada"}
    return entry | {"kind": kind, "outcome": outcome} | more


async def test_timeline_of_one_kind(signed_in: Browser, mesh: Double) -> None:
    """Asked for by its kinds, from the page's position on, and not folded."""
    mesh.answers[f"GET {BASE}/timeline"] = page(
        samples.sync("2026-11-28T07:00:00Z"), samples.sync("2026-11-25T07:00:00Z")
    )

    shown = await signed_in.get(f"{BASE}/timeline?kind=syncs&before=older-1")

    (asked,) = mesh.of("GET", f"{BASE}/timeline")
    assert asked.query == "kinds=sync&kinds=volume&before=older-1&limit=100"
    assert shown.text.count("Sync succeeded") == 2
    assert "quiet days" not in shown.text


async def test_copies_of_decisions_are_not_counted(signed_in: Browser, mesh: Double) -> None:
    """A decision that moved on with a part of the repair is not one about what is left."""
    own = {"verdict": "approved", "change_count": 3, "is_copy": False}
    copied = {"verdict": "carried_over", "change_count": 9, "is_copy": True}
    mesh.answers[f"GET {BASE}/timeline"] = page(
        entry(
            *("repair_decided", "2026-11-28T09:00:00Z", "approved"),
            details={"decisions": [own, copied]},
        )
    )

    shown = await signed_in.get(f"{BASE}/timeline")

    assert "3 changes." in shown.text
    assert "decisions in total" not in shown.text


async def test_every_kind_of_entry(signed_in: Browser, mesh: Double) -> None:
    """An entry without details, or of a kind that is newer than the console, is shown, too."""
    kinds = ("repair_ended", "connector", "observation", "upstream", "volume", "operation")
    entries = [
        entry(kind, f"2026-11-28T09:00:{n:02}Z", "failed", operation_id=JOB, job_id=JOB)
        for n, kind in enumerate((*kinds, "archived", "credential", "unheard_of"))
    ]
    mesh.answers[f"GET {BASE}/timeline"] = page(*entries)

    shown = await signed_in.get(f"{BASE}/timeline")

    assert shown.status == 200
    assert shown.html.count('<li class="event') == len(entries)
    assert "Unheard of: failed" in shown.text


async def test_empty_connection(signed_in: Browser, mesh: Double) -> None:
    """Each tab says what would be there."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "catalog_version": 0, "paused_by": None}
    for route in ("timeline", "jobs", "catalog-versions", "snapshots"):
        mesh.answers[f"GET {BASE}/{route}"] = page()
    mesh.answers["GET /drifts"] = page()
    sentences = {
        "timeline": "Nothing has happened yet",
        "catalog": "No catalog yet",
        "versions": "No version yet",
        "schema": "No drift so far",
        "syncs": "No syncs yet",
    }
    for tab, sentence in sentences.items():
        assert sentence in (await signed_in.get(f"{BASE}/{tab}")).text


@pytest.mark.parametrize(
    "action,route,answered,where",
    [
        ("sync", f"POST {BASE}/sync", {"job_id": JOB}, "syncs?done=sync"),
        ("sync", f"POST {BASE}/sync", {"job_id": None}, "syncs?done=syncing"),
        ("observe", f"POST {BASE}/observe", {"outcome": "changed"}, "schema?done=changed"),
        ("observe", f"POST {BASE}/observe", {"status": "observing"}, "schema?done=checking"),
        ("plan", f"POST {BASE}/plan", {}, "timeline?done=planned"),
        ("pause", f"PATCH {BASE}", {}, "timeline?done=paused"),
        ("resume", f"PATCH {BASE}", {}, "timeline?done=resumed"),
        ("interval", f"PUT {BASE}/observation", {}, "schema?done=interval"),
        (
            f"syncs/{JOB}/cancel",
            f"POST {BASE}/jobs/{JOB}/cancel",
            {"status": "cancelled"},
            "syncs?done=cancelled",
        ),
    ],
)
async def test_action(
    signed_in: Browser, mesh: Double, action: str, route: str, answered: Any, where: str
) -> None:
    """Sent to its service, then reported on the tab that shows its effect."""
    mesh.answers[route] = answered
    await signed_in.get(BASE)

    shown = await signed_in.post(f"{BASE}/{action}", {"interval_seconds": "300"})

    assert (shown.status, shown.location) == (303, f"{BASE}/{where}")
    method, _, path = route.partition(" ")
    assert len(mesh.of(method, path)) == 1
    reported = await signed_in.get(shown.location)
    assert 'role="status"' in reported.html


async def test_refused_action(signed_in: Browser, mesh: Double) -> None:
    """The reason stands on the page from which it was asked for."""
    mesh.answers[f"POST {BASE}/sync"] = lambda _: problem(
        409, "sync_running", "A sync of this connection is running."
    )
    await signed_in.get(BASE)

    shown = await signed_in.post(f"{BASE}/sync")

    assert shown.status == 409
    assert "A sync of this connection is running." in shown.text
    assert "sync_running" in shown.text
    assert "Repair proposed: 3 changes" in shown.text


@pytest.mark.parametrize(
    "action,route,tab",
    [
        ("sync", f"POST {BASE}/sync", "timeline"),
        ("interval", f"PUT {BASE}/observation", "schema"),
        (f"syncs/{JOB}/cancel", f"POST {BASE}/jobs/{JOB}/cancel", "syncs"),
        ("policy/preview", f"POST {BASE}/policy/preview", "policy"),
    ],
)
async def test_links_of_a_refused_action(
    signed_in: Browser, mesh: Double, action: str, route: str, tab: str
) -> None:
    """They lead to the tab, since the form's own address cannot be opened."""
    await signed_in.get(BASE)
    mesh.answers[route] = lambda _: problem(409, "conflict", "Not now.")
    mesh.answers["GET /connections"] = lambda _: problem(503, "unavailable", "Away.")
    for one in ("timeline", "observation", "jobs", "policy"):
        mesh.answers[f"GET {BASE}/{one}"] = lambda _: problem(503, "unavailable", "Away.")

    shown = await signed_in.post(f"{BASE}/{action}", {"set.key.lost": "pause"})

    assert shown.status == 409
    assert f'href="{BASE}/{action}"' not in shown.html
    assert f'<a href="{BASE}/{tab}">Try again</a>' in shown.html


async def test_pages_of_a_refused_action(signed_in: Browser, mesh: Double) -> None:
    """The pager leads on from the tab."""
    await signed_in.get(BASE)
    mesh.answers[f"POST {BASE}/jobs/{JOB}/cancel"] = lambda _: problem(409, "ended", "Ended.")

    shown = await signed_in.post(f"{BASE}/syncs/{JOB}/cancel")

    assert f'href="{BASE}/syncs?after=jobs-2"' in shown.html


async def test_observation_is_read_once(signed_in: Browser, mesh: Double) -> None:
    """The head and the tab show the same one."""
    await signed_in.get(f"{BASE}/schema")

    assert len(mesh.of("GET", f"{BASE}/observation")) == 1


async def test_throttled(signed_in: Browser, mesh: Double) -> None:
    """A page that asks too often says for how long to wait."""
    mesh.answers[f"GET {BASE}"] = lambda _: problem(
        429, "rate_limited", "Too many requests.", headers={"Retry-After": "7"}
    )

    shown = await signed_in.get(f"{BASE}/catalog")

    assert shown.status == 429
    assert "Try again in 7 s." in shown.text


async def test_buttons_without_scopes(browser: Browser, mesh: Double) -> None:
    """They stay, disabled, with what they need."""
    mesh.scopes = ("connections:read",)
    await browser.sign_in(mesh.key)
    needed = {
        "timeline": "connections:write",
        "schema": "repairs:decide",
        "syncs": "connections:sync",
        "archive": "connections:write",
    }
    for path, scope in needed.items():
        shown = await browser.get(f"{BASE}/{path}")
        assert "disabled" in shown.html
        assert f"Needs {scope}" in shown.text


async def test_suspicious_check_is_accepted(signed_in: Browser, mesh: Double) -> None:
    """With a form that says what that means."""
    mesh.answers[f"POST {BASE}/observe"] = {"outcome": "changed"}
    shown = await signed_in.get(f"{BASE}/schema")
    assert "1 of 214 streams are gone" in shown.text

    await signed_in.post(f"{BASE}/observe", {"accept_missing": "yes"})

    (asked,) = mesh.of("POST", f"{BASE}/observe")
    assert asked.json == {"accept_missing": True}


async def test_archiving_needs_the_name(signed_in: Browser, mesh: Double) -> None:
    """Typed as it is shown."""
    mesh.answers[f"DELETE {BASE}"] = lambda _: json(None, 204)
    await signed_in.get(f"{BASE}/archive")

    wrong = await signed_in.post(f"{BASE}/archive", {"name": "Salesforce"})
    right = await signed_in.post(f"{BASE}/archive", {"name": " Salesforce production "})

    assert wrong.status == 422
    assert "This is not the connection's name." in wrong.text
    assert right.location == f"{BASE}/timeline?done=archived"
    assert len(mesh.of("DELETE", BASE)) == 1


async def test_archiving_of_an_imported_one(signed_in: Browser, mesh: Double) -> None:
    """Deletes nothing in Airbyte, which the page says."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "imported": True}

    shown = await signed_in.get(f"{BASE}/archive")

    assert "Airbyte keeps the connection, since it was imported." in shown.text
    assert "What this destroys" not in shown.text


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
    browser = Browser(console(peer_timeout=timedelta(milliseconds=200)))
    await browser.sign_in(mesh.key)
    await browser.get(f"{BASE}/catalog")
    mesh.delays[f"POST {BASE}/discover"] = 0.4

    shown = await browser.post(f"{BASE}/catalog/edit", {"stream": "Account", "namespace": ""})

    assert shown.status == 200
    assert 'value="Name" checked' in shown.html
    await browser.client.aclose()


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


async def test_versions(signed_in: Browser, mesh: Double) -> None:
    """Each with its origin and a way back; two can be chosen and compared."""
    shown = await signed_in.get(f"{BASE}/versions")

    assert "Version 14 Active" in shown.text
    assert "The policy set by Ada" in shown.text
    assert f'href="{BASE}/versions/14..12">Roll back…' in shown.html
    assert shown.html.count('type="radio"') == 10
    assert f'<form action="{BASE}/versions/compare">' in shown.html


async def test_syncs(signed_in: Browser, mesh: Double) -> None:
    """A table with why a sync failed, and a form to cancel one that runs."""
    shown = await signed_in.get(f"{BASE}/syncs")

    assert "The source's quota of API calls is used up." in shown.text
    assert "8 min 14 s" in shown.text
    assert f'action="{BASE}/syncs/{JOB}/cancel"' in shown.html
    assert f'href="{BASE}/syncs?after=jobs-2"' in shown.html


async def test_sync_log_is_forbidden(signed_in: Browser, mesh: Double) -> None:
    """The page says which scope it needs."""
    mesh.answers[f"GET {BASE}/jobs/{JOB}/logs"] = lambda _: problem(403, "forbidden", "No.")

    shown = await signed_in.get(f"{BASE}/syncs/{JOB}")

    assert shown.status == 200
    assert "Reading a log needs connections:write" in shown.text


async def test_destination_is_named(signed_in: Browser, mesh: Double) -> None:
    """By Airbyte, as a fragment; by its id if Airbyte is away; once it is known, at once."""
    listed = mesh.answers["GET /destinations"]
    mesh.answers["GET /destinations"] = lambda _: problem(502, "upstream", "Airbyte is away.")
    unnamed = await signed_in.get(f"{BASE}/destination")
    mesh.answers["GET /destinations"] = listed
    named = await signed_in.get(f"{BASE}/destination")
    mesh.answers["GET /destinations"] = lambda _: problem(502, "upstream", "Airbyte is away.")

    assert (unnamed.status, unnamed.text) == (200, "9c8b7a6d")
    assert "Snowflake analytics" in named.text
    assert "Snowflake analytics" in (await signed_in.get(f"{BASE}/destination")).text
    assert "Snowflake analytics" in (await signed_in.get(f"{BASE}/schema?done=changed")).text


async def test_policy(signed_in: Browser, mesh: Double) -> None:
    """What is in effect, with the layer that set it."""
    shown = await signed_in.get(f"{BASE}/policy")

    assert "A new field Ask a person This connection" in shown.text
    assert "Verify an applied repair By reading it back Label team=sales" in shown.text
    assert "*birth* Label team=sales" in shown.text
    (asked,) = mesh.of("GET", f"{BASE}/policy")
    assert asked.query == "explain=true"


FORM = {
    "was.field.added": "propose",
    "set.field.added": "",
    "was.key.lost": "",
    "set.key.lost": "",
    "was.rename_min_confidence": "",
    "set.rename_min_confidence": "0.8",
    "was.never_select": "",
    "set.never_select": "*iban*\r\n\r\n *tax*",
}
ORDER = {
    "reactions": {"field": {"added": None}},
    "rename_min_confidence": 0.8,
    "never_select": ["*iban*", "*tax*"],
}


async def test_policy_is_previewed_and_saved(signed_in: Browser, mesh: Double) -> None:
    """Only what was changed in the form is sent, and nothing is saved before the second step."""
    mesh.answers[f"PUT {BASE}/policy"] = samples.policy()
    await signed_in.get(f"{BASE}/policy")

    preview = await signed_in.post(f"{BASE}/policy/preview", FORM)

    assert preview.status == 200
    assert "A new field Ask a person Inherited" in preview.text
    assert "1 change would have been treated differently." in preview.text
    assert "Tier__c in Account Ask a person Apply at once" in preview.text
    assert "Old__c" not in preview.text
    (asked,) = mesh.of("POST", f"{BASE}/policy/preview")
    assert asked.json == ORDER
    assert not mesh.of("PUT", f"{BASE}/policy")

    saved = await signed_in.post(f"{BASE}/policy", FORM)

    assert saved.location == f"{BASE}/policy?done=policy"
    (stored,) = mesh.of("PUT", f"{BASE}/policy")
    assert stored.json == ORDER


async def test_policy_that_somebody_else_changed(signed_in: Browser, mesh: Double) -> None:
    """Is not overwritten; what was entered is kept on top of what is stored now."""
    mesh.answers[f"GET {BASE}/policy"] = samples.policy(
        {"reactions": {"field": {"added": "ignore"}}}
    )
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(f"{BASE}/policy", FORM)

    assert shown.status == 409
    assert "1 entry changed since you opened the form (A new field)." in shown.text
    assert 'name="was.field.added" value="ignore"' in shown.html
    assert 'name="set.rename_min_confidence" value="0.8"' in shown.html
    assert "*iban*" in shown.html
    assert not mesh.of("PUT", f"{BASE}/policy")


async def test_invalid_policy(signed_in: Browser, mesh: Double) -> None:
    """The service's reason stands above the form, which keeps what was entered."""
    mesh.answers[f"POST {BASE}/policy/preview"] = lambda _: problem(
        422, "invalid", "body.rename_min_confidence: Input should be at most 1."
    )
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(
        f"{BASE}/policy/preview", {**FORM, "set.rename_min_confidence": "7"}
    )

    assert shown.status == 422
    assert "Input should be at most 1." in shown.text
    assert 'name="set.rename_min_confidence" value="7"' in shown.html


@pytest.mark.parametrize(
    "name,value",
    [
        *(("rename_min_confidence", value) for value in ("nan", "inf", "-Infinity", "1e999")),
        ("discoveries_per_day", "9" * 20),
        ("discoveries_per_day", "many"),
    ],
)
async def test_what_is_no_number(signed_in: Browser, mesh: Double, name: str, value: str) -> None:
    """The service gets it as it was entered, to refuse it, and the entry is not removed."""
    await signed_in.get(f"{BASE}/policy")

    await signed_in.post(f"{BASE}/policy/preview", {f"was.{name}": "1", f"set.{name}": value})

    (asked,) = mesh.of("POST", f"{BASE}/policy/preview")
    assert asked.json == {name: value}


async def test_policy_of_an_archived_connection(signed_in: Browser, mesh: Double) -> None:
    """It is shown without a form."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "archived_at": "2026-11-28T09:00:00Z"}
    mesh.answers[f"GET {BASE}/policy"] = samples.policy({"never_select": ["*iban*", "*tax*"]})

    shown = await signed_in.get(f"{BASE}/policy")

    assert "A new field Ask a person" in shown.text
    assert "*iban* This connection *tax* This connection" in shown.text
    assert "policy/preview" not in shown.html
    assert "<textarea" not in shown.html
    assert "<select" not in shown.html


async def test_unchanged_policy(signed_in: Browser, mesh: Double) -> None:
    """Nothing to preview."""
    await signed_in.get(f"{BASE}/policy")

    shown = await signed_in.post(f"{BASE}/policy/preview", {"was.key.lost": "", "set.key.lost": ""})

    assert "Nothing was changed in the form." in shown.text
    assert not mesh.of("POST", f"{BASE}/policy/preview")


@pytest.mark.parametrize(
    "count,shown",
    [(None, "\u2013"), (0, "0 B"), (999, "999 B"), (1_500, "1.5 KB"), (612_000_000, "612 MB")],
)
def test_sizes(count: int | None, shown: str) -> None:
    """In powers of a thousand."""
    assert words.size(count) == shown


@pytest.mark.parametrize(
    "seconds,shown",
    [
        (None, "\u2013"),
        (14.5, "14 s"),
        (120, "2 min"),
        (494.5, "8 min 14 s"),
        (3_900, "1 h 5 min"),
        (864_000, "10 days"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    """With at most two units."""
    assert words.duration(seconds) == shown


@pytest.mark.parametrize(
    "given,shown",
    [
        ({"type": ["null", "string"], "format": "date-time"}, "date-time"),
        ({"type": ["number", "string"]}, "number | string"),
        ({"oneOf": [{}]}, "several types"),
        ({}, "any"),
        (None, "unknown"),
    ],
)
def test_types(given: Any, shown: str) -> None:
    """In a word or two."""
    assert words.type_of(given) == shown
