"""What the pruning of history looks for and checks by index, and how many streams a version has.

Of existing versions the count is computed as the column is added, which rewrites their table.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Columns of what refers to a row that may be pruned: without an index each row pruned is a scan.
_REFERENCES = (
    ("connections", "paused_by"),
    ("drifts", "after_snapshot_id"),
    ("drifts", "before_snapshot_id"),
    ("observations", "snapshot_id"),
    ("plans", "snapshot_id"),
    ("repairs", "drift_id"),
    ("repairs", "parent_id"),
    ("repairs", "snapshot_id"),
    ("repairs", "superseded_by"),
    ("sync_catalog_versions", "repair_id"),
    ("sync_catalog_versions", "snapshot_id"),
    ("watches", "compared_snapshot_id"),
    ("webhook_deliveries", "repair_id"),
)
_ENDS = ("job_history", "operations", "repairs", "webhook_deliveries")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "sync_catalog_versions",
        sa.Column(
            "stream_count",
            sa.Integer(),
            sa.Computed("jsonb_array_length(sync_catalog->'streams')", persisted=True),
            nullable=True,
        ),
    )
    for table, column in _REFERENCES:
        op.create_index(
            f"ix_{table}_{column}",
            table,
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    for table in _ENDS:
        op.create_index(
            f"ix_{table}_ended_at",
            table,
            ["ended_at"],
            postgresql_where=sa.text("ended_at IS NOT NULL"),
        )
    op.create_index("ix_snapshots_taken_at", "snapshots", ["taken_at"])
    op.create_index("ix_stream_schemas_created_at", "stream_schemas", ["created_at"])
    op.create_index("ix_credential_audit_at", "credential_audit", ["at"])


def downgrade() -> None:
    op.drop_index("ix_credential_audit_at", "credential_audit")
    op.drop_index("ix_stream_schemas_created_at", "stream_schemas")
    op.drop_index("ix_snapshots_taken_at", "snapshots")
    for table in _ENDS:
        op.drop_index(f"ix_{table}_ended_at", table)
    for table, column in _REFERENCES:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_column("sync_catalog_versions", "stream_count")
