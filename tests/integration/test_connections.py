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


async def test_filters_of_what_a_connection_has(mesh: Mesh) -> None:
    """Each alone and together, in the list and in its counts."""
    await mesh.sql.execute(_INSERT, 6)
    await mesh.sql.execute(
        "UPDATE connections SET source_type = 'Postgres', credential_id = 'pg', upstream_code ="
        ' \'locked\', labels = \'{"team": "sales", "tier": "a=b"}\' WHERE name = \'org 4\''
    )
    (row,) = await mesh.sql.fetch("SELECT * FROM connections WHERE name = 'org 4'")
    destination = str(row["airbyte_destination_id"])

    for parameters in (
        {"source_type": "Postgres"},
        {"credential_id": "pg"},
        {"upstream_code": "locked"},
        {"label": "team=sales"},
        {"label": ["team=sales", "tier=a=b"]},
        {"destination_id": destination},
        {"q": str(row["id"])},
        {"q": destination.upper()},
        {"q": "RG 4"},
        {"q": "org 4", "sort": "name", "label": "team=sales", "source_type": "Postgres"},
    ):
        page = await mesh.orchestrator.get("/connections", params=parameters)
        assert [one["name"] for one in page.json()["items"]] == ["org 4"], parameters
        filters = {name: value for name, value in parameters.items() if name != "sort"}
        counts = await mesh.orchestrator.get("/connections/summary", params=filters)
        assert counts.json()["total"] == 1
    for parameters in (
        {"label": ["team=sales", "team=support"]},
        {"label": "team=sale"},
        {"airbyte_connection_id": str(row["id"])},
        {"q": "org 4", "archived": "true"},
    ):
        page = await mesh.orchestrator.get("/connections", params=parameters)
        assert page.json()["items"] == [], parameters


async def test_health_is_listed_on_request(mesh: Mesh) -> None:
    """It follows the connection's life, and a list without it has its former shape."""
    connection = await mesh.onboard()
    await mesh.until_true("SELECT count(*) = 1 FROM connection_health")

    (plain,) = (await mesh.orchestrator.get("/connections")).json()["items"]
    listed = await mesh.orchestrator.get("/connections?include=health&health=healthy&sort=health")
    counts = (await mesh.orchestrator.get("/connections/summary")).json()

    assert "health" not in plain
    (one,) = listed.json()["items"]
    assert one["id"] == connection["id"]
    assert (one["health"]["health"], one["health"]["failed_syncs"]) == ("healthy", 0)
    assert counts["health"]["healthy"] == counts["total"] == counts["statuses"]["ACTIVE"] == 1
    assert counts["source_types"] == [{"source_type": "Salesforce", "count": 1}]

    await mesh.orchestrator.delete(f"/connections/{connection['id']}")
    archived = (await mesh.orchestrator.get("/connections?include=health&health=archived")).json()
    assert archived["items"][0]["health"]["health"] == "archived"


@pytest.mark.parametrize(
    "parameters",
    [
        *({"after": "x"}, {"limit": "0"}, {"limit": "501"}, {"status": "HAPPY"}),
        *({"health": "HAPPY"}, {"label": "team"}, {"label": "Team=a"}, {"sort": "HAPPY"}),
        *({"after": "x", "sort": "name"}, {"after": "aGVhbHRoIEhBUFBZ", "sort": "health"}),
        *({"after": "bmFtZSAx", "sort": "name"}, {"q": ""}, {"include": "HAPPY"}),
    ],
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
