"""Record the kind of each job, since one that clears data says nothing about the source.

The kind of jobs before this revision is not known: most were syncs.

Revision ID: 0032
Revises: 0031
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "job_history", sa.Column("kind", sa.Text(), server_default="sync", nullable=False)
    )


def downgrade() -> None:
    """Revert the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("job_history", "kind")
