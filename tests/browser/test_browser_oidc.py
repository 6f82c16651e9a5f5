"""Journeys to an OpenID Connect issuer and back, by a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser, expect

from local.processes import servers
from services.console import main
from tests import leaks
from tests.browser.person import PHONE, visiting
from tests.console.conftest import settings_for
from tests.fakes.oidc_issuer import AUDIENCE, CLIENT_ID, Idp
from tests.integration.conftest import registry_url, serving
from tests.security.conftest import build, close

__all__ = ["registry_url"]

pytestmark = pytest.mark.deep


@pytest.fixture
async def console_url(registry_url: str) -> AsyncIterator[str]:
    """A console at which people can sign in at an issuer alone."""
    idp = Idp()
    async with AsyncExitStack() as running:
        idp.url = await running.enter_async_context(serving(idp.app))
        orchestrator = build(
            "orchestrator", registry_url, oidc_issuer=idp.url, oidc_audience=AUDIENCE
        )
        running.push_async_callback(close, orchestrator)
        services = await running.enter_async_context(serving(orchestrator))
        port = servers.free_port()
        url = f"http://127.0.0.1:{port}"
        idp.redirect_uris = {f"{url}/login/callback"}
        idp.client_secret = leaks.canary("the console's secret at the issuer")
        console = main.build(
            settings_for(
                services,
                console_url=url,
                console_name="Halden Freight, production",
                oidc_issuer=idp.url,
                oidc_audience=AUDIENCE,
                oidc_client_id=CLIENT_ID,
                oidc_client_secret=idp.client_secret,
                aam_console_key_login="off",
            )
        )
        await running.enter_async_context(serving(console, port=port))
        yield url


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_signing_in_at_the_issuer(
    chromium: Browser, console_url: str, has_scripts: bool
) -> None:
    """The content policy lets the browser leave for the issuer, and cookies come back with it."""
    async with visiting(chromium, console_url, java_script_enabled=has_scripts) as one:
        page = one.page
        await one.open("/drifts")
        await page.get_by_role("link", name="Sign in with").click()
        await page.get_by_role("button", name="Continue as Ada").click()
        await page.wait_for_url(f"{console_url}/drifts")
        await expect(page.get_by_text("ada@example.com")).to_have_count(1)

        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url(f"{console_url}/login")
        # The issuer still knows the person.
        await page.get_by_role("link", name="Sign in with").click()
        await page.wait_for_url(f"{console_url}/")
        assert one.complaints == []


async def test_pages_of_signing_in(chromium: Browser, console_url: str) -> None:
    """The login page, and the page of a sign-in that failed."""
    async with visiting(chromium, console_url, viewport=PHONE) as one:
        one.expect(403)
        for path in ("/login?next=/drifts", "/login/callback?code=x&state=x"):
            await one.open(path)
            await one.check_accessibility()
            await one.check_width()
        assert one.complaints == []
