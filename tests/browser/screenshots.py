"""`make screenshots`: pictures of the console's pages, in both themes.

By default of a temporary mesh with the story of the sample org, and of the pages that the README
shows. `--running` takes the mesh of `make up` as it is, and `--all` takes every page.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from playwright.async_api import Browser, Page, async_playwright

from local import env_files, sign_in
from local.demo_steps import NO_SCHEDULED_OBSERVATIONS
from local.environment import given_environment
from local.exit_with_process import tie_to
from local.mesh_client import Mesh
from local.processes.servers import CONSOLE
from local.settings import Settings
from local.supervisor import temporary_stack
from tests.browser import chromium, story
from tests.browser.person import THEMES

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
HEIGHT: Final = 800
SHOWN: Final = {
    "inbox": "/",
    "connections": "/connections",
    "connection": "{connection}",
    "repair": "{repair}",
}
"""What the README shows; the names in braces are the first links of their kind."""
MORE: Final = {
    "catalog": "{connection}/catalog",
    "versions": "{connection}/versions",
    "compare": "{connection}/versions/1..2",
    "schema": "{connection}/schema",
    "syncs": "{connection}/syncs",
    "policy": "{connection}/policy",
    "repairs": "/repairs",
    "groups": "/repairs/groups",
    "drifts": "/drifts",
    "operations": "/operations",
    "onboard": "/onboard",
    "onboard-salesforce": "{source_type}",
    "observations": "/observations",
    "credentials": "/access/credentials",
    "credential-reads": "/access/reads",
    "drift": "{drift}",
    "search": "/search?q=Salesforce",
    "import": "/import",
    "notifications": "/notifications",
    "knowledge": "/knowledge",
    "access": "/access",
    "system": "/system",
    "preferences": "/preferences",
    "not-found": "/no-such-page",
}
_LINKS: Final = {
    "connection": ("/connections", "tbody a[href^='/connections/']"),
    "repair": ("/", "a[href^='/repairs/']"),
    "drift": ("/drifts", "tbody a[href^='/drifts/']"),
    "source_type": ("/onboard", ".source-types a[href^='/onboard/']"),
}


@asynccontextmanager
async def _mesh(*, running: bool) -> AsyncIterator[tuple[str, str]]:
    """The address of a console, and a link that signs in there.

    Raises:
        SystemExit: no mesh is running.
    """
    if running:
        state = Settings().state_dir.resolve()
        url = env_files.read(state / "env").get(CONSOLE.upper(), "")
        link = sign_in.new_link(state, url) if url else None
        if link is None:
            raise SystemExit(f"No mesh is running in {state}: start one with `make up`.")
        yield url, link
        return
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment) as stack:
        await story.renamed(Mesh(stack))
        url = stack.url_of(CONSOLE)
        link = sign_in.new_link(stack.settings.state_dir, url)
        assert link is not None
        yield url, link


async def take(*, running: bool, every: bool, widths: Sequence[int], to: Path) -> None:
    """Write `<page>[-<width>]-<theme>.png` for each page; pages that are not there are named."""
    async with async_playwright() as playwright:
        path = await asyncio.to_thread(chromium.find, playwright.chromium.executable_path)
        if path is None:
            raise SystemExit("No Chrome or Chromium here: run make browser.")
        async with (
            chromium.launched(playwright, path) as browser,
            _mesh(running=running) as (url, link),
        ):
            await _take(browser, url, link, SHOWN | (MORE if every else {}), widths, to)


async def _take(
    browser: Browser,
    url: str,
    link: str,
    paths: dict[str, str],
    widths: Sequence[int],
    to: Path,
) -> None:
    context = await browser.new_context(reduced_motion="reduce")
    page = await context.new_page()
    if every := len(paths) > len(SHOWN):
        await page.goto(f"{url}/login")
        await _photograph(page, "login", widths, to)
    await page.goto(link)
    found = {name: await _first_link(page, url, *where) for name, where in _LINKS.items()}
    for name, path in paths.items():
        if any(f"{{{kind}}}" in path and not found[kind] for kind in found):
            sys.stdout.write(f"{name}: skipped, the mesh has no such page\n")
            continue
        response = await page.goto(url + path.format(**found))
        assert response is not None
        if response.ok or (every and name == "not-found"):
            await _photograph(page, name, widths, to)
        else:
            sys.stdout.write(f"{name}: {response.status}\n")


async def _first_link(page: Page, url: str, path: str, selector: str) -> str:
    await page.goto(url + path)
    link = page.locator(selector).first
    return (await link.get_attribute("href") or "") if await link.count() else ""


async def _photograph(page: Page, name: str, widths: Sequence[int], to: Path) -> None:
    for width in widths:
        await page.set_viewport_size({"width": width, "height": HEIGHT})
        size = "" if width == widths[0] else f"-{width}"
        for theme in THEMES:
            await page.emulate_media(color_scheme=theme)
            file = to / f"{name}{size}-{theme}.png"
            # A narrow page is looked at as a whole; the README shows what a window shows.
            await page.screenshot(path=file, full_page=to != IMAGES, animations="disabled")
            sys.stdout.write(f"{file}: {file.stat().st_size / 1024:.0f} KB\n")


def main(
    *,
    running: Annotated[bool, typer.Option("--running")] = False,
    every: Annotated[bool, typer.Option("--all")] = False,
    width: Annotated[list[int] | None, typer.Option()] = None,
    to: Annotated[Path, typer.Option()] = IMAGES,
) -> None:
    """Write the pictures; `--width` may be repeated."""
    to.mkdir(parents=True, exist_ok=True)
    tie_to([int(pid) for pid in Settings().tied_to_pid.split()])
    asyncio.run(take(running=running, every=every, widths=width or [1280], to=to.resolve()))


if __name__ == "__main__":
    typer.run(main)
