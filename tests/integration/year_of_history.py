"""Writes what an installation records in a period of the past, by set-based SQL at stated rates.

Every table that grows with time gets rows of the size and in the order in which the services write
them. A time in the past stands for the present, and retentions are counted from there, so that the
code that prunes is the services' own, and no row has to be moved.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text

from services.orchestrator import trial_queries
from services.orchestrator.history_retention import History, Retention
from services.orchestrator.volume_states import Volume, encode
from shared import registry
from shared.database import Database
from shared.domain import volume
from shared.job_queue import Jobs
from tests.pools import Sql

SHORT_LIVED: Final = timedelta(days=4)
"""How long before the end of a simulation the tables with fixed limits of one or two days begin to
be filled: their limits are counted from the real present."""
FREQUENT: Final = timedelta(days=60)
"""How long before the end syncs are as frequent as stated. Before that they are daily: by the end,
they are pruned anyway."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happens in an installation. Each connection has a source of its own."""

    connections: int
    syncs_a_day: int
    streams: int = 20
    """Streams that a connection syncs."""
    fields: int = 40
    offered: int = 100
    """Streams that its source offers."""
    change_days: int = 30
    """Days from one change of a source's schema to the next."""


class SimulatedHistory:
    """A registry to which history is added by the period."""

    def __init__(self, sql: Sql, rates: Rates) -> None:
        self._sql = sql
        self._syncs_a_day = rates.syncs_a_day
        self._offered = [_stream(n, rates.fields) for n in range(1, rates.offered + 1)]
        self._documents = [_volumes(n, rates.streams) for n in range(100)]
        self._values = {
            "connections": rates.connections,
            "streams": rates.streams,
            "offered": rates.offered,
            "change_days": rates.change_days,
            "changes": _literal(_CHANGES),
            "most": volume.MOST,
        }

    async def begin(self, at: datetime) -> None:
        """Onboard the connections."""
        for name, kind, rows in (
            ("offered", "text", self._offered),
            ("documents", "bytea", self._documents),
        ):
            await self._sql.execute(
                _NUMBERED.format(name=name, kind=kind),
                rows,
            )
        for statement in _BEGIN:
            await self._run(statement, at, at)

    async def add(self, since: datetime, until: datetime, *, end: datetime) -> None:
        """Record what happens in a period of a simulation that ends at `end`."""
        async with self._sql.transaction():
            syncs = self._syncs_a_day if until > end - FREQUENT else 1
            for statement in _PERIOD:
                await self._run(statement, since, until, syncs)
            lately = max(since, end - SHORT_LIVED)
            for statement in _SHORT_LIVED if lately < until else ():
                await self._run(statement, lately, until)
            await self._sql.execute("DROP TABLE changed")

    async def _run(self, statement: str, since: datetime, until: datetime, syncs: int = 1) -> None:
        times = {"since": f"timestamptz '{since}'", "until": f"timestamptz '{until}'"}
        await self._sql.execute(statement.format(**self._values, **times, syncs=syncs))

    async def vacuum(self) -> None:
        """Vacuum what autovacuum would, by its settings for each table."""
        await self._sql.execute("SELECT pg_stat_force_next_flush()")
        for (name,) in await self._sql.fetch(_VACUUM_DUE):
            await self._sql.execute(f"VACUUM (ANALYZE) {name}")


async def prune(
    db: Database, jobs: Jobs, histories: Sequence[History], *, ago: timedelta = timedelta(0)
) -> None:
    """Prune as the services do, at a time that was so long ago, until nothing is left to prune."""
    then = [
        replace(one, max_age=one.max_age + ago, every=timedelta(0), batches=1_000_000)
        for one in histories
        if one.max_age is not None
    ]
    await Retention(db, then).prune()
    for table, pruning in (
        ("pgqueuer_log", jobs.prune),
        ("source_trials", trial_queries.prune),
        ("discoveries", registry.prune_discoveries),
    ):
        before, left = None, -1
        while before != left:
            async with db.transaction() as session:
                before = left
                await pruning(session)
                left = await session.scalar(select(func.count()).select_from(text(table))) or 0


def _stream(number: int, fields: int) -> str:
    """A stream as Airbyte's catalogs have it, with fields of its own."""
    random_ = random.Random(number)  # noqa: S311 (names, not secrets)
    properties = {
        f"{'_'.join(random_.sample(_WORDS, 2))}_{random_.randrange(1000)}__c": {
            "type": ["null", random_.choice(_TYPES)]
        }
        for _ in range(fields)
    }
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    return json.dumps(
        {
            "stream": {
                "name": f"Object_{number}",
                "jsonSchema": schema | {"properties": properties},
                "supportedSyncModes": ["full_refresh", "incremental"],
                "sourceDefinedCursor": True,
                "defaultCursorField": ["SystemModstamp"],
                "sourceDefinedPrimaryKey": [["Id"]],
            },
            "config": {
                "syncMode": "incremental",
                "destinationSyncMode": "append_dedup",
                "cursorField": ["SystemModstamp"],
                "primaryKey": [["Id"]],
                "aliasName": f"Object_{number}",
                "selected": True,
            },
        }
    )


def _volumes(number: int, streams: int) -> bytes:
    """What a sync brought of each stream, as the orchestrator records it."""
    random_ = random.Random(number)  # noqa: S311 (rows, not secrets)
    ended_at = datetime(2026, 1, 1, tzinfo=UTC) + number * timedelta(seconds=3599.123456)
    rows = [random_.randrange(10_000) for _ in range(streams)]
    return encode(
        [
            Volume(
                f"Object_{n}",
                "",
                ended_at,
                is_full_refresh=False,
                rows=count,
                bytes_=count * random_.randrange(500, 1000),
                usual_low=count // random_.randrange(2, 9),
                usual_high=count * random_.randrange(2, 9),
            )
            for n, count in enumerate(rows, 1)
        ]
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_TYPES = ("string", "number", "boolean", "integer", "string")
_WORDS = ("Account", "Billing", "Close", "Date", "Email", "Forecast", "Owner", "Phone", "Record",
          "Shipping", "Stage", "Status", "Total")  # fmt: skip
_CHANGES = json.dumps(
    [
        {
            "id": f"0123456789abcde{n}",
            "kind": kind,
            "stream": "Object_1",
            "namespace": None,
            "path": [f"Billing_Status_{n}__c"],
            "before": before,
            "after": after,
            "severity": "needs_review",
            "reason": "A field that the connection selects is no longer there.",
            "reaction": "ask",
            "suggestion": {"became": ["Billing_State__c"], "confidence": 0.83, "reasons": ["name"]},
        }
        for n, kind, before, after in (
            (1, "field_removed", {"type": ["null", "string"]}, None),
            (2, "field_added", None, {"type": ["null", "string"]}),
        )
    ]
)
_NUMBERED = """
    CREATE TEMP TABLE {name} AS
    SELECT n, body FROM unnest($1::{kind}[]) WITH ORDINALITY of (body, n)
"""
_BEGIN = (
    "CREATE SEQUENCE simulated_number",
    """
    INSERT INTO connections (id, name, source_type, source_configuration, credential_id,
        airbyte_source_id, airbyte_connection_id, airbyte_destination_id, airbyte_workspace_id,
        status, catalog_version, labels, created_at, updated_at)
    SELECT gen_random_uuid(), 'Salesforce ' || n, 'Salesforce', '{{"start_date": "2024-01-01"}}',
        'salesforce-' || n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
        gen_random_uuid(), 'ACTIVE', 1, jsonb_build_object('team', 'team-' || n % 20),
        {since}, {since}
    FROM generate_series(1, {connections}) n
    """,
    """
    INSERT INTO stream_schemas (hash, name, body, created_at)
    SELECT decode(md5(c.id || '/' || n), 'hex'), 'Object_' || n, body, {since}
    FROM connections c, offered
    """,
    """
    WITH taken AS (
        INSERT INTO snapshots (id, airbyte_source_id, airbyte_catalog_id, raw_hashes, stream_hashes,
            taken_at, seen_at, connector_version)
        SELECT gen_random_uuid(), c.airbyte_source_id, gen_random_uuid(), h.hashes, h.hashes,
            {since}, {since}, '2.10.3'
        FROM connections c CROSS JOIN LATERAL (
            SELECT string_agg(decode(md5(c.id || '/' || n), 'hex'), '' ORDER BY n) AS hashes
            FROM generate_series(1, {offered}) n
        ) h
        RETURNING id, airbyte_source_id
    ), made AS (
        INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog,
            fingerprint, origin, snapshot_id, requested_by, created_at)
        SELECT gen_random_uuid(), c.id, 1, jsonb_build_object('streams', (
            SELECT jsonb_agg(body::jsonb) FROM offered WHERE n <= {streams}
        )), md5(c.id::text), 'onboard', t.id, 'key:ab12cd34', {since}
        FROM taken t JOIN connections c USING (airbyte_source_id)
    ), observed AS (
        INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, outcome, observed_at,
            overdue_at, snapshot_id)
        SELECT t.airbyte_source_id, gen_random_uuid(), 'unchanged', {since}, {since}, t.id
        FROM taken t
    ), watched AS (
        INSERT INTO watches (connection_id, compared_snapshot_id)
        SELECT c.id, t.id FROM taken t JOIN connections c USING (airbyte_source_id)
    ), known AS (
        INSERT INTO source_connectors (airbyte_source_id, repository, version, checked_at)
        SELECT t.airbyte_source_id, 'airbyte/source-salesforce', '2.10.3', {since} FROM taken t
    ), healthy AS (
        INSERT INTO connection_health (connection_id, health, code, reason, since)
        SELECT c.id, 'healthy', 'healthy', 'The last sync succeeded.', {since} FROM connections c
    ), versions AS (
        INSERT INTO credential_versions (credential_id, version)
        SELECT c.credential_id, md5(c.id::text) FROM connections c
    )
    INSERT INTO plans (connection_id, snapshot_id, base_version, planned_at)
    SELECT c.id, t.id, 1, {since} FROM taken t JOIN connections c USING (airbyte_source_id)
    """,
    "INSERT INTO webhooks (id, url) VALUES (gen_random_uuid(), 'https://hooks.example.com/aam')",
    # Most connections have no settings of their own.
    """
    INSERT INTO policies (connection_id, policy)
    SELECT id, '{{"field_removed": "propose"}}' FROM connections
    ORDER BY id LIMIT {connections} / 10
    """,
)
_PERIOD = (
    # Syncs by Airbyte's schedule, at their own minute each; one in fifty fails.
    """
    INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version, started_by,
        attempts, records, bytes, failure_code, failure_cause, failure_explanation, follow_up,
        started_at, ended_at)
    SELECT gen_random_uuid(), s.id, s.number,
        CASE WHEN fails THEN 'failed' ELSE 'succeeded' END, s.catalog_version, 'airbyte', 1,
        (random() * 1e5)::int, (random() * 1e8)::int,
        CASE WHEN fails THEN 'transient_error' END, CASE WHEN fails THEN 'rate_limited' END,
        CASE WHEN fails THEN 'The source limits the rate of requests.' END,
        CASE WHEN fails THEN 'skipped' END, s.at, s.at + interval '4 minutes' * (0.5 + random())
    FROM (
        SELECT *, number % 50 = 0 AS fails FROM (
            SELECT *, nextval('simulated_number') AS number FROM (
                SELECT c.id, c.catalog_version, at + random() * interval '30 minutes' AS at
                FROM generate_series({since}, {until} - interval '1 s', interval '1 day' / {syncs})
                    at, connections c
                ORDER BY 3
            ) ordered
        ) numbered
    ) s
    """,
    # The newest syncs of a connection replace its oldest ones.
    """
    DELETE FROM sync_volumes WHERE job_id IN (
        SELECT job_id FROM (
            SELECT job_id, row_number() OVER newest_first AS n FROM sync_volumes
            WINDOW newest_first AS (PARTITION BY connection_id ORDER BY ended_at DESC)
        ) numbered
        WHERE n > {most} - {syncs} * extract(epoch FROM {until} - {since}) / 86400
    )
    """,
    """
    INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)
    SELECT j.id, j.connection_id, j.ended_at, d.body
    FROM job_history j JOIN documents d ON d.n = 1 + j.airbyte_job_id % 100
    WHERE j.started_at >= {since} AND j.started_at < {until} AND j.status = 'succeeded'
    ORDER BY j.ended_at
    """,
    # One sync in twenty is requested.
    """
    INSERT INTO operations (id, kind, connection_id, status, request, steps, step, lease_until,
        deadline, response_status, response, requested_by, caller, route, idempotency_key,
        fingerprint, request_id, created_at, updated_at, ended_at)
    SELECT gen_random_uuid(), 'sync', connection_id, 'done', '{{"wait_s": 10}}',
        jsonb_build_object('job', id, 'airbyte_job_id', airbyte_job_id), 'started', started_at,
        started_at, 201, repeat(md5(id::text), 20), 'key:ab12cd34', 'key:ab12cd34',
        'POST /connections/' || connection_id || '/sync', id, sha256(id::text::bytea),
        md5(id::text), started_at, started_at, started_at
    FROM job_history
    WHERE started_at >= {since} AND started_at < {until} AND airbyte_job_id % 20 = 0
    ORDER BY started_at
    """,
    # Changes of schemas: one per connection on its own day. What becomes of a change depends on
    # its number, not on chance, so that periods of the same length get as many rows.
    """
    CREATE TEMP TABLE changed AS
    SELECT c.id AS connection, c.airbyte_source_id AS source, c.catalog_version AS version,
        d + random() * interval '23 hours' AS at, gen_random_uuid() AS snapshot,
        gen_random_uuid() AS drift, gen_random_uuid() AS repair, gen_random_uuid() AS operation,
        w.id AS webhook, number, number % 5 <> 0 AS is_applied,
        row_number() OVER (PARTITION BY c.id ORDER BY d)::int AS nth
    FROM generate_series({since}, {until} - interval '1 s', interval '1 day') d,
        extract(epoch FROM d) e,
        (SELECT *, row_number() OVER (ORDER BY id) AS n FROM connections) c,
        floor(c.n + e / 86400 / {change_days}) number, webhooks w
    WHERE floor(c.n + e / 86400) % {change_days} = 0
    """,
    """
    INSERT INTO stream_schemas (hash, name, body, created_at)
    SELECT decode(md5(snapshot::text), 'hex'), 'Object_1', body, at
    FROM changed JOIN offered ON n = 1 ORDER BY at
    """,
    """
    INSERT INTO snapshots (id, airbyte_source_id, airbyte_catalog_id, raw_hashes, stream_hashes,
        taken_at, seen_at, connector_version)
    SELECT c.snapshot, c.source, gen_random_uuid(), h.hashes, h.hashes, c.at,
        c.at + interval '1 day' * {change_days}, '2.10.3'
    FROM changed c CROSS JOIN LATERAL (
        SELECT decode(md5(c.snapshot::text), 'hex') || substr(stream_hashes, 17) AS hashes
        FROM snapshots WHERE airbyte_source_id = c.source ORDER BY taken_at DESC LIMIT 1
    ) h ORDER BY c.at
    """,
    """
    INSERT INTO drifts (id, connection_id, before_snapshot_id, after_snapshot_id, severity,
        affects_sync, changes, first_seen_at)
    SELECT drift, connection, (
            SELECT id FROM snapshots WHERE airbyte_source_id = source AND taken_at < at
            ORDER BY taken_at DESC LIMIT 1
        ), snapshot, 'needs_review', true, {changes}, at
    FROM changed ORDER BY at
    """,
    """
    INSERT INTO operations (id, kind, connection_id, status, request, steps, step, lease_until,
        deadline, requested_by, request_id, created_at, updated_at, ended_at)
    SELECT operation, 'heal', connection, 'done',
        jsonb_build_object('repair', repair, 'version', 1), jsonb_build_object('state', drift),
        'applied', at, at, 'key:ab12cd34', md5(repair::text), at, at, at
    FROM changed WHERE is_applied ORDER BY at
    """,
    # Four in five are applied; of the others a person rejects half, and half are superseded.
    """
    INSERT INTO repairs (id, connection_id, state, drift_id, snapshot_id, base_version, changes,
        decisions, operation_id, version_number, expires_at, created_at, updated_at, ended_at)
    SELECT repair, connection, CASE WHEN is_applied THEN 'applied'
            WHEN number % 10 = 0 THEN 'rejected' ELSE 'superseded' END,
        drift, snapshot, version, {changes}, CASE WHEN is_applied THEN jsonb_build_array(
            jsonb_build_object('verdict', 'approved', 'by', 'Ada', 'reason', 'renamed upstream',
                'at', '2026-01-01T00:00:00.000000Z', 'changes', jsonb_build_array('a', 'b'))
        ) ELSE '[]' END,
        CASE WHEN is_applied THEN operation END, CASE WHEN is_applied THEN version + 1 END,
        at + interval '7 days', at, at, at + interval '1 hour'
    FROM changed ORDER BY at
    """,
    """
    INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog,
        fingerprint, origin, snapshot_id, repair_id, decided_by, requested_by, created_at)
    SELECT gen_random_uuid(), connection, version + nth, (
            SELECT sync_catalog || jsonb_build_object('changed', repair)
            FROM sync_catalog_versions WHERE connection_id = connection
            ORDER BY version_number DESC LIMIT 1
        ), md5(repair::text), 'repair', snapshot, repair, 'Ada', 'key:ab12cd34', at
    FROM changed WHERE is_applied ORDER BY at
    """,
    """
    INSERT INTO stream_states (id, operation_id, connection_id, kind, catalog_version, state,
        saved_at)
    SELECT gen_random_uuid(), operation, connection, 'heal', version, (
            SELECT string_agg(sha256((repair::text || n)::bytea), '')
            FROM generate_series(1, {streams}) n
        ), at
    FROM changed WHERE is_applied ORDER BY at
    """,
    """
    INSERT INTO webhook_deliveries (id, webhook_id, repair_id, type, body, state, attempts,
        last_status, created_at, ended_at)
    SELECT gen_random_uuid(), webhook, repair, type, repeat({changes}, 1), 'delivered', 1, 200, at,
        at
    FROM changed, unnest(ARRAY['repair.proposed', 'repair.applied']) type ORDER BY at
    """,
    """
    INSERT INTO knowledge (id, source_type, entity, stream, removed, became, verdict,
        removed_schema, added_schema, connection_id, decided_by, created_at)
    SELECT gen_random_uuid(), 'Salesforce', 'field', 'Object_1', '["Billing_Status_1__c"]',
        '["Billing_State__c"]', 'accepted', '{{"type": ["null", "string"]}}',
        '{{"type": ["null", "string"]}}', connection, 'Ada', at
    FROM changed WHERE is_applied ORDER BY at
    """,
    """
    INSERT INTO timeline_events (id, connection_id, type, ref, code, at)
    SELECT gen_random_uuid(), connection, type, repair, 'requested', at
    FROM changed, unnest(ARRAY['connection.paused', 'connection.resumed']) type ORDER BY at
    """,
    """
    INSERT INTO setting_changes (subject, subject_id, change, changed_by, requested_by, at)
    SELECT 'policy', connection, '{{"field_removed": "propose"}}', 'Ada', 'key:ab12cd34', at
    FROM changed WHERE number % 10 = 1 ORDER BY at
    """,
    """
    INSERT INTO credential_audit (at, caller, jti, credential_id, source_type, result, request_id)
    SELECT at, 'orchestrator', gen_random_uuid(), 'salesforce-1', 'Salesforce', 'granted',
        md5(repair::text)
    FROM changed ORDER BY at
    """,
    # Two events of each sync, and four of each change.
    """
    INSERT INTO events (connection_id, event_id, seq, type, ref, status, version, at, published_at)
    SELECT e.connection_id, gen_random_uuid(), nextval('simulated_number'), e.type, e.ref, 'ACTIVE',
        e.version, e.at, e.at + interval '1 s'
    FROM (
        SELECT connection_id, type, id AS ref, catalog_version AS version,
            CASE type WHEN 'sync.finished' THEN ended_at ELSE started_at END AS at
        FROM job_history, unnest(ARRAY['sync.triggered', 'sync.finished']) type
        WHERE started_at >= {since} AND started_at < {until}
        UNION ALL SELECT connection, type, repair, version, at
        FROM changed, unnest(ARRAY[
            'drift.detected', 'repair.proposed', 'catalog.healing', 'repair.applied'
        ]) type
    ) e ORDER BY e.at
    """,
    # For the whole installation: refused requests and keys of a day each.
    """
    INSERT INTO refusals (minute, service, caller, method, route, status, code, count, first_at,
        last_at)
    SELECT date_trunc('minute', at), 'orchestrator', 'key:' || left(md5(at::text), 8), 'GET',
        '/connections', 401, 'authentication_required', 3, at, at
    FROM generate_series({since}, {until} - interval '1 s', interval '30 minutes') at
    """,
    """
    INSERT INTO api_keys (id, digest, scopes, owner, created_by, created_at, expires_at)
    SELECT left(md5(at::text), 8), sha256(at::text::bytea), ARRAY['read'], 'ci', 'key:ab12cd34', at,
        at + interval '1 day'
    FROM generate_series({since}, {until} - interval '1 s', interval '1 day') at
    """,
    """
    UPDATE connections c SET catalog_version = v.newest, event_seq = currval('simulated_number'),
        updated_at = {until}
    FROM (
        SELECT connection_id, max(version_number) AS newest FROM sync_catalog_versions GROUP BY 1
    ) v WHERE v.connection_id = c.id
    """,
    """
    UPDATE plans p SET snapshot_id = c.snapshot, base_version = c.version, planned_at = c.at
    FROM changed c WHERE c.connection = p.connection_id
    """,
    """
    UPDATE observations o SET snapshot_id = c.snapshot, observed_at = {until}
    FROM changed c WHERE c.source = o.airbyte_source_id
    """,
    """
    UPDATE watches w SET compared_snapshot_id = c.snapshot
    FROM changed c WHERE c.connection = w.connection_id
    """,
    "UPDATE connection_health SET since = {until}, last_sync_ended_at = {until}",
)
_SHORT_LIVED = (
    # Sources are observed every hour.
    """
    INSERT INTO discoveries (id, airbyte_source_id, purpose, started_at, expires_at, ended_at,
        snapshot_id)
    SELECT gen_random_uuid(), airbyte_source_id, 'observe', at, at, at, snapshot_id
    FROM generate_series({since}, {until} - interval '1 s', interval '1 hour') at, observations
    ORDER BY at
    """,
    """
    INSERT INTO source_trials (id, account, purpose, requested_by, started_at, expires_at, ended_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'check', 'key:ab12cd34', at, at, at
    FROM generate_series({since}, {until} - interval '1 s', interval '1 hour') at
    """,
    # A job for each observation and each poll of a sync, with three states.
    """
    INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint, aggregated)
    SELECT at, nextval('simulated_number'), state, 0, 'observe', true
    FROM generate_series({since}, {until} - interval '1 s', interval '30 minutes') at,
        connections, unnest(ARRAY['queued', 'picked', 'successful']::pgqueuer_status[]) state
    ORDER BY at
    """,
    """
    INSERT INTO pgqueuer_statistics (created, count, priority, status, entrypoint)
    SELECT at, 5, 0, 'successful', 'observe'
    FROM generate_series({since}, {until} - interval '1 s', interval '10 seconds') at
    """,
)
_VACUUM_DUE = """
    SELECT relid::regclass::text FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
    WHERE schemaname = 'public' AND (
        n_dead_tup > 50 + greatest(reltuples, 0) * coalesce((
            SELECT option_value::float FROM pg_options_to_table(reloptions)
            WHERE option_name = 'autovacuum_vacuum_scale_factor'
        ), 0.2)
        OR n_ins_since_vacuum > 1000 + 0.2 * greatest(reltuples, 0)
    )
"""
