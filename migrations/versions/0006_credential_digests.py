"""What of a credential each connection's source was given last, as digests.

Connections of before have none: the first rotation checks, and gives them, everything.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("connections", sa.Column("credential_digests", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("connections", "credential_digests")
