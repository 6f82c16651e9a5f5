"""Policies of the installation, of source types and of labels, above those of connections.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_SUBJECT = "ck_setting_changes_subject_known"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    when, now = sa.DateTime(timezone=True), sa.text("now()")
    op.create_table(
        "policy_layers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("policy", postgresql.JSONB(), nullable=False),
        sa.Column("authors", postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("updated_by", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("created_at", when, nullable=False, server_default=now),
        sa.Column("updated_at", when, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_layers")),
        sa.UniqueConstraint(
            "level", "name", "value", name=op.f("uq_policy_layers_level_name_value")
        ),
        sa.CheckConstraint(
            "level IN ('installation', 'source_type', 'label')",
            name=op.f("ck_policy_layers_level_known"),
        ),
    )
    op.drop_constraint(op.f(_SUBJECT), "setting_changes")
    op.create_check_constraint(
        op.f(_SUBJECT),
        "setting_changes",
        "subject IN ('policy', 'policy_layer', 'observation', 'webhook', 'connection')",
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DELETE FROM setting_changes WHERE subject = 'policy_layer'")
    op.drop_constraint(op.f(_SUBJECT), "setting_changes")
    op.create_check_constraint(
        op.f(_SUBJECT),
        "setting_changes",
        "subject IN ('policy', 'observation', 'webhook', 'connection')",
    )
    op.drop_table("policy_layers")
