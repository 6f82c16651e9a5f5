"""The health of each connection, as a projection of what the other tables hold.

Also the severity of each repair, and more counts of its changes, as generated columns (see 0012):
health, lists and their filters read them.

The statement that fills it is as the application was at this revision; later releases derive more,
or otherwise, and rebuild it.

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_WORDS = postgresql.ENUM(
    *("failed", "paused_by_repair", "paused", "needs_review", "differs", "sync_failing"),
    *("suspicious", "overdue", "healing", "syncing", "healthy", "archived"),
    name="health_word",
    create_type=False,
)

_SUMMARY = """
    CREATE OR REPLACE FUNCTION summary_of_changes(changes jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $summary$
        WITH one AS (
            SELECT change->>'kind' AS kind, change->>'reaction' AS reaction,
                change->>'severity' AS severity, change, n
            FROM jsonb_array_elements(changes) WITH ORDINALITY listed (change, n)
        )
        SELECT jsonb_build_object(
            'change_count', jsonb_array_length(changes),
            'decided_count', (
                SELECT count(*) FROM one WHERE jsonb_typeof(change->'decision') = 'object'
            ),
            'by_kind', coalesce((
                SELECT jsonb_object_agg(kind, count) FROM (
                    SELECT kind, count(*) FROM one WHERE kind IS NOT NULL GROUP BY kind
                ) kinds
            ), '{}'),
            'by_reaction', coalesce((
                SELECT jsonb_object_agg(reaction, count) FROM (
                    SELECT reaction, count(*) FROM one WHERE reaction IS NOT NULL GROUP BY reaction
                ) reactions
            ), '{}'),
            'by_severity', coalesce((
                SELECT jsonb_object_agg(severity, count) FROM (
                    SELECT severity, count(*) FROM one WHERE severity IS NOT NULL GROUP BY severity
                ) severities
            ), '{}'),
            'first_changes', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'id', change->'id', 'kind', change->'kind', 'stream', change->'stream',
                    'path', change->'path', 'severity', change->'severity'
                ) ORDER BY n)
                FROM one WHERE n <= 3
            ), '[]'),
            'suggestions_missing',
                jsonb_path_exists(changes, '$[*] ? (@.suggestion_missing == true)')
        )
    $summary$
"""
_SEVERITY = """
    CREATE FUNCTION severity_of_changes(changes jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $severity$
        SELECT CASE
            WHEN jsonb_path_exists(changes, '$[*] ? (@.severity == "breaking")') THEN 'breaking'
            WHEN jsonb_path_exists(changes, '$[*] ? (@.severity == "needs_review")')
                THEN 'needs_review'
            WHEN jsonb_path_exists(changes, '$[*] ? (@.severity == "harmless")') THEN 'harmless'
        END
    $severity$
"""
_REWRITE = """
    ALTER TABLE repairs DROP COLUMN summary,
        ADD COLUMN summary jsonb GENERATED ALWAYS AS (summary_of_changes(changes)) STORED
"""
# As in 0012, for the downgrade: a revision does not import another, since each is frozen.
_FORMER_SUMMARY = """
    CREATE OR REPLACE FUNCTION summary_of_changes(changes jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $summary$
        WITH one AS (
            SELECT change->>'kind' AS kind, change->>'reaction' AS reaction, change, n
            FROM jsonb_array_elements(changes) WITH ORDINALITY listed (change, n)
        )
        SELECT jsonb_build_object(
            'change_count', jsonb_array_length(changes),
            'by_kind', coalesce((
                SELECT jsonb_object_agg(kind, count) FROM (
                    SELECT kind, count(*) FROM one WHERE kind IS NOT NULL GROUP BY kind
                ) kinds
            ), '{}'),
            'by_reaction', coalesce((
                SELECT jsonb_object_agg(reaction, count) FROM (
                    SELECT reaction, count(*) FROM one WHERE reaction IS NOT NULL GROUP BY reaction
                ) reactions
            ), '{}'),
            'first_changes', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'id', change->'id', 'kind', change->'kind', 'stream', change->'stream',
                    'path', change->'path'
                ) ORDER BY n)
                FROM one WHERE n <= 3
            ), '[]'),
            'suggestions_missing',
                jsonb_path_exists(changes, '$[*] ? (@.suggestion_missing == true)')
        )
    $summary$
"""

_FILL = """
    WITH waiting AS (
        SELECT r.id, r.connection_id, r.created_at, r.severity, n.total, n.breaking,
            CASE n.total WHEN 1 THEN '1 change waits for review'
                ELSE n.total || ' changes wait for review' END
            || CASE WHEN n.breaking = 1 THEN ', 1 is breaking'
                WHEN n.breaking > 1 THEN ', ' || n.breaking || ' are breaking' ELSE '' END
            || '.' AS reason
        FROM repairs r CROSS JOIN LATERAL (
            SELECT coalesce(CAST(s.counts->>'breaking' AS integer), 0) AS breaking,
                coalesce((
                    SELECT sum(CAST(value AS integer)) FROM jsonb_each_text(s.counts)
                ), 0) AS total
            FROM (SELECT r.summary->'by_severity' AS counts) s
        ) n WHERE r.state = 'proposed'
    )
    INSERT INTO connection_health (
        connection_id, health, code, reason, since, severity, repair_id, overdue_at, last_job_id,
        last_sync_status, last_sync_started_at, last_sync_ended_at, failed_syncs
    )
    SELECT c.id, CAST(v.health AS health_word), v.code, v.reason, coalesce(v.since, c.updated_at),
        v.severity, v.repair_id, CASE WHEN c.is_observed THEN o.overdue_at END,
        last.id, last.status, last.started_at, last.ended_at, failed.count
    FROM (
        SELECT *, archived_at IS NULL AND status IN ('ACTIVE', 'HEALING') AS is_observed
        FROM connections
    ) c
    LEFT JOIN waiting w ON w.connection_id = c.id
    LEFT JOIN repairs u ON u.connection_id = c.id
        AND u.state IN ('approved', 'applying', 'verifying', 'rolling_back')
    LEFT JOIN observations o ON o.airbyte_source_id = c.airbyte_source_id
    LEFT JOIN LATERAL (
        SELECT * FROM job_history j WHERE j.connection_id = c.id
        ORDER BY j.started_at DESC, j.id DESC LIMIT 1
    ) last ON true
    CROSS JOIN LATERAL (
        SELECT CAST(count(*) AS integer) AS count,
            (array_agg(coalesce(f.failure_code, f.status) ORDER BY f.n))[1] AS code,
            (array_agg(f.ended_at ORDER BY f.n DESC))[1] AS since
        FROM (
            SELECT *, bool_or(status = 'succeeded' AND ended_at IS NOT NULL)
                OVER (ORDER BY n) AS is_past
            FROM (
                SELECT j.*, row_number() OVER (ORDER BY j.started_at DESC, j.id DESC) AS n
                FROM job_history j WHERE j.connection_id = c.id
                ORDER BY j.started_at DESC, j.id DESC LIMIT 10
            ) newest
        ) f WHERE NOT f.is_past AND f.ended_at IS NOT NULL AND f.status <> 'cancelled'
    ) failed
    LEFT JOIN LATERAL (
        SELECT j.started_at FROM (
            SELECT * FROM job_history j WHERE j.connection_id = c.id
            ORDER BY j.started_at DESC, j.id DESC LIMIT 10
        ) j WHERE j.ended_at IS NULL ORDER BY j.started_at DESC, j.id DESC LIMIT 1
    ) running ON true
    CROSS JOIN LATERAL (
        SELECT 0 AS n, 'archived' AS health, 'archived' AS code, 'It is archived.' AS reason,
            c.archived_at AS since, CAST(NULL AS text) AS severity, CAST(NULL AS uuid) AS repair_id
        WHERE c.archived_at IS NOT NULL
        UNION ALL
        SELECT 1, 'failed', coalesce(nullif(c.failure_code, ''), 'failed'), coalesce(
            nullif(c.failure_detail, ''),
            'It failed: ' || coalesce(nullif(c.failure_code, ''), 'failed') || '.'
        ), NULL, NULL, NULL
        WHERE c.status = 'FAILED'
        UNION ALL
        SELECT 2, 'paused_by_repair', 'paused_by_repair',
            coalesce(w.reason, CASE
                WHEN u.id IS NULL THEN 'A repair paused it, which has ended without resuming it.'
                ELSE 'A repair paused it, which is being carried out.'
            END), w.created_at, w.severity, c.paused_by
        FROM (SELECT) one LEFT JOIN waiting w ON w.id = c.paused_by
        WHERE c.paused_by IS NOT NULL
        UNION ALL
        SELECT 3, 'paused', 'paused_by_person', c.pause_requested_by || ' paused it.', NULL, NULL,
            NULL
        WHERE c.pause_requested_by IS NOT NULL
        UNION ALL
        SELECT 4, 'needs_review', 'repair_proposed', w.reason, w.created_at, w.severity, w.id
        WHERE w.id IS NOT NULL
        UNION ALL
        SELECT 5, 'differs', c.upstream_code, CASE c.upstream_code
            WHEN 'upstream_missing' THEN 'Airbyte does not have the connection any more.'
            WHEN 'catalog_differs' THEN 'Airbyte holds another catalog than AAM applied.'
            WHEN 'breaking_change' THEN 'Airbyte disabled it because of a breaking schema change.'
            WHEN 'paused' THEN 'It was paused in Airbyte, not by AAM.'
            WHEN 'resumed'
                THEN 'It was resumed in Airbyte, although a person paused it in AAM.'
            WHEN 'locked' THEN 'Airbyte locked it.'
            WHEN 'status_unknown' THEN 'Airbyte reports a status that AAM does not know.'
            ELSE 'Airbyte''s connection differs: ' || c.upstream_code || '.'
        END, c.drifted_upstream_at, NULL, NULL
        WHERE c.upstream_code IS NOT NULL
        UNION ALL
        SELECT 6, 'sync_failing', 'credential_rejected', 'The source rejects its credential.',
            c.credential_rejected_since, NULL, NULL
        WHERE c.credential_rejected_since IS NOT NULL
        UNION ALL
        SELECT 7, 'sync_failing', failed.code, CASE failed.count
            WHEN 1 THEN 'The last sync failed: ' || failed.code || '.'
            ELSE failed.count || CASE failed.count WHEN 10 THEN ' or more' ELSE '' END
                || ' syncs in a row failed, the last one: ' || failed.code || '.'
        END, failed.since, NULL, NULL
        WHERE failed.count > 0
        UNION ALL
        SELECT 8, 'suspicious', coalesce(nullif(o.code, ''), 'suspicious'),
            coalesce(nullif(o.detail, ''), 'The last discovery of its source was implausible.'),
            o.suspicious_since, NULL, NULL
        WHERE c.is_observed AND o.outcome = 'suspicious'
        UNION ALL
        SELECT 9, 'overdue', coalesce(nullif(o.code, ''), 'failed'),
            coalesce(nullif(o.detail, ''), 'The last observation of its source failed.'),
            o.suspicious_since, NULL, NULL
        WHERE c.is_observed AND o.outcome = 'failed' AND o.suspicious_since IS NOT NULL
        UNION ALL
        SELECT 10, 'healing', u.state, CASE u.state
            WHEN 'approved' THEN 'A repair is approved, and waits until the connection is free.'
            WHEN 'applying' THEN 'A repair is being applied.'
            WHEN 'verifying' THEN 'A repair is applied, and being verified by a sync.'
            ELSE 'A repair''s sync failed, and the previous catalog is being restored.'
        END, c.healing_since, NULL, u.id
        WHERE u.id IS NOT NULL
        UNION ALL
        SELECT 11, 'healing', 'healing', 'A catalog is being applied in Airbyte.',
            c.healing_since, NULL, NULL
        WHERE c.status = 'HEALING'
        UNION ALL
        SELECT 12, 'healing', 'onboarding', 'It is being onboarded.', NULL, NULL, NULL
        WHERE c.status = 'PENDING'
        UNION ALL
        SELECT 13, 'syncing', 'sync_running', 'A sync is running.', running.started_at, NULL, NULL
        WHERE running.started_at IS NOT NULL
        UNION ALL
        SELECT 14, 'healthy', 'healthy', 'Nothing needs attention.', NULL, NULL, NULL
        ORDER BY n LIMIT 1
    ) v
"""

_INDEXES: tuple[tuple[str, list[str | sa.TextClause], str | None], ...] = (
    ("ix_connections_lower_name_id", [sa.text("lower(name)"), "id"], None),
    ("ix_connections_source_type_created_at_id", ["source_type", "created_at", "id"], None),
    ("ix_connections_credential_id", ["credential_id"], None),
    ("ix_connections_upstream_code", ["upstream_code"], "upstream_code IS NOT NULL"),
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    when, now = sa.DateTime(timezone=True), sa.text("now()")
    op.execute(_SUMMARY)
    op.execute(_SEVERITY)
    # One statement, so that the table is rewritten once.
    op.execute(
        f"{_REWRITE}, ADD COLUMN severity text"
        " GENERATED ALWAYS AS (severity_of_changes(changes)) STORED"
    )
    op.execute(
        "CREATE INDEX ix_repairs_proposed_severity ON repairs (severity, created_at, id)"
        " WHERE state = 'proposed'"
    )
    op.add_column(
        "observations",
        sa.Column(
            "overdue_at", when, nullable=False, server_default=sa.text("now() + interval '1 day'")
        ),
    )
    for name, columns, where in _INDEXES:
        op.create_index(
            name,
            "connections",
            columns,
            postgresql_where=None if where is None else sa.text(where),
        )
    op.create_index(
        "ix_connections_labels",
        "connections",
        ["labels"],
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
    )
    _WORDS.create(op.get_bind())
    op.create_table(
        "connection_health",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("health", _WORDS, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", when, nullable=False),
        sa.Column("severity", sa.Text(), nullable=True),
        sa.Column("repair_id", sa.Uuid(), nullable=True),
        sa.Column("overdue_at", when, nullable=True),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        sa.Column("last_sync_status", sa.Text(), nullable=True),
        sa.Column("last_sync_started_at", when, nullable=True),
        sa.Column("last_sync_ended_at", when, nullable=True),
        sa.Column("failed_syncs", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("updated_at", when, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("connection_id", name="pk_connection_health"),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.id"],
            name="fk_connection_health_connection_id",
        ),
    )
    op.create_index(
        "ix_connection_health_health_since_connection_id",
        "connection_health",
        ["health", "since", "connection_id"],
    )
    op.create_index(
        "ix_connection_health_overdue_at",
        "connection_health",
        ["overdue_at", "connection_id"],
        postgresql_where=sa.text("health IN ('healing', 'syncing', 'healthy')"),
    )
    op.execute(_FILL)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("connection_health")
    _WORDS.drop(op.get_bind())
    op.drop_index("ix_connections_labels", "connections")
    for name, _, _ in _INDEXES:
        op.drop_index(name, "connections")
    op.drop_column("observations", "overdue_at")
    op.execute(_FORMER_SUMMARY)
    op.execute(f"{_REWRITE}, DROP COLUMN severity")
    op.execute("DROP FUNCTION severity_of_changes(jsonb)")
