"""How many rows each sync of a stream brought.

Syncs that ended before this have none.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "stream_volumes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("stream_namespace", sa.Text(), nullable=False),
        sa.Column("stream_name", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_full_refresh", sa.Boolean(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("is_pending", sa.Boolean(), nullable=False),
        sa.Column("usual_low", sa.BigInteger(), nullable=True),
        sa.Column("usual_high", sa.BigInteger(), nullable=True),
        sa.Column("suspicious_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspicious_version", sa.Integer(), nullable=True),
        sa.Column("usual_since", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.id"],
            name="fk_stream_volumes_connection_id",
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "stream_namespace", "stream_name", name="pk_stream_volumes"
        ),
    )
    op.create_index(
        "ix_stream_volumes_stream_ended_at",
        "stream_volumes",
        ["connection_id", "stream_name", "stream_namespace", "ended_at"],
    )
    op.create_index("ix_stream_volumes_ended_at", "stream_volumes", ["ended_at"])
    op.create_index(
        "ix_stream_volumes_suspicious",
        "stream_volumes",
        ["job_id"],
        postgresql_where=sa.text("suspicious_since IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("stream_volumes")
