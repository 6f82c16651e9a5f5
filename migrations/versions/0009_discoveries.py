"""Record each discovery of a source: how many there were in a day, and which renewed a token.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "discoveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("airbyte_source_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.Column("is_renewed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("configuration_digest", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "purpose IN ('onboard', 'discover', 'observe', 'check')",
            name=op.f("ck_discoveries_purpose_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_discoveries")),
    )
    op.create_index(
        op.f("ix_discoveries_airbyte_source_id_began_at"),
        "discoveries",
        ["airbyte_source_id", "began_at"],
    )
    op.create_index(op.f("ix_discoveries_began_at"), "discoveries", ["began_at"])
    op.add_column(
        "observations", sa.Column("postponed_since", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("observations", sa.Column("cause", sa.Text(), nullable=True))
    op.add_column("observations", sa.Column("explanation", sa.Text(), nullable=True))
    op.add_column("observations", sa.Column("log_reference", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("observations", "log_reference")
    op.drop_column("observations", "explanation")
    op.drop_column("observations", "cause")
    op.drop_column("observations", "postponed_since")
    op.drop_table("discoveries")
