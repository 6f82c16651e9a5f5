"""The quickest journeys, run by `make test`: signing in, signing out, and the first pages."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from local import sign_in
from local.mesh_client import Mesh, MeshConnection
from local.processes.servers import CONSOLE
from tests.browser.conftest import Arrives
from tests.browser.person import PHONE, new_key, visiting

# The first test waits for the mesh and the connector.
pytestmark = pytest.mark.timeout(600)


async def test_link_signs_in_once(mesh: Mesh, person: Arrives) -> None:
    """The link of `make up` opens the inbox; in another browser it is refused afterwards."""
    link = sign_in.new_link(mesh.stack.settings.state_dir, mesh.stack.url_of(CONSOLE))
    assert link is not None
    first, second = await person(signed_in=False), await person(signed_in=False)

    await first.page.goto(link)

    await expect(first.page.get_by_role("heading", level=1)).to_have_text("Inbox")
    assert first.path == "/"
    second.expect(403)
    refused = await second.page.goto(link)
    assert refused is not None
    assert refused.status == 403
    assert "make sign-in" in await second.text()
    await second.check_accessibility()
    # Somebody who opens it again where it has already signed in just goes on.
    await first.page.goto(link)
    assert first.path == "/"


async def test_key_signs_in_and_leads_on(mesh: Mesh, person: Arrives) -> None:
    """A wrong key is explained beside the field; the right one leads to the page asked for."""
    key = (await new_key(mesh, "connections:read"))["key"]
    one = await person(signed_in=False)
    await one.open("/connections?q=Sales")
    assert one.path.startswith("/login?next=")
    await one.check_accessibility()

    one.expect(422)
    await one.sign_in_with("hunter2")
    await expect(one.page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    assert "starts with aam_" in await one.text()
    await one.sign_in_with(f"{key[:-4]}AAAA")
    await expect(one.page.locator("main")).to_contain_text("This key is not valid")
    await one.check_accessibility()
    await one.sign_in_with(key)

    await one.page.wait_for_url("**/connections?q=Sales")
    # This key may only read, and the pages say so.
    await expect(one.page.get_by_text("Can read, not decide")).to_be_visible()


async def test_signing_out_ends_the_session(person: Arrives) -> None:
    """Neither a page nor the browser's Back shows anything afterwards."""
    one = await person()
    await one.open("/connections")
    await one.page.get_by_role("button", name="Sign out").click()
    await one.page.wait_for_url("**/login")

    await one.page.go_back()

    await expect(one.page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await one.open("/connections")
    assert one.path == "/login?next=%2Fconnections"


async def test_pages_pass_axe_and_fit_a_phone(person: Arrives, connection: MeshConnection) -> None:
    """In both themes, and 320 px wide without scrolling sideways."""
    one = await person()
    for path in ("/", "/connections"):
        await one.open(path)
        await one.check_accessibility()
    await one.open("/connections")
    await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])
    await one.page.set_viewport_size(PHONE)
    for path in ("/", "/connections"):
        await one.open(path)
        await one.check_width()
        await one.check_accessibility()


async def test_violations_are_noticed(chromium: Browser, mesh: Mesh) -> None:
    """The watch on pages sees what it is there for: an inline script, and another machine."""
    async with visiting(chromium, mesh.stack.url_of(CONSOLE)) as one:
        await one.open("/login")
        await one.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))"
        )
        await one.page.evaluate("fetch('http://aam.example/').catch(() => 0)")
    assert any("CSP: script-src" in complaint for complaint in one.complaints)
    assert any("connect-src" in complaint for complaint in one.complaints)
