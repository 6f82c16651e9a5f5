"""Signing in: by key and by one-time link, how often, and where it leads."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from local import sign_in
from services.console.error_pages import login_url, own_path
from tests.console.browser import Browser
from tests.console.conftest import Console
from tests.console.double import Double, new_known_key, page, problem

ELSEWHERE = [
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/%0d%0aLocation: https://evil.example\n",
    "javascript:alert(1)",
    "connections",
    "",
    "/login?next=/",
    "/logout",
    "/sign-in?token=x",
    "/login/oidc",
    "/login/callback?code=x",
    "/api/connections",
    "/" + "a" * 2_000,
    "/\u202e",
]


@pytest.mark.parametrize("given", ELSEWHERE)
def test_next_is_a_page_of_the_console(given: str) -> None:
    """Anything else leads to the inbox."""
    assert own_path(given) == "/"
    assert login_url(given) == "/login"


def test_next_keeps_its_query() -> None:
    """A filter survives signing in."""
    assert own_path("/connections?q=a&after=b#c") == "/connections?q=a&after=b#c"
    assert login_url("/connections?q=a") == "/login?next=%2Fconnections%3Fq%3Da"


async def test_signing_in_leads_back(browser: Browser, double: Double) -> None:
    """To the page that was asked for first."""
    asked = await browser.get("/connections?q=a")
    assert asked.location == "/login?next=%2Fconnections%3Fq%3Da"
    form = await browser.get(asked.location)
    assert form.fields["next"] == "/connections?q=a"

    answer = await browser.post("/login", {"next": form.fields["next"], "key": f" {double.key} "})

    assert (answer.status, answer.location) == (303, "/connections?q=a")


async def test_forged_next_leads_to_the_inbox(browser: Browser, double: Double) -> None:
    """Whoever made the link, and however the form was changed."""
    form = await browser.get("/login?next=https://evil.example/")
    assert form.fields["next"] == "/"

    answer = await browser.post("/login", {"next": "//evil.example", "key": double.key})

    assert answer.location == "/"


async def test_wrong_key(browser: Browser, double: Double) -> None:
    """Said beside the field; the key is not repeated."""
    other = new_known_key()
    answer = await browser.sign_in(other)

    assert answer.status == 422
    assert "This key is not valid" in answer.text
    assert other not in answer.html
    assert "aam-local=1." not in answer.response.headers.get("set-cookie", "")
    for text in ("hello", "aam_", "aam_x y", "aam_" + "a" * 300, "aam_é"):
        assert "starts with aam_" in (await browser.post("/login", {"key": text})).text
    assert len(double.of("GET", "/whoami")) == 1


async def test_guessing_is_throttled(double: Double, console: Console) -> None:
    """By address; then a page says how long to wait, and the orchestrator is not asked."""
    browser = Browser(console(failed_keys_per_minute=3))
    await browser.get("/login")
    statuses = [(await browser.post("/login", {"key": new_known_key()})).status for _ in range(5)]
    answer = await browser.post("/login", {"key": double.key})

    assert statuses == [422, 422, 422, 429, 429]
    assert answer.status == 429
    assert int(answer.response.headers["retry-after"]) > 0
    assert len(double.of("GET", "/whoami")) == 3
    await browser.client.aclose()


async def test_login_by_key_switched_off(double: Double, console: Console) -> None:
    """The form is not there, and sending it does nothing."""
    issuer = {"oidc_issuer": "https://login.example", "oidc_audience": "aam"}
    browser = Browser(console(aam_console_key_login="off", oidc_client_id="x", **issuer))
    form = await browser.get("/login")
    answer = await browser.post("/login", {"key": double.key})

    assert 'name="key"' not in form.html
    assert answer.status == 403
    assert double.asked == []
    await browser.client.aclose()


async def test_link_works_once(double: Double, console: Console, tmp_path: Path) -> None:
    """At whichever replica, and not again."""
    (tmp_path / "auth").write_text(f"Authorization: Bearer {double.key}\n")
    folder = sign_in.links_in(tmp_path)
    replicas = [Browser(console(console_sign_in_dir=folder)) for _ in range(2)]
    link = sign_in.new_link(tmp_path, "http://localhost:8006")
    assert link is not None
    assert [file.stat().st_mode & 0o077 for file in (folder, *folder.iterdir())] == [0, 0]

    previewed = await replicas[0].client.head(link)
    assert (previewed.status_code, previewed.headers.get("set-cookie")) == (200, None)

    answers = await asyncio.gather(*(one.get(link) for one in replicas))

    assert sorted(one.status for one in answers) == [303, 403]
    assert list(folder.iterdir()) == []
    # Where it has signed in, opening it again leads to the inbox.
    again = [await one.get(link) for one in replicas]
    assert sorted((one.status, one.response.headers.get("location")) for one in again) == [
        (303, "/"),
        (403, None),
    ]
    for one in replicas:
        await one.client.aclose()


async def test_old_link(double: Double, console: Console, tmp_path: Path) -> None:
    """Refused after a minute, and deleted."""
    (tmp_path / "auth").write_text(f"Authorization: Bearer {double.key}\n")
    folder = sign_in.links_in(tmp_path)
    link = sign_in.new_link(tmp_path, "http://localhost:8006")
    assert link is not None
    (file,) = folder.iterdir()
    os.utime(file, (time.time() - 61, time.time() - 61))
    browser = Browser(console(console_sign_in_dir=folder))

    assert (await browser.get(link)).status == 403
    assert list(folder.iterdir()) == []
    for token in ("", "../auth", "a" * 64, sign_in.token_digest("x")):
        assert (await browser.get("/sign-in", params={"token": token})).status == 403
    await browser.client.aclose()


async def test_links_are_off_by_default(browser: Browser) -> None:
    """Only `make up` names a folder."""
    assert (await browser.get(f"/sign-in?token={'a' * 43}")).status == 403


async def test_orchestrator_away(browser: Browser, double: Double) -> None:
    """A page says that it is not possible to sign in now."""
    double.answers["GET /connections"] = page()
    double.unavailable = problem(503, "unavailable", "The registry is away.")

    answer = await browser.sign_in(double.key)

    assert answer.status == 503
    assert "The registry is away." in answer.text
