"""Find connections and previews by their Airbyte workspace, also those that failed.

Failed onboardings of earlier versions have no workspace in their row: it is in their operation.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("source_trials", sa.Column("airbyte_workspace_id", sa.Uuid(), nullable=True))
    op.execute("""
        UPDATE connections c SET airbyte_workspace_id = CAST(o.request ->> 'workspace_id' AS uuid)
        FROM operations o
        WHERE o.connection_id = c.id AND o.kind = 'onboard' AND c.airbyte_workspace_id IS NULL
            AND o.request ->> 'workspace_id' IS NOT NULL
    """)
    op.create_index(
        "ix_connections_airbyte_workspace_id_created_at_id",
        "connections",
        ["airbyte_workspace_id", "created_at", "id"],
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_connections_airbyte_workspace_id_created_at_id", table_name="connections")
    op.drop_column("source_trials", "airbyte_workspace_id")
