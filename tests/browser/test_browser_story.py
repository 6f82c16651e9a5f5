"""The story of the demo by clicking: take a healed change back, and decide a rename."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, expect

from local.mesh_client import MeshConnection
from tests.browser import story
from tests.browser.conftest import arrivals, running
from tests.browser.person import Person
from tests.browser.reviewing import approve, change, choose_rename, preview, wait_for_end

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

GONE: Final = "NumberofLocations__c"
SUGGESTED: Final = "LocationCount__c"
CHOSEN: Final = "Tier__c"


@pytest.fixture
async def healed(
    chromium: Browser, org_secrets: None, tmp_path: Path
) -> AsyncIterator[MeshConnection]:
    """A connection of a mesh of the test's own: synced, and healed once, to version 2."""
    async with running(tmp_path / "logs") as mesh:
        yield await story.healed(mesh, "Salesforce demo")


async def take_back(one: Person, connection: MeshConnection) -> None:
    """From the inbox to what was healed, and back to version 1."""
    await one.open("/")
    link = one.page.get_by_role("link", name="Salesforce demo").first
    await link.click()
    await expect(one.page.get_by_role("heading", level=1)).to_contain_text("1 change")
    await expect(one.page.locator("main")).to_contain_text("Region__c")
    await one.page.get_by_role("link", name="Compare, roll back…").click()
    await expect(one.page.locator("main")).to_contain_text("Version 2 → 1, as version 3")
    await one.page.get_by_label("Why").fill("Not needed yet.\nAda")
    await one.page.get_by_role("button", name="Roll back").click()
    await wait_for_end(one, "Airbyte has version 3")
    assert await connection.version() == 3


async def decide(one: Person, connection: MeshConnection) -> int:
    """From the inbox to the rename, with another name than suggested; return the new version."""
    version = await connection.version() + 1
    await one.open("/")
    await one.page.get_by_role("link", name=re.compile("^Review")).first.click()
    await expect(one.page.get_by_role("heading", level=1)).to_contain_text("to decide")
    await expect(change(one, GONE)).to_contain_text(SUGGESTED)
    # The suggested rename still needs a choice about its column; the new field needs no choice.
    decided = one.page.locator("[data-decided]")
    await expect(decided).to_contain_text("1/2")
    await choose_rename(one, GONE, CHOSEN)
    if one.has_scripts:
        await expect(decided).to_contain_text("2/2")
    why = "Tier__c holds it now.\nThe Salesforce team confirmed it."
    await one.page.get_by_label("Why").fill(why)
    await preview(one)
    await approve(one)
    await wait_for_end(one, f"Airbyte has version {version}")
    assert await connection.version() == version
    return version


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_story_by_clicking(chromium: Browser, healed: MeshConnection, scripts: bool) -> None:
    """A healed change is rolled back, and a rename is approved with another name than suggested."""
    async with arrivals(chromium, healed.mesh) as arrives:
        one = await arrives(java_script_enabled=scripts)
        await take_back(one, healed)
        await healed.mesh.change("POST", f"/Account/fields/{GONE}/rename", {"to": SUGGESTED})
        tier = {"name": CHOSEN, "values": ["A", "B"]}
        await healed.mesh.change("POST", "/Account/fields", tier)
        await healed.proposed()
        await story.settled(healed)
        version = await decide(one, healed)

    repairs = await healed.repairs()
    decided = next(one for one in repairs if one["version_number"] == version)
    found = await healed.mesh.ask("drift_repair_agent", "GET", f"/repairs/{decided['id']}")
    (gone,) = [each for each in found["changes"] if each["kind"] == "field_removed"]
    assert gone["decision"]["became"] == [CHOSEN]
    assert found["decisions"][-1]["reason"].endswith("The Salesforce team confirmed it.")
    assert (await healed.synced())["status"] == "succeeded"
