"""Settings of connections that people change: labels, a description, who paused it, a history.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_SUBJECT = "ck_setting_changes_subject_known"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("connections", sa.Column("pause_requested_by", sa.Text(), nullable=True))
    op.add_column("connections", sa.Column("unpaused_repair_id", sa.Uuid(), nullable=True))
    op.add_column("connections", sa.Column("description", sa.Text(), nullable=True))
    op.add_column(
        "connections",
        sa.Column("labels", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.drop_constraint(op.f(_SUBJECT), "setting_changes")
    op.create_check_constraint(
        op.f(_SUBJECT),
        "setting_changes",
        "subject IN ('policy', 'observation', 'webhook', 'connection')",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DELETE FROM setting_changes WHERE subject = 'connection'")
    op.drop_constraint(op.f(_SUBJECT), "setting_changes")
    op.create_check_constraint(
        op.f(_SUBJECT), "setting_changes", "subject IN ('policy', 'observation', 'webhook')"
    )
    op.drop_column("connections", "labels")
    op.drop_column("connections", "description")
    op.drop_column("connections", "unpaused_repair_id")
    op.drop_column("connections", "pause_requested_by")
