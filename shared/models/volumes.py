"""How many rows each sync of a stream brought."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base
from shared.models.connections import Connection


class StreamVolume(Base):
    """The rows that one sync brought of one stream, and how they were judged. Never updated.

    Written by the orchestrator when the job ends; its newest row is a stream's current state.
    """

    __tablename__ = "stream_volumes"
    __table_args__ = (
        Index(
            "ix_stream_volumes_stream_ended_at",
            "connection_id",
            "stream_name",
            "stream_namespace",
            "ended_at",
        ),
        Index("ix_stream_volumes_ended_at", "ended_at"),
        Index(
            "ix_stream_volumes_suspicious",
            "job_id",
            postgresql_where=text("suspicious_since IS NOT NULL"),
        ),
    )

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The row of job_history. No foreign key: either may be pruned first."""
    stream_namespace: Mapped[str] = mapped_column(primary_key=True)
    """Empty if the stream has none."""
    stream_name: Mapped[str] = mapped_column(primary_key=True)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    ended_at: Mapped[datetime]
    """When the job ended, by Airbyte's clock."""
    is_full_refresh: Mapped[bool]
    """Whether the stream was read as a whole; else incrementally."""
    rows: Mapped[int] = mapped_column(BigInteger)
    bytes_: Mapped[int | None] = mapped_column("bytes", BigInteger)
    is_pending: Mapped[bool]
    """Whether the rows are judged with those of the next sync: those of a failed sync, or of one
    soon after another, of an incremental stream. The state is that of the row before."""
    usual_low: Mapped[int | None] = mapped_column(BigInteger)
    usual_high: Mapped[int | None] = mapped_column(BigInteger)
    """The rows that were usual before this sync; None if too few syncs are known."""
    suspicious_since: Mapped[datetime | None]
    """The end of the first of the syncs in a row that were suspicious; None if it is not."""
    suspicious_version: Mapped[int | None]
    """The catalog version of that first sync."""
    usual_since: Mapped[datetime | None]
    """Older syncs are not compared, since the stream's volume has changed for good; None if it
    has not."""
