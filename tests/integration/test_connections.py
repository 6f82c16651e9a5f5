"""Connections: pages, filters and history."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Mesh
from tests.integration.paging import pages

_INSERT = """
    INSERT INTO connections (id, name, source_type, airbyte_destination_id, status, created_at)
    SELECT gen_random_uuid(), 'org ' || n, 'Salesforce', gen_random_uuid(),
           (ARRAY['PENDING', 'FAILED'])[1 + n % 2]::connection_status,
           now() - make_interval(secs => n / 2)
    FROM generate_series(1, $1) n
"""


async def test_pages_hold_every_connection_once(mesh: Mesh) -> None:
    """Newest first, equal times included, none twice and none left out."""
    await mesh.sql.execute(_INSERT, 25)

    listed = await pages(mesh.orchestrator, "/connections", limit=7)

    names = [one["name"] for page in listed for one in page]
    assert len(names) == 25 == len(set(names))
    assert names[0] == "org 1"


async def test_filters(mesh: Mesh) -> None:
    """By status, and by a part of the name in which % and _ are literal."""
    await mesh.sql.execute(_INSERT, 10)
    await mesh.sql.execute("UPDATE connections SET name = '100% sure_thing' WHERE name = 'org 4'")

    async def names(**parameters: str) -> set[str]:
        page = (await mesh.orchestrator.get("/connections", params=parameters)).json()
        return {one["name"] for one in page["items"]}

    assert len(await names(status="FAILED")) == 5
    assert await names(name="ORG 1") == {"org 1", "org 10"}
    assert await names(name="0% sure_") == {"100% sure_thing"}
    assert await names(name="_") == {"100% sure_thing"}
    assert await names(archived="true") == set()


@pytest.mark.parametrize(
    "parameters", [{"after": "x"}, {"limit": "0"}, {"limit": "501"}, {"status": "HAPPY"}]
)
async def test_invalid_parameters_are_422(mesh: Mesh, parameters: dict[str, str]) -> None:
    answer = await mesh.orchestrator.get("/connections", params=parameters)

    assert answer.status_code == 422
    assert "HAPPY" not in answer.text


@pytest.mark.parametrize(
    "path", ["", "/jobs", "/catalog-versions", "/catalog-versions/1", "/catalog-versions/1/diff/2"]
)
async def test_unknown_connection_is_404(mesh: Mesh, path: str) -> None:
    answer = await mesh.orchestrator.get(f"/connections/7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f{path}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_archiving_keeps_the_history_and_a_shared_source(mesh: Mesh) -> None:
    """The connection goes from Airbyte; a source that another connection uses stays."""
    connection = await mesh.onboard()
    other = dict(mesh.airbyte.connections[connection["airbyte_connection_id"]])
    other["connectionId"] = "2c0ffee0-0000-4000-8000-000000000001"
    mesh.airbyte.connections[other["connectionId"]] = other

    for _ in range(2):
        gone = await mesh.orchestrator.delete(f"/connections/{connection['id']}")
        assert gone.status_code == 204

    assert list(mesh.airbyte.connections) == [other["connectionId"]]
    assert list(mesh.airbyte.sources) == [connection["airbyte_source_id"]]
    versions = await mesh.orchestrator.get(f"/connections/{connection['id']}/catalog-versions")
    assert len(versions.json()["items"]) == 1
    archived = (await mesh.orchestrator.get("/connections?archived=true")).json()["items"]
    assert [one["id"] for one in archived] == [connection["id"]]
