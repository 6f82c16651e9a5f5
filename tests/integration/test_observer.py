"""Observing sources: what is recorded when one changes, and when it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.schema_observer import service
from tests.fakes.airbyte_server import stream
from tests.integration.conftest import Mesh
from tests.integration.observing import by_hand, counts, drifts, fetch, observe, planned
from tests.integration.paging import pages
from tests.waiting import until

Json = dict[str, Any]


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


# What becomes a drift


async def test_new_field_becomes_a_drift(mesh: Mesh) -> None:
    """It has a verdict, an event and a plan, and is in the lists."""
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "Region__c")

    found = await observe(mesh, connection)

    assert found["outcome"] == "changed"
    (change,) = found["changes"]
    assert (change["kind"], change["path"]) == ("field_added", ["Region__c"])
    assert (change["severity"], change["affects_sync"]) == ("harmless", True)
    drift = await fetch(mesh, f"/drifts/{found['drift_id']}")
    assert drift["changes"] == found["changes"]
    assert drift["open"] is True
    assert drift["after_snapshot_id"] == found["snapshot_id"]
    assert drift["before_snapshot_id"] == await mesh.sql.fetchval(
        "SELECT snapshot_id::text FROM sync_catalog_versions"
    )
    event = (await mesh.events(2))[-1]
    assert (event["type"], event["ref"], event["code"]) == (
        "drift.detected",
        found["drift_id"],
        "harmless",
    )
    assert await planned(mesh) == [connection["id"]]


async def test_repeated_observation_adds_nothing(mesh: Mesh) -> None:
    """Fifty observations of an unchanged source add no event, version, drift or snapshot."""
    connection = await mesh.onboard()
    before = await counts(mesh)

    for _ in range(50):
        found = await observe(mesh, connection)
        assert (found["outcome"], found["drift_id"], found["changes"]) == ("unchanged", None, [])

    assert await counts(mesh) == before
    assert before["drifts"] == 0
    assert await planned(mesh) == []


async def test_drift_is_reported_by_one_observation(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.drop_field("Account", "Name")
    found = await observe(mesh, connection)
    assert found["changes"][0]["severity"] == "needs_review"
    before = await counts(mesh)

    again = await observe(mesh, connection)

    assert (again["outcome"], again["drift_id"]) == ("unchanged", None)
    assert again["snapshot_id"] == found["snapshot_id"]
    assert await counts(mesh) == before


async def test_change_and_its_reversal_are_two_drifts(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    as_it_was = mesh.airbyte._offered[None][0]
    mesh.airbyte.retype_field("Account", "AnnualRevenue", "string")
    there = await observe(mesh, connection)
    mesh.airbyte.offers(as_it_was)
    back = await observe(mesh, connection)

    assert [one["changes"][0]["kind"] for one in (there, back)] == ["field_retyped"] * 2
    assert there["changes"][0]["before"] == back["changes"][0]["after"]
    listed = await fetch(mesh, "/drifts", connection_id=connection["id"])
    assert [one["id"] for one in listed["items"]] == [back["drift_id"], there["drift_id"]]
    snapshots = (await fetch(mesh, f"/connections/{connection['id']}/snapshots"))["items"]
    assert len(snapshots) == 3
    same = await fetch(
        mesh,
        f"/connections/{connection['id']}/snapshots/{snapshots[2]['snapshot_id']}"
        f"/diff/{snapshots[0]['snapshot_id']}",
    )
    assert same["changes"] == []


async def test_unsynced_change_has_no_event_and_no_plan(mesh: Mesh) -> None:
    """A new object is recorded as a fact, and the drift is not open."""
    connection = await mesh.onboard()
    await mesh.events(1)
    offered = mesh.airbyte._offered[None][0]
    mesh.airbyte.offers({"streams": [*offered["streams"], {"stream": stream("Invoice__c")}]})

    found = await observe(mesh, connection)

    (change,) = found["changes"]
    assert (change["kind"], change["affects_sync"]) == ("stream_added", False)
    drift = await fetch(mesh, f"/drifts/{found['drift_id']}")
    assert (drift["affects_sync"], drift["open"], drift["severity"]) == (False, False, "harmless")
    assert await planned(mesh) == []
    assert (await counts(mesh))["events"] == 1


async def test_insignificant_change_is_no_drift(mesh: Mesh) -> None:
    """A description is another snapshot at most."""
    connection = await mesh.onboard()

    def describe(offered: Json) -> None:
        offered["jsonSchema"]["properties"]["Name"]["description"] = "What it is called."

    mesh.airbyte.reshape("Account", describe)
    found = await observe(mesh, connection)

    assert (found["outcome"], found["drift_id"]) == ("unchanged", None)
    observation = await fetch(mesh, f"/connections/{connection['id']}/observation")
    assert observation["compared_snapshot_id"] == found["snapshot_id"]


async def test_name_with_nul_is_escaped(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "a\x00b")

    found = await observe(mesh, connection)

    assert found["changes"][0]["path"] == ["a\ufffdb"]


# Who is compared with what


@pytest.mark.exact
async def test_two_connections_share_a_discovery(mesh: Mesh) -> None:
    """One discovery, two drifts; the imported one is first compared with its own catalog."""
    connection = await mesh.onboard()
    other = await by_hand(mesh, connection)
    mesh.airbyte.discoveries.clear()
    mesh.airbyte.add_field("Contact", "Nickname__c")

    found = await observe(mesh, connection)

    assert sum(mesh.airbyte.discoveries.values()) == 1
    seen = await drifts(mesh)
    by_connection = {one["connection_id"]: one for one in seen}
    assert by_connection.keys() == {connection["id"], other["id"]}
    assert by_connection[connection["id"]]["id"] == found["drift_id"]
    assert by_connection[other["id"]]["before_snapshot_id"] is None
    assert {one["change_count"] for one in seen} == {1}
    assert sorted(await planned(mesh)) == sorted([connection["id"], other["id"]])
    mesh.airbyte.add_field("Contact", "Height__c")
    await observe(mesh, other)
    third = (await fetch(mesh, "/drifts", connection_id=other["id"]))["items"][0]
    assert third["before_snapshot_id"] == by_connection[other["id"]]["after_snapshot_id"]


async def test_imported_connection_without_changes_has_no_drift(mesh: Mesh) -> None:
    """Streams and fields that it does not select are ignored."""
    connection = await mesh.onboard()
    other = await by_hand(mesh, connection)

    found = await observe(mesh, other)

    assert (found["outcome"], found["drift_id"]) == ("unchanged", None)
    assert (await counts(mesh))["drifts"] == 0
    observation = await fetch(mesh, f"/connections/{other['id']}/observation")
    assert observation["compared_snapshot_id"] == found["snapshot_id"]


async def test_connection_under_repair_is_compared_later(mesh: Mesh) -> None:
    """Once it is ACTIVE again; until then its outcome is pending."""
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "Region__c")
    await mesh.sql.execute("UPDATE connections SET status = 'HEALING', heal_id = gen_random_uuid()")
    found = await observe(mesh, connection)
    assert (found["outcome"], found["drift_id"]) == ("pending", None)
    observation = await fetch(mesh, f"/connections/{connection['id']}/observation")
    assert observation["outcome"] == "pending"
    await mesh.sql.execute("UPDATE connections SET status = 'ACTIVE', heal_id = NULL")
    soon = await mesh.sql.fetchval("SELECT next_at < now() + interval '70 s' FROM observations")
    assert soon is True

    found = await observe(mesh, connection)

    assert (found["outcome"], len(found["changes"])) == ("changed", 1)


async def test_observation_of_a_dead_process_is_continued(mesh: Mesh) -> None:
    """It had stored the snapshot, and recorded no drift; its lease expired."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    mesh.airbyte.drop_field("Account", "AnnualRevenue")
    discovered = await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")
    assert discovered.status_code == 200
    await mesh.sql.execute(
        "UPDATE observations SET claimed_by = gen_random_uuid(),"
        " started_at = now() - interval '1 h', claimed_until = now() - interval '1 s',"
        " next_at = now() - interval '1 h'"
    )

    found = await drifts(mesh)

    assert [one["after_snapshot_id"] for one in found] == [discovered.json()["snapshot_id"]]


# Asking


@pytest.mark.exact
async def test_concurrent_requests_share_a_discovery(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every response names the same drift."""
    monkeypatch.setattr(service, "_JOINS_WITHIN", timedelta(seconds=30))
    connection = await mesh.onboard()
    mesh.airbyte.discoveries.clear()
    mesh.airbyte.add_field("Account", "Region__c")
    mesh.airbyte.fault("commands/run/discover", "slow", seconds=2, times=None)

    found = await asyncio.gather(*(observe(mesh, connection) for _ in range(3)))

    assert sum(mesh.airbyte.discoveries.values()) == 1
    assert len({one["drift_id"] for one in found}) == 1
    assert found[0]["drift_id"] is not None


async def read_a_while_ago(mesh: Mesh, connection: Json) -> None:
    """A look is under way that began a while ago, and the source has answered already."""
    mesh.airbyte.discoveries.clear()
    mesh.airbyte.fault("commands/output/discover", "slow", seconds=2, after_effect=True)
    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe", params={"wait": 0}
    )
    assert answer.status_code == 202
    await until(lambda: mesh.airbyte.discoveries)
    await mesh.sql.execute("UPDATE observations SET started_at = started_at - interval '5 s'")


@pytest.mark.exact
async def test_request_is_not_answered_by_an_older_observation(mesh: Mesh) -> None:
    """A change after the source was read is found by a new observation."""
    connection = await mesh.onboard()
    await read_a_while_ago(mesh, connection)
    mesh.airbyte.add_field("Account", "Region__c")

    found = await observe(mesh, connection)

    assert found["outcome"] == "changed"
    assert sum(mesh.airbyte.discoveries.values()) == 2


@pytest.mark.exact
async def test_request_during_an_observation_starts_another(mesh: Mesh) -> None:
    """Also when the caller no longer waits for it."""
    connection = await mesh.onboard()
    await read_a_while_ago(mesh, connection)
    mesh.airbyte.hide("Account")

    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe",
        params={"wait": 0},
        json={"accept_missing": True},
    )

    assert answer.status_code == 202
    found = await drifts(mesh)
    assert found[0]["severity"] == "breaking"


@pytest.mark.exact
async def test_long_observation_answers_202_and_continues(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "Region__c")
    mesh.airbyte.fault("commands/run/discover", "slow", seconds=0.5)

    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe", params={"wait": 0.1}
    )

    assert answer.status_code == 202
    assert answer.json()["status"] == "observing"
    assert (await fetch(mesh, f"/connections/{connection['id']}/observation"))["observing"] is True
    assert await drifts(mesh)


async def test_unobservable_connections_are_refused(mesh: Mesh) -> None:
    """Unknown, archived, and missing in Airbyte."""
    unknown = await mesh.schema_observer.post(f"/connections/{uuid4()}/observe")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    connection = await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET status = 'FAILED'")
    failed = await mesh.schema_observer.post(f"/connections/{connection['id']}/observe")
    assert (failed.status_code, failed.json()["code"]) == (409, "not_active")
    await mesh.sql.execute("UPDATE connections SET status = 'ACTIVE', archived_at = now()")
    archived = await mesh.schema_observer.post(f"/connections/{connection['id']}/observe")
    assert (archived.status_code, archived.json()["code"]) == (409, "not_active")
    assert await mesh.sql.fetchval("SELECT count(*) FROM observations") == 0


# Lists


async def test_drifts_are_paged_and_filtered(mesh: Mesh) -> None:
    """Newest first, each once, by severity and by whether it is open."""
    connection = await mesh.onboard()
    ids = []
    for field in ("One", "Two", "Three"):
        mesh.airbyte.add_field("Account", field)
        ids.append((await observe(mesh, connection))["drift_id"])
    mesh.airbyte.drop_field("Account", "One")
    ids.append((await observe(mesh, connection))["drift_id"])

    listed = await pages(mesh.schema_observer, "/drifts", limit=3)
    assert [one["id"] for page in listed for one in page] == ids[::-1]
    review = await fetch(mesh, "/drifts", severity="needs_review")
    assert [one["id"] for one in review["items"]] == ids[3:]
    other = await mesh.schema_observer.get("/drifts", params={"connection_id": str(uuid4())})
    assert other.status_code == 404
    bad = await mesh.schema_observer.get("/drifts", params={"after": "nonsense"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_cursor")
    unknown = await mesh.schema_observer.get(f"/drifts/{uuid4()}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


async def test_drift_is_open_until_it_is_planned_or_repaired(mesh: Mesh) -> None:
    """A plan from an older snapshot does not close it."""
    connection = await mesh.onboard()
    mesh.airbyte.drop_field("Account", "Name")
    first = await observe(mesh, connection)
    mesh.airbyte.drop_field("Account", "AnnualRevenue")
    second = await observe(mesh, connection)

    async def are_open() -> set[str]:
        page = await fetch(mesh, "/drifts", open=True)
        closed = await fetch(mesh, "/drifts", open=False)
        assert {one["open"] for one in page["items"]} <= {True}
        assert {one["open"] for one in closed["items"]} <= {False}
        return {one["id"] for one in page["items"]}

    async def plan(snapshot_id: str) -> None:
        await mesh.sql.execute(
            "INSERT INTO plans (connection_id, snapshot_id, base_version) VALUES ($1, $2, 1)"
            " ON CONFLICT (connection_id) DO UPDATE SET snapshot_id = excluded.snapshot_id",
            connection["id"],
            snapshot_id,
        )

    assert await are_open() == {first["drift_id"], second["drift_id"]}
    await plan(first["snapshot_id"])
    assert await are_open() == {second["drift_id"]}
    await plan(second["snapshot_id"])
    assert await are_open() == set()
    repair = uuid4()
    await mesh.sql.execute(
        "INSERT INTO repairs (id, connection_id, state, snapshot_id, base_version, changes)"
        " VALUES ($1, $2, 'proposed', $3, 1, '[]')",
        repair,
        connection["id"],
        second["snapshot_id"],
    )
    assert await are_open() == {first["drift_id"], second["drift_id"]}
    await mesh.sql.execute("UPDATE repairs SET state = 'rejected', ended_at = now()")
    assert await are_open() == set()


async def test_any_two_snapshots_of_the_source_can_be_compared(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    for field in ("One", "Two"):
        mesh.airbyte.add_field("Account", field)
        await observe(mesh, connection)
    path = f"/connections/{connection['id']}/snapshots"
    newest, middle, oldest = (await fetch(mesh, path))["items"]
    assert {one["streams"] for one in (newest, middle, oldest)} == {5}

    across = await fetch(mesh, f"{path}/{oldest['snapshot_id']}/diff/{newest['snapshot_id']}")
    back = await fetch(mesh, f"{path}/{newest['snapshot_id']}/diff/{middle['snapshot_id']}")

    assert [(one["kind"], one["path"]) for one in across["changes"]] == [
        ("field_added", ["One"]),
        ("field_added", ["Two"]),
    ]
    assert [(one["kind"], one["path"]) for one in back["changes"]] == [("field_removed", ["Two"])]
    await mesh.sql.execute(
        "UPDATE snapshots SET airbyte_source_id = $1 WHERE id = $2", uuid4(), middle["snapshot_id"]
    )
    other = await mesh.schema_observer.get(
        f"{path}/{oldest['snapshot_id']}/diff/{middle['snapshot_id']}"
    )
    assert (other.status_code, other.json()["code"]) == (404, "not_found")


async def test_observation_interval_can_be_set(mesh: Mesh) -> None:
    """The shortest interval of a source applies; null resets it."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    path = f"/connections/{connection['id']}/observation"
    before = await fetch(mesh, path)
    assert (before["interval_seconds"], before["effective_interval_seconds"]) == (None, 900)

    changed = (await mesh.schema_observer.put(path, json={"interval_seconds": 60})).json()

    assert (changed["interval_seconds"], changed["effective_interval_seconds"]) == (60, 60)
    assert changed["next_at"] < before["next_at"]
    for seconds in (59, 604_801, "often", None):
        answer = await mesh.schema_observer.put(path, json={"interval_seconds": seconds})
        assert answer.status_code == (200 if seconds is None else 422), answer.text
    assert (await fetch(mesh, path))["interval_seconds"] is None
    empty = await mesh.schema_observer.put(path, json={})
    assert empty.status_code == 422
    unknown = await mesh.schema_observer.put(
        f"/connections/{uuid4()}/observation", json={"interval_seconds": 60}
    )
    assert unknown.status_code == 404
