"""Fills a migrated registry with a fleet and its history, by statements that insert whole tables.

Secondary indexes are dropped meanwhile and built afterwards, which takes a third of the time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

from services.orchestrator import volume_states
from services.orchestrator.volume_states import Volume
from shared.config import Settings
from shared.domain import volume
from tests.scale import catalogs, rates

_Sql: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
_TIMEOUT_S: Final = 3600
_AT_ONCE: Final = 4
"""Statements that run at once."""
_SESSION: Final = {
    "session_replication_role": "replica",  # checks no foreign key: ids are made by one function
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
    "max_parallel_maintenance_workers": "0",
}
_LARGE: Final = ("job_history", "sync_volumes")
"""Tables whose unique constraints are dropped meanwhile, too; no table refers to them."""
_SMALL: Final = ("connection_health",)
"""Tables whose indexes stay, since what is inserted is found by them."""


def _days(setting: str) -> int:
    """The default of a retention, in days."""
    kept: timedelta = Settings.model_fields[setting].default
    return kept.days


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fill has made."""

    seconds: float
    bytes_: int
    """Size of the database."""
    rows: dict[str, int]
    """Rows by table, the largest tables first, and their bytes."""
    sizes: dict[str, int]


async def fill(
    url: str, connections: int, *, workspaces: int, interval: timedelta, thin: int = 1
) -> Filled:
    """Insert the fleet and its history; the first observations are spread over one interval.

    Only every `thin`-th connection has its syncs, of which the others have the newest.
    """
    began = time.monotonic()
    values = {
        "connections": connections,
        "sources": rates.sources(connections),
        "a_source": int(rates.CONNECTIONS_PER_SOURCE.value),
        "interval": interval.total_seconds(),
        "thin": thin,
        **_values(workspaces),
    }
    fleet, history, from_history = _sections(values)
    async with asyncpg.create_pool(
        url, min_size=0, max_size=_AT_ONCE, command_timeout=_TIMEOUT_S, server_settings=_SESSION
    ) as pool:

        async def run_all(statements: Iterable[str]) -> None:
            await asyncio.gather(*(pool.execute(one) for one in statements))

        async with pool.acquire() as sql:
            await sql.execute("CREATE SCHEMA scale")
            await sql.execute(catalogs.ID_SQL)
            await _revisions(sql)
            dropped = await _drop_indexes(sql)
            for statement in fleet:
                await sql.execute(statement)
        await run_all(history)
        await run_all(from_history)
        # Not two at once of one table: a constraint needs its table alone.
        await asyncio.gather(*(_in_turn(pool, statements) for statements in dropped))
        async with pool.acquire() as sql:
            await sql.execute("DROP SCHEMA scale CASCADE")
            await sql.execute("VACUUM ANALYZE")
            sizes = await sql.fetch(_SIZES)
            return Filled(
                time.monotonic() - began,
                await sql.fetchval("SELECT pg_database_size(current_database())"),
                {row["name"]: row["rows"] for row in sizes},
                {row["name"]: row["bytes"] for row in sizes},
            )


async def _in_turn(pool: asyncpg.Pool, statements: Iterable[str]) -> None:
    for statement in statements:
        await pool.execute(statement)


def _values(workspaces: int) -> dict[str, object]:
    """What the statements say about the catalogs, the rates and the retention."""
    return {
        "templates": catalogs.TEMPLATES,
        "revision": catalogs.REVISION_SQL,
        "workspace": catalogs.WORKSPACE_SQL.format(workspaces=workspaces),
        "past": f"interval '{rates.YEARS.value:g} years'",
        "jobs": round(_days("job_retention") * rates.SYNCS_A_DAY.value),
        "volume_rows": min(round(_days("volume_retention") * rates.SYNCS_A_DAY.value), volume.MOST),
        "volumes": _volumes().hex(),
        "seconds_apart": round(rates.DAY_S / rates.SYNCS_A_DAY.value),
        "failed_every": round(1 / rates.FAILED_SYNCS.value),
        "open_every": round(1 / rates.OPEN_REPAIRS.value),
        "events": round(
            _days("event_retention") * rates.SYNCS_A_DAY.value * rates.EVENTS_PER_SYNC.value
        ),
        "event_days": _days("event_retention"),
        "rare": round(_days("timeline_retention") / 365 * rates.RARE_EVENTS_A_YEAR.value),
        "timeline_days": _days("timeline_retention"),
        "operations": round(_days("operation_retention") / 30 * rates.OPERATIONS_A_MONTH.value),
        "operation_days": _days("operation_retention"),
    }


def _volumes() -> bytes:
    """What one sync brought of each stream, as the orchestrator records it."""
    return volume_states.encode(
        [
            Volume(
                stream_name=f"synced_{number}",
                stream_namespace="",
                ended_at=datetime(2026, 11, 30, 4, 12, 7, tzinfo=UTC),
                is_full_refresh=False,
                rows=1_234 + number,
                bytes_=123_456 + number,
                usual_low=300,
                usual_high=3_000,
            )
            for number in range(int(rates.SYNCED_STREAMS.value))
        ]
    )


def _sections(values: Mapping[str, object]) -> list[list[str]]:
    """The statements of each section of `fill.sql`."""
    text = Path(__file__).with_name("fill.sql").read_text().format(**values)
    return [
        [one for part in section.split(";\n") if (one := part.strip())]
        for section in re.split(r"-- SECTION .*\n", text)[1:]
    ]


_SIZES = """
    SELECT relname AS name, CAST(reltuples AS bigint) AS rows, pg_total_relation_size(oid) AS bytes
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    ORDER BY bytes DESC
"""


async def _revisions(sql: _Sql) -> None:
    """Insert the catalogs: into a table of their own, and their streams into the registry."""
    await sql.execute(
        "CREATE UNLOGGED TABLE scale.revisions (template int, revision int, synced jsonb,"
        " fingerprint text, raw_hashes bytea, stream_hashes bytea, drift jsonb, repair jsonb,"
        " body text)"
    )
    bodies: dict[bytes, tuple[str, str]] = {}
    rows = []
    for template in range(catalogs.TEMPLATES):
        for number in range(catalogs.REVISIONS):
            one = catalogs.revision(template, number)
            bodies |= one.bodies
            rows.append(
                (
                    *(template, number, one.synced.decode(), one.fingerprint),
                    *(one.raw_hashes, one.stream_hashes, one.drift, one.repair),
                    next(iter(one.bodies.values()))[1],
                )
            )
    await sql.executemany("INSERT INTO scale.revisions VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)", rows)
    await sql.executemany(
        "INSERT INTO stream_schemas (hash, name, body) VALUES ($1, $2, $3)",
        [(digest, *stream) for digest, stream in bodies.items()],
    )
    await sql.execute("ANALYZE scale.revisions")


async def _drop_indexes(sql: _Sql) -> list[list[str]]:
    """Drop what is built again afterwards; return the statements for that, by table."""
    constraints = await sql.fetch(
        "SELECT conname AS name, conrelid::regclass::text AS of,"
        " pg_get_constraintdef(oid) AS definition FROM pg_constraint"
        " WHERE contype IN ('p', 'u') AND conrelid::regclass::text = ANY($1::text[])",
        list(_LARGE),
    )
    indexes = await sql.fetch(
        "SELECT i.indexname AS name, i.tablename AS of, i.indexdef AS definition FROM pg_indexes i"
        " WHERE i.schemaname = 'public' AND i.tablename NOT LIKE 'pgqueuer%' AND NOT EXISTS ("
        " SELECT FROM pg_constraint c WHERE c.conname = i.indexname)"
    )
    made: dict[str, list[str]] = defaultdict(list)
    for one in constraints:
        await sql.execute(f"ALTER TABLE {one['of']} DROP CONSTRAINT {one['name']}")
        made[one["of"]].append(
            f"ALTER TABLE {one['of']} ADD CONSTRAINT {one['name']} {one['definition']}"
        )
    for one in indexes:
        if one["of"] not in _SMALL:
            await sql.execute(f"DROP INDEX {one['name']}")
            made[one["of"]].append(one["definition"])
    return list(made.values())
