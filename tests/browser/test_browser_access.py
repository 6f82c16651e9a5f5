"""Journeys about sessions, other sites, keys that end, and consoles with replicas."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import expect

from local.mesh_client import Mesh, MeshConnection
from local.processes.servers import CONSOLE
from tests import leaks
from tests.browser.conftest import Arrives
from tests.browser.consoles import RoundRobin, another_console
from tests.browser.person import new_key
from tests.waiting import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


async def test_revoked_key_ends_the_session(mesh: Mesh, person: Arrives) -> None:
    """Within five seconds, a page leads to the login page, and a new key back to it."""
    key = await new_key(mesh, "connections:read")
    one = await person(signed_in=False)
    await one.open("/connections")
    await one.sign_in_with(key["key"])
    await one.page.wait_for_url("**/connections")

    await mesh.ask("orchestrator", "DELETE", f"/api-keys/{key['id']}")

    async def is_asked_to_sign_in() -> bool:
        await one.open("/connections?q=demo")
        return one.path.startswith("/login")

    await until(is_asked_to_sign_in, within=15)
    await one.sign_in_with((await new_key(mesh, "connections:read"))["key"])
    await one.page.wait_for_url("**/connections?q=demo")


async def test_form_of_an_ended_session_does_nothing(mesh: Mesh, person: Arrives) -> None:
    """A form that is sent without a session is refused; signing in comes first."""
    one = await person()
    await one.open("/preferences")
    await one.page.get_by_label("Dark").check()
    await one.context.clear_cookies()

    one.expect(401)
    await one.page.get_by_role("button", name="Save").click()

    await expect(one.page.get_by_role("heading", level=1)).to_have_text("Your session ended")
    await one.check_accessibility()
    await one.page.get_by_role("link", name="Sign in").click()
    await expect(one.page.get_by_label("API key")).to_be_focused()


async def test_forms_of_other_sites_are_refused(
    mesh: Mesh, person: Arrives, tmp_path: Path
) -> None:
    """A page of another origin sends a form to the console; the browser's headers reveal it."""
    one = await person()
    victim = one.console_url
    async with another_console(mesh, tmp_path / "log") as elsewhere:
        # On the same host, so that even SameSite cookies are sent: only the origin differs.
        await one.page.route(
            f"{elsewhere}/attack",
            lambda route: route.fulfill(
                content_type="text/html",
                body=f'<form method="post" action="{victim}/logout"><button>Win</button></form>',
            ),
        )
        await one.page.goto(f"{elsewhere}/attack")
        one.expect(403)
        await one.page.get_by_role("button", name="Win").click()
        await expect(one.page.locator("main")).to_contain_text(
            "was not sent by a page of this console"
        )
    await one.open("/connections")
    assert one.path == "/connections"


async def test_form_of_another_session_is_refused(person: Arrives) -> None:
    """A form's token belongs to one session: a page from before signing in again is refused."""
    one = await person()
    await one.open("/preferences")
    other = await one.context.new_page()
    await other.goto(f"{one.console_url}/")
    await other.get_by_role("button", name="Sign out").click()
    await other.wait_for_url("**/login")
    await other.close()

    one.expect(401)
    await one.page.get_by_role("button", name="Save").click()

    await expect(one.page.get_by_role("heading", level=1)).to_have_text("Your session ended")


async def test_two_replicas_share_sessions(
    mesh: Mesh, person: Arrives, connection: MeshConnection, tmp_path: Path
) -> None:
    """Each request goes to the other console: sessions, forms and preferences work all the same."""
    proxy = RoundRobin()
    async with AsyncExitStack() as running:
        replicas = [
            await running.enter_async_context(
                another_console(mesh, tmp_path / f"log{number}", CONSOLE_URL=proxy.url)
            )
            for number in range(2)
        ]
        await running.enter_async_context(proxy.before(replicas))
        one = await person(at=proxy.url)
        await one.open("/connections")
        await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])
        for theme in ("Dark", "Light"):
            await one.open("/preferences")
            await one.page.get_by_label(theme).check()
            await one.page.get_by_role("button", name="Save").click()
            await expect(one.page.locator("html")).to_have_attribute("data-theme", theme.lower())
        await one.page.get_by_role("button", name="Sign out").click()
        await one.page.wait_for_url("**/login")
        assert len(proxy.requests) == 2
        assert min(proxy.requests.values()) > 5


async def test_mesh_with_two_names_takes_forms_by_both(mesh: Mesh, person: Arrives) -> None:
    """On this machine, localhost and 127.0.0.1 are both the console."""
    url = mesh.stack.url_of(CONSOLE).replace("127.0.0.1", "localhost")
    one = await person(at=url)
    await one.open("/preferences")
    await one.page.get_by_label("UTC").check()
    await one.page.get_by_role("button", name="Save").click()
    await expect(one.page.get_by_label("UTC")).to_be_checked()
    assert one.path == "/preferences"


async def test_key_is_created_and_shown_once(mesh: Mesh, person: Arrives) -> None:
    """In Access; it signs somebody in with its scopes alone, until it is revoked."""
    one = await person()
    page = one.page
    await page.get_by_role("link", name="Access").click()
    await page.get_by_label("Owner").fill("Reports")
    await page.get_by_label("connections:read").check()
    await page.get_by_label("Expires").select_option("In 30 days")
    await page.get_by_role("button", name="Create the key").click()
    key = await page.locator("code.code").inner_text()
    leaks.know("a key made by clicking", key[-43:])
    await expect(page.get_by_role("heading", name="Copy the key now")).to_be_visible()
    await one.check_accessibility()
    await page.get_by_role("link", name="I have copied it").click()
    await expect(page.get_by_role("row").filter(has_text="Reports")).to_contain_text("Never")
    assert key not in await page.content()

    reader = await person(signed_in=False)
    await reader.open("/login")
    await reader.sign_in_with(key)
    await expect(reader.page.get_by_text("Can read, not decide")).to_be_visible()
    reader.expect(403)
    await reader.open("/access")
    await expect(reader.page.locator("main")).to_contain_text("Keys are for administrators")

    row = page.get_by_role("row").filter(has_text="Reports")
    await row.get_by_text("Revoke").first.click()
    await row.get_by_role("button", name="Revoke for good").click()
    await expect(page.get_by_role("status").first).to_contain_text("is revoked")
    await expect(page.get_by_role("row").filter(has_text="Reports")).to_have_count(0)
