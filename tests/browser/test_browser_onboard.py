"""Journeys from nothing to a connection: by the form of its connector, with and without scripts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from local.mesh_client import Mesh, MeshConnection
from tests.browser.conftest import Arrives
from tests.browser.person import Person
from tests.waiting import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


@pytest.fixture
async def onboarded(mesh: Mesh) -> AsyncIterator[list[MeshConnection]]:
    """The connections that the journey onboards, which are archived afterwards."""
    made: list[MeshConnection] = []
    yield made
    for one in made:
        await mesh.ask("orchestrator", "DELETE", one.path, expect=204)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_connection_is_onboarded_from_a_form(
    mesh: Mesh, person: Arrives, onboarded: list[MeshConnection], scripts: bool
) -> None:
    """Type, settings with a fault first, credential, check, streams, and the active connection."""
    name = "Onboarded " + ("live" if scripts else "plain")
    one = await person(java_script_enabled=scripts)
    page, main = one.page, one.page.locator("main")
    await page.get_by_role("link", name="Onboard", exact=True).first.click()
    await page.get_by_label("Part of the name").fill("salesf")
    await page.get_by_label("Part of the name").press("Enter")
    await page.get_by_role("link", name=re.compile("^Salesforce")).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Onboard Salesforce")
    await expect(page.locator("input[type=password]")).to_have_count(0)
    start = page.get_by_label(re.compile("^Start Date"))
    await page.get_by_label("Connection name").fill(name)
    await page.get_by_label("Credential").fill("salesforce-prod")
    await start.fill("yesterday")

    one.expect(422)
    await page.get_by_role("button", name="Onboard", exact=True).click()

    await expect(page.get_by_role("group", name=re.compile("needs? attention"))).to_be_focused()
    await expect(start).to_have_value("yesterday")
    await expect(start).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Connection name")).to_have_value(name)
    if scripts:
        await one.check_accessibility()
    await page.get_by_role("link", name=re.compile("^Start Date")).click()
    await expect(start).to_be_focused()
    await start.fill("2026-01-01")
    await page.get_by_role("button", name="Check the connection only").click()
    await expect(main).to_contain_text("The source can be reached")
    await page.get_by_role("button", name="List the streams").click()
    await expect(main).to_contain_text(re.compile(r"The source offers \d+ streams"))
    await expect(start).to_have_value("2026-01-01")
    for stream in ("Lead", "Contact"):
        await page.get_by_role("checkbox", name=stream, exact=True).check()
    await page.get_by_text("Advanced: names of tables").click()
    await page.get_by_label("Prefix of tables").fill("live_" if scripts else "plain_")
    await one.check_width()
    await page.get_by_role("button", name="Onboard", exact=True).click()

    await page.wait_for_url(re.compile("/(connections|operations)/[0-9a-f-]{36}"))
    if "/operations/" in page.url:  # a slow machine: the operation's page leads on
        await until(lambda: _has_ended(one), within=120)
        await page.get_by_role("link", name="Open the connection").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    found = re.search("/connections/([0-9a-f-]{36})", page.url)
    assert found is not None
    connection = MeshConnection(mesh, found[1])
    onboarded.append(connection)
    view = await connection.view()
    assert (view["status"], view["catalog_version"]) == ("ACTIVE", 1)
    held = (await connection.upstream())["syncCatalog"]["streams"]
    names = {each["stream"]["name"] for each in held if each["config"]["selected"]}
    assert names == {"Lead", "Contact"}
    await expect(page.locator(".timeline")).to_contain_text(re.compile("onboarded", re.IGNORECASE))


async def _has_ended(one: Person) -> bool:
    await one.page.reload()
    return bool(await one.page.get_by_text("Done.").count())


async def test_refused_credential_is_explained_at_its_field(person: Arrives) -> None:
    """A name that no store has: the message stands at the field, and nothing is onboarded."""
    one = await person()
    await one.open("/onboard?q=Salesforce")
    await one.page.get_by_role("link", name=re.compile("^Salesforce")).click()
    await one.page.get_by_label("Connection name").fill("Without a credential")
    credential = one.page.get_by_label("Credential")
    await credential.fill("no-such-credential")
    one.expect(404, 409, 422)

    await one.page.get_by_role("button", name="Onboard", exact=True).click()

    await expect(credential).to_have_attribute("aria-invalid", "true")
    await expect(credential).to_have_value("no-such-credential")
    await one.check_accessibility()
    await one.open("/connections?q=Without+a+credential")
    await expect(one.page.locator("main")).to_contain_text("No connection matches")
