"""Fills a migrated registry with a fleet and its history, by statements that insert whole tables.

Secondary indexes are dropped meanwhile and built afterwards, which takes a third of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from shared.config import Settings
from tests.pools import Sql
from tests.scale import catalogs, rates

_TIMEOUT_S: Final = 3600
_AT_ONCE: Final = 4
"""Statements that run at once."""
_SESSION: Final = {
    "session_replication_role": "replica",  # checks no foreign key: ids are made by one function
    "maintenance_work_mem": "256MB",
    "work_mem": "64MB",
    "max_parallel_maintenance_workers": "0",
}
_LARGE: Final = ("job_history", "stream_volumes")
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


async def fill(url: str, connections: int, *, workspaces: int, interval: timedelta) -> Filled:
    """Insert the fleet and its history; the first observations are spread over one interval."""
    began = time.monotonic()
    values = {
        "connections": connections,
        "sources": rates.sources(connections),
        "workspaces": workspaces,
        "a_source": int(rates.CONNECTIONS_PER_SOURCE.value),
        "interval": interval.total_seconds(),
    }
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
            for statement in _FLEET:
                await sql.execute(statement.format(**values))
        await run_all(one.format(**values) for one in _HISTORY)
        await run_all(one.format(**values) for one in _FROM_HISTORY)
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


_SIZES = """
    SELECT relname AS name, CAST(reltuples AS bigint) AS rows, pg_total_relation_size(oid) AS bytes
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    ORDER BY bytes DESC
"""


async def _revisions(sql: Sql) -> None:
    """Insert the catalogs: into a temporary table, and their streams into the registry."""
    await sql.execute(
        "CREATE UNLOGGED TABLE scale.revisions (template int, revision int, synced jsonb, fingerprint text,"
        " raw_hashes bytea, stream_hashes bytea, drift jsonb, repair jsonb, body text)"
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


async def _drop_indexes(sql: Sql) -> list[list[str]]:
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


_JOB_DAYS = min(_days("job_retention"), _days("volume_retention"))
_JOBS = round(_JOB_DAYS * rates.SYNCS_A_DAY.value)
_EVENTS = round(
    _days("event_retention") * rates.SYNCS_A_DAY.value * rates.EVENTS_PER_SYNC.value
)
_RARE = round(_days("timeline_retention") / 365 * rates.RARE_EVENTS_A_YEAR.value)
_OPERATIONS = round(_days("operation_retention") / 30 * rates.OPERATIONS_A_MONTH.value)
_PAST = f"interval '{rates.YEARS.value:g} years'"
_DAY_S = int(rates.DAY_S)
_SECONDS_APART = round(_DAY_S / rates.SYNCS_A_DAY.value)
_FAILED_EVERY = round(1 / rates.FAILED_SYNCS.value)
_OPEN_EVERY = round(1 / rates.OPEN_REPAIRS.value)

# A connection or source has a place in time of its own, so that not all of them change at once.
_FLEET: Final = (
    f"""
    CREATE UNLOGGED TABLE scale.sources AS
    SELECT n, scale.object_id(n, 'source') AS id, n % {catalogs.TEMPLATES} AS template,
        {catalogs.REVISION_SQL} AS revision,
        scale.object_id({catalogs.WORKSPACE_SQL}, 'workspace') AS workspace,
        random() AS place
    FROM generate_series(1::bigint, {{sources}}) n
    """,
    """
    CREATE UNLOGGED TABLE scale.fleet AS
    SELECT m, scale.object_id(m, 'connection') AS id, scale.object_id(m, 'airbyte') AS held,
        s.n, s.id AS source, s.template, s.revision, s.workspace, s.place, random() AS hour
    FROM generate_series(1::bigint, {connections}) m JOIN scale.sources s ON s.n = (m - 1) / {a_source} + 1
    """,
    "ANALYZE scale.sources",
    "ANALYZE scale.fleet",
)
_HISTORY: Final = (
    f"""
    INSERT INTO connections (id, name, source_type, credential_id, airbyte_source_id,
        airbyte_connection_id, airbyte_destination_id, airbyte_workspace_id, status,
        catalog_version, event_seq, created_at, labels, table_naming)
    SELECT id, (ARRAY['Sales', 'Marketing', 'Billing'])[1 + m % 3] || ' ' || m,
        (ARRAY['Postgres', 'HubSpot', 'Salesforce', 'Stripe'])[1 + n % 4],
        'credential-' || n % 2000, source, held,
        scale.object_id(m % 30, 'destination'), workspace, 'ACTIVE', 1 + revision, {_EVENTS},
        now() - {_PAST} - hour * interval '1 day',
        jsonb_build_object('team', 'team-' || m % 40, 'tier', CASE m % 10 WHEN 0 THEN 'gold' END),
        '{{{{"definition":"destination"}}}}'
    FROM scale.fleet
    """,
    # Of the older snapshots, one stream is the source's own; those of the head are shared.
    f"""
    INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes, taken_at, seen_at,
        connector_version)
    SELECT scale.object_id(n, 'snapshot', r), id, c.raw_hashes,
        CASE WHEN r = s.revision THEN c.stream_hashes
            ELSE overlay(c.stream_hashes PLACING decode(md5(n || '.' || r), 'hex') FROM 1 FOR 16)
        END,
        now() - {_PAST} * (s.revision - r + place) / (s.revision + 1),
        CASE WHEN r = s.revision THEN now()
            ELSE now() - {_PAST} * (s.revision - r - 1 + place) / (s.revision + 1) END, '1.2.3'
    FROM scale.sources s CROSS JOIN LATERAL generate_series(0, s.revision) r
    JOIN scale.revisions c ON c.template = s.template AND c.revision = r
    """,
    """
    INSERT INTO stream_schemas (hash, name, body)
    SELECT decode(md5(n || '.' || r), 'hex'), 'synced_0', c.body
    FROM scale.sources s CROSS JOIN LATERAL generate_series(0, s.revision - 1) r
    JOIN scale.revisions c ON c.template = s.template AND c.revision = r
    """,
    f"""
    INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog,
        fingerprint, origin, snapshot_id, repair_id, decided_by, created_at)
    SELECT scale.object_id(m, 'version', r), id, r + 1, c.synced, c.fingerprint,
        CASE r WHEN 0 THEN 'onboard' ELSE 'repair' END, scale.object_id(n, 'snapshot', r),
        CASE WHEN r > 0 THEN scale.object_id(m, 'repair', r) END,
        CASE WHEN r > 0 THEN 'policy' END,
        now() - {_PAST} * (f.revision - r + place) / (f.revision + 1)
    FROM scale.fleet f CROSS JOIN LATERAL generate_series(0, f.revision) r
    JOIN scale.revisions c ON c.template = f.template AND c.revision = r
    """,
    f"""
    INSERT INTO drifts (id, connection_id, before_snapshot_id, after_snapshot_id, severity,
        affects_sync, changes, first_seen_at)
    SELECT scale.object_id(m, 'drift', r), id, scale.object_id(n, 'snapshot', r - 1),
        scale.object_id(n, 'snapshot', r), c.drift->0->>'severity', true, c.drift,
        now() - {_PAST} * (f.revision - r + place) / (f.revision + 1)
    FROM scale.fleet f CROSS JOIN LATERAL generate_series(1, f.revision) r
    JOIN scale.revisions c ON c.template = f.template AND c.revision = r
    """,
    f"""
    INSERT INTO repairs (id, connection_id, state, drift_id, snapshot_id, base_version, changes,
        decisions, version_number, created_at, updated_at, ended_at)
    SELECT scale.object_id(m, 'repair', r), id, 'applied', scale.object_id(m, 'drift', r),
        scale.object_id(n, 'snapshot', r), r, c.repair,
        jsonb_build_array(jsonb_build_object(
            'by', 'policy', 'verdict', 'approved',
            'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        )), r + 1, at, at, at
    FROM scale.fleet f CROSS JOIN LATERAL generate_series(1, f.revision) r
    CROSS JOIN LATERAL (
        SELECT now() - {_PAST} * (f.revision - r + place) / (f.revision + 1) AS at
    ) decided
    JOIN scale.revisions c ON c.template = f.template AND c.revision = r
    """,
    f"""
    INSERT INTO repairs (id, connection_id, state, drift_id, snapshot_id, base_version, changes,
        created_at, updated_at, expires_at)
    SELECT scale.object_id(m, 'open'), id, 'proposed', scale.object_id(m, 'drift', f.revision),
        scale.object_id(n, 'snapshot', f.revision), f.revision + 1, c.repair, at, at,
        at + interval '7 days'
    FROM scale.fleet f JOIN scale.revisions c ON c.template = f.template AND c.revision = f.revision
    CROSS JOIN LATERAL (SELECT now() - hour * interval '1 day' AS at) proposed
    WHERE m % {_OPEN_EVERY} = 0
    """,
    f"""
    INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version, started_by,
        attempts, records, bytes, failure_code, started_at, ended_at)
    SELECT scale.object_id(m, 'job', d), id, m * {_JOBS} + d,
        CASE WHEN (m + d) % {_FAILED_EVERY} = 0 THEN 'failed' ELSE 'succeeded' END, 1 + revision,
        'airbyte', 1, 1000 + (m * d) % 5000, 100000 + (m * d) % 500000,
        CASE WHEN (m + d) % {_FAILED_EVERY} = 0 THEN 'system_error' END, at,
        at + (120 + (m * d) % 600) * interval '1 second'
    FROM generate_series({_JOBS}, 1, -1) d CROSS JOIN scale.fleet
    CROSS JOIN LATERAL (
        SELECT now() - (d - hour) * {_SECONDS_APART} * interval '1 second' - interval '20 minutes' AS at
    ) started
    """,
    f"""
    INSERT INTO events (event_id, connection_id, seq, type, status, version, at, published_at)
    SELECT gen_random_uuid(), id, e,
        CASE e % 2 WHEN 0 THEN 'sync.finished' ELSE 'sync.triggered' END, 'ACTIVE', 1 + revision,
        at, at
    FROM generate_series(1, {_EVENTS}) e CROSS JOIN scale.fleet
    CROSS JOIN LATERAL (
        SELECT now() - ({_EVENTS} - e + hour) * {_days("event_retention")} * interval '1 day'
            / {_EVENTS} AS at
    ) published
    """,
    f"""
    INSERT INTO timeline_events (id, connection_id, type, code, at)
    SELECT gen_random_uuid(), id,
        CASE e % 2 WHEN 0 THEN 'observation.recovered' ELSE 'observation.suspicious' END,
        CASE e % 2 WHEN 1 THEN 'upstream_timeout' END,
        now() - (e - hour) * {_days("timeline_retention")} * interval '1 day' / {_RARE}
    FROM generate_series(1, {_RARE}) e CROSS JOIN scale.fleet
    """,
    f"""
    INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until, deadline,
        response_status, response, request_id, created_at, updated_at, ended_at)
    SELECT gen_random_uuid(), 'sync', id, 'done', '{{{{}}}}', 'triggered', at, at, 202, '{{{{}}}}',
        'request', at, at, at
    FROM generate_series(1, {_OPERATIONS}) o CROSS JOIN scale.fleet
    CROSS JOIN LATERAL (
        SELECT now() - (o - hour) * {_days("operation_retention")} * interval '1 day'
            / {_OPERATIONS} AS at
    ) ended
    """,
    """
    INSERT INTO plans (connection_id, snapshot_id, base_version)
    SELECT id, scale.object_id(n, 'snapshot', revision), revision + 1 FROM scale.fleet
    """,
    """
    INSERT INTO watches (connection_id, compared_snapshot_id, mappers_version)
    SELECT id, scale.object_id(n, 'snapshot', revision), revision + 1 FROM scale.fleet
    """,
    # Of the last two days, as they are kept.
    """
    INSERT INTO discoveries (id, airbyte_source_id, purpose, started_at, expires_at, ended_at)
    SELECT gen_random_uuid(), id, 'observe', at, at + interval '11 minutes', at + interval '40 seconds'
    FROM generate_series(2, 1, -1) d CROSS JOIN scale.sources
    CROSS JOIN LATERAL (SELECT now() - (d - place) * interval '1 day' AS at) started
    """,
    """
    INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at, started_at,
        observed_at, outcome, snapshot_id, overdue_at)
    SELECT id, workspace, now() + place * {interval} * interval '1 second',
        now() - interval '1 hour', now() - interval '1 hour', 'unchanged',
        scale.object_id(n, 'snapshot', revision), now() + interval '2 days'
    FROM scale.sources
    """,
    # Their versions are read in turn, once a day: not a part of what is simulated.
    """
    INSERT INTO source_connectors (airbyte_source_id, repository, version, known_since,
        support_state, checked_at, next_at)
    SELECT id, 'airbyte/source-simulated', '1.2.3', now() - interval '1 year', 'supported', now(),
        now() + interval '1 day'
    FROM scale.sources
    """,
)
_FROM_HISTORY: Final = (
    f"""
    INSERT INTO stream_volumes (job_id, stream_namespace, stream_name, connection_id, ended_at,
        is_full_refresh, rows, bytes, is_pending, usual_low, usual_high)
    SELECT id, '', 'synced_' || stream, connection_id, ended_at, false, records / 3, bytes / 3, false,
        300, 3000
    FROM job_history CROSS JOIN generate_series(0, {int(rates.SYNCED_STREAMS.value) - 1}) stream
    """,
    f"""
    INSERT INTO connection_health (connection_id, health, code, reason, since, severity, repair_id,
        overdue_at, last_job_id, last_sync_status, last_sync_started_at, last_sync_ended_at)
    SELECT f.id, CASE WHEN r.id IS NULL THEN 'healthy' ELSE 'needs_review' END::health_word,
        CASE WHEN r.id IS NULL THEN 'healthy' ELSE 'needs_review' END, 'One sentence.',
        now() - interval '30 days', r.severity, r.id, now() + interval '2 days', j.id, j.status,
        j.started_at, j.ended_at
    FROM scale.fleet f JOIN job_history j ON j.id = scale.object_id(m, 'job', 1)
    LEFT JOIN repairs r ON r.connection_id = f.id AND r.state = 'proposed'
    """,
)
