"""The main journey by keyboard alone: sign in, decide a rename another way, and roll back."""

from __future__ import annotations

import re
from typing import Final

import pytest
from playwright.async_api import expect

from local.mesh_client import Mesh
from tests.browser import story
from tests.browser.conftest import Arrives
from tests.browser.person import Person, new_key
from tests.browser.reviewing import wait_for_end
from tests.waiting import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

GONE: Final = "Priority__c"
SUGGESTED: Final = "PriorityLevel__c"
CHOSEN: Final = "Urgency__c"
SCOPES: Final = ("connections:read", "connections:write", "repairs:decide", "catalogs:heal")


async def press(one: Person, text: str) -> None:
    """Tab to the link or button with this text, and press Enter."""
    await one.tab_to(text)
    await one.page.keyboard.press("Enter")


async def focused(one: Person) -> str:
    """The id or name of the focused element."""
    return str(
        await one.page.evaluate("document.activeElement.id || document.activeElement.name || ''")
    )


async def arrow_to(one: Person, ending: str) -> None:
    """Go through a group of radios until the one whose id has this ending."""
    for _ in range(10):
        if (await focused(one)).endswith(ending):
            return
        await one.page.keyboard.press("ArrowDown")
    raise AssertionError(f"No radio ends with {ending}.")


async def decide(one: Person, change_id: str, *, version: int) -> None:
    """Choose another name than the suggested one, preview and approve."""
    page, keyboard = one.page, one.page.keyboard
    chosen = page.locator(f"#{change_id} input[name^='choice.']:checked")
    await one.tab_to(str(await chosen.get_attribute("id")))
    await arrow_to(one, "-other")
    await keyboard.press("Tab")
    assert (await focused(one)).startswith("other.")
    await keyboard.type(CHOSEN)
    await keyboard.press("Tab")
    await arrow_to(one, "-new_column")
    await one.tab_to("why")
    await keyboard.type("Urgency replaced it.")
    await press(one, "Preview")
    await expect(page.locator("#preview")).to_contain_text("When you approve")
    # The focus stays on the button that was pressed; Approve comes after it.
    assert await page.evaluate("document.activeElement.innerText") == "Preview again"
    approve = page.locator("#bar button[value=approve]")
    await press(one, await approve.inner_text())
    await wait_for_end(one, f"Airbyte has version {version}")


async def test_main_journey_by_keyboard(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """Every step without a mouse; the focused element is always visible."""
    connection, repair = await story.proposed_rename(
        mesh, onboard, "By keyboard", GONE, SUGGESTED, also=CHOSEN
    )
    (change_id,) = [each["id"] for each in repair["changes"] if each["kind"] == "field_removed"]
    before = repair["base_version"]
    one = await person(signed_in=False)
    page, keyboard = one.page, one.page.keyboard
    await one.open("/login")
    await expect(page.get_by_label("API key")).to_be_focused()
    await keyboard.type((await new_key(mesh, *SCOPES))["key"])
    await keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox")

    await press(one, "Skip to content")
    await press(one, "Review By keyboard")
    await page.wait_for_url(f"**/repairs/{repair['id']}")
    await press(one, "Skip to content")
    await decide(one, change_id, version=before + 1)

    # The source lacks a field of the earlier version: the page says what can be done about it.
    await press(one, "Compare, roll back…")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        f"Version {before} cannot be restored now"
    )
    await one.check_accessibility()
    await one.check_width()
    await story.add_field(mesh, GONE)
    await press(one, "Check schema")
    await page.wait_for_url("**/versions/*checked=*")
    await expect(page.get_by_role("status").first).to_contain_text(
        re.compile("The schema (was|is being) checked")
    )

    async def is_healed() -> bool:
        return bool(await connection.version() == before + 2)

    await until(is_healed, within=180)
    await press(one, "Versions")
    await page.wait_for_url("**/versions")
    await press(one, f"Roll back… to version {before}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        f"Roll back to version {before}?"
    )
    await one.tab_to("why")
    await keyboard.type("The release was withdrawn.")
    await press(one, "Roll back")
    await wait_for_end(one, f"Airbyte has version {before + 3}")
    assert await connection.version() == before + 3
