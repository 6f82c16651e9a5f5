"""The inbox: what it shows in each state, and that a service which is away leaves out its part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from services.console import inbox_items, text
from tests.console.browser import Browser
from tests.console.double import Double, page, problem
from tests.console.fleet_samples import (
    REPAIRS,
    change,
    connection,
    fill,
    group,
    repair,
    source,
    summary,
)
from tests.console.test_console_security import HOSTILE, injected

AWAY = "The registry is away."


async def test_inbox_of_a_fleet(signed_in: Browser, double: Double) -> None:
    """Counts, decisions, broken connections, suspicious sources, and what healed."""
    fill(double)

    shown = await signed_in.get("/")

    assert shown.status == 200
    assert (
        "9 of 247 connections need a decision or a fix. The other 238 need nothing." in shown.text
    )
    assert 'href="/connections?health=sync_failing"' in shown.html
    assert "247 connections: 2 failing, 7 needing a person, 6 syncing or healing" in shown.html
    order = ("Salesforce production", "Same change in 3 HubSpot connections", "Stripe EU billing")
    places = [shown.text.index(one) for one in order]
    assert places == sorted(places)
    assert "The cursor of Shipment__c has changed. Region__c is gone from Account" in shown.text
    assert "And 1 more change." in shown.text
    assert "Google Ads DE" in shown.text
    assert "38 of 41 streams are gone" in shown.text
    assert "18 → 19" in shown.text
    assert "Read-back and sync" in shown.text
    assert shown.html.count("button primary") == 1
    assert 'href="/repairs/groups"' in shown.html
    assert f'href="/repairs/{REPAIRS[2]}"' not in shown.html  # only as a part of its group


async def test_inbox_asks_for_summaries(signed_in: Browser, double: Double) -> None:
    """Seven calls, each for one page, in the person's name."""
    fill(double)
    before = len(double.asked)

    await signed_in.get("/")

    asked = double.asked[before:]
    assert len(asked) == 7
    assert all(one.headers["authorization"] == f"Bearer {double.key}" for one in asked)
    assert not any("limit=100" in one.query for one in asked)


@pytest.mark.parametrize(
    "route, query, title",
    [
        ("GET /connections/summary", "", "Counts"),
        ("GET /repairs", "state=proposed", "Repairs"),
        ("GET /connections", "health=failed", "Failed connections"),
        ("GET /observations", "", "Sources"),
        ("GET /repairs", "state=applied", "Healed connections"),
    ],
)
async def test_each_panel_fails_alone(
    signed_in: Browser, double: Double, route: str, query: str, title: str
) -> None:
    """Its title says what is missing, and everything else is there."""
    fill(double)
    whole = await signed_in.get("/")
    fine = {key: value for key, value in double.by_query.items() if key != (route, query)}
    double.by_query = {(route, query): lambda _: problem(503, "unavailable", AWAY)} | fine

    shown = await signed_in.get("/")

    assert shown.status == 200
    assert shown.text.count("not available now.") == 1
    assert f"{title}: not available now. {AWAY}" in shown.text
    assert "not available now" not in whole.text


@pytest.mark.parametrize("route", ["GET /repairs/groups", "GET /repairs/summary"])
async def test_what_only_arranges_may_be_away(
    signed_in: Browser, double: Double, route: str
) -> None:
    """Without groups each repair is an item; without counts the list is counted."""
    fill(double)
    double.answers[route] = lambda _: problem(503, "unavailable", AWAY)

    shown = await signed_in.get("/")

    assert "not available now" not in shown.text
    assert "Stripe EU billing" in shown.text


async def test_all_services_away(signed_in: Browser, double: Double) -> None:
    """The page is still a page."""
    double.unavailable = problem(503, "unavailable", AWAY)

    shown = await signed_in.get("/")

    assert shown.status == 200
    assert shown.text.count("not available now.") == 5


async def test_inbox_without_anything_to_do(signed_in: Browser, double: Double) -> None:
    """It says that all is well, and shows no empty panels."""
    fill(double)
    double.by_query = {}
    double.answers |= {
        "GET /connections/summary": summary(healthy=3),
        "GET /connections": page(),
        "GET /repairs": page(),
        "GET /repairs/groups": page(),
        "GET /repairs/summary": {"open": 0, "by_state": {}, "pausing": 0},
        "GET /observations": page(),
    }

    shown = await signed_in.get("/")

    assert "All 3 connections need nothing." in shown.text
    assert "Nothing to review" in shown.text
    assert "Not working" not in shown.text
    assert "Suspicious sources" not in shown.text
    assert "Healed" not in shown.text


async def test_rename_is_one_change(signed_in: Browser, double: Double) -> None:
    """Likely while it waits, and a fact once it was decided; with both names."""
    fill(double)
    renamed = change("field_renamed", ["Total__c"], became=["Amount__c"])
    stream = change("stream_renamed", [], stream="Deal", became=["Deals"])
    double.by_query["GET /repairs", "state=proposed"] = page(repair(4, "Renaming", renamed, stream))
    double.by_query["GET /repairs", "state=applied"] = page(
        repair(5, "Healed", renamed, state="applied", ended_at=datetime.now(UTC).isoformat())
    )
    double.answers["GET /repairs/groups"] = page()

    shown = (await signed_in.get("/")).text

    assert "Total__c of Account was probably renamed to Amount__c ." in shown
    assert "The stream Deal was probably renamed to Deals . Proposed" in shown
    assert "Total__c of Account was renamed to Amount__c ." in shown


async def test_rollback_in_the_inbox(signed_in: Browser, double: Double) -> None:
    """Who rolled back, and to which version."""
    fill(double)
    ended = datetime.now(UTC) - timedelta(minutes=5)
    made = {"verdict": "rolled_back", "by": "ada", "at": ended.isoformat(), "changes": []}
    back = repair(
        4,
        "Rolled back by hand",
        kind="rollback",
        state="applied",
        target_version=3,
        version_number=5,
        ended_at=ended.isoformat(),
        decisions=[made],
    )
    double.by_query["GET /repairs", "state=applied"] = page(back)

    shown = await signed_in.get("/")

    assert "Rolled back to version 3 by ada ." in shown.text


async def test_inbox_of_one_connection(signed_in: Browser, double: Double) -> None:
    """It is not counted against itself."""
    fill(double)
    double.answers["GET /connections/summary"] = summary(failed=1)

    shown = await signed_in.get("/")

    assert "The connection does not work: it needs a fix." in shown.text
    assert "2 suspicious or failed checks in a row" in shown.text
    double.answers["GET /connections/summary"] = summary(needs_review=1)
    assert "A repair of the connection needs a decision." in (await signed_in.get("/")).text


async def test_all_that_healed_is_counted(signed_in: Browser, double: Double) -> None:
    """The first ten are listed; whether there are more than the services listed is visible."""
    fill(double)
    now = datetime.now(UTC)
    many = [
        repair(9, f"Healed {n}", state="applied", ended_at=(now - timedelta(hours=n)).isoformat())
        for n in range(1, 13)
    ]
    key = ("GET /repairs", "state=applied")
    double.by_query[key] = page(*many, next="more")
    shown = await signed_in.get("/")
    assert "Healed in the last 24 hours 12+ Show as a list" in shown.text
    assert shown.html.count(">Healed ") == 11

    old = repair(9, "Old", state="applied", ended_at=(now - timedelta(days=2)).isoformat())
    double.by_query[key] = page(*many, old, next="more")
    assert "Healed in the last 24 hours 12 Show" in (await signed_in.get("/")).text


async def test_inbox_without_connections(signed_in: Browser, double: Double) -> None:
    """The first use: how to begin."""
    double.answers |= {
        "GET /connections/summary": summary(),
        "GET /connections": page(),
        "GET /repairs": page(),
        "GET /repairs/groups": page(),
        "GET /observations": page(),
    }

    shown = await signed_in.get("/")

    assert "No connections yet" in shown.text
    assert "Nothing to review" not in shown.text


async def test_actions_without_the_scope(browser: Browser, double: Double) -> None:
    """The buttons stay, disabled, and say what they need."""
    double.scopes = ("connections:read",)
    await browser.sign_in(double.key)
    fill(double)

    shown = await browser.get("/")

    assert "Needs connections:write" in shown.text
    assert "Needs connections:sync" in shown.text


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_in_the_inbox(signed_in: Browser, double: Double, name: str) -> None:
    """Names and reasons of every kind of item are text."""
    fill(double)
    hostile = change("field_removed", [name], name)
    one, two = repair(20, name, hostile), repair(21, name, hostile)
    other = repair(22, name, change("stream_added", [], name))
    double.answers |= {
        "GET /repairs/groups": page(group(hostile, one, two)),
        "GET /observations": page(source(23, name, detail=name, code=name)),
    }
    double.by_query = {
        ("GET /repairs", "state=proposed"): page(one, two, other),
        ("GET /repairs", "state=applied"): page(
            repair(24, name, hostile, state="applied", ended_at=datetime.now(UTC).isoformat())
        ),
        ("GET /connections", "health"): page(
            connection(25, name, "differs", reason=name, code=name)
        ),
    }

    shown = await signed_in.get("/")

    assert shown.status == 200
    assert unescape(shown.html).count(text.visible_name(name)) >= 10
    assert not injected(shown.html)
    assert not any(text._is_hidden(char) for char in shown.html if char not in "\n\t")


def test_groups_of_the_same_connections_are_one() -> None:
    """Two changes in the same repairs are one item; a repair with another open change stays."""
    first, second = (
        change("field_removed", ["a"]),
        change("field_added", ["b"], severity="harmless"),
    )
    both = [repair(n, f"HubSpot {n}", first, second) for n in (1, 2)]
    with_more = repair(3, "HubSpot 3", first, second, change("field_added", ["c"]))
    groups = [
        group(first, *both, with_more, id="a" * 64),
        group(second, *both, with_more, id="b" * 64),
    ]

    shown = inbox_items.waiting([*both, with_more], groups)

    assert [len(one.changes) for one in shown.groups] == [2]
    assert shown.groups[0].severity == "needs_review"
    assert [one["id"] for one in shown.repairs] == [REPAIRS[3]]


def test_urgent_proposals_come_first() -> None:
    """Those that pause their connection, then by severity, then what has waited longest."""
    one = change("field_removed", ["a"])
    given = [
        repair(1, "new", one, created_at="2026-11-28T09:00:00Z"),
        repair(2, "old", one, created_at="2026-11-27T09:00:00Z"),
        repair(3, "breaking", one, severity="breaking"),
        repair(4, "paused", one, severity="harmless", paused=True),
    ]

    shown = inbox_items.waiting(given, [])

    assert [row["connection_name"] for row in shown.repairs] == ["paused", "breaking", "old", "new"]


def test_healed_within_a_day() -> None:
    """By when they ended, the newest first; older ones are left out."""
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    given = [
        repair(n, str(n), ended_at=(now - timedelta(hours=hours)).isoformat())
        for n, hours in ((1, 23), (2, 25), (3, 1))
    ]

    shown = inbox_items.healed([*given, repair(4, "open")], now=now)

    assert [one["connection_name"] for one in shown] == ["3", "1"]


def test_bar_of_a_fleet() -> None:
    """The parts fill it, and one connection of many is visible."""
    shown = inbox_items.fleet({"failed": 1, "healthy": 100_000, "paused": 0})

    assert [part.kind for part in shown.parts] == ["bad", "good"]
    assert float(shown.parts[0].width) >= 8
    last = shown.parts[-1]
    assert float(last.x) + float(last.width) == pytest.approx(1000, abs=0.5)
    assert shown.words == "100,001 connections: 1 failing, 100,000 healthy"
    assert inbox_items.fleet({}).total == 0
