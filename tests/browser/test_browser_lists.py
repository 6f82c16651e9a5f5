"""Journeys through the lists: by keyboard alone, without JavaScript, on a phone, in both themes."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from local.mesh_client import MeshConnection
from tests.browser.conftest import Arrives
from tests.browser.person import PHONE

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


async def test_keyboard_alone_is_enough(person: Arrives, connection: MeshConnection) -> None:
    """From the inbox to a connection, through the search, and out again."""
    one = await person()
    keyboard = one.page.keyboard

    await one.tab_to("Skip to content")
    await keyboard.press("Enter")
    await one.tab_to("All connections")
    await keyboard.press("Enter")
    await one.page.wait_for_url("**/connections")
    await keyboard.press("/")
    await keyboard.type("Salesforce d")
    await keyboard.press("Enter")
    await one.page.wait_for_url("**/connections?q=Salesforce+d*")
    await one.tab_to("Salesforce demo")
    assert await one.page.evaluate("document.activeElement.pathname") == connection.path
    await one.tab_to("Connections", backwards=True)
    await one.tab_to("Preferences")
    await keyboard.press("Enter")
    await one.page.wait_for_url("**/preferences")
    await one.tab_to("Sign out", backwards=True)
    await keyboard.press("Enter")
    await one.page.wait_for_url("**/login")
    # The key's field has the focus; nothing has to be clicked.
    assert await one.page.evaluate("document.activeElement.id") == "key"


async def test_pages_work_without_javascript(person: Arrives, connection: MeshConnection) -> None:
    """Search, preferences, the menu of a phone, and signing out."""
    one = await person(java_script_enabled=False)
    await one.open("/connections")
    search = one.page.get_by_label("Part of the name")
    await search.fill("demo")
    await search.press("Enter")
    await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])
    await search.fill("nothing has this name")
    await search.press("Enter")
    await expect(one.page.locator("main")).to_contain_text("No connection matches")
    await one.page.get_by_role("link", name="Clear filters").first.click()
    await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])
    await one.page.set_viewport_size(PHONE)
    await one.page.get_by_role("button", name="Menu").click()
    await one.page.get_by_role("link", name="Preferences").click()
    await one.page.get_by_label("Dark").check()
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.locator("html")).to_have_attribute("data-theme", "dark")
    await one.page.get_by_role("button", name="Menu").click()
    await one.page.get_by_role("button", name="Sign out").click()
    await one.page.wait_for_url("**/login")


async def test_theme_is_the_systems_or_the_chosen_one(person: Arrives) -> None:
    """From the first paint: the server writes the chosen theme into the page."""
    one = await person(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await one.page.evaluate(background)
    await one.page.emulate_media(color_scheme="light")
    light = await one.page.evaluate(background)
    assert dark != light

    await one.open("/preferences")
    await one.page.get_by_label("Dark").check()
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await one.page.evaluate(background) == dark
    await one.page.get_by_label("As the system").check()
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.get_by_label("As the system")).to_be_checked()
    assert await one.page.evaluate(background) == light


async def test_times_are_shown_as_chosen(person: Arrives, connection: MeshConnection) -> None:
    """UTC, the zone that the form offers, which is that of the computer, or a distance."""
    one = await person(timezone_id="Asia/Tokyo", locale="en-GB")
    shown = one.page.locator("tbody time").first
    texts = {}
    for choice in ("UTC", "In a time zone", "ago"):
        await one.open("/preferences")
        await one.page.get_by_label(re.compile(choice)).check()
        await one.page.get_by_role("button", name="Save").click()
        await one.page.wait_for_load_state()
        await one.open("/operations")  # all of its times are past
        texts[choice] = await shown.inner_text()
    assert texts["UTC"].endswith("UTC")
    assert texts["In a time zone"].endswith("JST")
    assert texts["ago"].endswith("ago")


async def test_unknown_pages_lead_on(person: Arrives) -> None:
    """A wrong address is a page like the others, with the navigation."""
    one = await person()
    one.expect(404)
    for path in ("/nothing", "/connections/not-an-id", "/static/none.css"):
        assert (await one.open(path)).status == 404
    await one.open("/nothing")
    await one.check_accessibility()
    await one.page.get_by_role("link", name="Connections").click()
    assert one.path == "/connections"


async def test_menu_of_a_phone(person: Arrives) -> None:
    """It opens and closes by a tap or by Escape, and passes axe while it is open."""
    one = await person(viewport=PHONE)
    link = one.page.get_by_role("link", name="Connections", exact=True)
    await expect(link).to_be_hidden()
    await one.page.get_by_role("button", name="Menu").click()
    await expect(link).to_be_visible()
    await one.check_accessibility()
    await one.check_width()
    await one.page.keyboard.press("Escape")
    await expect(link).to_be_hidden()
    await one.page.get_by_role("button", name="Menu").click()
    await link.click()
    assert one.path == "/connections"
    await expect(link).to_be_hidden()


async def test_keys_go_through_a_list(person: Arrives, connection: MeshConnection) -> None:
    """By j, k and x, with the focus on the link of the row; and all of a page at once."""
    one = await person()
    page, keyboard = one.page, one.page.keyboard
    await one.open("/connections")
    links, boxes = page.locator("tbody th a:first-child"), page.locator("tbody .pick input:visible")
    bar = page.get_by_role("group", name="Selected connections")

    await keyboard.press("j")
    await expect(links.first).to_be_focused()
    await keyboard.press("k")  # there is no row above
    await expect(links.first).to_be_focused()
    await keyboard.press("x")
    await expect(boxes.first).to_be_checked()
    await expect(bar).to_contain_text("1 selected")
    await keyboard.press("x")
    await expect(bar).to_be_hidden()
    await page.get_by_label("Select all on this page").check()
    await expect(bar).to_contain_text(f"{await boxes.count()} selected")
    await one.check_accessibility()
    await page.get_by_role("button", name="Archive…").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Archive")
    await one.check_accessibility()
    await page.set_viewport_size(PHONE)
    await one.check_width()
    await page.get_by_role("link", name="Keep").click()
    await one.check_width()
    await page.get_by_label("Select all on this page").check()
    await one.check_accessibility()

    await one.open("/preferences")
    await page.get_by_label("Off").check()
    await page.get_by_role("button", name="Save").click()
    await one.open("/connections")
    await keyboard.press("j")
    await expect(links.first).not_to_be_focused()
