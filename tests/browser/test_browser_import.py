"""Journeys with connections that were made in Airbyte: their import, and a list of many pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest
from playwright.async_api import expect

from local.mesh_client import Json, Mesh, MeshConnection
from tests.browser.conftest import Arrives
from tests.waiting import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

COPIES: Final = 102
"""More than one page of the list of connections has."""


async def copy(mesh: Mesh, held: Json, name: str) -> str:
    """Make another connection in Airbyte, as somebody who does not use AAM; its id there."""
    order = {part: held[part] for part in ("sourceId", "destinationId", "syncCatalog", "status")}
    prefix = f"{name.lower().replace(' ', '_')}_"
    made = await mesh.in_airbyte(
        "connections/create", name=name, prefix=prefix, scheduleType="manual", **order
    )
    return str(made["connectionId"])


async def remove(mesh: Mesh, airbyte_ids: Sequence[str], words: str) -> None:
    """Archive every connection with these words in its name, and delete them in Airbyte."""
    while True:
        page = await mesh.ask("orchestrator", "GET", f"/connections?q={words}&limit=50")
        if not page["items"]:
            break
        ids = [one["id"] for one in page["items"]]
        await asyncio.gather(
            *(mesh.ask("orchestrator", "DELETE", f"/connections/{id}", expect=204) for id in ids)
        )
    for airbyte_id in airbyte_ids:
        order = {"connectionId": airbyte_id}
        await mesh.ask("airbyte", "POST", "/api/v1/connections/delete", order, expect=204)


@pytest.fixture
async def by_hand(mesh: Mesh, connection: MeshConnection) -> AsyncIterator[None]:
    """Three connections that AAM does not know; one of them selects no stream."""
    held = await connection.upstream()
    made = [await copy(mesh, held, f"By hand {letter}") for letter in "AB"]
    nothing = [deselected(entry) for entry in held["syncCatalog"]["streams"]]
    made.append(await copy(mesh, held | {"syncCatalog": {"streams": nothing}}, "Selects nothing"))
    yield
    await remove(mesh, made, "By%20hand")


def deselected(entry: dict[str, Any]) -> dict[str, Any]:
    """A stream that is not synced."""
    return entry | {"config": entry["config"] | {"selected": False}}


@pytest.fixture(scope="module")
async def copies(mesh: Mesh, connection: MeshConnection) -> AsyncIterator[None]:
    """Many imported connections."""
    held = await connection.upstream()
    made = [await copy(mesh, held, f"Copy {number:03}") for number in range(COPIES)]
    began = await mesh.ask(
        "orchestrator", "POST", "/connections/import?wait=0", {"dry_run": False}, expect=202
    )

    async def has_ended() -> bool:
        path = f"/imports/{began['operation_id']}?limit=1"
        return bool((await mesh.ask("orchestrator", "GET", path))["status"] == "done")

    await until(has_ended, within=120)
    yield
    await remove(mesh, made, "Copy")


async def test_connections_of_airbyte_are_imported(
    mesh: Mesh, person: Arrives, by_hand: None
) -> None:
    """A dry run, those that are ticked, and the reason for the one that cannot be imported."""
    one = await person()
    page, main = one.page, one.page.locator("main")
    await one.open("/connections?show=all")
    await page.get_by_role("link", name="Import from Airbyte").click()
    await one.check_accessibility()
    await page.get_by_role("button", name="Start the dry run").click()
    await expect(main).to_contain_text("Dry run finished")
    facets = page.get_by_role("navigation", name="Outcome")
    await facets.get_by_role("link", name="Cannot be imported").click()
    row = page.get_by_role("row").filter(has_text="Selects nothing")
    await expect(row).to_contain_text("It selects no stream.")
    await facets.get_by_role("link", name="Can be imported").click()
    await page.get_by_role("checkbox", name="Import By hand B").uncheck()
    await one.check_accessibility()

    await page.get_by_role("button", name="Import those ticked").click()

    await expect(main).to_contain_text("1 of 1 imported.")
    await expect(page.get_by_role("row").filter(has_text="By hand A")).to_contain_text("Imported")
    await page.get_by_role("link", name="By hand A").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("By hand A")
    await expect(page.locator("dl.facts")).to_contain_text("Version 1")
    listed = await mesh.ask("orchestrator", "GET", "/connections?q=By%20hand")
    assert [each["name"] for each in listed["items"]] == ["By hand A"]


async def test_list_is_filtered_sorted_and_paged(person: Arrives, copies: None) -> None:
    """Each state of it has an address, which shows another person the same."""
    one = await person()
    page, rows = one.page, one.page.locator("tbody tr")
    await one.open("/connections?show=all")
    await page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    await expect(rows).to_have_count(100)
    await expect(rows.first).to_contain_text("Copy 000")
    await page.get_by_role("link", name="Next").click()
    await expect(rows.first).to_contain_text("Copy 100")
    second = one.path
    await page.get_by_role("link", name="Previous").click()
    await expect(rows.first).to_contain_text("Copy 000")
    await page.get_by_label("Part of the name, or an id").fill("copy 04")
    await page.get_by_label("Order").select_option("created_at")
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(10)
    filtered, names = one.path, await rows.all_inner_texts()
    await one.check_width()

    other = await person()
    await other.open(filtered)
    shown = other.page.locator("tbody tr")
    await expect(shown).to_have_count(10)
    assert await shown.all_inner_texts() == names
    await expect(other.page.get_by_label("Order")).to_have_value("created_at")
    await other.open(second)
    await expect(shown.first).to_contain_text("Copy 100")
    await other.page.get_by_role("link", name="Previous").click()
    await expect(shown.first).to_contain_text("Copy 000")
    # Without a query, the list comes back as each of them used it last.
    await one.open("/connections")
    await expect(rows).to_have_count(10)


async def test_several_connections_are_paused_at_once(
    mesh: Mesh, person: Arrives, copies: None
) -> None:
    """Those that are ticked; each has its result, and the list shows it."""
    one = await person()
    page = one.page
    await one.open("/connections?q=copy+05")
    for number in (1, 3):
        await page.get_by_label(f"Select Copy 05{number}").check()
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("status").first).to_contain_text("Accepted for all 2 connections")
    await one.check_accessibility()
    await page.get_by_role("link", name="Back to the list").click()
    assert one.path == "/connections?q=copy+05"
    health = page.get_by_role("navigation", name="Health")
    await health.get_by_text("Paused").click()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await expect(page.locator("tbody")).to_contain_text("Copy 051")
    await health.get_by_text("All").click()
    await expect(page.locator("tbody tr")).to_have_count(10)
