"""What the history of a connection needs: its rare events, facts of rows, and indexes.

Rare events of before are copied from the outbox, as far back as it reaches.

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# A cast from text to timestamptz is not immutable, since it depends on settings.
_FUNCTION = r"""
    CREATE FUNCTION decided_at(decisions jsonb) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $decided$
        SELECT max(
            make_timestamp(
                CAST(part[1] AS int), CAST(part[2] AS int), CAST(part[3] AS int),
                CAST(part[4] AS int), CAST(part[5] AS int), CAST(part[6] AS float8)
            ) AT TIME ZONE 'UTC'
        )
        FROM jsonb_array_elements(decisions) entry CROSS JOIN LATERAL regexp_match(
            entry->>'at',
            '^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d(\.\d+)?)(Z|\+00:00)$'
        ) part
        WHERE NOT entry ?| ARRAY['repair_id', 'carried_from']
    $decided$
"""
_COPIED = """
    INSERT INTO timeline_events (id, connection_id, type, ref, code, at)
    SELECT event_id, connection_id, type, ref, code, at FROM events
    WHERE type IN (
        'connection.drifted_upstream', 'connection.in_step', 'connection.paused',
        'connection.resumed', 'credential.rotated', 'credential.changed', 'credential.rejected',
        'credential.expiring', 'connector.changed', 'connector.upgrade_due', 'connector.upgraded',
        'observation.suspicious', 'observation.recovered', 'sync.volume_suspicious'
    ) AND code IS DISTINCT FROM 'requested'
"""
_INDEXES = (
    ("ix_sync_catalog_versions_connection_id_created_at", "sync_catalog_versions",
     ["connection_id", "created_at"], None),
    ("ix_repairs_proposals", "repairs", ["connection_id", "created_at"], "expires_at IS NOT NULL"),
    ("ix_repairs_decided", "repairs", ["connection_id", "decided_at"], "decided_at IS NOT NULL"),
    ("ix_repairs_outcomes", "repairs", ["connection_id", "ended_at"],
     "ended_at IS NOT NULL AND state <> 'rejected'"),
    ("ix_setting_changes_subject_id_at", "setting_changes", ["subject_id", "at"], None),
    ("ix_operations_not_done", "operations", ["connection_id", "created_at"], "status <> 'done'"),
    ("ix_job_history_started_at_id", "job_history", ["started_at", "id"], None),
    ("ix_job_history_status_started_at_id", "job_history", ["status", "started_at", "id"], None),
    ("ix_connections_credential_id_live", "connections", ["credential_id", "id"],
     "credential_id IS NOT NULL AND archived_at IS NULL"),
    ("ix_observations_not_trusted", "observations", ["airbyte_source_id"],
     "outcome IN ('suspicious', 'failed')"),
    ("ix_credential_audit_caller_at", "credential_audit", ["caller", "at"], None),
)  # fmt: skip


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "timeline_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("ref", sa.Uuid(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name="fk_timeline_events_connection_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_timeline_events"),
    )
    op.execute(_COPIED)
    op.create_index("ix_timeline_events_connection_id_at", "timeline_events", _OF_CONNECTION)
    op.create_index("ix_timeline_events_at", "timeline_events", ["at"])
    op.add_column("drifts", _computed("summary", postgresql.JSONB(), "summary_of_changes(changes)"))
    op.execute(_FUNCTION)
    decided = _computed("decided_at", sa.DateTime(timezone=True), "decided_at(decisions)")
    op.add_column("repairs", decided)
    for name, table, columns, where in _INDEXES:
        condition = None if where is None else sa.text(where)
        op.create_index(name, table, columns, postgresql_where=condition)


_OF_CONNECTION = ["connection_id", "at"]


def _computed(name: str, kind: sa.types.TypeEngine[Any], value: str) -> sa.Column[Any]:
    return sa.Column(name, kind, sa.Computed(value, persisted=True), nullable=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table)
    op.drop_column("repairs", "decided_at")
    op.execute("DROP FUNCTION decided_at(jsonb)")
    op.drop_column("drifts", "summary")
    op.drop_table("timeline_events")
