"""How connections name their tables, so that those of one destination can be compared.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_INDEX = "ix_connections_airbyte_destination_id_live"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("connections", sa.Column("table_naming", postgresql.JSONB(), nullable=True))
    op.add_column(
        "import_items",
        sa.Column(
            "shared_tables", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False
        ),
    )
    op.create_index(
        _INDEX,
        "connections",
        ["airbyte_destination_id", "id"],
        postgresql_where=sa.text("archived_at IS NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(_INDEX, "connections")
    op.drop_column("import_items", "shared_tables")
    op.drop_column("connections", "table_naming")
