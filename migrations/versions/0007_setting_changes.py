"""Who changed what happens without a person: policies, webhooks, observations and knowledge.

Changes of before are not in the history; the newest one's author is still on the policy.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_WEBHOOK_COLUMNS = ("created_by", "rotated_by", "deleted_by")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "setting_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("change", postgresql.JSONB(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint(
            "subject IN ('policy', 'observation', 'webhook')",
            name=op.f("ck_setting_changes_subject_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setting_changes")),
    )
    op.create_index(
        "ix_setting_changes_subject_id_id", "setting_changes", ["subject_id", "subject", "id"]
    )
    op.add_column("policies", sa.Column("requested_by", sa.Text(), nullable=True))
    op.add_column(
        "policies",
        sa.Column("authors", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("sync_catalog_versions", sa.Column("policy_set_by", sa.Text(), nullable=True))
    op.add_column("knowledge", sa.Column("requested_by", sa.Text(), nullable=True))
    for name in _WEBHOOK_COLUMNS:
        op.add_column("webhooks", sa.Column(name, sa.Text(), nullable=True))


def downgrade() -> None:
    for name in reversed(_WEBHOOK_COLUMNS):
        op.drop_column("webhooks", name)
    op.drop_column("knowledge", "requested_by")
    op.drop_column("sync_catalog_versions", "policy_set_by")
    op.drop_column("policies", "authors")
    op.drop_column("policies", "requested_by")
    op.drop_table("setting_changes")
