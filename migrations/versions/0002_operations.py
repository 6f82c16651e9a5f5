"""Operations: what was begun, how far it is, and who has it.

Connections tell whether AAM made what they stand on, and when Airbyte was found to hold something
else than the head; jobs tell who started them; and of each repeated look it is known when the next one
is due, and how far the last one saw.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OPEN = sa.text("status IN ('running', 'undoing')")
_NOW = sa.text("now()")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.Column("steps", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("step_since", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("quiet_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("waits_for", sa.Text(), nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("failure", postgresql.JSONB(), nullable=True),
        sa.Column("answer_status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("caller", sa.Text(), nullable=True),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'undoing', 'done', 'failed')",
            name=op.f("ck_operations_status_known"),
        ),
        sa.CheckConstraint(
            "(status IN ('done', 'failed')) = (ended_at IS NOT NULL)",
            name=op.f("ck_operations_ended_or_open"),
        ),
        # Deferred: the intent comes first, and the connection it makes in the same transaction.
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.id"],
            name=op.f("fk_operations_connection_id"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    # A catalog of megabytes that lives for seconds is not worth compressing.
    op.execute("ALTER TABLE operations ALTER COLUMN document SET STORAGE EXTERNAL")
    op.create_index(
        "uq_operations_open_connection",
        "operations",
        ["connection_id"],
        unique=True,
        postgresql_where=_OPEN,
    )
    op.create_index(
        "uq_operations_idempotency_key",
        "operations",
        ["caller", "route", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "ix_operations_open_lease_until", "operations", ["lease_until"], postgresql_where=_OPEN
    )
    op.create_index(
        "ix_operations_connection_id_created_at", "operations", ["connection_id", "created_at"]
    )
    op.create_index("ix_operations_created_at_id", "operations", ["created_at", "id"])

    op.add_column(
        "connections",
        sa.Column("imported", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "connections", sa.Column("drifted_upstream_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_index(
        "uq_connections_airbyte_connection_id_live",
        "connections",
        ["airbyte_connection_id"],
        unique=True,
        postgresql_where=sa.text("archived_at IS NULL AND airbyte_connection_id IS NOT NULL"),
    )
    op.create_index("ix_connections_airbyte_source_id", "connections", ["airbyte_source_id"])
    op.add_column(
        "job_history",
        sa.Column("started_by", sa.Text(), server_default=sa.text("'aam'"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_job_history_started_by_known"), "job_history", "started_by IN ('aam', 'airbyte')"
    )
    op.drop_constraint(op.f("ck_sync_catalog_versions_origin_known"), "sync_catalog_versions")
    op.create_check_constraint(
        op.f("ck_sync_catalog_versions_origin_known"),
        "sync_catalog_versions",
        "origin IN ('onboard', 'repair', 'import')",
    )
    op.create_table(
        "looks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("seen_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_looks")),
    )


def downgrade() -> None:
    op.drop_table("looks")
    op.drop_constraint(op.f("ck_sync_catalog_versions_origin_known"), "sync_catalog_versions")
    op.create_check_constraint(
        op.f("ck_sync_catalog_versions_origin_known"),
        "sync_catalog_versions",
        "origin IN ('onboard', 'repair')",
    )
    op.drop_constraint(op.f("ck_job_history_started_by_known"), "job_history")
    op.drop_column("job_history", "started_by")
    op.drop_index("ix_connections_airbyte_source_id", "connections")
    op.drop_index("uq_connections_airbyte_connection_id_live", "connections")
    op.drop_column("connections", "drifted_upstream_at")
    op.drop_column("connections", "imported")
    op.drop_table("operations")
