"""The console before the real services: see a repair, preview, approve, and roll back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.console import main
from services.console.repair_choices import Decisions
from shared.auth.scopes import KEY_SCOPES
from tests import access
from tests.console.browser import Browser
from tests.console.conftest import settings_for
from tests.integration.conftest import Mesh
from tests.integration.drifting import offering, repairs_until
from tests.integration.repairing import proposal

pytestmark = pytest.mark.exact

RENAMED = {"Id": "string", "Name": "string", "YearlyRevenue": "number"}


@pytest.fixture
async def browser(mesh: Mesh) -> AsyncIterator[Browser]:
    """A browser that is signed in at a console in front of the mesh."""
    app = main.build(settings_for("http://localhost:1"))
    await app.state.clients.close()
    app.state.clients._clients |= {
        "orchestrator": mesh.orchestrator,
        "drift_repair_agent": mesh.drift_repair_agent,
        "schema_observer": mesh.schema_observer,
    }
    made = Browser(app)
    key = await access.insert(mesh.sql, *KEY_SCOPES, owner="ada@example.com")
    page = await made.sign_in(key.key)
    assert page.status == 303, page.text
    yield made
    await made.client.aclose()


async def test_repair_is_decided_and_taken_back(mesh: Mesh, browser: Browser) -> None:
    """From the list to the approval of a rename, its proof, and the rollback."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RENAMED))
    path = f"/repairs/{repair['id']}"
    assert path in (await browser.get("/repairs")).html
    gone = next(one for one in Decisions.of(repair).items if one.is_removal)

    choices = {
        f"choice.{gone.key}": "other",
        f"other.{gone.key}": "YearlyRevenue",
        f"column.{gone.key}": "new_column",
    }
    await browser.get(path)
    shown = await browser.post(path, {"do": "preview", **choices})
    assert shown.status == 200, shown.text
    assert "Nothing has to be waited for" in shown.text

    done = await browser.post(
        path,
        {
            "do": "approve",
            "previewed": shown.fields["previewed"],
            "why": "Renamed in release 12.",
            **choices,
        },
    )
    assert done.status == 303, done.text
    await repairs_until(mesh, connection, ["applied"])
    proof = await browser.get(done.location)
    assert "Airbyte has version 2: AAM read it back" in proof.text
    assert "Renamed in release 12." in proof.text

    compared = f"/connections/{connection['id']}/versions/2..1"
    shown = await browser.get(compared)
    assert "Version 1 cannot be restored now" in shown.text
    assert "YearlyRevenue" in shown.text
    refused = await browser.post(compared, {"why": "The release was withdrawn."})
    # The source no longer has the field of version 1.
    assert refused.status == 409, refused.text
    assert "rollback_impossible" in refused.text
    assert "The release was withdrawn." in refused.html
