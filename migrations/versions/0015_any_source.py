"""Record each source's definition and configuration without secrets, and trials of sources.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("connections", sa.Column("source_definition_id", sa.Uuid(), nullable=True))
    op.add_column(
        "connections", sa.Column("source_configuration", postgresql.JSONB(), nullable=True)
    )
    op.create_table(
        "source_trials",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("is_left", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint(
            "purpose IN ('check', 'preview')", name=op.f("ck_source_trials_purpose_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source_trials")),
    )
    op.create_index(
        "ix_source_trials_account_started_at", "source_trials", ["account", "started_at"]
    )
    op.create_index("ix_source_trials_started_at", "source_trials", ["started_at"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("source_trials")
    op.drop_column("connections", "source_configuration")
    op.drop_column("connections", "source_definition_id")
