"""Count a rename as one change in the summaries of repairs, and name both halves.

The function of the generated columns `repairs.summary` and `drifts.summary` is replaced; rows that
have a rename are written again. A drift knows no rename: its summary has digests of what was added
and removed, which the renames of its repairs are compared with.

Revision ID: 0031
Revises: 0030
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

# A removed field or stream is a rename if a decision names what it became; while it is undecided,
# or both halves are to stay as they are, if an approval would take the suggestion. The other half
# is then no change of its own.
_SUMMARY = """
    CREATE OR REPLACE FUNCTION summary_of_changes(changes jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $summary$
        WITH listed AS (
            SELECT change->>'kind' AS kind, change, n,
                coalesce(change->'decision'->>'action', '') AS action,
                jsonb_build_array(
                    change->'kind', coalesce(change->'stream'->'namespace', 'null'),
                    change->'stream'->'name', coalesce(change->'path', '[]')
                ) AS place
            FROM jsonb_array_elements(changes) WITH ORDINALITY listed (change, n)
        ), gone AS (
            SELECT *, CASE WHEN action NOT IN ('', 'keep') THEN change->'decision'->'became'
                WHEN change->'suggestion'->'taken_by_approve' = 'true'
                    AND change->>'pair' IS NOT NULL THEN change->'suggestion'->'became'
                END AS became
            FROM listed WHERE kind IN ('field_removed', 'stream_removed')
        ), named AS (
            SELECT *, CASE kind WHEN 'field_removed'
                THEN jsonb_build_array('field_added', place->1, place->2, became)
                ELSE jsonb_build_array('stream_added', place->1, became->-1, '[]'::jsonb)
                END AS new_place
            FROM gone WHERE jsonb_typeof(became) = 'array'
        ), renamed AS (
            SELECT named.n, named.change, named.became, new.n AS new_n,
                new.change->'id' AS pair, replace(named.kind, 'removed', 'renamed') AS kind,
                named.place, named.new_place
            FROM named LEFT JOIN listed new ON new.place = named.new_place
            WHERE named.action NOT IN ('', 'keep') OR new.action = named.action
        ), one AS (
            SELECT coalesce(r.kind, l.kind) AS kind, l.change, l.n, r.became,
                l.change->>'reaction' AS reaction, l.change->>'severity' AS severity,
                row_number() OVER (ORDER BY l.n) AS position
            FROM listed l LEFT JOIN renamed r ON r.n = l.n
            WHERE NOT EXISTS (SELECT FROM renamed half WHERE half.new_n = l.n)
        )
        SELECT jsonb_build_object(
            'change_count', (SELECT count(*) FROM one),
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
                    'id', change->'id', 'kind', kind, 'stream', change->'stream',
                    'path', change->'path', 'severity', change->'severity'
                ) || CASE WHEN became IS NULL THEN '{}'
                    ELSE jsonb_build_object('became', became) END ORDER BY n)
                FROM one WHERE position <= 3
            ), '[]'),
            'renames', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'id', change->'id', 'pair', pair, 'kind', kind, 'stream', change->'stream',
                    'path', change->'path', 'became', became,
                    'halves', jsonb_build_array(
                        encode(sha256(convert_to(place::text, 'UTF8')), 'hex'),
                        encode(sha256(convert_to(new_place::text, 'UTF8')), 'hex')
                    )
                ) ORDER BY n)
                FROM renamed
            ), '[]'),
            'halves', coalesce((
                SELECT jsonb_agg(encode(sha256(convert_to(place::text, 'UTF8')), 'hex') ORDER BY n)
                FROM listed WHERE kind ~ '_(added|removed)$' AND jsonb_array_length(changes) <= 1000
            ), '[]'),
            'suggestions_missing',
                jsonb_path_exists(changes, '$[*] ? (@.suggestion_missing == true)')
        )
    $summary$
"""
# As in 0026, for the downgrade: a revision does not import another, since each is frozen.
_FORMER_SUMMARY = """
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
_REWRITE_DRIFTS = """
    UPDATE drifts SET changes = changes WHERE id IN (
        SELECT drift_id FROM repairs WHERE jsonb_path_exists(
            changes,
            '$[*] ? (@.suggestion.taken_by_approve == true || @.decision.became != null)'
        )
    )
"""
_REWRITE = """
    UPDATE repairs SET changes = changes WHERE jsonb_path_exists(
        changes, '$[*] ? (@.suggestion.taken_by_approve == true || @.decision.became != null)'
    )
"""


def upgrade() -> None:
    """Apply the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_SUMMARY)
    op.execute(_REWRITE)
    op.execute(_REWRITE_DRIFTS)


def downgrade() -> None:
    """Revert the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(_FORMER_SUMMARY)
    op.execute(_REWRITE)
    op.execute(_REWRITE_DRIFTS)
