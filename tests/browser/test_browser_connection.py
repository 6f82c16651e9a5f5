"""Journeys through the pages of one connection: syncs, pauses, selection, policy, archiving."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from local.mesh_client import Mesh, MeshConnection
from tests.browser import story
from tests.browser.conftest import Arrives
from tests.browser.person import Person
from tests.waiting import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def grown(mesh: Mesh, onboard: story.Onboards) -> MeshConnection:
    """A connection that was healed to version 2, by a new field."""
    one = await onboard("Grown")
    await story.add_field(mesh, "Territory__c")
    await one.healed()
    return one


async def held(connection: MeshConnection) -> dict[str, Any]:
    """How Airbyte holds the connection's stream Contact."""
    (stream,) = [
        each["config"]
        for each in (await connection.upstream())["syncCatalog"]["streams"]
        if each["stream"]["name"] == "Contact"
    ]
    return dict(stream)


def report(one: Person, words: str) -> Any:
    """Expect a page to report what was done."""
    return expect(one.page.get_by_role("status").first).to_contain_text(words)


async def test_pause_and_resume(person: Arrives, grown: MeshConnection) -> None:
    """The page has the other button each time, Airbyte follows, and the timeline has both."""
    one = await person()
    await one.open(grown.path)
    await one.page.get_by_label("More actions").click()
    await one.page.get_by_role("button", name="Pause").click()
    await report(one, "The connection is paused.")
    assert (await grown.upstream())["status"] == "inactive"
    await expect(one.page.locator("h1 + .health")).to_have_text("Paused")
    await expect(one.page.get_by_role("button", name="Sync now")).to_have_count(0)
    await one.check_accessibility()

    await one.page.get_by_role("button", name="Resume").click()

    await report(one, "The connection is resumed.")
    assert (await grown.upstream())["status"] == "active"
    timeline = one.page.locator(".timeline")
    await expect(timeline).to_contain_text("Paused")
    await expect(timeline).to_contain_text("Resumed")


async def test_sync_is_seen_on_the_timeline(person: Arrives, grown: MeshConnection) -> None:
    """From its start to its end, with a link to its log."""
    one = await person()
    await one.open(grown.path)
    await one.page.get_by_role("button", name="Sync now").click()
    await report(one, "The sync has started.")
    assert one.path.startswith(f"{grown.path}/syncs")

    async def has_ended() -> bool:
        jobs = await grown.mesh.ask("orchestrator", "GET", f"{grown.path}/jobs")
        return all(job["ended_at"] for job in jobs["items"])

    await until(has_ended, within=120)
    await one.page.get_by_role("link", name="Timeline").click()
    await expect(one.page.locator(".timeline")).to_contain_text(re.compile("sync", re.IGNORECASE))
    await expect(one.page.get_by_role("heading", name=re.compile("^Last 1 sync"))).to_be_visible()
    await one.check_accessibility()
    await one.page.get_by_role("link", name="As a table").click()
    await expect(one.page.get_by_role("row").nth(1)).to_contain_text(
        re.compile("succeeded", re.IGNORECASE)
    )


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_field_is_deselected(
    mesh: Mesh, person: Arrives, onboard: story.Onboards, scripts: bool
) -> None:
    """What it does is shown before it is applied; then Airbyte holds the other selection."""
    connection = await onboard("Selection " + ("live" if scripts else "plain"))
    one = await person(java_script_enabled=scripts)
    await one.open(f"{connection.path}/catalog?stream=Contact")
    await one.page.get_by_role("button", name="Edit selection").click()
    await expect(one.page.get_by_role("heading", name="What to sync from")).to_be_visible()
    await one.check_width()
    await one.page.get_by_role("checkbox", name=re.compile("^Description")).uncheck()
    if scripts:
        await one.check_accessibility()
    await one.page.get_by_role("button", name="Preview").click()
    main = one.page.locator("main")
    await expect(main).to_contain_text("It would become version 2")
    await expect(one.page.locator(".diff")).to_contain_text("Description")
    await expect(one.page.locator(".effects")).to_contain_text("no stream is read again")
    assert await connection.version() == 1

    await one.page.get_by_role("button", name="Apply").click()

    await report(one, "The selection is being applied.")

    async def is_applied() -> bool:
        return await connection.version() == 2

    await until(is_applied)
    selected = {each["fieldPath"][0] for each in (await held(connection))["selectedFields"]}
    assert "Description" not in selected
    assert "LastName" in selected
    await one.open(f"{connection.path}/catalog?stream=Contact&fields=Description")
    await expect(one.page.locator("tbody tr").first).to_contain_text("Not synced")


async def test_policy_is_previewed_and_saved(person: Arrives, grown: MeshConnection) -> None:
    """With what it would have done to the last drift; going back keeps what was chosen."""
    one = await person()
    await one.open(f"{grown.path}/policy")
    reaction = one.page.locator("select[name='set.field.added']")
    await reaction.select_option("propose")
    await one.page.get_by_role("button", name="Preview the changes").click()
    main = one.page.locator("main")
    await expect(main).to_contain_text("1 change would have been treated differently.")
    await expect(main).to_contain_text("Territory__c")
    await one.check_accessibility()
    await one.page.get_by_role("button", name="Back to the form").click()
    await expect(reaction).to_have_value("propose")
    policy = await grown.mesh.ask("drift_repair_agent", "GET", f"{grown.path}/policy")
    assert "reactions" not in policy["own"]

    await one.page.get_by_role("button", name="Preview the changes").click()
    await one.page.get_by_role("button", name="Save the policy").click()

    await report(one, "The policy is saved.")
    await expect(reaction).to_have_value("propose")
    policy = await grown.mesh.ask("drift_repair_agent", "GET", f"{grown.path}/policy")
    assert policy["own"]["reactions"] == {"field": {"added": "propose"}}


async def test_two_versions_are_compared(person: Arrives, grown: MeshConnection) -> None:
    """Chosen in the list of versions; the address can be passed on, in both directions."""
    one = await person()
    await one.open(f"{grown.path}/versions")
    await one.page.get_by_label("From version 1").check()
    await one.page.get_by_label("To version 2").check()
    await one.page.get_by_role("button", name="Compare the two").click()
    await one.page.wait_for_url(f"**{grown.path}/versions/1..2")
    row = one.page.locator(".diff li").filter(has_text="Territory__c")
    await expect(row).to_contain_text("Added")
    await one.page.locator("select[name=a]").select_option("2")
    await one.page.locator("select[name=b]").select_option("1")
    await one.page.get_by_role("button", name="Compare").click()
    await one.page.wait_for_url(f"**{grown.path}/versions/2..1")
    await expect(row).to_contain_text("Removed")


async def test_connection_is_archived(mesh: Mesh, person: Arrives, onboard: story.Onboards) -> None:
    """Only by typing its name; afterwards it has no actions and is in the list of archived ones."""
    connection = await onboard("Shut down")
    one = await person()
    await one.open(connection.path)
    await one.page.get_by_label("More actions").click()
    await one.page.get_by_role("link", name="Archive…").click()
    await expect(one.page.locator("main")).to_contain_text("It cannot be restored")
    typed = one.page.get_by_label(re.compile("^Type the connection"))
    await typed.fill("shut down")
    one.expect(422)
    await one.page.get_by_role("button", name="Archive").click()
    await expect(one.page.locator("#name-error")).to_have_text("This is not the connection's name.")
    await expect(typed).to_have_value("shut down")
    await expect(typed).to_be_focused()
    await one.check_accessibility()
    await typed.fill("Shut down")
    await one.page.get_by_role("button", name="Archive").click()

    await report(one, "The connection is archived.")
    await expect(one.page.get_by_role("button", name="Sync now")).to_have_count(0)
    await one.open("/connections?q=Shut+down")
    await expect(one.page.locator("main")).to_contain_text("No connection matches")
    await one.page.get_by_role("link", name="Archived").click()
    await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Shut down"])


async def test_search_leads_to_what_has_an_id(person: Arrives, grown: MeshConnection) -> None:
    """Ids of AAM and of Airbyte lead to their page, a name to the list, others to an answer."""
    one = await person()
    search = one.page.get_by_label("Search connections, or any id")
    (drift,) = await grown.drifts()
    (repair,) = await grown.repairs()
    view = await grown.view()
    for sought, path in (
        (grown.id, grown.path),
        (view["airbyte_connection_id"], grown.path),
        (repair["id"], f"/repairs/{repair['id']}"),
        (drift["id"], f"/drifts/{drift['id']}"),
        ("grow", "/connections?q=grow"),
    ):
        await search.fill(sought)
        await search.press("Enter")
        await one.page.wait_for_url(re.compile(re.escape(path)))
    await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Grown"])
    one.expect(404)
    await search.fill("00000000-0000-4000-8000-000000000000")
    await search.press("Enter")
    await expect(one.page.get_by_role("heading", level=1)).to_have_text("Nothing has this id")
    await one.check_accessibility()
