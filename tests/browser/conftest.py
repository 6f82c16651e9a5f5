"""Fixtures of the browser journeys: a whole mesh with the real connector, and a real Chromium."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.async_api import Browser, async_playwright, expect

from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, ORDER
from local.environment import given_environment
from local.mesh_client import Json, Mesh, MeshConnection
from local.processes.servers import CONSOLE
from local.supervisor import temporary_stack
from tests import leaks
from tests.browser import chromium as found
from tests.browser import story
from tests.browser.person import TIMEOUT_MS, Person, visiting
from tests.browser.story import Onboards

IS_REQUIRED = bool(os.environ.get("AAM_DEEP") or os.environ.get("CI"))
"""Whether a machine without a browser is a failure: for `make test-all` and CI."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give the skipped journeys one place, so that pytest reports all of them in one line."""
    report = yield
    if isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(found.MISSING):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


class Arrives(Protocol):
    """Brings a person to a console, signed in or not."""

    def __call__(
        self, *, at: str | None = None, signed_in: bool = True, **options: Any
    ) -> Awaitable[Person]: ...


@pytest.fixture(scope="package")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for these tests; each person in it has a profile of their own."""
    async with async_playwright() as playwright:
        path = await asyncio.to_thread(found.find, playwright.chromium.executable_path)
        if path is None and IS_REQUIRED:
            pytest.fail(found.MISSING, pytrace=False)
        if path is None:
            # A machine may have no browser: `make test` reports it in one line; CI fails.
            pytest.skip(found.MISSING)
        expect.set_options(timeout=TIMEOUT_MS)
        async with found.launched(playwright, path) as browser:
            yield browser


@pytest.fixture(scope="package")
def org_secrets() -> Iterator[None]:
    """Generate the sample org's secrets as canaries, so that all output is scanned for them."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"):
            environment.setenv(
                f"SAMPLE_ORG_{name}", leaks.canary(f"the sample org's {name.lower()}")
            )
        yield


@pytest.fixture(scope="package")
async def mesh(
    chromium: Browser, org_secrets: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mesh]:
    """A running mesh for the browser tests: leave it as it was."""
    async with running(tmp_path_factory.mktemp("browser") / "logs") as mesh:
        yield mesh


@asynccontextmanager
async def running(logs: Path) -> AsyncIterator[Mesh]:
    environment = given_environment() | NO_SCHEDULED_OBSERVATIONS
    async with temporary_stack(environment=environment, keep_logs=logs) as stack:
        leaks.add_mesh(stack.settings.state_dir)  # knows its first key from here on
        yield Mesh(stack)
        leaks.add_mesh(stack.settings.state_dir)


@dataclass(frozen=True)
class Story:
    """A mesh in which the sample org's story was played; its tests may change everything."""

    mesh: Mesh
    connection: MeshConnection
    repair: Json
    """The proposal after the first rename."""


@pytest.fixture(scope="module")
async def played(
    chromium: Browser, org_secrets: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Story]:
    """The story, for the tests of one module."""
    async with running(tmp_path_factory.mktemp("story") / "logs") as mesh:
        connection, repair = await story.renamed(mesh)
        yield Story(mesh, connection, repair)


@pytest.fixture
async def reader(chromium: Browser, played: Story) -> AsyncIterator[Arrives]:
    """Bring people to the console of the story's mesh, as `person` does."""
    async with arrivals(chromium, played.mesh) as arrives:
        yield arrives


@pytest.fixture(scope="package")
async def connection(mesh: Mesh) -> MeshConnection:
    """The connection "Salesforce demo", onboarded with the real connector."""
    made = await mesh.ask("orchestrator", "POST", "/connections/onboard", ORDER, expect=201)
    return MeshConnection(mesh, made["id"])


@pytest.fixture(scope="module")
async def onboard(mesh: Mesh) -> AsyncIterator[Onboards]:
    """Onboard connections with the real connector; at the end of the module they are archived."""
    made: list[MeshConnection] = []

    async def onboards(name: str, *streams: str) -> MeshConnection:
        order = ORDER | {
            "connection_name": name,
            "streams": streams or ["Contact"],
            "prefix": f"{name.lower().replace(' ', '_')}_",
        }
        view = await mesh.ask("orchestrator", "POST", "/connections/onboard", order, expect=201)
        made.append(MeshConnection(mesh, view["id"]))
        return made[-1]

    yield onboards
    for one in made:
        if (await one.view())["archived_at"] is None:
            await mesh.ask("orchestrator", "DELETE", one.path, expect=204)


@pytest.fixture
async def person(chromium: Browser, mesh: Mesh) -> AsyncIterator[Arrives]:
    """Bring people to the console; at the end, no browser may have a complaint."""
    async with arrivals(chromium, mesh) as arrives:
        yield arrives


@asynccontextmanager
async def arrivals(chromium: Browser, mesh: Mesh) -> AsyncIterator[Arrives]:
    people: list[Person] = []
    async with AsyncExitStack() as visits:

        async def arrives(
            *, at: str | None = None, signed_in: bool = True, **options: Any
        ) -> Person:
            url = at or mesh.stack.url_of(CONSOLE)
            one = await visits.enter_async_context(visiting(chromium, url, **options))
            people.append(one)
            if signed_in:
                await one.sign_in(mesh)
            return one

        yield arrives
    assert [complaint for one in people for complaint in one.complaints] == []
