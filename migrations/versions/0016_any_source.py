"""Record each source's definition, and the part of its configuration that is not secret.

Revision ID: 0016
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("connections", sa.Column("source_definition_id", sa.Uuid(), nullable=True))
    op.add_column(
        "connections", sa.Column("source_configuration", postgresql.JSONB(), nullable=True)
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("connections", "source_configuration")
    op.drop_column("connections", "source_definition_id")
