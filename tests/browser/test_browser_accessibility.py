"""Every page passes axe in both themes, fits a phone, and has nothing to complain about."""

from __future__ import annotations

from typing import Final

import pytest

from local.mesh_client import Mesh
from tests.browser.conftest import Arrives, Story
from tests.browser.person import DESK, PHONE

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

PAGES: Final = (
    "/",
    "/connections",
    "/connections?q=no+such+connection",
    "{connection}",
    "{connection}/catalog",
    "{connection}/catalog?stream=Account",
    "{connection}/versions",
    "{connection}/versions/1..2",
    "{connection}/schema",
    "{connection}/syncs",
    "{connection}/policy",
    "{connection}/archive",
    "{repair}",
    "/repairs",
    "/repairs/groups",
    "/drifts",
    "{drift}",
    "/operations",
    "/observations",
    "/onboard",
    "{source_type}",
    "/import",
    "/notifications",
    "/knowledge",
    "/access",
    "/access/credentials",
    "/access/reads",
    "/access/refusals",
    "/system",
    "/preferences",
    "/search?q=Salesforce",
)


async def source_type(mesh: Mesh) -> str:
    """The id of Salesforce's connector."""
    listed = await mesh.ask("orchestrator", "GET", "/source-types")
    return next(str(one["id"]) for one in listed["items"] if one["name"] == "Salesforce")


@pytest.mark.parametrize("path", PAGES)
async def test_page_is_accessible_and_fits_a_phone(
    reader: Arrives, played: Story, path: str
) -> None:
    """With the sample org's story, a healed drift and a repair that waits."""
    one = await reader()
    ids = {
        "connection": f"/connections/{played.connection.id}",
        "repair": f"/repairs/{played.repair['id']}",
        "drift": f"/drifts/{(await played.connection.drifts())[0]['id']}",
        "source_type": f"/onboard/{await source_type(played.mesh)}",
    }
    response = await one.open(path.format(**ids))
    assert response.status == 200, (path, response.status)
    assert "not available now" not in await one.text(), path
    await one.page.set_viewport_size(DESK)
    await one.check_width()
    await one.check_accessibility()
    await one.page.set_viewport_size(PHONE)
    await one.check_width()
    await one.check_accessibility()


async def test_login_page_is_accessible_and_fits_a_phone(reader: Arrives) -> None:
    one = await reader(signed_in=False)
    await one.open("/login")
    for size in (DESK, PHONE):
        await one.page.set_viewport_size(size)
        await one.check_width()
        await one.check_accessibility()
