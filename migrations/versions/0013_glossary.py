"""Name tables, columns and members of stored JSON by the glossary in docs/architecture.md.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("discoveries", "began_at", "started_at"),
    ("drifts", "concerns", "affects_sync"),
    ("job_history", "asked_by", "requested_by"),
    ("knowledge", "why", "reason"),
    ("observations", "began_at", "started_at"),
    ("observations", "is_believed", "accepts_missing"),
    ("operations", "answer", "response"),
    ("operations", "answer_status", "response_status"),
    ("operations", "asked_by", "requested_by"),
    ("operations", "quiet_at", "in_flight_until"),
    ("repairs", "learn_tries", "learn_attempts"),
    ("repairs", "tries", "attempts"),
    ("sync_catalog_versions", "asked_by", "requested_by"),
)
_INDEXES = (
    ("ix_discoveries_airbyte_source_id_began_at", "ix_discoveries_airbyte_source_id_started_at"),
    ("ix_discoveries_began_at", "ix_discoveries_started_at"),
    ("pk_looks", "pk_periodic_runs"),
)
_MEMBERS = (
    ("drifts", "changes", "concerns", "affects_sync"),
    ("operations", "request", "asked_by", "requested_by"),
    ("repairs", "changes", "asked_by", "requested_by"),
    ("repairs", "changes", "concerns", "affects_sync"),
    ("repairs", "decisions", "asked_by", "requested_by"),
    ("repairs", "decisions", "why", "reason"),
    ("setting_changes", "change", "believe", "accept_missing"),
)
# The colon after the quote: only a member's name is followed by it, in text the quote is escaped.
_RENAME_MEMBER = """
    UPDATE {table} SET {column} = replace({column}::text, '"{old}":', '"{new}":')::jsonb
    WHERE {column}::text LIKE '%"{old}":%'
"""

# Changes have a `reason` of their own, beside that of the decision.
_RENAME_IN_DECISION = """
    UPDATE repairs SET changes = (
        SELECT jsonb_agg(
            CASE WHEN change #> '{{decision,{old}}}' IS NULL THEN change ELSE jsonb_set(
                change #- '{{decision,{old}}}', '{{decision,{new}}}', change #> '{{decision,{old}}}'
            ) END ORDER BY position
        ) FROM jsonb_array_elements(changes) WITH ORDINALITY listed (change, position)
    ) WHERE jsonb_path_exists(changes, '$[*].decision.{old}')
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, column, old, new in _MEMBERS:
        op.execute(_RENAME_MEMBER.format(table=table, column=column, old=old, new=new))
    op.execute(_RENAME_IN_DECISION.format(old="why", new="reason"))
    op.rename_table("looks", "periodic_runs")
    for table, old, new in _COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for old, new in _INDEXES:
        op.execute(f"ALTER INDEX {old} RENAME TO {new}")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for old, new in _INDEXES:
        op.execute(f"ALTER INDEX {new} RENAME TO {old}")
    for table, old, new in _COLUMNS:
        op.alter_column(table, new, new_column_name=old)
    op.rename_table("periodic_runs", "looks")
    for table, column, old, new in _MEMBERS:
        op.execute(_RENAME_MEMBER.format(table=table, column=column, old=new, new=old))
    op.execute(_RENAME_IN_DECISION.format(old="reason", new="why"))
