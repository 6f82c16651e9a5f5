"""The lists that would grow without a bound come in pages, and say what they leave out."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from tests.integration.conftest import Mesh
from tests.integration.paging import pages

Json = dict[str, Any]


async def add_versions(mesh: Mesh, connection: Json, count: int) -> None:
    """Versions after the first, each with one stream more."""
    await mesh.sql.execute(
        "INSERT INTO sync_catalog_versions"
        " (id, connection_id, version_number, sync_catalog, fingerprint, origin)"
        " SELECT gen_random_uuid(), $1, n, jsonb_build_object('streams',"
        " (SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, n))), 'x', 'repair'"
        " FROM generate_series(2, $2::int) n",
        UUID(connection["id"]),
        count,
    )


async def test_catalog_versions_are_paged(mesh: Mesh) -> None:
    """Newest first, each once, with the number of its streams and without a catalog."""
    connection = await mesh.onboard()
    await add_versions(mesh, connection, 7)
    path = f"/connections/{connection['id']}/catalog-versions"

    listed = await pages(mesh.orchestrator, path, limit=3)

    numbers = [[one["version_number"] for one in page] for page in listed]
    assert numbers == [[7, 6, 5], [4, 3, 2], [1]]
    whole = (await mesh.orchestrator.get(path)).json()
    assert [one["streams"] for one in whole["items"]] == [7, 6, 5, 4, 3, 2, 2]
    assert whole["next"] is None
    assert "sync_catalog" not in whole["items"][0]
    exactly = (await mesh.orchestrator.get(path, params={"limit": 7})).json()
    assert (len(exactly["items"]), exactly["next"]) == (7, None)
    for wrong in ("0", "x", "-1", str(2**31)):
        assert (await mesh.orchestrator.get(path, params={"after": wrong})).status_code == 422


def change(number: int, **members: Any) -> Json:
    """A change as a repair stores it."""
    return {
        "id": f"c{number}",
        "kind": "field_added",
        "stream": {"namespace": None, "name": "Account"},
        "path": [f"Field{number}"],
        "reaction": "apply",
        "severity": "harmless",
        "suggestion_missing": False,
        "decision": None,
        **members,
    }


async def add_repair(mesh: Mesh, connection: Json, changes: list[Json]) -> str:
    """A repair that has ended, so that nothing is done about it."""
    repair_id = uuid4()
    await mesh.sql.execute(
        "INSERT INTO repairs (id, connection_id, state, base_version, changes, ended_at)"
        " VALUES ($1, $2, 'expired', 1, $3, now())",
        repair_id,
        UUID(connection["id"]),
        json.dumps(changes),
    )
    return str(repair_id)


async def test_list_of_repairs_summarizes_their_changes(mesh: Mesh) -> None:
    """How many of each kind and reaction there are, and the first three by name."""
    connection = await mesh.onboard()
    changes = [change(number) for number in range(1, 8)]
    changes[4] |= {
        "kind": "field_removed",
        "reaction": "propose",
        "suggestion_missing": True,
        "severity": "breaking",
        "decision": {"action": "keep"},
    }
    repair_id = await add_repair(mesh, connection, changes)

    (item,) = (await mesh.drift_repair_agent.get("/repairs")).json()["items"]

    assert "changes" not in item
    assert (item["id"], item["change_count"], item["suggestions_missing"]) == (repair_id, 7, True)
    assert item["changes_by_kind"] == {"field_added": 6, "field_removed": 1}
    assert item["changes_by_reaction"] == {"apply": 6, "propose": 1}
    assert item["changes_by_severity"] == {"harmless": 6, "breaking": 1}
    assert (item["severity"], item["decided_count"]) == ("breaking", 1)
    named = ("id", "kind", "stream", "path", "severity")
    assert item["first_changes"] == [{name: one[name] for name in named} for one in changes[:3]]


async def test_repairs_are_filtered_by_severity_and_expiry(mesh: Mesh) -> None:
    """The severity is that of the most severe change; only proposals expire."""
    connection = await mesh.onboard()
    harmless = await add_repair(mesh, connection, [change(1)])
    broken = await add_repair(mesh, connection, [change(1), change(2) | {"severity": "breaking"}])
    empty = await add_repair(mesh, connection, [])
    await mesh.sql.execute(
        "UPDATE repairs SET state = 'proposed', ended_at = NULL,"
        " expires_at = '2100-01-01T00:00:00Z' WHERE id = $1",
        UUID(broken),
    )

    async def listed(**query: Any) -> set[str]:
        answer = await mesh.drift_repair_agent.get("/repairs", params=query)
        assert answer.status_code == 200, answer.text
        return {one["id"] for one in answer.json()["items"]}

    assert await listed(severity="breaking") == {broken}
    assert await listed(severity=["harmless", "breaking"]) == {harmless, broken}
    assert await listed(severity="harmless", state="expired") == {harmless}
    assert await listed() == {harmless, broken, empty}
    assert await listed(expires_before="2100-01-01T00:00:01Z") == {broken}
    assert await listed(expires_before="2100-01-01T00:00:00Z") == set()
    for wrong in ({"expires_before": "2100-01-01T00:00:00"}, {"severity": "awful"}):
        answer = await mesh.drift_repair_agent.get("/repairs", params=wrong)
        assert answer.status_code == 422


async def test_open_repairs_are_counted(mesh: Mesh) -> None:
    """By state, the proposals by severity; ended repairs are left out."""
    connection = await mesh.onboard()
    proposed = await add_repair(mesh, connection, [change(1) | {"severity": "needs_review"}])
    await add_repair(mesh, connection, [change(2)])
    path, nothing = "/repairs/summary", {"open": 0, "by_state": {}, "proposed_by_severity": {}}
    counts = (await mesh.drift_repair_agent.get(path)).json()
    assert counts == nothing | {"pausing": 0, "next_expiry_at": None}

    await mesh.sql.execute(
        "UPDATE repairs SET state = 'proposed', ended_at = NULL,"
        " expires_at = '2100-01-01T00:00:00Z' WHERE id = $1",
        UUID(proposed),
    )
    await mesh.sql.execute("UPDATE connections SET paused_by = $1", UUID(proposed))

    assert (await mesh.drift_repair_agent.get(path)).json() == {
        "open": 1,
        "by_state": {"proposed": 1},
        "proposed_by_severity": {"needs_review": 1},
        "pausing": 1,
        "next_expiry_at": "2100-01-01T00:00:00.000000Z",
    }


async def test_changes_of_a_repair_are_paged(mesh: Mesh) -> None:
    """In the repair's order, each once; the repair itself has them all."""
    connection = await mesh.onboard()
    changes = [change(number) for number in range(1, 6)]
    repair_id = await add_repair(mesh, connection, changes)
    path = f"/repairs/{repair_id}/changes"

    listed = await pages(mesh.drift_repair_agent, path, limit=2)

    assert listed == [changes[:2], changes[2:4], changes[4:]]
    assert (await mesh.drift_repair_agent.get(f"/repairs/{repair_id}")).json()["changes"] == changes
    beyond = await mesh.drift_repair_agent.get(path, params={"after": 5})
    assert beyond.json() == {"items": [], "next": None}
    assert (await mesh.drift_repair_agent.get(f"/repairs/{uuid4()}/changes")).status_code == 404
    for wrong in ("x", "-1"):
        answer = await mesh.drift_repair_agent.get(path, params={"after": wrong})
        assert answer.status_code == 422


async def test_rollback_has_no_changes(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    repair_id = await add_repair(mesh, connection, [])

    (item,) = (await mesh.drift_repair_agent.get("/repairs")).json()["items"]

    assert (item["change_count"], item["first_changes"]) == (0, [])
    assert item["changes_by_kind"] == item["changes_by_reaction"] == {}
    page = (await mesh.drift_repair_agent.get(f"/repairs/{repair_id}/changes")).json()
    assert page == {"items": [], "next": None}
