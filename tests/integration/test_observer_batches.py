"""Batches of observations: recorded together, and each source independent of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from services.schema_observer import claim_queries, scheduler
from services.schema_observer.claim_queries import Claim
from services.schema_observer.observer import Observer
from services.schema_observer.scheduler import Scheduler
from shared.airbyte_client import AirbyteClient
from shared.database import Database
from shared.discoveries import Discoveries
from shared.job_queue import Jobs
from tests.integration.conftest import Mesh
from tests.integration.test_observer_schedule import EVERY, many_sources, pause_scheduling
from tests.waiting import until

pytestmark = pytest.mark.exact

SOURCES = 4
OPEN = "SELECT count(*) FROM discoveries WHERE purpose = 'observe' AND ended_at IS NULL"
SENT = "SELECT count(*) FROM discoveries WHERE purpose = 'observe'"


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


class Slot:
    """A slot of a replica that observes only what a test claims for it."""

    def __init__(
        self, mesh: Mesh, db: Database, scheduling: Scheduler, observing: Observer
    ) -> None:
        self.id = uuid4()
        self.db = db
        self.observing = observing
        self._mesh = mesh
        self._scheduling = scheduling

    async def claim(self) -> list[Claim]:
        """Claim every source."""
        workspace = await self._mesh.sql.fetchval(
            "UPDATE observations SET next_at = now() RETURNING airbyte_workspace_id"
        )
        async with self.db.transaction() as session:
            claims = await claim_queries.claim_sources(
                session,
                workspace,
                slot=self.id,
                at_once=4,
                lease=timedelta(minutes=11),
                every=EVERY,
                limit=SOURCES,
            )
        assert len(claims) == SOURCES
        return claims

    async def observe(self, claims: Sequence[Claim]) -> bool:
        """Observe claimed sources as one batch; whether it was quick."""
        return await self._scheduling._observe(claims, self.id)


@pytest.fixture
async def slot(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slot]:
    """A slot, and some sources whose connectors renew no tokens; the service itself is paused.

    On a busy machine, a batch takes longer than the time after which it is ended.
    """
    monkeypatch.setattr(scheduler, "_QUICK_S", 60.0)
    await pause_scheduling(mesh)
    await many_sources(mesh, SOURCES)
    await mesh.sql.execute("UPDATE connections SET source_type = 'Hardcoded Records'")
    await mesh.sql.execute("DELETE FROM discoveries")
    db = Database.at(mesh.settings.registry_address, application="test")
    jobs = Jobs(mesh.settings.registry_address, application="test")
    async with AirbyteClient.from_settings(mesh.settings) as airbyte:
        observing = Observer(mesh.settings, db, airbyte, jobs)
        yield Slot(mesh, db, Scheduler(mesh.settings, db, jobs, observing), observing)
    await db.close()


async def outcomes(mesh: Mesh) -> list[str | None]:
    """Return the outcome of each source that is not claimed."""
    rows = await mesh.sql.fetch(
        "SELECT outcome FROM observations WHERE claimed_by IS NULL ORDER BY outcome NULLS LAST"
    )
    return [row["outcome"] for row in rows]


async def test_unchanged_batch_takes_the_statements_of_one_source(mesh: Mesh, slot: Slot) -> None:
    """However many sources it has: their discoveries are begun, ended and recorded together."""
    await slot.observe(await slot.claim())
    claims = await slot.claim()
    statements: list[str] = []
    assert slot.db._engine is not None

    def count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(" ".join(statement.split()[:3]))

    event.listen(slot.db._engine.sync_engine, "before_cursor_execute", count)

    assert await slot.observe(claims)

    assert await outcomes(mesh) == ["unchanged"] * SOURCES
    assert len(statements) == 5, statements
    assert (await mesh.sql.fetchval(SENT), await mesh.sql.fetchval(OPEN)) == (2 * SOURCES, 0)


async def test_slow_source_delays_no_other_of_its_batch(
    mesh: Mesh, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is slow, those before it are recorded, and those behind it released."""
    monkeypatch.setattr(scheduler, "_QUICK_S", 3.0)
    claims = await slot.claim()
    mesh.airbyte.fault("commands/run/discover", "hang", skip=1)
    observing = asyncio.create_task(slot.observe(claims))

    async def are_the_others_done() -> bool:
        return await outcomes(mesh) == ["unchanged", None, None]

    await until(are_the_others_done)

    assert not observing.done()
    assert (await mesh.sql.fetchval(SENT), await mesh.sql.fetchval(OPEN)) == (2, 1)
    mesh.airbyte.heal()
    assert not await observing
    assert (await mesh.sql.fetchval(SENT), await mesh.sql.fetchval(OPEN)) == (2, 0)


@pytest.mark.parametrize(
    "source_type, recorded", [("Hardcoded Records", SOURCES), ("Salesforce", 1)]
)
async def test_stop_withdraws_discoveries_that_were_not_sent(
    mesh: Mesh,
    slot: Slot,
    source_type: str,
    recorded: int,
) -> None:
    """All are recorded before the first is sent, but for connectors that renew tokens."""
    await mesh.sql.execute("UPDATE connections SET source_type = $1", source_type)
    claims = await slot.claim()
    mesh.airbyte.fault("commands/run/discover", "hang")
    mesh.airbyte.requests.clear()
    observing = asyncio.create_task(slot.observe(claims))
    await until(lambda: mesh.airbyte.called("commands/run/discover"))
    assert await mesh.sql.fetchval(OPEN) == recorded

    observing.cancel()
    await asyncio.wait({observing})

    assert await outcomes(mesh) == [None] * SOURCES
    rows = await mesh.sql.fetch("SELECT code FROM discoveries WHERE ended_at IS NOT NULL")
    assert [row["code"] for row in rows] == ["cancelled"]
    assert await mesh.sql.fetchval(SENT) == 1
    mesh.airbyte.heal()


async def test_batch_of_a_dead_process_is_observed_after_its_lease(mesh: Mesh, slot: Slot) -> None:
    """Its recorded discoveries count as made, and hold up nothing."""
    dead = Slot(mesh, slot.db, slot._scheduling, slot.observing)
    assert len(await slot.observing.begin(await dead.claim())) == SOURCES
    await mesh.sql.execute("UPDATE observations SET claimed_until = now() - interval '1 s'")

    await slot.observe(await slot.claim())

    assert await outcomes(mesh) == ["unchanged"] * SOURCES
    assert (await mesh.sql.fetchval(SENT), await mesh.sql.fetchval(OPEN)) == (2 * SOURCES, SOURCES)


async def test_source_at_its_limit_stops_no_other_of_its_batch(mesh: Mesh, slot: Slot) -> None:
    """It is postponed."""
    claims = await slot.claim()
    limited = claims[1].source_id
    await mesh.sql.execute(
        "INSERT INTO discoveries (id, airbyte_source_id, purpose, expires_at, ended_at)"
        " VALUES (gen_random_uuid(), $1, 'discover', now(), now())",
        limited,
    )
    await mesh.sql.execute(
        "INSERT INTO policies (connection_id, policy)"
        " SELECT id, jsonb_build_object('discoveries_per_day', 1) FROM connections"
        " WHERE airbyte_source_id = $1",
        limited,
    )

    await slot.observe(claims)

    assert await outcomes(mesh) == ["unchanged"] * (SOURCES - 1) + [None]
    rows = await mesh.sql.fetch(
        "SELECT airbyte_source_id FROM observations WHERE postponed_since IS NOT NULL"
    )
    assert [row["airbyte_source_id"] for row in rows] == [limited]
    assert await mesh.sql.fetchval(SENT) == SOURCES - 1


async def test_batch_that_cannot_be_begun_is_observed_one_by_one(
    mesh: Mesh, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance because of one source's data."""

    async def fail(_self: Discoveries, _source_ids: Sequence[UUID]) -> None:
        raise ValueError("A bug.")

    monkeypatch.setattr(Discoveries, "begin_observations", fail)

    await slot.observe(await slot.claim())

    assert await outcomes(mesh) == ["unchanged"] * SOURCES
    assert (await mesh.sql.fetchval(SENT), await mesh.sql.fetchval(OPEN)) == (SOURCES, 0)


async def test_claim_reads_few_of_many_due_sources(slot: Slot, mesh: Mesh) -> None:
    """The statistics do not count them yet: the planner would sort all of them each time."""
    async with mesh.sql.transaction():
        for statement in _MANY:
            await mesh.sql.execute(statement)
    async with slot.db.transaction() as session:
        before = {row.relname: row.rows for row in await session.execute(_READ)}
        due = await claim_queries.due_workspaces(session, entrypoint="observe", at_once=4)
        claims = await claim_queries.claim_sources(
            session,
            None,
            slot=slot.id,
            at_once=4,
            lease=timedelta(minutes=11),
            every=EVERY,
            limit=32,
        )
        rows = await session.execute(_READ)
        read = {row.relname: row.rows - before[row.relname] for row in rows}

    assert due == [(None, 4)]
    assert len(claims) == 32
    assert 0 < read["connections"] < 200
    # once per second, the workspaces are collected from all sources that are due
    assert 0 < read["observations"] < MANY + 200


MANY = 2_000
_OBSERVED = """
    INSERT INTO observations (airbyte_source_id, next_at)
    SELECT airbyte_source_id, now() FROM connections c WHERE name LIKE 'due %' AND NOT EXISTS (
        SELECT FROM observations o WHERE o.airbyte_source_id = c.airbyte_source_id
    )
"""
_MANY = (
    """
    INSERT INTO connections (id, name, source_type, airbyte_source_id, airbyte_connection_id,
        airbyte_destination_id, status, catalog_version)
    SELECT gen_random_uuid(), 'due ' || n, 'Test', gen_random_uuid(), gen_random_uuid(),
        gen_random_uuid(), 'ACTIVE', 1 FROM generate_series(1, 2000) n
    """,
    f"{_OBSERVED} LIMIT 10",
    "ANALYZE connections, observations",  # else the statistics are those of other tests' rows
    _OBSERVED,
)
# Includes what earlier transactions of the session have not reported yet: see PGSTAT_MIN_INTERVAL.
_READ = text("""
    SELECT relname, seq_tup_read + idx_tup_fetch AS rows FROM pg_stat_xact_user_tables
    WHERE relname IN ('connections', 'observations')
""")
