"""Every table that grows with time is pruned by default, and a year of history stays small."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest

from local.processes import servers
from services.orchestrator.history_retention import History, histories
from shared import registry
from shared.config import Settings
from shared.database import Database
from shared.job_queue import Jobs
from shared.postgres_address import postgres_address
from tests.integration.conftest import migrate
from tests.integration.year_of_history import FREQUENT, Rates, SimulatedHistory, prune
from tests.pools import Sql
from tests.waiting import until as wait_until

DAY: Final = timedelta(days=1)
_SIMULATED: Final = 420 * DAY
"""A year, and until the longest retention of 400 days has passed."""

_PRUNED: Final = {
    "events": "event_retention",
    "timeline_events": "timeline_retention",
    "job_history": "job_retention",
    "sync_volumes": "volume_retention",
    "operations": "operation_retention",
    "webhook_deliveries": "delivery_retention",
    "repairs": "repair_retention",
    "drifts": "drift_retention",
    "stream_states": "state_retention",
    "snapshots": "snapshot_retention",
    "stream_schemas": "snapshot_retention",
    "api_keys": "api_key_retention",
    "refusals": "refusal_retention",
    "credential_audit": "audit_retention",
}
"""The setting that limits how long each table's rows are kept."""
_FIXED_LIMITS: Final = {
    "discoveries": "two days, except the newest of a source",
    "source_trials": "two days",
    "pgqueuer_log": "a day",
    "pgqueuer_statistics": "a day",
    "import_items": "deleted with their operation",
}
"""The tables that are pruned after a fixed time."""
_BOUNDED: Final = {
    "alembic_version": "one row",
    "connections": "one row per onboarding and import",
    "connection_health": "one row per connection",
    "observations": "one row per source of a live connection",
    "watches": "one row per connection",
    "plans": "one row per connection",
    "policies": "one row per connection",
    "source_connectors": "one row per source of a live connection",
    "credential_versions": "one row per credential of a live connection",
    "policy_layers": "one row per source type or label",
    "webhooks": "one row per webhook that was registered",
    "periodic_runs": "one row per task",
    "pgqueuer": "the jobs that wait or run",
    "pgqueuer_schedules": "always empty",
    "sync_catalog_versions": "one row per change of a catalog; kept for rollbacks",
    "knowledge": "one row per decision of a person; kept for suggestions",
    "setting_changes": "one row per change of a setting; kept as history",
}
"""Why each of the other tables does not grow with time alone."""

_AGE: Final = {
    "events": "published_at",
    "timeline_events": "at",
    "job_history": "ended_at",
    "sync_volumes": "ended_at",
    "operations": "ended_at",
    "webhook_deliveries": "ended_at",
    "repairs": "ended_at",
    "drifts": "first_seen_at",
    "stream_states": "saved_at",
    "snapshots": "seen_at",
    "api_keys": "expires_at",
    "refusals": "minute",
    "credential_audit": "at",
}
_NEWER: Final = {
    "job_history": "n.connection_id = t.connection_id AND n.started_at > t.started_at",
    "drifts": "n.connection_id = t.connection_id AND n.first_seen_at > t.first_seen_at",
    "snapshots": "n.airbyte_source_id = t.airbyte_source_id AND n.taken_at > t.taken_at",
}
"""Tables whose newest row is kept, by the condition of a newer one."""
_READ_BY_THE_PLANNER: Final = {"repairs": "t.state = 'rejected'"}
_KEPT: Final = ("sync_catalog_versions", "knowledge", "setting_changes")


def defaults() -> Settings:
    """The settings of an installation that sets none."""
    return Settings.model_validate({"supabase_db_url": "postgresql://u:p@h/d"})


async def test_every_table_is_pruned_or_does_not_grow_with_time(sql: Sql) -> None:
    """A new table needs an entry here: a retention that is on by default, or why it needs none."""
    tables = {
        row[0]
        for row in await sql.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
    }
    listed = [*_PRUNED, *_FIXED_LIMITS, *_BOUNDED]

    assert sorted(listed) == sorted(tables)
    default = defaults()
    pruned = {one.table: one.max_age for one in histories(default)}
    assert pruned.keys() == _PRUNED.keys()
    for table, setting in _PRUNED.items():
        limit = getattr(default, setting)
        assert limit is not None, setting
        assert pruned[table] == (DAY if table == "stream_schemas" else limit), setting


class Installation:
    """A registry of its own, in which history is simulated."""

    def __init__(self, server: servers.Postgres, sql: Sql, db: Database) -> None:
        self.sql, self._db = sql, db
        self._address = postgres_address(server.services_url)
        self._jobs = Jobs(self._address, application="orchestrator")
        self.histories = histories(defaults())
        self.initial_sizes: Mapping[str, int] = {}
        self.batch_seconds: dict[str, list[float]] = defaultdict(list)

    async def live(
        self, rates: Rates, *, period: timedelta, step: timedelta, last_steps: timedelta
    ) -> list[dict[str, int]]:
        """Record and prune a period up to now; the rows per table after each step.

        The steps are `last_steps` long in the last FREQUENT days, and `step` before.
        """
        end = datetime.now(UTC)
        until = end - period
        history = SimulatedHistory(self.sql, rates)
        await history.begin(until)
        self.initial_sizes = await self.sizes()
        rows = []
        while until < end:
            is_last = until + step > end - FREQUENT
            since, until = until, min(until + (last_steps if is_last else step), end)
            await history.add(since, until, end=end)
            await prune(self._db, self._jobs, self.histories, ago=end - until)
            await history.vacuum()
            rows.append(await self.rows())
        return rows

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        tables = [*_PRUNED, *_FIXED_LIMITS, *_BOUNDED]
        count = "SELECT count(*) FROM {}"
        return {table: await self.sql.fetchval(count.format(table)) for table in tables}

    async def sizes(self) -> Mapping[str, int]:
        """Bytes of each table with its indexes, the largest first."""
        rows = await self.sql.fetch(
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC"
        )
        return {row[0]: row[1] for row in rows}

    async def scanned_by_pruning(self) -> set[str]:
        """The tables that pruning reads as a whole when there is nothing to prune."""
        before = await self._scans()
        self.batch_seconds.clear()
        db = Database.at(self._address, application="one pruning")
        await prune(db, self._jobs, self.histories)
        await db.close()
        # Postgres reports what a session has read when it ends.
        await wait_until(
            lambda: self.sql.fetchval(
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE application_name = 'one pruning')"
            )
        )
        after = await self._scans()
        return {table for table, count in after.items() if count > before[table]}

    async def _scans(self) -> Mapping[str, int]:
        # This session's own reads are reported when its next transaction ends.
        await self.sql.execute("SELECT pg_stat_force_next_flush()")
        await self.sql.execute("SELECT pg_stat_clear_snapshot()")
        rows = await self.sql.fetch("SELECT relname, seq_scan FROM pg_stat_user_tables")
        return {row[0]: row[1] for row in rows}


@pytest.fixture
async def installation(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    """An empty registry on a server of its own; the duration of each batch is recorded."""
    with servers.start_postgres(
        server_dir / f"retention-{uuid4()}", options=servers.THROWAWAY_OPTIONS
    ) as server:
        await asyncio.to_thread(migrate, server.url)
        sql = await asyncpg.connect(server.url)
        db = Database.at(postgres_address(server.services_url), application="orchestrator")
        one = Installation(server, sql, db)
        prune_history = registry.prune_history

        async def timed(session: Any, what: str, **limits: Any) -> int:
            began = time.perf_counter()
            deleted = await prune_history(session, what, **limits)
            one.batch_seconds[what].append(time.perf_counter() - began)
            return deleted

        monkeypatch.setattr(registry, "prune_history", timed)
        yield one
        await db.close()
        await sql.close()


async def old_rows(sql: Sql, history: History) -> int:
    """Rows that nothing needs and that are older than their retention by more than an hour.

    They reach it one by one, also between the last pruning and this check.
    """
    table, age = history.table, _AGE[history.table]
    conditions = [f"t.{age} < now() - $1::interval"]
    if table in _NEWER:
        conditions.append(f"EXISTS (SELECT FROM {table} n WHERE {_NEWER[table]})")
    if table in _READ_BY_THE_PLANNER:
        conditions.append(f"NOT ({_READ_BY_THE_PLANNER[table]})")
    for other, column in await sql.fetch(_REFERENCES, table):
        conditions.append(f"NOT EXISTS (SELECT FROM {other} r WHERE r.{column} = t.id)")
    statement = f"SELECT count(*) FROM {table} t WHERE {' AND '.join(conditions)}"  # noqa: S608
    assert history.max_age is not None
    return int(await sql.fetchval(statement, history.max_age + timedelta(hours=1)))


_REFERENCES: Final = """
    SELECT conrelid::regclass::text, a.attname
    FROM pg_constraint JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]
    WHERE contype = 'f' AND confrelid = $1::text::regclass
"""


async def check(installation: Installation, rows: list[dict[str, int]], *, steady: int) -> None:
    """Nothing too old is left, nothing that is kept is missing, and sizes do not change any more.

    `steady` is the number of steps at the end that are compared with one another.
    """
    sql = installation.sql
    assert {
        one.table: await old_rows(sql, one) for one in installation.histories if one.table in _AGE
    } == dict.fromkeys(_AGE, 0)

    applied = await sql.fetchval(
        "SELECT count(*) FROM sync_catalog_versions WHERE origin = 'repair'"
    )
    connections = await sql.fetchval("SELECT count(*) FROM connections")
    newest = await sql.fetchval("SELECT sum(catalog_version) FROM connections")
    assert (rows[-1]["sync_catalog_versions"], applied) == (newest, newest - connections)
    assert rows[-1]["knowledge"] == applied
    for table in _KEPT:
        counts = [step[table] for step in rows]
        assert counts == sorted(counts), table

    for history in installation.histories:
        is_short = history.max_age is not None and history.max_age <= 90 * DAY
        if is_short and history.table not in ("snapshots", "stream_schemas"):
            counts = [step[history.table] for step in rows[-steady:]]
            assert max(counts) - min(counts) <= 0.05 * max(counts) + 10, history.table


async def test_year_of_history_is_pruned(installation: Installation) -> None:
    """Of ten connections that sync daily, by steps of four weeks."""
    rates = Rates(connections=10, syncs_a_day=1, offered=10)
    rows = await installation.live(rates, period=_SIMULATED, step=28 * DAY, last_steps=28 * DAY)

    await check(installation, rows, steady=2)
    for table in (*_PRUNED, "discoveries", "source_trials", "pgqueuer_log"):
        assert rows[-1][table] > 0, f"Nothing was simulated of {table}."
    for table, limit in (("discoveries", 48 * 10 + 10), ("source_trials", 48 + 1)):
        assert rows[-1][table] <= limit, table


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("syncs_a_day", [1, 24])
async def test_thousand_connections_grow_by_less_than_a_gigabyte_a_year(
    installation: Installation, syncs_a_day: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 20 streams each, and a schema change a month; pruning takes short batches by index.

    A tenth of them is simulated: the size is proportional to the number of connections.
    """
    rates = Rates(connections=100, syncs_a_day=syncs_a_day)
    rows = await installation.live(rates, period=365 * DAY, step=7 * DAY, last_steps=DAY)

    await check(installation, rows, steady=14)
    seconds = {table: sorted(took) for table, took in installation.batch_seconds.items()}
    scanned = await installation.scanned_by_pruning()
    idle = {table: sum(took) for table, took in installation.batch_seconds.items()}
    sizes = await installation.sizes()
    await installation.sql.execute("VACUUM FULL")
    compact = await installation.sizes()
    growth = sum(sizes.values()) - sum(installation.initial_sizes.values())
    report = [
        f"{rates}: grows by {growth / 1e6:.0f} MB in a year, from"
        f" {sum(installation.initial_sizes.values()) / 1e6:.0f} MB to"
        f" {sum(sizes.values()) / 1e6:.0f} MB; compact: {sum(compact.values()) / 1e6:.0f} MB",
        f"{'table':22} {'rows':>9} {'MB':>7} {'compact':>7} {'bytes/row':>9}",
    ]
    for table, size in sizes.items():
        count = rows[-1][table]
        report.append(
            f"{table:22} {count:9,} {size / 1e6:7.1f} {compact[table] / 1e6:7.1f}"
            f" {size / max(count, 1):9.0f}"
        )
    report.append(f"{'table':22} {'batches':>8} {'p99 ms':>7} {'max ms':>7} {'idle ms':>7}")
    for table, took in seconds.items():
        report.append(
            f"{table:22} {len(took):8,} {took[int(0.99 * len(took))] * 1e3:7.1f}"
            f" {took[-1] * 1e3:7.1f} {idle[table] * 1e3:7.1f}"
        )
    report.append(f"read as a whole by pruning: {', '.join(sorted(scanned))}")
    with capsys.disabled():
        print("", *report, sep="\n")  # noqa: T201 (the sizes in docs/operations.md)

    assert growth * 1000 / rates.connections < 1e9
    for table in ("events", "job_history", "sync_volumes", "operations", "timeline_events"):
        is_small = rows[-1][table] < 1_000  # Postgres rightly reads a few pages without an index
        assert is_small or table not in scanned
    for table, took in seconds.items():
        assert took[int(0.99 * len(took))] < 1, table
