"""Operations, and the schedule of periodic tasks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson, where_set
from shared.models.connections import (
    Connection,
)


class OperationStatus(StrEnum):
    """The status of an operation."""

    RUNNING = "running"
    UNDOING = "undoing"
    """It failed, and what it created is being deleted."""
    DONE = "done"
    FAILED = "failed"


_OPEN = text("status IN ('running', 'undoing')")


class OperationRow(Base):
    """An operation on a connection or a workspace: its request, progress and owner.

    Written by the service that runs it, each write fenced by `owner`. A connection has at most one
    open operation, and so has the import of a workspace.
    """

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_open_connection", "connection_id", unique=True, postgresql_where=_OPEN
        ),
        Index(
            "uq_operations_open_import",
            text("(request ->> 'workspace_id')"),
            unique=True,
            postgresql_where=text("kind = 'import' AND status IN ('running', 'undoing')"),
        ),
        Index(
            "uq_operations_idempotency_key",
            "caller",
            "route",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_operations_open_lease_until", "lease_until", postgresql_where=_OPEN),
        Index("ix_operations_connection_id_created_at", "connection_id", "created_at"),
        Index("ix_operations_created_at_id", "created_at", "id"),
        Index(
            "ix_operations_not_done",
            "connection_id",
            "created_at",
            postgresql_where=text("status <> 'done'"),
        ),
        where_set("operations", "ended_at"),
        CheckConstraint("status IN ('running', 'undoing', 'done', 'failed')", name="status_known"),
        CheckConstraint(
            "(status IN ('done', 'failed')) = (ended_at IS NOT NULL)", name="ended_or_open"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    connection_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(Connection.id, deferrable=True, initially="DEFERRED")
    )
    """The connection that it changes; None for the import of a workspace."""
    status: Mapped[str]
    request: Mapped[str] = mapped_column(RawJson())
    """The request, as JSON text, without secrets."""
    document: Mapped[bytes | None]
    """The catalog that becomes the next version; only while the operation is open."""
    steps: Mapped[str] = mapped_column(RawJson(), server_default=text("'{}'"))
    """Small results of completed steps: ids, never documents."""
    step: Mapped[str]
    """The current step, or the last one."""
    step_since: Mapped[datetime] = mapped_column(server_default=func.now())
    in_flight_until: Mapped[datetime | None]
    """When the in-flight window ends: after it, no request of the step can take effect."""
    waits_for: Mapped[str | None]
    """The code of what it waits for; None while it works."""
    owner: Mapped[UUID | None]
    """A random id of the process run that owns it; fences its writes."""
    lease_until: Mapped[datetime]
    """When the lease expires and another process may take it over."""
    deadline: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=1, server_default="1")
    """The number of owners it has had."""
    failure: Mapped[str | None] = mapped_column(RawJson())
    """Why it failed: an RFC 9457 problem."""
    response_status: Mapped[int | None]
    response: Mapped[str | None]
    """The response body, as JSON text."""
    requested_by: Mapped[str | None]
    """The caller who requested it; None if AAM started it."""
    caller: Mapped[str | None]
    route: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[bytes | None]
    """Hash of the request that the key was sent with."""
    request_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class ImportItem(Base):
    """One Airbyte connection that an import found, and its outcome. Written by the orchestrator.

    It is deleted with its operation.
    """

    __tablename__ = "import_items"
    __table_args__ = (
        Index(
            "ix_import_items_pending",
            "operation_id",
            "position",
            postgresql_where=text("outcome IS NULL"),
        ),
    )

    operation_id: Mapped[UUID] = mapped_column(
        ForeignKey(OperationRow.id, ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    """Its place in Airbyte's list, from 1."""
    airbyte_connection_id: Mapped[UUID]
    name: Mapped[str]
    outcome: Mapped[str | None]
    """None until it is processed."""
    code: Mapped[str | None]
    """Why it is not imported."""
    connection_id: Mapped[UUID | None]
    """The connection in AAM, unless that was only a dry run."""
    never_selected: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """Per stream, the fields that are synced although the policy never selects them."""
    shared_tables: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The streams whose table another connection writes, too."""


class PeriodicRun(Base):
    """A periodic task that one replica runs for all. Written by the replica that runs it."""

    __tablename__ = "periodic_runs"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the next run is due."""
    seen_until: Mapped[datetime | None]
    """Up to what time the last run has read, for tasks that read an append-only history."""
