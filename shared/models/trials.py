"""Trials of sources: checks and previews of configurations that no connection uses."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base


class SourceTrial(Base):
    """One check or preview: inserted before it starts, completed after it ends.

    Written by the orchestrator. Its id is in the marker of the temporary source that a preview
    creates in Airbyte, so that the sweeper can delete one that was left there.
    """

    __tablename__ = "source_trials"
    __table_args__ = (
        Index("ix_source_trials_account_started_at", "account", "started_at"),
        Index("ix_source_trials_started_at", "started_at"),
        CheckConstraint("purpose IN ('check', 'preview')", name="purpose_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    account: Mapped[UUID]
    """Derived from the source definition and the credential, whose account bears the load."""
    purpose: Mapped[str]
    airbyte_workspace_id: Mapped[UUID | None]
    """The workspace of its temporary source; None for rows older than this column."""
    requested_by: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    """When it counts as ended, even if its process has not recorded that."""
    ended_at: Mapped[datetime | None]
    code: Mapped[str | None]
    """Why it failed; None if it succeeded or is running."""
    is_left: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether its temporary source may still be in Airbyte."""
