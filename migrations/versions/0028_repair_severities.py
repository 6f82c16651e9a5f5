"""The severity of each repair, and more counts of its changes, for lists and their filters.

Generated columns, as in 0012. One statement, so that the table is rewritten once.

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

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
_INDEX = "ix_repairs_proposed_severity"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_SUMMARY)
    op.execute(_SEVERITY)
    op.execute(
        f"{_REWRITE}, ADD COLUMN severity text"
        " GENERATED ALWAYS AS (severity_of_changes(changes)) STORED"
    )
    op.execute(
        f"CREATE INDEX {_INDEX} ON repairs (severity, created_at, id) WHERE state = 'proposed'"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_FORMER_SUMMARY)
    op.execute(f"{_REWRITE}, DROP COLUMN severity")
    op.execute("DROP FUNCTION severity_of_changes(jsonb)")
