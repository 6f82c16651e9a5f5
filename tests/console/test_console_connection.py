"""The pages of one connection: what all have in common, and their actions."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from services.console import text
from services.console.pages.connection import words
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.connection_samples import BASE, CONNECTION, ID, JOB, REPAIR, entry
from tests.console.double import Double, json, page, problem
from tests.console.test_console_security import HOSTILE, injected

TABS = ("timeline", "catalog", "versions", "schema", "syncs", "policy")
PAGES = (*TABS, "archive", f"syncs/{JOB}")


async def test_head(signed_in: Browser, mesh: Double) -> None:
    """The health with its reason and what to do, the facts, and the actions."""
    shown = await signed_in.get(BASE)

    assert shown.status == 200
    assert "Paused by repair" in shown.text
    assert "3 changes wait for review, 1 is breaking." in shown.text
    assert "Decide on the repair to resume the connection" in shown.text
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
