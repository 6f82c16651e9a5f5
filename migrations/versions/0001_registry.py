"""The registry: connections, their catalog versions, snapshots, jobs, and the outbox of events.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("credential_id", sa.Text(), nullable=True),
        sa.Column("airbyte_source_id", sa.Uuid(), nullable=True),
        sa.Column("airbyte_connection_id", sa.Uuid(), nullable=True),
        sa.Column("airbyte_destination_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            sa.Enum("PENDING", "ACTIVE", "FAILED", "HEALING", name="connection_status"),
            nullable=False,
        ),
        sa.Column("catalog_version", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("heal_id", sa.Uuid(), nullable=True),
        sa.Column("healing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_detail", sa.Text(), nullable=True),
        sa.Column("event_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'HEALING') = (heal_id IS NOT NULL)",
            name=op.f("ck_connections_healing_has_an_id"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('ACTIVE', 'HEALING')"
            " OR (airbyte_connection_id IS NOT NULL AND catalog_version > 0)",
            name=op.f("ck_connections_live_is_wired"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
    )
    op.create_index(
        "ix_connections_created_at_id", "connections", ["created_at", "id"], unique=False
    )
    op.create_index(
        "uq_connections_name_live",
        "connections",
        ["name"],
        unique=True,
        postgresql_where=sa.text(
            "archived_at IS NULL AND (status <> 'FAILED' OR airbyte_connection_id IS NOT NULL)"
        ),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("airbyte_source_id", sa.Uuid(), nullable=False),
        sa.Column("airbyte_catalog_id", sa.Uuid(), nullable=True),
        sa.Column("raw_hashes", sa.LargeBinary(), nullable=False),
        sa.Column("stream_hashes", sa.LargeBinary(), nullable=False),
        sa.Column(
            "taken_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    op.create_index(
        "ix_snapshots_airbyte_source_id_taken_at",
        "snapshots",
        ["airbyte_source_id", "taken_at"],
        unique=False,
    )
    op.create_table(
        "stream_schemas",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_stream_schemas")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("ref", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_events_connection_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("connection_id", "seq", name=op.f("uq_events_connection_id_seq")),
        sa.UniqueConstraint("event_id", name=op.f("uq_events_event_id")),
    )
    op.create_index(
        "ix_events_unpublished",
        "events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "job_history",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("airbyte_job_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("catalog_version", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_job_history_connection_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_history")),
        sa.UniqueConstraint(
            "airbyte_job_id",
            "connection_id",
            name=op.f("uq_job_history_airbyte_job_id_connection_id"),
        ),
    )
    op.create_index(
        "ix_job_history_connection_id_started_at",
        "job_history",
        ["connection_id", "started_at"],
        unique=False,
    )
    op.create_index(
        "ix_job_history_running",
        "job_history",
        ["id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "sync_catalog_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("sync_catalog", postgresql.JSONB(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "origin IN ('onboard', 'repair')", name=op.f("ck_sync_catalog_versions_origin_known")
        ),
        sa.CheckConstraint(
            "version_number > 0", name=op.f("ck_sync_catalog_versions_version_number_positive")
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.id"],
            name=op.f("fk_sync_catalog_versions_connection_id"),
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_sync_catalog_versions_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_catalog_versions")),
        sa.UniqueConstraint(
            "connection_id",
            "version_number",
            name=op.f("uq_sync_catalog_versions_connection_id_version_number"),
        ),
    )
    if _has_lz4():
        for table, column in (
            ("stream_schemas", "body"),
            ("sync_catalog_versions", "sync_catalog"),
        ):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET COMPRESSION lz4")


def _has_lz4() -> bool:
    """Whether this Postgres was built with lz4, which packs large catalogs several times faster."""
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT 'lz4' = ANY(enumvals) FROM pg_settings"
                " WHERE name = 'default_toast_compression'"
            )
        )
    )


def downgrade() -> None:
    for table in (
        "sync_catalog_versions",
        "job_history",
        "events",
        "stream_schemas",
        "snapshots",
        "connections",
    ):
        op.drop_table(table)
    op.execute("DROP TYPE connection_status")
