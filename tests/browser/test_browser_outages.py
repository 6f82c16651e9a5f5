"""Journeys while a part of the mesh is away: its own panel says so, and everything else works."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from local.mesh_client import Mesh, MeshConnection
from local.processes import servers
from local.processes.servers import Server
from local.service_processes import Program
from tests.browser import story
from tests.browser.conftest import Arrives
from tests.browser.consoles import another_console
from tests.browser.outages import not_answering
from tests.browser.reviewing import approve, choose_rename, preview, wait_for_end

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]


def process(mesh: Mesh, name: str) -> Server:
    """Return one of the mesh's processes."""
    programs = [one for one in mesh.stack.processes if isinstance(one, Program)]
    return next(one for one in programs if one.name == name)


async def test_unreachable_service_degrades_its_panel(
    mesh: Mesh, person: Arrives, connection: MeshConnection, tmp_path: Path
) -> None:
    """Without the drift_repair_agent, the inbox shows failed connections, and lists work."""
    away = f"http://127.0.0.1:{servers.free_port()}"
    async with another_console(mesh, tmp_path / "log", DRIFT_REPAIR_AGENT_URL=away) as url:
        one = await person(at=url)
        await expect(one.page.locator("main")).to_contain_text(
            "The drift_repair_agent cannot be reached"
        )
        await expect(one.page.get_by_role("heading", level=1)).to_have_text("Inbox")
        await one.check_accessibility()
        await one.open("/connections")
        await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])


async def test_late_service_degrades_its_panel(mesh: Mesh, person: Arrives, tmp_path: Path) -> None:
    """A service that does not answer holds up the page for PEER_TIMEOUT; Try again then helps."""
    async with another_console(mesh, tmp_path / "log", PEER_TIMEOUT="1") as url:
        one = await person(at=url)
        with not_answering(process(mesh, "drift_repair_agent")):
            assert (await one.open("/")).status == 200
            away = one.page.locator(".notice[role=status]")
            await expect(away.first).to_contain_text("drift_repair_agent")
        await one.page.get_by_role("link", name="Try again").first.click()
        await expect(away).to_have_count(0)


async def test_orchestrator_away_is_a_page_with_a_retry(
    mesh: Mesh, person: Arrives, tmp_path: Path
) -> None:
    """Without the orchestrator, the pages that need it and the login page name it."""
    away = f"http://127.0.0.1:{servers.free_port()}"
    one = await person()
    async with another_console(mesh, tmp_path / "log", ORCHESTRATOR_URL=away) as url:
        one.console_url = url  # of the same host, so with the same session
        one.expect(503)
        assert (await one.open("/connections")).status == 503
        assert "The orchestrator cannot be reached" in await one.text()
        await expect(one.page.get_by_role("link", name="Try again")).to_be_visible()
        await one.check_accessibility()
        other = await person(at=url, signed_in=False)
        other.expect(503)
        await other.open("/login")
        await other.sign_in_with("aam_local_abcdefgh_" + "x" * 43)
        await expect(other.page.locator("main")).to_contain_text("cannot be reached")
        await other.check_accessibility()


@pytest.mark.parametrize("name", ["airbyte", "valkey"])
async def test_pages_work_without_a_server(
    mesh: Mesh, person: Arrives, connection: MeshConnection, name: str
) -> None:
    """What is known is shown while Airbyte or Redis does not answer."""
    one = await person()
    server = mesh.stack.valkey if name == "valkey" else process(mesh, name)
    with not_answering(server):
        for path in ("/", "/connections", "/preferences"):
            assert (await one.open(path)).status == 200
        await one.open("/connections")
        await expect(one.page.get_by_role("row")).to_contain_text(["Name", "Salesforce demo"])
        other = await person()
        assert other.path == "/"


async def test_decision_while_airbyte_is_away_is_carried_out_later(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """The page says what the repair waits for; other pages work."""
    connection, repair = await story.proposed_rename(
        mesh, onboard, "Airbyte away", "Branch__c", "BranchName__c"
    )
    one, other = await person(), await person()
    await one.open(f"/repairs/{repair['id']}")
    await choose_rename(one, "Branch__c", "BranchName__c")
    await preview(one)
    with not_answering(process(mesh, "airbyte")):
        await approve(one)
        await expect(one.page.locator("main")).to_contain_text("Waits for Airbyte", timeout=20_000)
        await one.check_accessibility()
        await other.open("/connections?q=Airbyte+away")
        await expect(other.page.get_by_role("row")).to_contain_text(["Name", "Airbyte away"])
        assert await connection.version() == 1
    await wait_for_end(one, "Airbyte has version 2")
    assert await connection.version() == 2


async def test_live_updates_return_with_redis(
    mesh: Mesh, person: Arrives, onboard: story.Onboards
) -> None:
    """Without Redis a page says that it is not live, and decisions work; then it catches up."""
    connection = await onboard("Redis away")
    reader, one = await person(), await person()
    await reader.open("/connections?q=Redis+away")
    bar = reader.page.locator(".live")
    await one.open(connection.path)
    with not_answering(mesh.stack.valkey):
        await expect(bar).to_contain_text("Live updates are unavailable", timeout=60_000)
        await reader.check_accessibility()
        await one.page.get_by_label("More actions").click()
        await one.page.get_by_role("button", name="Pause").click()
        await expect(one.page.get_by_role("status").first).to_contain_text("is paused")
    await expect(bar).not_to_contain_text("unavailable", timeout=60_000)
    await bar.get_by_role("link").click()
    await expect(reader.page.locator("tbody tr").first).to_contain_text("Paused")
