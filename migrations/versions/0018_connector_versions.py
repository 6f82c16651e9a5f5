"""The version of a source's connector: on snapshots, on drifts, and with its deadlines.

Snapshots and drifts that are older than this have none.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "source_connectors",
        sa.Column("airbyte_source_id", sa.Uuid(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("manifest_version", sa.BigInteger(), nullable=True),
        sa.Column("known_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("support_state", sa.Text(), nullable=True),
        sa.Column("is_pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("upcoming", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("guides", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("deadline", sa.Date(), nullable=True),
        sa.Column("announced_deadline", sa.Date(), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("airbyte_source_id", name="pk_source_connectors"),
    )
    op.create_index("ix_source_connectors_next_at", "source_connectors", ["next_at"])
    op.create_index(
        "ix_source_connectors_deadline",
        "source_connectors",
        ["deadline"],
        postgresql_where=sa.text("deadline IS NOT NULL"),
    )
    op.create_table(
        "stream_states",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("catalog_version", sa.Integer(), nullable=False),
        sa.Column("connector_version", sa.Text(), nullable=True),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column(
            "saved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name="fk_stream_states_connection_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_stream_states"),
        sa.UniqueConstraint("operation_id", name="uq_stream_states_operation_id"),
    )
    op.create_index(
        "ix_stream_states_connection_id_saved_at", "stream_states", ["connection_id", "saved_at"]
    )
    op.create_index("ix_stream_states_saved_at", "stream_states", ["saved_at"])
    op.add_column("snapshots", sa.Column("connector_version", sa.Text(), nullable=True))
    op.add_column("snapshots", sa.Column("manifest_version", sa.BigInteger(), nullable=True))
    op.add_column("drifts", sa.Column("connector_step", postgresql.JSONB(), nullable=True))
    op.add_column("repairs", sa.Column("connector_step", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("repairs", "connector_step")
    op.drop_column("drifts", "connector_step")
    op.drop_column("snapshots", "manifest_version")
    op.drop_column("snapshots", "connector_version")
    op.drop_table("stream_states")
    op.drop_table("source_connectors")
