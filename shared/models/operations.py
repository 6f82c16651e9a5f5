"""Operations: what a request began, step by step, and the turns of periodic tasks."""

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
    """How far an operation is."""

    RUNNING = "running"
    UNDOING = "undoing"
    """It failed, and what it made is being taken back."""
    DONE = "done"
    FAILED = "failed"


_OPEN = text("status IN ('running', 'undoing')")


class OperationRow(Base):
    """What was begun for a connection, how far it is, and who has it.

    Written by the service that runs it, each write fenced by `owner`. A connection has at most one
    open operation.
    """

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_open_connection", "connection_id", unique=True, postgresql_where=_OPEN
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
        where_set("operations", "ended_at"),
        CheckConstraint("status IN ('running', 'undoing', 'done', 'failed')", name="status_known"),
        CheckConstraint(
            "(status IN ('done', 'failed')) = (ended_at IS NOT NULL)", name="ended_or_open"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    connection_id: Mapped[UUID] = mapped_column(
        ForeignKey(Connection.id, deferrable=True, initially="DEFERRED")
    )
    status: Mapped[str]
    request: Mapped[str] = mapped_column(RawJson())
    """What is to be done, as JSON text; never a secret."""
    document: Mapped[bytes | None]
    """The catalog that is to become the next version, while the operation is open."""
    steps: Mapped[str] = mapped_column(RawJson(), server_default=text("'{}'"))
    """Small results of the steps done: ids, never documents."""
    step: Mapped[str]
    """The step under way, or the last one."""
    step_since: Mapped[datetime] = mapped_column(server_default=func.now())
    quiet_at: Mapped[datetime | None]
    """From when on nothing that the step sent can take effect any more."""
    waits_for: Mapped[str | None]
    """The code of what keeps it waiting; None while it works."""
    owner: Mapped[UUID | None]
    """Who runs it: a token drawn for each run. Its writes are fenced by it."""
    lease_until: Mapped[datetime]
    """From when on anybody may take it over."""
    deadline: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=1, server_default="1")
    """How many owners it has had."""
    failure: Mapped[str | None] = mapped_column(RawJson())
    """Why it is being undone, or was: a problem as RFC 9457 has it."""
    answer_status: Mapped[int | None]
    answer: Mapped[str | None]
    """The body that was answered, or would have been: JSON text."""
    asked_by: Mapped[str | None]
    """Who had it begun; None where AAM did by itself."""
    caller: Mapped[str | None]
    route: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[bytes | None]
    """Hash of the request that came with the key."""
    request_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class PeriodicRun(Base):
    """A look that one replica takes for all of them. Written by whoever takes it."""

    __tablename__ = "looks"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """From when on the next one is due."""
    seen_until: Mapped[datetime | None]
    """How far the last one saw, where looks go through something that grows."""
