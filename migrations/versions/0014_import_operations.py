"""Import a workspace by an operation: it has no connection, and a row for each one it found.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("operations", "connection_id", existing_type=sa.Uuid(), nullable=True)
    op.create_index(
        "uq_operations_open_import",
        "operations",
        [sa.text("(request ->> 'workspace_id')")],
        unique=True,
        postgresql_where=sa.text("kind = 'import' AND status IN ('running', 'undoing')"),
    )
    op.create_table(
        "import_items",
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("airbyte_connection_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        sa.Column(
            "never_selected",
            postgresql.JSONB(),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.id"],
            name=op.f("fk_import_items_operation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_import_items")),
    )
    op.create_index(
        "ix_import_items_pending",
        "import_items",
        ["operation_id", "position"],
        postgresql_where=sa.text("outcome IS NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("import_items")
    op.drop_index("uq_operations_open_import", table_name="operations")
    op.execute("DELETE FROM operations WHERE connection_id IS NULL")
    op.alter_column("operations", "connection_id", existing_type=sa.Uuid(), nullable=False)
