"""Saved states: encrypted, of every change, and with the reason if none was saved.

States that were saved before upgrades until now are not encrypted; they are deleted.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DELETE FROM stream_states")
    op.alter_column("stream_states", "state", nullable=True)
    op.add_column("stream_states", sa.Column("kind", sa.Text(), nullable=False))
    op.add_column("stream_states", sa.Column("not_saved", sa.Text(), nullable=True))
    op.add_column("stream_states", sa.Column("airbyte_job_id", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_stream_states_kind_known"),
        "stream_states",
        "kind IN ('heal', 'rollback', 'pause', 'upgrade')",
    )
    op.create_check_constraint(
        op.f("ck_stream_states_saved_or_reason"),
        "stream_states",
        "(state IS NULL) = (not_saved IS NOT NULL)",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DELETE FROM stream_states")
    op.drop_constraint(op.f("ck_stream_states_saved_or_reason"), "stream_states")
    op.drop_constraint(op.f("ck_stream_states_kind_known"), "stream_states")
    op.drop_column("stream_states", "airbyte_job_id")
    op.drop_column("stream_states", "not_saved")
    op.drop_column("stream_states", "kind")
    op.alter_column("stream_states", "state", nullable=False)
