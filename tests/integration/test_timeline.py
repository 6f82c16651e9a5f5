"""The timeline of a connection: what several tables record, as one history, page by page."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from services.orchestrator import timeline_queries
from services.orchestrator.history_retention import History, Retention
from services.orchestrator.timeline_schemas import Kind
from shared.auth.scopes import Scope
from shared.database import Database
from tests.integration.callers import caller
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.repairing import approve
from tests.pools import Sql

Json = dict[str, Any]
LESS = offering({"Id": "string", "Name": "string"})
LOST = offering(ACCOUNT, cursor=None)
"""Account without its cursor, for which a repair pauses the connection."""
AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


async def timeline(mesh: Mesh, connection_id: object, **query: Any) -> Json:
    """One page."""
    answer = await mesh.orchestrator.get(f"/connections/{connection_id}/timeline", params=query)
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page


async def entries(
    mesh: Mesh, connection_id: object, *, limit: int = 100, kinds: Collection[str] = ()
) -> list[Json]:
    """All entries, by following `next` from the first page."""
    found: list[Json] = []
    query: Json = {"limit": limit, "kinds": list(kinds)}
    while True:
        page = await timeline(mesh, connection_id, **query)
        found += page["items"]
        if page["next"] is None:
            return found
        assert len(page["items"]) == limit
        query["before"] = page["next"]


async def lived(mesh: Mesh) -> Json:
    """A connection that was edited, synced, repaired, paused and resumed."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}"
    await mesh.orchestrator.patch(path, json={"description": "The CRM.", "by": "Ada"})
    await mesh.orchestrator.post(f"{path}/sync")
    mesh.airbyte.finish_job(max(mesh.airbyte.jobs))
    await mesh.jobs_until_end(connection["id"])
    await drift(mesh, connection, LESS)
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    status, _ = await approve(mesh, repair, reason="It is unused.")
    assert status == 200
    await repairs_until(mesh, connection, ["applied"])
    for paused in (True, False):
        await mesh.orchestrator.patch(path, json={"paused": paused, "by": "Bob"})
    return {**connection, "repair": repair["id"]}


def one(found: list[Json], kind: str) -> Json:
    """The newest entry of a kind."""
    return next(entry for entry in found if entry["kind"] == kind)


async def test_timeline_has_what_happened(mesh: Mesh) -> None:
    """Newest first: who did what and why, with the ids to read more."""
    connection = await lived(mesh)

    found = await entries(mesh, connection["id"])

    assert [entry["at"] for entry in found] == sorted((e["at"] for e in found), reverse=True)
    kinds = [entry["kind"] for entry in found]
    assert sorted(kinds) == sorted(
        [
            *("version", "setting", "sync", "setting", "drift", "repair_proposed"),
            *("repair_decided", "version", "repair_ended", "pause", "pause"),
        ]
    )
    assert [entry["outcome"] for entry in found if entry["kind"] == "pause"] == [
        "resumed",
        "paused",
    ]
    decided = one(found, "repair_decided")
    assert (decided["outcome"], decided["actor"], decided["reason"]) == (
        "approved",
        "Ada",
        "It is unused.",
    )
    assert decided["severity"] == one(found, "drift")["severity"]
    assert [each["by"] for each in decided["details"]["decisions"]] == ["Ada"]
    ended, version = one(found, "repair_ended"), one(found, "version")
    assert (ended["outcome"], ended["version"]) == ("applied", 2)
    assert (version["outcome"], version["version"], version["actor"]) == ("repair", 2, "Ada")
    assert {decided["repair_id"], ended["repair_id"], version["repair_id"]} == {
        connection["repair"]
    }
    assert one(found, "drift")["drift_id"] == decided["drift_id"]
    assert one(found, "drift")["details"]["change_count"] == 1
    query = {"include": ["health", "syncs"]}
    (row,) = (await mesh.orchestrator.get("/connections", params=query)).json()["items"]
    assert [each["status"] for each in row["recent_syncs"]] == ["succeeded"]
    assert row["health"]["last_sync_status"] == "succeeded"
    sync = one(found, "sync")
    assert (sync["outcome"], sync["version"], bool(sync["requested_by"])) == ("succeeded", 1, True)
    accepted, described = [entry for entry in found if entry["kind"] == "setting"]
    assert accepted["details"]["subject"] == "observation"
    assert (described["actor"], described["details"]["settings"]) == ("Ada", ["description"])
    assert described["details"]["change"]["description"] == {"from": None, "to": "The CRM."}


async def test_timeline_is_paged_and_filtered(mesh: Mesh) -> None:
    """Each entry comes once, whatever the size of a page; an archived connection has its own."""
    connection = await lived(mesh)
    path = f"/connections/{connection['id']}"
    assert (await mesh.orchestrator.delete(path)).status_code == 204
    whole = await entries(mesh, connection["id"])

    assert (whole[0]["kind"], bool(whole[0]["actor"])) == ("archived", True)
    assert len({entry["id"] for entry in whole}) == len(whole)
    for limit in (1, 3):
        assert await entries(mesh, connection["id"], limit=limit) == whole
    for kinds in (["pause"], ["sync", "setting"], ["credential"], [kind.value for kind in Kind]):
        wanted = [entry for entry in whole if entry["kind"] in kinds]
        assert await entries(mesh, connection["id"], kinds=kinds, limit=1) == wanted
    other = await mesh.onboard(connection_name="Another")
    assert [entry["kind"] for entry in await entries(mesh, other["id"])] == ["version"]


async def test_pause_by_a_repair_outlives_its_event(mesh: Mesh) -> None:
    """The outbox keeps events for days; the timeline has the pause, with its repair."""
    connection = await mesh.onboard()
    await drift(mesh, connection, LOST)
    (repair,) = await repairs_until(mesh, connection, ["proposed"])
    await mesh.until_true("SELECT EXISTS (SELECT FROM connections WHERE paused_by IS NOT NULL)")
    await mesh.until_true("SELECT NOT EXISTS (SELECT FROM events WHERE published_at IS NULL)")
    await mesh.sql.execute("DELETE FROM events")

    (pause,) = await entries(mesh, connection["id"], kinds=["pause"])

    assert (pause["outcome"], pause["repair_id"], pause["actor"]) == ("paused", repair["id"], None)


async def test_failed_and_running_operations_are_entries(mesh: Mesh) -> None:
    """One that succeeded is not: what it did is on the timeline."""
    connection = await mesh.onboard()
    statement = (
        "INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,"
        " deadline, request_id, failure, ended_at, requested_by) VALUES ($1, 'sync', $2, $3, '{}',"
        " 'job', now() + interval '1 hour', now() + interval '1 hour', '', $4, $5, 'ada')"
    )
    failed, running = uuid4(), uuid4()
    failure = json.dumps({"code": "upstream_refused", "explanation": "a secret text"})
    id_ = UUID(connection["id"])
    await mesh.sql.execute(statement, failed, id_, "failed", failure, AT)
    await mesh.sql.execute(statement, running, id_, "running", None, None)

    found = await entries(mesh, connection["id"], kinds=["operation"])

    assert {entry["id"] for entry in found} == {f"operation:{failed}", f"operation:{running}"}
    entry = next(entry for entry in found if entry["outcome"] == "failed")
    assert (entry["code"], entry["actor"], entry["details"]["kind"]) == (
        "upstream_refused",
        "ada",
        "sync",
    )
    assert "secret" not in json.dumps(found)


async def test_requests_that_cannot_be_answered(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/timeline"
    missing = await mesh.orchestrator.get(f"/connections/{uuid4()}/timeline")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    answer = await mesh.orchestrator.get(path, params={"before": "AA"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
    for wrong in ({"kinds": "everything"}, {"limit": 0}, {"limit": 501}):
        assert (await mesh.orchestrator.get(path, params=wrong)).status_code == 422
    async with caller(mesh, mesh.orchestrator, Scope.CONNECTIONS_WRITE) as other:
        assert (await other.get(path)).status_code == 403
    async with caller(mesh, mesh.orchestrator, Scope.CONNECTIONS_READ) as reader:
        assert (await reader.get(path)).status_code == 200


# Rows without the services


async def add_connection(sql: Sql) -> UUID:
    """A connection that failed and is archived, so that no service touches it."""
    id_ = uuid4()
    await sql.execute(
        "INSERT INTO connections (id, name, source_type, status, airbyte_destination_id,"
        " airbyte_source_id, archived_at) VALUES ($1, $2, 'Salesforce', 'FAILED',"
        " gen_random_uuid(), gen_random_uuid(), $3)",
        id_,
        str(id_),
        AT,
    )
    return id_


async def add_history(sql: Sql, connection: UUID, count: int, *, apart: timedelta) -> None:
    """So many rows in each table that has entries, from AT backwards."""
    snapshot = uuid4()
    await sql.execute(
        "INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes)"
        " VALUES ($1, gen_random_uuid(), '', '')",
        snapshot,
    )
    at = "$2::timestamptz - n * $3::interval"
    decision = (
        "jsonb_build_array(jsonb_build_object('verdict', 'approved', 'by', 'Ada', 'at',"
        f""" to_char(({at}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),"""
        " 'changes', '[]'::jsonb))"
    )
    for statement in (
        "INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version,"
        f" started_at, ended_at) SELECT gen_random_uuid(), $1, n, 'succeeded', 1, {at}, {at}",
        "INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog,"
        " fingerprint, origin, created_at) SELECT gen_random_uuid(), $1, n, '{\"streams\": []}',"
        f" 'x', 'repair', {at}",
        "INSERT INTO repairs (id, connection_id, state, base_version, changes, decisions,"
        " expires_at, created_at, ended_at)"
        f" SELECT gen_random_uuid(), $1, 'applied', 1, '[]', {decision}, {at}, {at}, {at}",
        "INSERT INTO setting_changes (subject, subject_id, change, changed_by, at)"
        f""" SELECT 'connection', $1, '{{"labels": {{}}}}', 'Ada', {at}""",
        "INSERT INTO timeline_events (id, connection_id, type, at)"
        f" SELECT gen_random_uuid(), $1, 'credential.rotated', {at}",
        "INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,"
        " deadline, request_id, created_at, ended_at) SELECT gen_random_uuid(), 'sync', $1,"
        f" CASE n % 2 WHEN 0 THEN 'done' ELSE 'failed' END, '{{}}', '', {at}, {at}, '', {at}, {at}",
    ):
        await sql.execute(
            f"{statement} FROM generate_series(1, $4::int) n", connection, AT, apart, count
        )
    drifts = (
        "INSERT INTO drifts (id, connection_id, after_snapshot_id,"  # noqa: S608 (constants)
        " head_version, severity, affects_sync, changes, first_seen_at)"
        " SELECT gen_random_uuid(), $1, $5, n, 'harmless',"
        f" true, '[]', {at} FROM generate_series(1, $4::int) n"
    )
    await sql.execute(drifts, connection, AT, apart, count, snapshot)


async def test_equal_times_are_paged_once(mesh: Mesh) -> None:
    """In a stable order, across all tables."""
    connection = await add_connection(mesh.sql)
    await add_history(mesh.sql, connection, 6, apart=timedelta(0))

    whole = await entries(mesh, connection)

    # Eight kinds of rows, half of the operations, and that it was archived.
    assert len(whole) == 8 * 6 + 3 + 1
    assert len({entry["at"] for entry in whole}) == 1
    assert [entry["id"] for entry in whole] == sorted((e["id"] for e in whole), reverse=True)
    for limit in (1, 7):
        assert await entries(mesh, connection, limit=limit) == whole
    versions = await entries(mesh, connection, limit=2, kinds=["version", "sync"])
    assert len({entry["id"] for entry in versions}) == 12


async def rows_read(db: Database, connection: UUID, *, before: datetime | None) -> int:
    """How many rows Postgres reads from tables for a page of twenty."""
    page = timeline_queries.statement(frozenset(Kind), is_first=before is None)
    values: Json = {"id": connection, "limit": 20}
    if before is not None:
        values |= {"after_at": before, "after_id": ""}
    async with db.read() as session:
        plan = await session.scalar(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {page}"), values)
    (explained,) = json.loads(plan) if isinstance(plan, str) else plan
    return int(sum(read_by(explained["Plan"])))


def read_by(node: Json) -> Iterator[float]:
    """The rows that the scans of tables in a plan read, those that they discard too."""
    if "Relation Name" in node:
        discarded = (count for name, count in node.items() if name.startswith("Rows Removed"))
        yield (node["Actual Rows"] + sum(discarded)) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from read_by(inner)


@pytest.mark.exact
async def test_page_costs_the_same_with_years_of_history(db: Database, sql: Sql) -> None:
    """The first page and one from the middle, of 45,000 rows in nine tables."""
    few, many = await add_connection(sql), await add_connection(sql)
    await add_history(sql, few, 100, apart=timedelta(hours=1))
    await add_history(sql, many, 5_000, apart=timedelta(hours=1))
    await sql.execute("ANALYZE")
    middle = AT - timedelta(hours=2_500)

    # Nine tables with 22 rows each, and a few of the other connection in between.
    assert await rows_read(db, many, before=None) < 600
    assert await rows_read(db, many, before=middle) < 600
    assert await rows_read(db, few, before=None) < 1_200


async def test_decisions_have_the_time_of_the_newest_own_one(sql: Sql) -> None:
    """Not of those that a split repair has, or that came from a former repair."""
    entry = {"verdict": "approved", "by": "Ada"}
    for decisions, expected in (
        ([], None),
        ([{**entry, "at": "2026-11-24T09:30:00Z"}], AT),
        (
            [
                {**entry, "at": "2026-11-24T09:29:59.5Z"},
                {**entry, "at": "2026-11-24T09:30:00+00:00"},
                {**entry, "at": "2026-11-25T09:30:00Z", "repair_id": None},
                {**entry, "at": "2026-11-26T09:30:00Z", "carried_from": str(uuid4())},
            ],
            AT,
        ),
        ([{**entry, "at": "yesterday"}, entry], None),
    ):
        found = await sql.fetchval("SELECT decided_at($1::jsonb)", json.dumps(decisions))
        assert found == expected


async def add_repair(sql: Sql, connection: UUID, state: str, decisions: list[Json]) -> None:
    await sql.execute(
        "INSERT INTO repairs (id, connection_id, state, base_version, changes, decisions, ended_at)"
        " VALUES (gen_random_uuid(), $1, $2, 1, '[]', $3::jsonb, $4)",
        connection,
        state,
        json.dumps(decisions),
        None if state == "proposed" else AT,
    )


async def repair_entries(db: Database, connection: UUID) -> dict[str, tuple[str | None, ...]]:
    """Outcome, actor, caller and reason of the entries about a repair, by kind."""
    kinds = [Kind.REPAIR_DECIDED, Kind.REPAIR_ENDED]
    async with db.read() as session:
        page = await timeline_queries.timeline_json(
            session, connection, kinds=kinds, before=None, limit=9
        )
    return {
        one["kind"]: (one["outcome"], one["actor"], one["requested_by"], one["reason"])
        for one in json.loads(page)["items"]
    }


ADA: Json = {
    "verdict": "approved",
    "by": "Ada",
    "requested_by": "key 1",
    "reason": "It is unused.",
    "at": "2026-11-24T09:30:00Z",
    "changes": [],
}
LATER: Json = {**ADA, "by": "Bob", "reason": None, "at": "2026-11-25T09:30:00Z"}


async def test_copies_of_decisions_are_no_entries(db: Database, sql: Sql) -> None:
    """An entry has the verdict of the decision whose time it has."""
    for copy in (
        {**LATER, "verdict": "carried_over", "repair_id": None},
        {**LATER, "verdict": "rejected", "repair_id": str(uuid4())},
        {**LATER, "carried_from": str(uuid4())},
    ):
        connection = await add_connection(sql)
        await add_repair(sql, connection, "proposed", [ADA, copy])

        found = await repair_entries(db, connection)

        assert found == {"repair_decided": ("approved", "Ada", "key 1", "It is unused.")}


async def test_only_an_applied_repair_was_ended_by_a_person(db: Database, sql: Sql) -> None:
    """AAM itself ends the others, whoever decided about them before."""
    for state in ("expired", "superseded", "failed", "rolled_back"):
        connection = await add_connection(sql)
        await add_repair(sql, connection, state, [ADA])

        assert (await repair_entries(db, connection))["repair_ended"] == (state, None, None, None)

    carried = {**LATER, "carried_from": str(uuid4())}
    for decisions, expected in (
        ([ADA], ("applied", "Ada", "key 1", "It is unused.")),
        ([carried], ("applied", "Bob", "key 1", None)),
        ([ADA, {**LATER, "repair_id": None}], ("applied", "Ada", "key 1", "It is unused.")),
    ):
        connection = await add_connection(sql)
        await add_repair(sql, connection, "applied", decisions)

        assert (await repair_entries(db, connection))["repair_ended"] == expected


async def test_events_on_timelines_are_pruned(db: Database, sql: Sql) -> None:
    connection = await add_connection(sql)
    await sql.execute(
        "INSERT INTO timeline_events (id, connection_id, type, at) SELECT gen_random_uuid(), $1,"
        " 'credential.rotated', now() - n * interval '1 day' FROM generate_series(1, 20) n",
        connection,
    )

    await Retention(db, [History("timeline_events", timedelta(days=10))]).prune()

    assert await sql.fetchval("SELECT count(*) FROM timeline_events") in (9, 10)
