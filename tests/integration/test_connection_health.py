"""The health of connections: the projection equals what its facts say, whatever happens."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import connection_queries
from services.orchestrator.connection_queries import ConnectionFilter, Sort
from shared import registry
from shared.database import Database
from shared.domain.health import Health
from shared.models import Connection, ConnectionStatus, JobHistory, Repair, RepairState
from shared.postgres_address import postgres_address
from tests import factories
from tests.pools import Sql

Change = Callable[[AsyncSession, Connection, random.Random], Awaitable[None]]

_PROJECTION = """
    SELECT connection_id, health::text, code, reason, severity, repair_id, overdue_at, last_job_id,
        last_sync_status, last_sync_started_at, last_sync_ended_at, failed_syncs
    FROM connection_health ORDER BY connection_id
"""
_CODES = ("config_error", "system_error", None)


@pytest.fixture
async def db(registry_url: str, sql: Sql) -> AsyncIterator[Database]:
    """The registry, empty."""
    database = Database.at(postgres_address(registry_url), application="orchestrator")
    yield database
    await database.close()


async def _status(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    row.heal_id = row.healing_since = None
    row.status = dice.choice(list(ConnectionStatus))
    if row.status is ConnectionStatus.HEALING:
        registry.begin_heal(row, uuid4())
    row.failure_code = dice.choice(["upstream_mismatch", None])
    row.failure_detail = dice.choice(["Airbyte holds another catalog than version 7.", None])


async def _pause(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    row.pause_requested_by = dice.choice([None, None, "Ada"])
    repairs = await session.scalars(
        text("SELECT id FROM repairs WHERE connection_id = :id"), {"id": row.id}
    )
    row.paused_by = dice.choice([None, None, *repairs])


async def _upstream(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    row.upstream_code = dice.choice([None, None, "catalog_differs", "locked", "unheard_of"])
    row.drifted_upstream_at = None if row.upstream_code is None else datetime.now(UTC)


async def _credential(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    row.credential_rejected_since = dice.choice([None, None, datetime.now(UTC)])


async def _archive(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    if dice.random() < 0.1:
        row.archived_at = datetime.now(UTC)


async def _job(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    started = datetime.now(UTC) - timedelta(seconds=dice.randint(0, 9000))
    session.add(
        JobHistory(
            connection_id=row.id,
            airbyte_job_id=dice.getrandbits(40),
            status="running",
            catalog_version=1,
            started_at=started,
        )
    )


async def _end_jobs(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    ids = await session.scalars(
        text("SELECT id FROM job_history WHERE connection_id = :id AND ended_at IS NULL"),
        {"id": row.id},
    )
    for id_ in ids.all():
        job = await session.get_one(JobHistory, id_)
        job.status = dice.choice(["succeeded", "failed", "failed", "failed", "cancelled"])
        job.failure_code = dice.choice(_CODES) if job.status == "failed" else None
        job.ended_at = datetime.now(UTC)


async def _repair(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    """Propose a repair, or move one that is open on."""
    found = await session.scalars(
        text("SELECT id FROM repairs WHERE connection_id = :id AND ended_at IS NULL"),
        {"id": row.id},
    )
    repairs = [await session.get_one(Repair, id_) for id_ in found.all()]
    if not repairs:
        changes = ",".join(
            f'{{"severity": "{dice.choice(["harmless", "needs_review", "breaking"])}"}}'
            for _ in range(dice.randint(0, 3))
        )
        session.add(
            Repair(
                connection_id=row.id,
                state=dice.choice([RepairState.PROPOSED, RepairState.APPROVED]),
                base_version=1,
                changes=f"[{changes}]",
            )
        )
        return
    repair = repairs[0]
    repair.state = dice.choice([RepairState.APPLYING, RepairState.VERIFYING, RepairState.APPLIED])
    repair.ended_at = datetime.now(UTC) if repair.state == RepairState.APPLIED else None


async def _observe(session: AsyncSession, row: Connection, dice: random.Random) -> None:
    outcome = dice.choice(["unchanged", "changed", "suspicious", "failed"])
    await session.execute(
        text("""
            INSERT INTO observations (airbyte_source_id, outcome, code, detail, suspicious_since,
                overdue_at)
            VALUES (:source, :outcome, :code, :detail, :since, :overdue)
            ON CONFLICT (airbyte_source_id) DO UPDATE SET outcome = excluded.outcome,
                code = excluded.code, detail = excluded.detail,
                suspicious_since = excluded.suspicious_since, overdue_at = excluded.overdue_at
        """),
        {
            "source": row.airbyte_source_id,
            "outcome": outcome,
            "code": dice.choice(["streams_missing", None]),
            "detail": dice.choice(["9 of 10 streams are missing.", None]),
            "since": dice.choice([None, datetime.now(UTC)]),
            "overdue": datetime.now(UTC) + timedelta(seconds=dice.randint(-99, 99)),
        },
    )
    await registry.mark_source_changed(session, row.airbyte_source_id or uuid4())


_CHANGES: tuple[Change, ...] = (
    *(_status, _pause, _upstream, _credential, _archive, _job, _job, _end_jobs, _end_jobs),
    *(_repair, _repair, _observe),
)


async def _live(db: Database, dice: random.Random, *, connections: int, steps: int) -> None:
    """Random histories of several connections, two of which share a source."""
    source = uuid4()
    async with db.transaction() as session:
        rows = [factories.connection() for _ in range(connections)]
        rows[0].airbyte_source_id = rows[-1].airbyte_source_id = source
        session.add_all(rows)
    for _ in range(steps):
        async with db.transaction() as session:
            row = await registry.lock_connection(session, dice.choice(rows).id, even_archived=True)
            for change in dice.sample(_CHANGES, k=dice.randint(1, 3)):
                await change(session, row, dice)


@pytest.mark.parametrize("seed", range(6))
async def test_projection_equals_what_the_facts_say(db: Database, sql: Sql, seed: int) -> None:
    """After any history nothing is left to rebuild, and the migration would fill it the same."""
    dice = random.Random(seed)  # noqa: S311 (histories, not secrets)
    await _live(db, dice, connections=4, steps=40)

    written = await sql.fetch(_PROJECTION)
    async with db.transaction() as session:
        _, _, differing = await registry.rebuild_health(session, after=UUID(int=0), limit=100)

    assert len(written) == 4
    assert differing == 0
    async with sql.transaction():
        await sql.execute("DELETE FROM connection_health")
        await sql.execute(import_module("migrations.versions.0026_connection_health")._FILL)
        filled = await sql.fetch(_PROJECTION)
    assert filled == written


async def test_rebuild_mends_what_another_release_left(db: Database, sql: Sql) -> None:
    """A missing row is added and a stale one corrected; `since` of a correct row stays."""
    async with db.transaction() as session:
        session.add_all(factories.connection() for _ in range(3))
    since = await sql.fetch("SELECT connection_id, since FROM connection_health ORDER BY 1")
    await sql.execute("DELETE FROM connection_health WHERE connection_id = $1", since[0][0])
    await sql.execute(
        "UPDATE connections SET pause_requested_by = 'Ada' WHERE id = $1", since[1][0]
    )

    async with db.transaction() as session:
        last, read, differing = await registry.rebuild_health(session, after=UUID(int=0), limit=100)

    rows = await sql.fetch("SELECT * FROM connection_health ORDER BY connection_id")
    assert (last, read, differing) == (None, 3, 2)
    assert [row["health"] for row in rows] == ["healthy", "paused", "healthy"]
    assert rows[2]["since"] == since[2][1]


async def test_two_transactions_leave_the_facts_of_both(db: Database, sql: Sql) -> None:
    """The one that refreshes later waits for the other, and sees what it changed."""
    async with db.transaction() as session:
        row = factories.connection()
        session.add(row)
    assert row.airbyte_source_id is not None
    dice = random.Random(1)  # noqa: S311 (histories, not secrets)

    async def observe() -> None:
        async with db.transaction() as session:
            await _observe(session, row, dice)
            await session.execute(text("UPDATE observations SET outcome = 'suspicious'"))

    async with db.transaction() as session:
        locked = await registry.lock_connection(session, row.id)
        await _job(session, locked, dice)
        await observe()

    async with db.transaction() as session:
        assert (await registry.rebuild_health(session, after=UUID(int=0), limit=9))[2] == 0
    assert await sql.fetchval("SELECT health FROM connection_health") == "suspicious"


async def _listed(db: Database, shown: ConnectionFilter, **more: Any) -> list[dict[str, Any]]:
    """Every item of a list, by pages of two."""
    items: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        async with db.read() as session:
            page = json.loads(
                await connection_queries.page_of_connections(
                    session, shown, limit=2, after=after, with_health=True, **more
                )
            )
        items += page["items"]
        after = page["next"]
        if after is None:
            return items


@pytest.mark.parametrize("sort", list(Sort))
async def test_pages_in_each_order_hold_every_connection_once(
    db: Database, sql: Sql, sort: Sort
) -> None:
    """With overdue ones, whose word only the clock has changed, in their place."""
    dice = random.Random(sort)  # noqa: S311 (histories, not secrets)
    await _live(db, dice, connections=11, steps=60)

    found = await _listed(db, ConnectionFilter(), sort=sort)

    live = await sql.fetch("SELECT id::text, name FROM connections WHERE archived_at IS NULL")
    assert sorted(one["id"] for one in found) == sorted(row["id"] for row in live)
    if sort is Sort.NAME:
        assert [one["name"] for one in found] == sorted(row["name"] for row in live)
    if sort is Sort.HEALTH:
        words = [list(Health).index(one["health"]["health"]) for one in found]
        assert words == sorted(words)
    by_word: dict[str, list[str]] = {}
    for one in found:
        by_word.setdefault(one["health"]["health"], []).append(one["id"])
    async with db.read() as session:
        summary = await connection_queries.summary_of_connections(session, ConnectionFilter())
    counted = {word: n for word, n in json.loads(summary)["health"].items() if n}
    assert counted == {word: len(ids) for word, ids in by_word.items()}
    for word, ids in by_word.items():
        shown = ConnectionFilter(health=(Health(word),))
        assert [one["id"] for one in await _listed(db, shown, sort=sort)] == ids
