"""How long a decided repair may wait, and how far the rag_engine has learned what was decided.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("repairs", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "repairs",
        sa.Column("learn_tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "repairs",
        sa.Column(
            "learn_next_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
    )
    op.add_column(
        "repairs",
        sa.Column(
            "not_learned", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False
        ),
    )
    op.create_index(
        "ix_repairs_unlearned",
        "repairs",
        ["learn_next_at"],
        postgresql_where=sa.text("NOT is_learned"),
    )


def downgrade() -> None:
    op.drop_index("ix_repairs_unlearned", table_name="repairs")
    for name in ("not_learned", "learn_next_at", "learn_tries", "deadline_at"):
        op.drop_column("repairs", name)
