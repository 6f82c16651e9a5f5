"""Syncs that run again after a heal, and events that webhooks are still to be notified of.

Revision ID: 0030
Revises: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_FOLLOW_UP = "ck_job_history_follow_up_known"
_FOLLOW_UPS = ("due", "observed", "retried", "rejected", "skipped")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _allow(*_FOLLOW_UPS, "awaits_heal", "synced")
    op.create_index(
        "ix_job_history_awaits_heal",
        "job_history",
        ["ended_at"],
        postgresql_where=sa.text("follow_up = 'awaits_heal'"),
    )
    op.add_column(
        "timeline_events",
        sa.Column("to_notify", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_index(
        "ix_timeline_events_to_notify",
        "timeline_events",
        ["at"],
        postgresql_where=sa.text("to_notify"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("timeline_events", "to_notify")
    op.drop_index("ix_job_history_awaits_heal", table_name="job_history")
    op.execute(
        "UPDATE job_history SET follow_up = 'observed' WHERE follow_up IN ('awaits_heal', 'synced')"
    )
    _allow(*_FOLLOW_UPS)


def _allow(*values: str) -> None:
    known = ", ".join(f"'{value}'" for value in values)
    op.drop_constraint(op.f(_FOLLOW_UP), "job_history")
    op.create_check_constraint(op.f(_FOLLOW_UP), "job_history", f"follow_up IN ({known})")
