"""Hostile names in a real browser: shown as they are, run by nothing, and no page breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from local.mesh_client import MeshConnection
from tests.browser.conftest import Arrives
from tests.browser.person import DESK, PHONE

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

NAMES = (
    "<script>document.title='run'</script>",
    '"><img src=x onerror="document.title=\'run\'">',
    "{{ 7 * 7 }} ${7 * 7} hx-on:click=alert(1)",
    "W" * 200,
    "اسم الاتصال 123",  # right to left, beside the page's own words
    "🎉" * 100,
)


@asynccontextmanager
async def renamed(connection: MeshConnection, name: str) -> AsyncIterator[None]:
    """Give a connection another name for a while."""

    async def rename(to: str) -> None:
        await connection.mesh.ask("orchestrator", "PATCH", connection.path, {"name": to})

    before = (await connection.view())["name"]
    await rename(name)
    try:
        yield
    finally:
        await rename(before)


@pytest.mark.parametrize(
    "name", NAMES, ids=["script", "attribute", "template", "wide", "rtl", "emoji"]
)
async def test_hostile_name_is_only_shown(
    person: Arrives, connection: MeshConnection, name: str
) -> None:
    """In lists and titles, wide and narrow; the search finds it and shows it in its field."""
    one = await person()
    async with renamed(connection, name):
        for size in (DESK, PHONE):
            await one.page.set_viewport_size(size)
            for path in ("/", "/connections"):
                await one.open(path)
                assert "run" not in await one.page.title()
                await one.check_width()
        await one.check_accessibility()
        search = one.page.get_by_label("Part of the name")
        await search.fill(name[:100])
        await search.press("Enter")
        await expect(search).to_have_value(name[:100])
        await expect(one.page.locator("tbody tr")).to_have_count(1)
        await one.check_width()
