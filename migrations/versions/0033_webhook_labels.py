"""Store the label limit of whoever created a webhook, so that it ends with their view.

Webhooks of keys that still exist get the limit of these.

Revision ID: 0033
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

# `created_by` ends with the id of the key.
_FILL = """
    UPDATE webhooks w SET labels = k.labels FROM api_keys k
    WHERE k.labels <> '{}'
        AND right(w.created_by, length(k.id) + 6) = '(key ' || k.id || ')'
"""


def upgrade() -> None:
    """Apply the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "webhooks",
        sa.Column("labels", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.execute(_FILL)


def downgrade() -> None:
    """Revert the migration."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("webhooks", "labels")
