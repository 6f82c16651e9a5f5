"""What the list of repairs shows of each repair's changes: counted when they are written.

A generated column, so that whoever writes changes need not think of it.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE FUNCTION summary_of_changes(changes jsonb) RETURNS jsonb
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


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_FUNCTION)
    op.add_column(
        "repairs",
        sa.Column(
            "summary",
            postgresql.JSONB(),
            sa.Computed("summary_of_changes(changes)", persisted=True),
            nullable=True,
        ),
    )


def downgrade() -> None:
    op.drop_column("repairs", "summary")
    op.execute("DROP FUNCTION summary_of_changes(jsonb)")
