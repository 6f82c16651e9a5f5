"""A person at the console: a browser profile of their own, watched for what must never happen."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    WebError,
)

from local import sign_in
from local.mesh_client import Mesh
from tests import leaks

TIMEOUT_MS: Final = 30_000
DESK: Final[ViewportSize] = {"width": 1280, "height": 800}
PHONE: Final[ViewportSize] = {"width": 320, "height": 640}
"""The narrowest width that WCAG 2.2 asks for, and a desktop page at 400 %."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
_FAILED_LOAD: Final = re.compile(r"Failed to load resource: .* status of (\d{3})")
_REPORT_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI} ${event.sourceFile}`);
});
"""
_FOCUSED: Final = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const isOwn = top === null || top.closest("label")?.control === one;
  return {
    text: (one.getAttribute("aria-label") ?? one.innerText ?? "").replace(/\\s+/g, " ").trim(),
    name: one.id || one.getAttribute("name") || one.tagName,
    isMarked: style.outlineStyle !== "none" || style.boxShadow !== "none",
    isCovered: !isOwn && one !== document.body && !one.contains(top) && !top.contains(one),
  };
}"""

Theme = Literal["light", "dark"]
THEMES: Final[tuple[Theme, ...]] = ("light", "dark")


@dataclass
class Person:
    """One browser profile with one page, and the complaints about what happened in it."""

    context: BrowserContext
    page: Page
    console_url: str
    has_scripts: bool = True
    complaints: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)

    def expect(self, *statuses: int) -> None:
        """From here on, pages with these error statuses are part of the journey."""
        self.expected.update(statuses)

    async def open(self, path: str) -> Response:
        """Open a page of the console by its path."""
        response = await self.page.goto(f"{self.console_url}{path}")
        assert response is not None
        leaks.add(f"the page {path.partition('?')[0]}", await self.page.content())
        return response

    async def sign_in(self, mesh: Mesh) -> None:
        """Sign in with the first key, by a one-time link."""
        link = sign_in.new_link(mesh.stack.settings.state_dir, self.console_url)
        assert link is not None
        response = await self.page.goto(link)
        assert response is not None
        assert response.ok, response.status

    async def sign_in_as(self, owner: str, mesh: Mesh, *scopes: str) -> None:
        """Sign in as somebody who has these scopes."""
        await self.open("/login")
        await self.sign_in_with((await new_key(mesh, *scopes, owner=owner))["key"])
        await self.page.wait_for_url(f"{self.console_url}/")

    async def sign_in_with(self, key: str) -> None:
        """Sign in with an API key, on the login page that is open."""
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Sign in").click()

    @property
    def path(self) -> str:
        """The path and query of the page that is open."""
        parts = urlsplit(self.page.url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    async def text(self) -> str:
        """What the main part of the page says."""
        return await self.page.locator("main").inner_text()

    async def check_accessibility(self) -> None:
        """Let axe look at the page in both themes; it must find nothing."""
        for theme in THEMES:
            await self.page.emulate_media(color_scheme=theme)
            found = (await Axe().run(self.page)).response["violations"]
            assert not found, f"{self.path}, {theme}: {_described(found)}"
        await self.page.emulate_media(color_scheme=None)

    async def check_width(self) -> None:
        """The page must not scroll sideways."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{self.path} is {wide} px too wide"

    async def tab_to(self, text: str, *, backwards: bool = False) -> None:
        """Press Tab until a link, button or field is focused that is called this.

        Whatever gets the focus on the way must show that and must not be covered.
        """
        await self.page.wait_for_load_state()
        passed = []
        for _ in range(80):
            await self.page.keyboard.press("Shift+Tab" if backwards else "Tab")
            focused: dict[str, Any] = await self.page.evaluate(_FOCUSED)
            assert focused["isMarked"], f"{self.path}: the focus on {focused} cannot be seen"
            assert not focused["isCovered"], f"{self.path}: {focused} is covered"
            if text in (focused["text"], focused["name"]):
                return
            passed.append(focused["text"] or focused["name"])
        raise AssertionError(f"{self.path}: Tab never came to {text!r}, only to {passed}")


@asynccontextmanager
async def visiting(browser: Browser, console_url: str, **options: Any) -> AsyncIterator[Person]:
    """A person with an empty profile; `options` are those of Playwright's contexts.

    Collects violations of the content security policy, errors on the browser's console, failed
    requests, and requests to other machines. The caller must check `complaints`.
    """
    context = await browser.new_context(**options)
    try:
        context.set_default_timeout(TIMEOUT_MS)
        await context.add_init_script(_REPORT_VIOLATIONS)
        has_scripts = bool(options.get("java_script_enabled", True))
        one = Person(context, await context.new_page(), console_url, has_scripts)
        _watch(one)
        yield one
        leaks.add("the cookies of a browser", str(await context.cookies()))
    finally:
        await context.close()


async def new_key(mesh: Mesh, *scopes: str, owner: str = "grace@example.com") -> dict[str, str]:
    """Create an API key; its `id` and `key`."""
    order = {"owner": owner, "scopes": list(scopes)}
    made: dict[str, str] = await mesh.ask("orchestrator", "POST", "/api-keys", order, expect=201)
    leaks.know("a key of a browser journey", made["key"][-43:])
    return made


def _watch(one: Person) -> None:
    def logged(message: ConsoleMessage) -> None:
        failed = _FAILED_LOAD.search(message.text)
        if failed and int(failed[1]) in one.expected:
            return
        if message.type in ("error", "warning", "assert"):
            one.complaints.append(f"{one.path}: {message.type}: {message.text}")

    def requested(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "about") and parts.hostname not in _LOOPBACK:
            one.complaints.append(f"{one.path}: a request to {request.url}")

    def failed(request: Request) -> None:
        # The browser gives up what it still loads as it goes to another page.
        if request.failure != "net::ERR_ABORTED":
            one.complaints.append(f"{one.path}: {request.url} failed: {request.failure}")

    def raised(error: WebError) -> None:
        one.complaints.append(f"{one.path}: {error.error}")

    one.context.on("console", logged)
    one.context.on("request", requested)
    one.context.on("requestfailed", failed)
    one.context.on("weberror", raised)


def _described(violations: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{one['id']} ({one['help']}): {one['nodes'][0]['html'][:200]}" for one in violations
    )
