"""The connectors that sources run, and what Airbyte's state of connections was before changes."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson, where_set
from shared.models.connections import Connection


class SourceConnector(Base):
    """The version of its connector that a source runs: one row per source.

    Written by each service that reads a version from Airbyte: the schema_observer, which checks all
    sources in turn, the orchestrator and the drift_repair_agent.
    """

    __tablename__ = "source_connectors"
    __table_args__ = (
        Index("ix_source_connectors_next_at", "next_at"),
        where_set("source_connectors", "deadline"),
    )

    airbyte_source_id: Mapped[UUID] = mapped_column(primary_key=True)
    repository: Mapped[str | None]
    """The connector's image, without its tag; None until the version was read."""
    version: Mapped[str | None]
    """The image's tag."""
    manifest_version: Mapped[int | None] = mapped_column(BigInteger)
    """The active manifest of a connector that was made in the connector builder."""
    known_since: Mapped[datetime | None]
    """When it was first read at this version and manifest."""
    support_state: Mapped[str | None]
    is_pinned: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether a user pinned the source to the version."""
    upcoming: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The breaking changes of newer versions, as JSON text."""
    guides: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The migration guides of all breaking changes that were ever upcoming, as JSON text."""
    deadline: Mapped[date | None]
    """The nearest deadline of the upcoming breaking changes."""
    announced_deadline: Mapped[date | None]
    """The last deadline for which `connector.upgrade_due` was recorded."""
    checked_at: Mapped[datetime | None]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When its version is checked next."""


class SavedState(Base):
    """Airbyte's state of a connection before a change, or why it was not saved.

    Confidential: the state may hold values of the source. It is encrypted, never logged, and in no
    response. Written by the drift_repair_agent, and by the orchestrator, which may not read
    `state`, before pauses of people and before it applies a catalog again.
    """

    __tablename__ = "stream_states"
    __table_args__ = (
        Index("ix_stream_states_connection_id_saved_at", "connection_id", "saved_at"),
        Index("ix_stream_states_saved_at", "saved_at"),
        CheckConstraint("kind IN ('heal', 'rollback', 'pause', 'upgrade')", name="kind_known"),
        CheckConstraint("(state IS NULL) = (not_saved IS NOT NULL)", name="saved_or_reason"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    operation_id: Mapped[UUID] = mapped_column(unique=True)
    """The operation before which it was saved. No foreign key: operations are pruned earlier."""
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    kind: Mapped[str]
    """What the operation did."""
    catalog_version: Mapped[int]
    """The head at that time."""
    connector_version: Mapped[str | None]
    """What the source ran at that time, or `manifest 4`; None if unknown."""
    airbyte_job_id: Mapped[int | None] = mapped_column(BigInteger)
    """The connection's newest job in Airbyte at that time, or the number before it if it had not
    ended; None without one."""
    state: Mapped[bytes | None]
    """The response of state/get, compressed and encrypted; None if it was not saved."""
    not_saved: Mapped[str | None]
    """Why it was not saved: no_key, no_state, too_large, or unreadable."""
    saved_at: Mapped[datetime] = mapped_column(server_default=func.now())
