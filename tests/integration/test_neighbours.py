"""A failing item never blocks the others, and no decision waits for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from sqlalchemy import text

from services.drift_repair_agent.repairs import executor, planner, queries, suggestions
from services.drift_repair_agent.repairs.expiry import Expiry
from shared.database import Database
from shared.postgres_address import postgres_address
from tests.factories import open_operation
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs, repairs_until
from tests.integration.repairing import proposal

Json = dict[str, Any]
Sql = Any
LESS = {"Id": "string", "Name": "string"}


@asynccontextmanager
async def broken(mesh: Mesh, table: str, condition: str) -> AsyncIterator[None]:
    """Within the block, rows of a table that meet a condition on NEW cannot be written."""
    await mesh.sql.execute(f"""
        CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'broken on purpose'; END $$;
        CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW
            WHEN ({condition}) EXECUTE FUNCTION break_it()
    """)
    try:
        yield
    finally:
        await mesh.sql.execute(f"DROP TRIGGER broken ON {table}; DROP FUNCTION break_it()")


async def approve(mesh: Mesh, repair: Json, **order: Any) -> Json:
    """Approve it, and see that it is applied."""
    status, decided = await post(mesh, f"/repairs/{repair['id']}/approve", order)
    assert (status, decided["state"]) == (200, "applied"), decided
    return decided


# Learning


IS_LEARNED = "SELECT is_learned FROM repairs WHERE id = $1"


async def test_refused_decision_loses_no_other(mesh: Mesh) -> None:
    """It is recorded with its code; the other decisions of the repair are learned."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering({"Id": "string"}))
    revenue, name = repair["changes"]
    assert (revenue["path"], name["path"]) == (["AnnualRevenue"], ["Name"])
    await mesh.sql.execute(_TAKEN, uuid5(UUID(repair["id"]), revenue["id"]))

    await approve(mesh, repair)

    await mesh.until_true(IS_LEARNED, UUID(repair["id"]))
    await mesh.until_true("""SELECT count(*) = 1 FROM knowledge WHERE removed = '["Name"]'""")
    (shown,) = await repairs(mesh, connection)
    assert shown["not_learned"] == [{"change": revenue["id"], "code": "decision_differs"}]


_TAKEN = """
    INSERT INTO knowledge (id, source_type, entity, stream, removed, verdict, decided_by)
    VALUES ($1, 'Salesforce', 'field', 'Account', '["Other"]', 'accepted', 'Bob')
"""


async def test_failed_learning_blocks_no_later_repair(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is retried, and learned when that is possible; its code is stored meanwhile."""
    for pause in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(suggestions, pause, timedelta(seconds=0.1))
    connection = await mesh.onboard()
    async with broken(mesh, "knowledge", """NEW.removed = '["AnnualRevenue"]'"""):
        first = await proposal(mesh, connection, offering(LESS))
        await approve(mesh, first)
        await mesh.until_true(
            "SELECT learn_attempts > 0 FROM repairs WHERE id = $1", UUID(first["id"])
        )
        second = await proposal(mesh, connection, offering({"Id": "string"}))
        await approve(mesh, second)
        await mesh.until_true(IS_LEARNED, UUID(second["id"]))
        shown = (await repairs(mesh, connection))[-1]
        assert (shown["id"], len(shown["not_learned"])) == (first["id"], 1)
        assert await mesh.sql.fetchval(IS_LEARNED, UUID(first["id"])) is False
    # A decision that is sent late does not count as a newer one.
    await mesh.until_true(IS_LEARNED, UUID(first["id"]))
    assert (await repairs(mesh, connection))[-1]["not_learned"] == []
    rows = await mesh.sql.fetch("SELECT removed::text FROM knowledge ORDER BY created_at")
    assert [row["removed"] for row in rows] == ['["AnnualRevenue"]', '["Name"]']


async def test_repair_with_unreadable_decisions_is_given_up(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be read again each hour, and be kept, for ever."""
    monkeypatch.setattr(suggestions, "_MOST_TRIES", 2)
    for pause in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(suggestions, pause, timedelta(seconds=0.1))
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    await approve(mesh, repair)
    await mesh.until_true(IS_LEARNED, UUID(repair["id"]))

    await mesh.sql.execute("""UPDATE repairs SET changes = '[{"id": 7}]', is_learned = false""")

    await mesh.until_true(IS_LEARNED, UUID(repair["id"]))
    assert await mesh.sql.fetchval("SELECT learn_attempts > 2 FROM repairs")


# Planning and expiring


async def test_failed_plan_blocks_no_other_connection(mesh: Mesh) -> None:
    """Both are due at once; the second one is planned for."""
    bad = await mesh.onboard()
    good = await mesh.onboard(connection_name="Another", streams=["Contact"])
    async with broken(mesh, "plans", f"NEW.connection_id = '{bad['id']}'"):
        offered = offering(LESS)
        offered["streams"][1]["stream"]["jsonSchema"]["properties"]["Extra"] = {"type": "string"}
        await drift(mesh, bad, offered)
        await drift(mesh, good, offered)
        await repairs_until(mesh, good, ["applied"])
        assert await repairs(mesh, bad) == []


async def test_busy_connection_blocks_no_other_plan(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has room for one, and the first of them cannot be planned for yet."""
    monkeypatch.setattr(planner, "_BATCH_SIZE", 1)
    busy = await mesh.onboard()
    free = await mesh.onboard(connection_name="Another", streams=["Account"])
    for connection in (busy, free):
        await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
        await repairs_until(mesh, connection, ["applied"])
    await open_operation(mesh.sql, busy["id"])

    await mesh.sql.execute("DELETE FROM plans")

    planned = "SELECT EXISTS (SELECT FROM plans WHERE connection_id = $1)"
    await mesh.until_true(planned, UUID(free["id"]))
    assert not await mesh.sql.fetchval(planned, UUID(busy["id"]))


async def test_failed_expiry_blocks_no_other(mesh: Mesh) -> None:
    """It is retried after a minute, so that a batch of such ones does not block the others."""
    connection = await mesh.onboard()
    other = await mesh.onboard(connection_name="Another", streams=["Account"])
    first = await proposal(mesh, connection, offering(LESS))
    second = await proposal(mesh, other, offering(LESS))
    db = Database.at(mesh.settings.registry_address, application="test")
    expiring = Expiry(db)
    condition = f"NEW.id = '{first['id']}' AND NEW.state = 'expired'"
    async with broken(mesh, "repairs", condition):
        await mesh.sql.execute("UPDATE repairs SET expires_at = now()")
        await expiring.expire_due()
        assert expiring._postponed.ids == [UUID(first["id"])]
        # The services' own expiry would succeed once the trigger is gone.
        (expired,) = await repairs(mesh, other)
        (left,) = await repairs(mesh, connection)
    await db.close()
    assert (expired["id"], expired["state"]) == (second["id"], "expired")
    assert (left["id"], left["state"]) == (first["id"], "proposed")


# Claiming


@pytest.mark.parametrize("off", ["hashjoin, mergejoin, hashagg, sort, material", "nestloop"])
async def test_claim_of_repairs_is_bounded_with_any_query_plan(
    registry_url: str, sql: Sql, off: str
) -> None:
    """A subquery that a nested loop ran for each row would lock, and claim, others anew."""
    for number in range(6):
        await sql.execute(_DUE_REPAIR, uuid4(), f"connection {number}", uuid4())
    db = Database.at(postgres_address(registry_url), application="test")
    claimed: list[UUID] = []
    for _ in range(2):
        async with db.transaction() as session:
            for kind in off.split(", "):
                await session.execute(text(f"SET LOCAL enable_{kind} = off"))
            claimed += await queries.claim_repairs(
                session, limit=2, again_after=timedelta(hours=1), deadline=timedelta(days=1)
            )
    await db.close()

    assert (len(claimed), len(set(claimed))) == (4, 4)
    due = "SELECT id FROM repairs WHERE next_at > now() AND deadline_at > now() + interval '23 h'"
    assert {row["id"] for row in await sql.fetch(due)} == set(claimed)


_DUE_REPAIR = """
    WITH connection AS (
        INSERT INTO connections (id, name, source_type, status, airbyte_destination_id)
        VALUES ($1, $2, 'Salesforce', 'FAILED', $1) RETURNING id
    )
    INSERT INTO repairs (id, connection_id, state, base_version, changes, next_at)
    SELECT $3, id, 'approved', 1, '[]', now() - interval '1 h' FROM connection
"""


# Deadlines


async def test_approved_repair_that_cannot_begin_ends_at_its_deadline(mesh: Mesh) -> None:
    """A sync keeps running: the repair fails with a code and an event, and is proposed again."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert started.status_code == 202
    status, decided = await post(mesh, f"/repairs/{repair['id']}/approve", {})
    assert (status, decided["state"]) == (202, "approved")
    await mesh.until_true(
        "SELECT deadline_at > now() FROM repairs WHERE id = $1", UUID(repair["id"])
    )

    await mesh.sql.execute("UPDATE repairs SET deadline_at = now()")

    failed, again = await repairs_until(mesh, connection, ["failed", "proposed"])
    assert (failed["id"], failed["failure_code"]) == (repair["id"], "repair_deadline")
    assert "sync_running" in failed["failure_detail"]
    assert [one["path"] for one in again["changes"]] == [["AnnualRevenue"]]
    code = await mesh.sql.fetchval("SELECT code FROM events WHERE type = 'repair.failed'")
    assert code == "repair_deadline"


async def test_endless_verification_is_inconclusive(mesh: Mesh) -> None:
    """The catalog stays in force, as it does where a sync proves nothing."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    await mesh.drift_repair_agent.put(path, json={"verify": "sync"})
    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    (repair,) = await repairs_until(mesh, connection, ["verifying"])
    await mesh.until_true(
        "SELECT deadline_at > now() FROM repairs WHERE id = $1", UUID(repair["id"])
    )

    await mesh.sql.execute("UPDATE repairs SET deadline_at = now()")

    (applied,) = await repairs_until(mesh, connection, ["applied"])
    assert (applied["failure_code"], applied["version_number"]) == ("verification_inconclusive", 2)


async def test_repair_ends_with_its_operation(mesh: Mesh) -> None:
    """The operation ended without saying what became of the repair."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    await approve(mesh, repair)
    await mesh.sql.execute("""
        UPDATE repairs SET state = 'applying', ended_at = NULL,
            operation_id = (SELECT id FROM operations WHERE kind = 'apply')
    """)

    (failed,) = await repairs_until(mesh, connection, ["failed"])

    assert failed["failure_code"] == "operation_ended"


async def test_unrecordable_end_blocks_no_other_repair(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has room for one, and the first of them fails each time."""
    monkeypatch.setattr(executor, "_BATCH_SIZE", 1)
    bad = await mesh.onboard()
    good = await mesh.onboard(connection_name="Another", streams=["Account"])
    first = await proposal(mesh, bad, offering(LESS))
    second = await proposal(mesh, good, offering(LESS))
    await approve(mesh, first)
    await approve(mesh, second)

    async with broken(mesh, "repairs", f"NEW.id = '{first['id']}' AND NEW.state = 'failed'"):
        await mesh.sql.execute("""
            UPDATE repairs r SET state = 'applying', ended_at = NULL, operation_id = (
                SELECT o.id FROM operations o
                WHERE o.kind = 'apply' AND o.connection_id = r.connection_id
            )
        """)
        (failed,) = await repairs_until(mesh, good, ["failed"])

    assert failed["failure_code"] == "operation_ended"
    assert [one["state"] for one in await repairs(mesh, bad)] == ["applying"]


async def test_repair_with_unreadable_changes_still_ends(mesh: Mesh) -> None:
    """Written by another release, say: its end is recorded, and its message has no changes."""
    await mesh.sql.execute("""
        INSERT INTO webhooks (id, url, events)
        VALUES (gen_random_uuid(), 'https://example.org/', '["repair.expired", "repair.failed"]')
    """)
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))

    await mesh.sql.execute("""UPDATE repairs SET changes = '[{"id": 7}]', expires_at = now()""")

    await mesh.until_true("SELECT state = 'expired' FROM repairs WHERE id = $1", UUID(repair["id"]))
    body = await mesh.sql.fetchval("SELECT body FROM webhook_deliveries")
    assert repair["id"] in body
