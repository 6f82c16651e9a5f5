"""What is known of credentials in their stores."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base


class CredentialVersionRow(Base):
    """The version of a credential whose sources were last compared with it. No value.

    Written by the orchestrator.
    """

    __tablename__ = "credential_versions"

    credential_id: Mapped[str] = mapped_column(primary_key=True)
    """The credential's reference, as in `connections`."""
    version: Mapped[str | None]
    """As the auth_broker gave it; None before the first comparison."""
    compare_again_at: Mapped[datetime | None]
    """When the sources are compared again although the version is the same: some do not have it."""
    announced_expiry: Mapped[datetime | None]
    """The expiry that was last announced."""
