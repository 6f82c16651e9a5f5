"""Drift and repair: how sources are watched, what drifted, what is done about it, who is told.

Connections tell their workspace, what of them Airbyte holds otherwise, and which repair paused them;
versions tell which repair made them and who decided.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_OPEN = sa.text("state = 'proposed'")
_UNDER_WAY = sa.text("state IN ('approved', 'applying', 'verifying', 'rolling_back')")
_TABLES = (
    "knowledge",
    "webhook_deliveries",
    "webhooks",
    "plans",
    "policies",
    "drifts",
    "watches",
    "observations",
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Similar decisions are found by it; without it only the same ones are.
    op.execute("""
        DO $$ BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_trgm;
        EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
            RAISE NOTICE 'pg_trgm is not available';
        END $$
    """)
    op.add_column("connections", sa.Column("airbyte_workspace_id", sa.Uuid(), nullable=True))
    op.add_column("connections", sa.Column("upstream_code", sa.Text(), nullable=True))
    op.add_column("connections", sa.Column("paused_by", sa.Uuid(), nullable=True))
    _observing()
    _repairing()
    _telling()


def _observing() -> None:
    op.create_table(
        "observations",
        sa.Column("airbyte_source_id", sa.Uuid(), nullable=False),
        sa.Column("airbyte_workspace_id", sa.Uuid(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("claimed_by", sa.Uuid(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("suspicious_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_believed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('unchanged', 'changed', 'suspicious', 'failed')",
            name=op.f("ck_observations_outcome_known"),
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_observations_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("airbyte_source_id", name=op.f("pk_observations")),
    )
    op.create_index("ix_observations_next_at", "observations", ["next_at"])
    op.create_index("ix_observations_claimed_until", "observations", ["claimed_until"])
    op.create_table(
        "watches",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("interval_seconds", sa.Integer(), nullable=True),
        sa.Column("compared_snapshot_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_watches_connection_id")
        ),
        sa.ForeignKeyConstraint(
            ["compared_snapshot_id"], ["snapshots.id"], name=op.f("fk_watches_compared_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_watches")),
    )
    op.create_table(
        "drifts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("before_snapshot_id", sa.Uuid(), nullable=True),
        sa.Column("after_snapshot_id", sa.Uuid(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("concerns", sa.Boolean(), nullable=False),
        sa.Column("changes", postgresql.JSONB(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint(
            "severity IN ('harmless', 'needs_review', 'breaking')",
            name=op.f("ck_drifts_severity_known"),
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_drifts_connection_id")
        ),
        sa.ForeignKeyConstraint(
            ["before_snapshot_id"], ["snapshots.id"], name=op.f("fk_drifts_before_snapshot_id")
        ),
        sa.ForeignKeyConstraint(
            ["after_snapshot_id"], ["snapshots.id"], name=op.f("fk_drifts_after_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drifts")),
        sa.UniqueConstraint(
            "connection_id",
            "after_snapshot_id",
            name=op.f("uq_drifts_connection_id_after_snapshot_id"),
        ),
    )
    op.create_index(
        "ix_drifts_connection_id_first_seen_at", "drifts", ["connection_id", "first_seen_at"]
    )
    op.create_index("ix_drifts_first_seen_at_id", "drifts", ["first_seen_at", "id"])


def _repairing() -> None:
    op.create_table(
        "policies",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("policy", postgresql.JSONB(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_policies_connection_id")
        ),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_policies")),
    )
    op.create_table(
        "plans",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("snapshot_id", sa.Uuid(), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_plans_connection_id")
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_plans_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_plans")),
    )
    op.create_table(
        "repairs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), server_default=sa.text("'heal'"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("drift_id", sa.Uuid(), nullable=True),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("superseded_by", sa.Uuid(), nullable=True),
        sa.Column("snapshot_id", sa.Uuid(), nullable=True),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("target_version", sa.Integer(), nullable=True),
        sa.Column("changes", postgresql.JSONB(), nullable=False),
        sa.Column("decisions", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("verify_by_sync", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("version_number", sa.Integer(), nullable=True),
        sa.Column("restored_version", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_detail", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("is_learned", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('heal', 'rollback')", name=op.f("ck_repairs_kind_known")),
        sa.CheckConstraint(
            "state IN ('proposed', 'approved', 'applying', 'verifying', 'rolling_back', 'applied',"
            " 'rejected', 'expired', 'superseded', 'failed', 'rolled_back')",
            name=op.f("ck_repairs_state_known"),
        ),
        sa.CheckConstraint(
            "(state IN ('proposed', 'approved', 'applying', 'verifying', 'rolling_back'))"
            " = (ended_at IS NULL)",
            name=op.f("ck_repairs_ended_or_open"),
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_repairs_connection_id")
        ),
        sa.ForeignKeyConstraint(["drift_id"], ["drifts.id"], name=op.f("fk_repairs_drift_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["repairs.id"], name=op.f("fk_repairs_parent_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_repairs_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repairs")),
    )
    op.create_index(
        "uq_repairs_proposed", "repairs", ["connection_id"], unique=True, postgresql_where=_OPEN
    )
    op.create_index(
        "uq_repairs_under_way",
        "repairs",
        ["connection_id"],
        unique=True,
        postgresql_where=_UNDER_WAY,
    )
    op.create_index(
        "ix_repairs_connection_id_created_at", "repairs", ["connection_id", "created_at"]
    )
    op.create_index("ix_repairs_created_at_id", "repairs", ["created_at", "id"])
    op.create_index("ix_repairs_expires_at", "repairs", ["expires_at"], postgresql_where=_OPEN)
    op.create_index("ix_repairs_under_way", "repairs", ["updated_at"], postgresql_where=_UNDER_WAY)
    op.create_index("ix_repairs_operation_id", "repairs", ["operation_id"])
    op.add_column("sync_catalog_versions", sa.Column("repair_id", sa.Uuid(), nullable=True))
    op.add_column("sync_catalog_versions", sa.Column("decided_by", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_sync_catalog_versions_repair_id"),
        "sync_catalog_versions",
        "repairs",
        ["repair_id"],
        ["id"],
    )
    _know_origins("'onboard', 'repair', 'import', 'rollback'")


def _know_origins(origins: str) -> None:
    op.drop_constraint(op.f("ck_sync_catalog_versions_origin_known"), "sync_catalog_versions")
    op.create_check_constraint(
        op.f("ck_sync_catalog_versions_origin_known"),
        "sync_catalog_versions",
        f"origin IN ({origins})",
    )


def _telling() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_webhooks_connection_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("repair_id", sa.Uuid(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_code", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'failed')",
            name=op.f("ck_webhook_deliveries_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id")
        ),
        sa.ForeignKeyConstraint(
            ["repair_id"], ["repairs.id"], name=op.f("fk_webhook_deliveries_repair_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "webhook_id",
            "repair_id",
            "type",
            name=op.f("uq_webhook_deliveries_webhook_id_repair_id_type"),
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["next_at"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at",
        "webhook_deliveries",
        ["webhook_id", "created_at"],
    )
    op.create_table(
        "knowledge",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=True),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("removed", postgresql.JSONB(), nullable=False),
        sa.Column("became", postgresql.JSONB(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("removed_schema", postgresql.JSONB(), nullable=True),
        sa.Column("added_schema", postgresql.JSONB(), nullable=True),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("entity IN ('field', 'stream')", name=op.f("ck_knowledge_entity_known")),
        sa.CheckConstraint(
            "verdict IN ('accepted', 'rejected')", name=op.f("ck_knowledge_verdict_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_knowledge")),
    )
    op.create_index(
        "ix_knowledge_source_type_created_at", "knowledge", ["source_type", "created_at"]
    )
    op.create_index("ix_knowledge_created_at_id", "knowledge", ["created_at", "id"])


def downgrade() -> None:
    # Versions that a rollback made stay: to the code before, they are repairs.
    op.execute("UPDATE sync_catalog_versions SET origin = 'repair' WHERE origin = 'rollback'")
    _know_origins("'onboard', 'repair', 'import'")
    op.drop_constraint(op.f("fk_sync_catalog_versions_repair_id"), "sync_catalog_versions")
    op.drop_column("sync_catalog_versions", "decided_by")
    op.drop_column("sync_catalog_versions", "repair_id")
    for table in _TABLES[:4]:
        op.drop_table(table)
    op.drop_table("repairs")
    for table in _TABLES[4:]:
        op.drop_table(table)
    op.drop_column("connections", "paused_by")
    op.drop_column("connections", "upstream_code")
    op.drop_column("connections", "airbyte_workspace_id")
