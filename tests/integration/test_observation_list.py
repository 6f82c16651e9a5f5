"""The list of sources by the state of their observation."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.schema_observer.observation_queries import ObservationFilter, page_of_observations
from shared.auth.scopes import Scope
from shared.database import Database
from tests import factories
from tests.integration.callers import caller
from tests.integration.conftest import Mesh
from tests.integration.paging import pages
from tests.pools import Sql

Json = dict[str, Any]


@pytest.fixture
def repairs() -> bool:
    """No repairs are planned here."""
    return False


async def observations(mesh: Mesh, **query: Any) -> list[Json]:
    """The sources that match."""
    answer = await mesh.schema_observer.get("/observations", params=query)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def observed(mesh: Mesh, connection: Json) -> None:
    """Observe the connection's source now."""
    path = f"/connections/{connection['id']}/observe"
    answer = await mesh.schema_observer.post(path)
    assert answer.status_code == 200, answer.text


async def change(mesh: Mesh, connection: Json, values: str) -> None:
    """Change the state of a source, which is not due meanwhile."""
    await mesh.sql.execute(
        f"UPDATE observations SET {values} WHERE airbyte_source_id = $1",  # noqa: S608 (constants)
        UUID(connection["airbyte_source_id"]),
    )


async def test_sources_are_listed_by_their_state(mesh: Mesh) -> None:
    """One row for each source, with the connections that use it."""
    one = await mesh.onboard()
    two = await mesh.onboard(connection_name="Another")
    for connection in (one, two):
        await observed(mesh, connection)
        await change(mesh, connection, "next_at = now() + interval '1 hour'")

    found = await observations(mesh)
    assert [source["source_id"] for source in found] == sorted(
        connection["airbyte_source_id"] for connection in (one, two)
    )
    assert {source["outcome"] for source in found} == {"unchanged"}
    assert {source["connections"][0]["name"] for source in found} == {
        "Another",
        "Salesforce production",
    }
    assert all(source["effective_interval_seconds"] > 0 for source in found)
    assert await observations(mesh, overdue=True) == []
    assert await observations(mesh, suspicious=False) == found
    assert await pages(mesh.schema_observer, "/observations", limit=1) == [[each] for each in found]

    await change(
        mesh,
        two,
        "outcome = 'suspicious', code = 'synced_stream_missing', suspicious_since = now()",
    )
    (doubted,) = await observations(mesh, outcome="suspicious")
    assert (doubted["source_id"], doubted["code"]) == (
        two["airbyte_source_id"],
        "synced_stream_missing",
    )
    assert await observations(mesh, suspicious=True) == [doubted]
    assert await observations(mesh, outcome="failed") == []
    (trusted,) = await observations(mesh, outcome="unchanged", suspicious=False, overdue=False)
    assert trusted["source_id"] == one["airbyte_source_id"]

    await mesh.sql.execute("UPDATE connections SET archived_at = now() WHERE id = $1", two["id"])
    assert [source["source_id"] for source in await observations(mesh)] == [
        one["airbyte_source_id"]
    ]


@pytest.mark.parametrize(
    "values, is_overdue",
    [
        ("now() - interval '1 hour', NULL, NULL", True),
        ("to_timestamp(0), NULL, NULL", True),
        ("now() - interval '1 hour', now() - interval '1 minute', NULL", True),
        ("now() - interval '10 seconds', NULL, NULL", False),
        ("now() + interval '1 hour', NULL, NULL", False),
        ("now() - interval '1 hour', now() + interval '1 minute', NULL", False),
        ("now() - interval '1 hour', NULL, now()", False),
    ],
)
async def test_source_that_waits_is_overdue(
    db: Database, sql: Sql, values: str, is_overdue: bool
) -> None:
    """Unless a process has claimed it, or it is postponed; without services that would start it."""
    row = factories.connection()
    async with db.transaction() as session:
        session.add(row)
    await sql.execute(
        "INSERT INTO observations (airbyte_source_id, next_at, claimed_until, postponed_since)"
        f" SELECT $1, {values}",
        row.airbyte_source_id,
    )

    async with db.read() as session:
        found = {
            wanted: json.loads(
                await page_of_observations(
                    session,
                    ObservationFilter(is_overdue=wanted),
                    every=timedelta(minutes=15),
                    limit=1,
                )
            )["items"]
            for wanted in (True, False)
        }

    assert found[not is_overdue] == []
    assert [one["overdue"] for one in found[is_overdue]] == [is_overdue]


async def test_requests_that_are_refused(mesh: Mesh) -> None:
    for wrong in ({"outcome": "pending"}, {"after": "x"}, {"limit": 0}, {"overdue": "maybe"}):
        answer = await mesh.schema_observer.get("/observations", params=wrong)
        assert answer.status_code == 422, wrong
    async with caller(mesh, mesh.schema_observer, Scope.CONNECTIONS_WRITE) as other:
        assert (await other.get("/observations")).status_code == 403
