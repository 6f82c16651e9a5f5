"""Name tables and columns by the glossary: requested_by, in_flight_until, periodic_runs.

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
    ("operations", "asked_by", "requested_by"),
    ("operations", "quiet_at", "in_flight_until"),
    ("operations", "answer_status", "response_status"),
    ("operations", "answer", "response"),
    ("sync_catalog_versions", "asked_by", "requested_by"),
    ("job_history", "asked_by", "requested_by"),
    ("observations", "is_believed", "accepts_missing"),
)
_RENAME_MEMBER = """
    UPDATE {table} SET {column} = replace({column}::text, '"{old}":', '"{new}":')::jsonb
    WHERE {column}::text LIKE '%"{old}":%'
"""
"""Renames a member of JSON objects; in a string, its quotes would be escaped."""
_MEMBERS = (
    ("operations", "request", "asked_by", "requested_by"),
    ("repairs", "decisions", "asked_by", "requested_by"),
    ("repairs", "changes", "asked_by", "requested_by"),
    ("setting_changes", "change", "believe", "accept_missing"),
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, column, old, new in _MEMBERS:
        op.execute(_RENAME_MEMBER.format(table=table, column=column, old=old, new=new))
    op.rename_table("looks", "periodic_runs")
    op.execute("ALTER INDEX pk_looks RENAME TO pk_periodic_runs")
    for table, old, new in _COLUMNS:
        op.alter_column(table, old, new_column_name=new)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, old, new in _COLUMNS:
        op.alter_column(table, new, new_column_name=old)
    op.execute("ALTER INDEX pk_periodic_runs RENAME TO pk_looks")
    op.rename_table("periodic_runs", "looks")
    for table, column, old, new in _MEMBERS:
        op.execute(_RENAME_MEMBER.format(table=table, column=column, old=new, new=old))
