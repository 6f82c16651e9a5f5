"""How many rows each sync brought, by stream."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base
from shared.models.connections import Connection


class SyncVolume(Base):
    """The rows that one sync brought of each stream, and how they were judged.

    Written by the orchestrator when the job ends. A connection has as many rows as syncs are
    compared (`shared.domain.volume.MOST`): then its oldest row is overwritten. What was suspicious
    is in `job_history`, too.
    """

    __tablename__ = "sync_volumes"
    __table_args__ = (
        Index("ix_sync_volumes_connection_id_ended_at", "connection_id", "ended_at"),
        Index("ix_sync_volumes_ended_at", "ended_at"),
    )

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The row of job_history. No foreign key: either may be pruned first."""
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    ended_at: Mapped[datetime]
    """When the job ended, by Airbyte's clock."""
    volumes: Mapped[bytes]
    """A JSON array with an object per stream, compressed by zlib: see
    `services.orchestrator.volume_states`."""
