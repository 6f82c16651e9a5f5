"""Say why a sync failed: a known cause, and where its log is.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("job_history", sa.Column("failure_cause", sa.Text(), nullable=True))
    op.add_column("job_history", sa.Column("failure_explanation", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("job_history", "failure_explanation")
    op.drop_column("job_history", "failure_cause")
