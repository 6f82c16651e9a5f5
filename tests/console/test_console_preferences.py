"""Preferences of a browser: the zone of times, keys; and links to Airbyte."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from services.console.pages.connection.events import Event
from services.console.pages.connection.timeline_days import by_day
from services.console.text import shown
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.double import Double

PATH = f"/connections/{samples.ID}/timeline"


async def chosen(browser: Browser, **fields: str) -> Browser:
    """Save the form of the preferences."""
    await browser.get("/preferences")
    answer = await browser.post("/preferences", fields)
    assert (answer.status, answer.location) == (303, "/preferences")
    return browser


async def test_times_and_days_of_a_zone(signed_in: Browser, mesh: Double) -> None:
    """Without a script: the server writes them, and the zone's name beside them."""
    before = await signed_in.get(PATH)
    assert "Days are in UTC." in before.text

    await chosen(signed_in, time="local", zone="Asia/Tokyo")
    after = await signed_in.get(PATH)

    assert "Days are in Asia/Tokyo." in after.text
    assert " JST" in after.text
    assert " UTC" not in after.text
    assert 'data-time="zone"' in after.html
    assert 'value="Asia/Tokyo"' in (await signed_in.get("/preferences")).html
    await chosen(signed_in, time="utc", zone="Asia/Tokyo")
    assert "Days are in UTC." in (await signed_in.get(PATH)).text


@pytest.mark.parametrize("zone", ["Nowhere", "../etc/passwd", "/etc/localtime", "é", "UTC; x"])
async def test_unknown_zones(signed_in: Browser, mesh: Double, zone: str) -> None:
    """Refused in the form, and ignored in a cookie."""
    await signed_in.get("/preferences")
    refused = await signed_in.post("/preferences", {"time": "local", "zone": zone})
    assert (refused.status, "This time zone is not known here." in refused.text) == (422, True)

    await chosen(signed_in, time="local")
    if zone.isascii():
        signed_in.client.cookies.set("aam-zone", zone.replace(";", ""), domain="localhost.local")
    assert "Days are in UTC." in (await signed_in.get(PATH)).text


def test_days_break_in_the_zone() -> None:
    """Around midnight, and where a day has 25 hours."""
    berlin = ZoneInfo("Europe/Berlin")
    times = ("2026-10-25T23:30:00Z", "2026-10-25T22:30:00Z", "2026-10-24T21:59:00Z")
    events = [Event(at, at, "info", "Something") for at in times]

    days = by_day(events, today=date(2026, 10, 27), folds=False, zone=berlin)

    assert [(day.label, len(day.events)) for day in days] == [
        ("Yesterday, Monday 26 October", 1),
        ("Sunday 25 October", 1),
        ("Saturday 24 October", 1),
    ]
    assert shown(times[1], berlin) == "25 Oct 2026, 23:30 CET"
    assert shown(times[2], berlin) == "24 Oct 2026, 23:59 CEST"


async def test_keys_are_switched_off(signed_in: Browser) -> None:
    """Single keys get in the way of speech input (WCAG 2.1.4)."""
    assert "data-keys" not in (await signed_in.get("/preferences")).html
    await chosen(signed_in, keys="off")
    assert 'data-keys="off"' in (await signed_in.get("/preferences")).html


async def test_link_to_airbyte(double: Double, console: Console) -> None:
    """Where the setting names it; otherwise there is the id alone."""
    samples.answer(double)
    for more, is_linked in (({"airbyte_ui_url": "http://airbyte.example/"}, True), ({}, False)):
        browser = Browser(console(**more))
        await browser.sign_in(double.key)
        html = (await browser.get(PATH)).html
        assert ('href="http://airbyte.example/workspaces/' in html) is is_linked
        await browser.client.aclose()
