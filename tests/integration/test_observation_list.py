"""The list of sources by the state of their observation."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from shared.auth.scopes import Scope
from tests.integration.callers import caller
from tests.integration.conftest import Mesh
from tests.integration.paging import pages

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


async def test_source_that_waits_is_overdue(mesh: Mesh) -> None:
    """Unless a process has claimed it, or it is postponed."""
    connection = await mesh.onboard()
    await observed(mesh, connection)
    # Claimed, so that no observer starts it.
    claimed = "claimed_until = now() + interval '1 hour', claimed_by = gen_random_uuid()"
    await change(mesh, connection, f"next_at = now() - interval '1 hour', {claimed}")
    (source,) = await observations(mesh, overdue=False)
    assert (source["overdue"], source["observing"]) == (False, True)

    transaction = mesh.sql.transaction()
    await transaction.start()
    await change(mesh, connection, "claimed_until = NULL, postponed_since = NULL")
    overdue = await mesh.sql.fetchval(
        "SELECT count(*) FROM observations WHERE next_at < now() - interval '1 minute'"
        " AND coalesce(claimed_until <= now(), true) AND postponed_since IS NULL"
    )
    await transaction.rollback()
    assert overdue == 1


async def test_requests_that_are_refused(mesh: Mesh) -> None:
    for wrong in ({"outcome": "pending"}, {"after": "x"}, {"limit": 0}, {"overdue": "maybe"}):
        answer = await mesh.schema_observer.get("/observations", params=wrong)
        assert answer.status_code == 422, wrong
    async with caller(mesh, mesh.schema_observer, Scope.CONNECTIONS_WRITE) as other:
        assert (await other.get("/observations")).status_code == 403
