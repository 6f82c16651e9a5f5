"""Record which connections have mappers, and which mappers no longer find their field.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_UNIQUE = "uq_drifts_connection_id_after_snapshot_id"
_HEADS_WITH_MAPPERS = """
    UPDATE connections c SET has_mappers = true
    FROM sync_catalog_versions v
    WHERE v.connection_id = c.id AND v.version_number = c.catalog_version AND (
        jsonb_path_exists(v.sync_catalog, '$.streams[*].config.mappers[*]')
        OR jsonb_path_exists(v.sync_catalog, '$.streams[*].config.hashedFields[*]')
    )
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "connections",
        sa.Column("has_mappers", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.execute(_HEADS_WITH_MAPPERS)
    op.add_column("watches", sa.Column("mappers_version", sa.Integer(), nullable=True))
    op.add_column(
        "watches",
        sa.Column(
            "lapsed_mappers", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'")
        ),
    )
    op.add_column(
        "drifts", sa.Column("head_version", sa.Integer(), nullable=False, server_default="0")
    )
    op.drop_constraint(_UNIQUE, "drifts")
    op.create_unique_constraint(
        f"{_UNIQUE}_head_version",
        "drifts",
        ["connection_id", "after_snapshot_id", "head_version"],
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Their repairs may refer to them; only the newest drift of a snapshot can stay.
    op.execute("""
        WITH doubled AS (
            SELECT id, first_value(id) OVER (
                PARTITION BY connection_id, after_snapshot_id ORDER BY head_version
            ) AS first_id FROM drifts
        ), moved AS (
            UPDATE repairs r SET drift_id = d.first_id FROM doubled d
            WHERE r.drift_id = d.id AND d.id <> d.first_id
        )
        DELETE FROM drifts USING doubled WHERE drifts.id = doubled.id AND drifts.id <> first_id
    """)
    op.drop_constraint(f"{_UNIQUE}_head_version", "drifts")
    op.drop_column("drifts", "head_version")
    op.create_unique_constraint(_UNIQUE, "drifts", ["connection_id", "after_snapshot_id"])
    op.drop_column("watches", "lapsed_mappers")
    op.drop_column("watches", "mappers_version")
    op.drop_column("connections", "has_mappers")
