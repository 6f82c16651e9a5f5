"""Journeys about decisions: a plan that is out of date, two people at once, several connections."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import pytest
from playwright.async_api import expect

from local.mesh_client import Json, Mesh, MeshConnection, until
from tests.browser import story
from tests.browser.conftest import Arrives
from tests.browser.person import Person
from tests.browser.reviewing import approve, change, choose_rename, preview, wait_for_end

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

DECIDES: Final = ("connections:read", "repairs:decide")


async def newer(connection: MeshConnection, than: Json) -> Json:
    """The proposal that replaces another one, after the source changed again."""
    await connection.observed("changed")

    async def replaced() -> Json | None:
        proposed = [one for one in await connection.repairs() if one["state"] == "proposed"]
        return next((one for one in proposed if one["id"] != than["id"]), None)

    return await until(replaced, "a newer proposal", within_s=60)


async def test_plan_that_is_out_of_date_leads_to_the_newer_one(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """The approval of an old page changes nothing; the choices go on to the newer repair."""
    connection, old = await story.proposed_rename(
        mesh, onboard, "Stale plan", "Budget__c", "YearBudget__c"
    )
    await story.add_field(mesh, "Quota__c")
    one = await person()
    await one.open(f"/repairs/{old['id']}")
    await choose_rename(one, "Budget__c", "YearBudget__c")
    await preview(one)
    await mesh.change("DELETE", "/Contact/fields/Languages__c")
    new = await newer(connection, old)

    one.expect(409)
    await approve(one)

    main = one.page.locator("main")
    await expect(main).to_contain_text("A newer plan replaced this repair")
    await expect(main).to_contain_text("The form that you sent changed nothing")
    await one.check_accessibility()
    assert await connection.version() == 1
    await one.page.get_by_role("button", name="Take my choices to the newer repair").click()
    await one.page.wait_for_url(f"**/repairs/{new['id']}*")
    about = change(one, "Budget__c")
    await expect(about.get_by_label(re.compile("^The new name of"))).to_have_value("YearBudget__c")
    await expect(about.get_by_label("A new column starts")).to_be_checked()
    await expect(one.page.get_by_label("Why")).to_have_value("YearBudget__c holds it now.")
    await expect(change(one, "Languages__c").get_by_label("Decide later")).to_be_checked()
    await preview(one)
    await approve(one)
    await wait_for_end(one, "Airbyte has version 2")
    assert await connection.version() == 2


async def test_two_people_decide_at_once(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """One of them decides; the other sees who decided what, and nothing happens twice."""
    connection, repair = await story.proposed_rename(
        mesh, onboard, "Two people", "Segment__c", "MarketSegment__c", also="Cluster__c"
    )
    people: list[Person] = []
    for owner, chosen in (("ada", "MarketSegment__c"), ("grace", "Cluster__c")):
        one = await person(signed_in=False)
        one.expect(409)
        await one.sign_in_as(f"{owner}@example.com", mesh, *DECIDES)
        await one.open(f"/repairs/{repair['id']}")
        await choose_rename(one, "Segment__c", chosen)
        await preview(one)
        people.append(one)

    await asyncio.gather(*map(approve, people))

    for one in people:
        await expect(one.page.get_by_role("heading", name="Decisions")).to_be_visible()
    (late,) = [
        one for one in people if "The form that you sent changed nothing" in await one.text()
    ]
    (first,) = [one for one in people if one is not late]
    version = repair["base_version"] + 1
    await wait_for_end(first, f"Airbyte has version {version}")
    owner, chosen = ("ada", "MarketSegment__c") if first is people[0] else ("grace", "Cluster__c")
    await expect(late.page.locator("main")).to_contain_text("no longer waits for a decision")
    await expect(late.page.locator("main")).to_contain_text(f"Approved by {owner}@example.com")
    await expect(late.page.locator("#decisions")).to_contain_text(f"{chosen} holds it now.")
    await late.check_accessibility()
    assert await connection.version() == version


async def test_same_change_is_decided_for_several_connections(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """A field that two connections lost is one entry; each of them gets its result."""
    await story.add_field(mesh, "Grade__c")
    both = [await onboard(f"Team {team}") for team in ("north", "south")]
    await mesh.change("POST", "/Contact/fields/Grade__c/rename", {"to": "GradeNow__c"})
    for connection in both:
        await connection.proposed()
    one = await person()

    await one.page.get_by_role("link", name="Repairs", exact=True).click()
    await one.page.get_by_role("link", name=re.compile("[Ss]ame change")).first.click()
    group = change(one, "Grade__c")
    await one.check_accessibility()
    await group.get_by_text("Removed in the source").click()
    await group.get_by_label("Why").fill("It is no longer used.")
    await group.get_by_role("button", name="Approve for 2").click()

    await expect(one.page.get_by_role("heading", level=1)).to_have_text("2 of 2 approved")
    await one.check_accessibility()
    await one.page.get_by_role("link", name="Team north").click()
    await wait_for_end(one, "Airbyte has version 2")
    for connection in both:

        async def is_applied(connection: MeshConnection = connection) -> bool | None:
            return await connection.version() == 2 or None

        await until(is_applied, "version 2", within_s=60)


async def test_key_that_may_only_read_decides_nothing(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """Its pages have no button to decide; a form that is sent all the same is refused."""
    connection, repair = await story.proposed_rename(
        mesh, onboard, "Read only", "Region1__c", "Region2__c"
    )
    one = await person(signed_in=False)
    await one.sign_in_as("reader@example.com", mesh, "connections:read")
    await one.open(f"/repairs/{repair['id']}")
    bar = one.page.get_by_role("group", name="Decision")
    await expect(bar.get_by_role("button")).to_be_disabled()
    await expect(bar).to_contain_text("Needs repairs:decide")
    await expect(one.page.get_by_role("button", name=re.compile("^reject all"))).to_have_count(0)
    await one.check_accessibility()
    await one.open(connection.path)
    await expect(one.page.get_by_role("button", name="Sync now")).to_be_disabled()

    one.expect(403)
    await one.open(f"/repairs/{repair['id']}")
    await one.page.evaluate(
        """() => {
          const button = document.querySelector("#bar button");
          Object.assign(button, {disabled: false, name: "do", value: "reject"});
          button.removeAttribute("hx-post");
          button.click();
        }"""
    )

    await expect(one.page.locator("main")).to_contain_text("repairs:decide")
    await expect(one.page.get_by_role("alert").first).to_be_visible()
    (now,) = await connection.repairs()
    assert (now["id"], now["state"]) == (repair["id"], "proposed")
