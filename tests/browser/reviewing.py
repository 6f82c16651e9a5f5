"""What a person does on the page of a repair, by mouse, with or without scripts."""

from __future__ import annotations

import re

from playwright.async_api import Locator, expect

from tests.browser.person import Person
from tests.waiting import until


def change(one: Person, field: str) -> Locator:
    """The part of the page about the change of a field."""
    return one.page.locator("article.change").filter(has_text=field).first


async def choose_rename(one: Person, gone: str, became: str) -> None:
    """Choose what a removed field was renamed to, with a new column, and give a reason."""
    about = change(one, gone)
    await about.get_by_text("Renamed to another new field").click()
    await about.get_by_label(re.compile("^The new name of")).fill(became)
    await about.get_by_text("A new column starts").click()
    await one.page.get_by_label("Why").fill(f"{became} holds it now.")


async def preview(one: Person) -> None:
    """Preview the choices."""
    await one.page.get_by_role("button", name="Preview", exact=True).click()
    await expect(one.page.locator("#preview")).to_contain_text("When you approve")


async def approve(one: Person) -> None:
    """Approve what was previewed."""
    await one.page.get_by_role("button", name=re.compile("^Approve")).click()


async def wait_for_end(one: Person, words: str) -> None:
    """Wait until a repair has ended with these words; without scripts a person refreshes."""
    main = one.page.locator("main")
    refresh = main.get_by_role("link", name="Refresh")

    async def has_ended() -> bool:
        if words in await one.text():
            return True
        await refresh.click()
        return False

    if not one.has_scripts:
        await until(has_ended)
    await expect(main).to_contain_text(words)
