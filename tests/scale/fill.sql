-- What fills the registry of the simulation; `tests.scale.fill` runs it. The statements of a section run at once, except
-- the first section's. A connection or source has a `place` in time of its own, so that not all of them change at once.

-- SECTION fleet

CREATE UNLOGGED TABLE scale.sources AS
SELECT n, scale.object_id(n, 'source') AS id, n % {templates} AS template,
    {revision} AS revision,
    scale.object_id({workspace}, 'workspace') AS workspace,
    random() AS place
FROM generate_series(1::bigint, {sources}) n;

CREATE UNLOGGED TABLE scale.fleet AS
SELECT m, scale.object_id(m, 'connection') AS id, scale.object_id(m, 'airbyte') AS held,
    s.n, s.id AS source, s.template, s.revision, s.workspace, s.place, random() AS hour
FROM generate_series(1::bigint, {connections}) m JOIN scale.sources s ON s.n = (m - 1) / {a_source} + 1;
ANALYZE scale.sources;
ANALYZE scale.fleet;
-- SECTION history

INSERT INTO connections (id, name, source_type, credential_id, airbyte_source_id,
    airbyte_connection_id, airbyte_destination_id, airbyte_workspace_id, status,
    catalog_version, event_seq, created_at, labels, table_naming)
SELECT id, (ARRAY['Sales', 'Marketing', 'Billing'])[1 + m % 3] || ' ' || m,
    (ARRAY['Postgres', 'HubSpot', 'Salesforce', 'Stripe'])[1 + n % 4],
    'credential-' || n % 2000, source, held,
    scale.object_id(m % 30, 'destination'), workspace, 'ACTIVE', 1 + revision, {events},
    now() - {past} - hour * interval '1 day',
    jsonb_build_object('team', 'team-' || m % 40, 'tier', CASE m % 10 WHEN 0 THEN 'gold' END),
    '{{"definition":"destination"}}'
FROM scale.fleet;

-- Of the older snapshots, one stream is the source's own; those of the head are shared.
INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes, taken_at, seen_at,
    connector_version)
SELECT scale.object_id(n, 'snapshot', r), id, c.raw_hashes,
    CASE WHEN r = s.revision THEN c.stream_hashes
        ELSE overlay(c.stream_hashes PLACING decode(md5(n || '.' || r), 'hex') FROM 1 FOR 16)
    END,
    now() - {past} * (s.revision - r + place) / (s.revision + 1),
    CASE WHEN r = s.revision THEN now()
        ELSE now() - {past} * (s.revision - r - 1 + place) / (s.revision + 1) END, '1.2.3'
FROM scale.sources s CROSS JOIN LATERAL generate_series(0, s.revision) r
JOIN scale.revisions c ON c.template = s.template AND c.revision = r;

INSERT INTO stream_schemas (hash, name, body)
SELECT decode(md5(n || '.' || r), 'hex'), 'synced_0', c.body
FROM scale.sources s CROSS JOIN LATERAL generate_series(0, s.revision - 1) r
JOIN scale.revisions c ON c.template = s.template AND c.revision = r;

INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog,
    fingerprint, origin, snapshot_id, repair_id, decided_by, created_at)
SELECT scale.object_id(m, 'version', r), id, r + 1, c.synced, c.fingerprint,
    CASE r WHEN 0 THEN 'onboard' ELSE 'repair' END, scale.object_id(n, 'snapshot', r),
    CASE WHEN r > 0 THEN scale.object_id(m, 'repair', r) END,
    CASE WHEN r > 0 THEN 'policy' END,
    now() - {past} * (f.revision - r + place) / (f.revision + 1)
FROM scale.fleet f CROSS JOIN LATERAL generate_series(0, f.revision) r
JOIN scale.revisions c ON c.template = f.template AND c.revision = r;

INSERT INTO drifts (id, connection_id, before_snapshot_id, after_snapshot_id, severity,
    affects_sync, changes, first_seen_at)
SELECT scale.object_id(m, 'drift', r), id, scale.object_id(n, 'snapshot', r - 1),
    scale.object_id(n, 'snapshot', r), c.drift->0->>'severity', true, c.drift,
    now() - {past} * (f.revision - r + place) / (f.revision + 1)
FROM scale.fleet f CROSS JOIN LATERAL generate_series(1, f.revision) r
JOIN scale.revisions c ON c.template = f.template AND c.revision = r;

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
    SELECT now() - {past} * (f.revision - r + place) / (f.revision + 1) AS at
) decided
JOIN scale.revisions c ON c.template = f.template AND c.revision = r;

INSERT INTO repairs (id, connection_id, state, drift_id, snapshot_id, base_version, changes,
    created_at, updated_at, expires_at)
SELECT scale.object_id(m, 'open'), id, 'proposed', scale.object_id(m, 'drift', f.revision),
    scale.object_id(n, 'snapshot', f.revision), f.revision + 1, c.repair, at, at,
    at + interval '7 days'
FROM scale.fleet f JOIN scale.revisions c ON c.template = f.template AND c.revision = f.revision
CROSS JOIN LATERAL (SELECT now() - hour * interval '1 day' AS at) proposed
WHERE m % {open_every} = 0;

INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version, started_by,
    attempts, records, bytes, failure_code, started_at, ended_at)
SELECT scale.object_id(m, 'job', d), id, m * {jobs} + d,
    CASE WHEN (m + d) % {failed_every} = 0 THEN 'failed' ELSE 'succeeded' END, 1 + revision,
    'airbyte', 1, 1000 + (m * d) % 5000, 100000 + (m * d) % 500000,
    CASE WHEN (m + d) % {failed_every} = 0 THEN 'system_error' END, at,
    at + (120 + (m * d) % 600) * interval '1 second'
FROM generate_series({jobs}, 1, -1) d CROSS JOIN scale.fleet
CROSS JOIN LATERAL (
    SELECT now() - (d - hour) * {seconds_apart} * interval '1 second' - interval '20 minutes'
        AS at
) started
WHERE d = 1 OR m % {thin} = 0;

INSERT INTO events (event_id, connection_id, seq, type, status, version, at, published_at)
SELECT gen_random_uuid(), id, e,
    CASE e % 2 WHEN 0 THEN 'sync.finished' ELSE 'sync.triggered' END, 'ACTIVE', 1 + revision,
    at, at
FROM generate_series(1, {events}) e CROSS JOIN scale.fleet
CROSS JOIN LATERAL (
    SELECT now() - ({events} - e + hour) * {event_days} * interval '1 day'
        / {events} AS at
) published;

INSERT INTO timeline_events (id, connection_id, type, code, at)
SELECT gen_random_uuid(), id,
    CASE e % 2 WHEN 0 THEN 'observation.recovered' ELSE 'observation.suspicious' END,
    CASE e % 2 WHEN 1 THEN 'upstream_timeout' END,
    now() - (e - hour) * {timeline_days} * interval '1 day' / {rare}
FROM generate_series(1, {rare}) e CROSS JOIN scale.fleet;

INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until, deadline,
    response_status, response, request_id, created_at, updated_at, ended_at)
SELECT gen_random_uuid(), 'sync', id, 'done', '{{}}', 'triggered', at, at, 202, '{{}}',
    'request', at, at, at
FROM generate_series(1, {operations}) o CROSS JOIN scale.fleet
CROSS JOIN LATERAL (
    SELECT now() - (o - hour) * {operation_days} * interval '1 day'
        / {operations} AS at
) ended;

INSERT INTO plans (connection_id, snapshot_id, base_version)
SELECT id, scale.object_id(n, 'snapshot', revision), revision + 1 FROM scale.fleet;

INSERT INTO watches (connection_id, compared_snapshot_id, mappers_version)
SELECT id, scale.object_id(n, 'snapshot', revision), revision + 1 FROM scale.fleet;

-- Of the last two days, as they are kept.
INSERT INTO discoveries (id, airbyte_source_id, purpose, started_at, expires_at, ended_at)
SELECT gen_random_uuid(), id, 'observe', at, at + interval '11 minutes', at + interval '40 seconds'
FROM generate_series(2, 1, -1) d CROSS JOIN scale.sources
CROSS JOIN LATERAL (SELECT now() - (d - place) * interval '1 day' AS at) started;

INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at, started_at,
    observed_at, outcome, snapshot_id, overdue_at)
SELECT id, workspace, now() + place * {interval} * interval '1 second',
    now() - interval '1 hour', now() - interval '1 hour', 'unchanged',
    scale.object_id(n, 'snapshot', revision), now() + interval '2 days'
FROM scale.sources;

-- Their versions are read in turn, once a day: not a part of what is simulated.
INSERT INTO source_connectors (airbyte_source_id, repository, version, known_since,
    support_state, checked_at, next_at)
SELECT id, 'airbyte/source-simulated', '1.2.3', now() - interval '1 year', 'supported', now(),
    now() + interval '1 day'
FROM scale.sources;
-- The same streams and rows in every sync: their size is what matters, and it is compressed.
INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)
SELECT scale.object_id(m, 'job', d), id, now() - (d - hour) * {seconds_apart} * interval '1 second',
    decode('{volumes}', 'hex')
FROM generate_series({volume_rows}, 1, -1) d CROSS JOIN scale.fleet
WHERE d = 1 OR m % {thin} = 0;

-- SECTION from history

INSERT INTO connection_health (connection_id, health, code, reason, since, severity, repair_id,
    overdue_at, last_job_id, last_sync_status, last_sync_started_at, last_sync_ended_at)
SELECT f.id, CASE WHEN r.id IS NULL THEN 'healthy' ELSE 'needs_review' END::health_word,
    CASE WHEN r.id IS NULL THEN 'healthy' ELSE 'needs_review' END, 'One sentence.',
    now() - interval '30 days', r.severity, r.id, now() + interval '2 days', j.id, j.status,
    j.started_at, j.ended_at
FROM scale.fleet f JOIN job_history j ON j.id = scale.object_id(m, 'job', 1)
LEFT JOIN repairs r ON r.connection_id = f.id AND r.state = 'proposed';
