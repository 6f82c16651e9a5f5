"""Credentials that heal: their last versions, what connections have of them, follow-ups of syncs.

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_FOLLOW_UP = "ck_job_history_follow_up_known"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "credential_versions",
        sa.Column("credential_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("compare_again_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("announced_expiry", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_credential_versions")),
    )
    when = sa.DateTime(timezone=True)
    op.add_column("connections", sa.Column("credential_changed_at", when, nullable=True))
    op.add_column("connections", sa.Column("credential_rejected_since", when, nullable=True))
    op.add_column("connections", sa.Column("credential_rejected_cause", sa.Text(), nullable=True))
    op.create_index(
        "ix_connections_credential_rejected_since",
        "connections",
        ["credential_rejected_since"],
        postgresql_where=sa.text("credential_rejected_since IS NOT NULL"),
    )
    op.add_column("job_history", sa.Column("follow_up", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f(_FOLLOW_UP),
        "job_history",
        "follow_up IN ('due', 'observed', 'retried', 'rejected', 'skipped')",
    )
    op.create_index(
        "ix_job_history_follow_up_due",
        "job_history",
        ["ended_at"],
        postgresql_where=sa.text("follow_up = 'due'"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_job_history_follow_up_due", table_name="job_history")
    op.drop_constraint(op.f(_FOLLOW_UP), "job_history")
    op.drop_column("job_history", "follow_up")
    op.drop_index("ix_connections_credential_rejected_since", table_name="connections")
    op.drop_column("connections", "credential_rejected_cause")
    op.drop_column("connections", "credential_rejected_since")
    op.drop_column("connections", "credential_changed_at")
    op.drop_table("credential_versions")
