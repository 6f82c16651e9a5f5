"""Policies, plans, repairs, and the decisions that AAM learns from."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson, where_set
from shared.models.connections import (
    Connection,
)
from shared.models.observations import Drift
from shared.models.snapshots import Snapshot


class RepairState(StrEnum):
    """The state of a repair."""

    PROPOSED = "proposed"
    """Waits for approval, until `expires_at`."""
    APPROVED = "approved"
    """Approved by a person or the policy; applied as soon as the connection is free."""
    APPLYING = "applying"
    VERIFYING = "verifying"
    """Applied and confirmed; a sync with it is running."""
    ROLLING_BACK = "rolling_back"
    """The sync failed because of the schema; the previous version is being restored."""
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    """Not decided in time; nothing was done."""
    SUPERSEDED = "superseded"
    """A newer plan replaced it, or what it was based on no longer exists."""
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Policy(Base):
    """What AAM may do to a connection without approval, where it differs from the default.

    Written by the drift_repair_agent.
    """

    __tablename__ = "policies"

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    policy: Mapped[str] = mapped_column(RawJson())
    """The body of PUT /connections/{id}/policy, as JSON text."""
    authors: Mapped[str] = mapped_column(RawJson(), server_default=text("'{}'"))
    """Who set each override, by `entity.what` or the setting's name, as JSON text."""
    updated_by: Mapped[str | None]
    """The person on whose behalf the newest change was made, as given by the caller."""
    requested_by: Mapped[str | None]
    """The caller who requested the newest change."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class PolicyLayerRow(Base):
    """The policy of all connections, of a source type or of a label, above connections' own.

    Written by the drift_repair_agent.
    """

    __tablename__ = "policy_layers"
    __table_args__ = (
        UniqueConstraint("level", "name", "value"),
        CheckConstraint("level IN ('installation', 'source_type', 'label')", name="level_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    level: Mapped[str]
    name: Mapped[str]
    """The source type, or the name of the label; empty for the installation."""
    value: Mapped[str]
    """The value of the label; empty otherwise."""
    policy: Mapped[str] = mapped_column(RawJson())
    """As in `policies`."""
    authors: Mapped[str] = mapped_column(RawJson(), server_default=text("'{}'"))
    """As in `policies`."""
    updated_by: Mapped[str | None]
    requested_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class Plan(Base):
    """The snapshot and version of a connection's last plan. Written by the drift_repair_agent."""

    __tablename__ = "plans"
    __table_args__ = (where_set("plans", "snapshot_id"),)

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    snapshot_id: Mapped[UUID] = mapped_column(ForeignKey(Snapshot.id))
    base_version: Mapped[int]
    planned_at: Mapped[datetime] = mapped_column(server_default=func.now())


_REPAIR_OPEN = text("state = 'proposed'")


_REPAIR_UNDER_WAY = text("state IN ('approved', 'applying', 'verifying', 'rolling_back')")


class Repair(Base):
    """A planned change of a connection's catalog, the decisions about it, and its outcome.

    Written by the drift_repair_agent. A connection has at most one that waits for approval, and one
    that is in progress.
    """

    __tablename__ = "repairs"
    __table_args__ = (
        Index("uq_repairs_proposed", "connection_id", unique=True, postgresql_where=_REPAIR_OPEN),
        Index(
            "uq_repairs_under_way", "connection_id", unique=True, postgresql_where=_REPAIR_UNDER_WAY
        ),
        Index("ix_repairs_connection_id_created_at", "connection_id", "created_at"),
        Index("ix_repairs_created_at_id", "created_at", "id"),
        Index(
            "ix_repairs_proposals",
            "connection_id",
            "created_at",
            postgresql_where=text("expires_at IS NOT NULL"),
        ),
        Index(
            "ix_repairs_decided",
            "connection_id",
            "decided_at",
            postgresql_where=text("decided_at IS NOT NULL"),
        ),
        Index(
            "ix_repairs_outcomes",
            "connection_id",
            "ended_at",
            postgresql_where=text("ended_at IS NOT NULL AND state <> 'rejected'"),
        ),
        Index("ix_repairs_expires_at", "expires_at", postgresql_where=_REPAIR_OPEN),
        Index(
            "ix_repairs_proposed_severity",
            "severity",
            "created_at",
            "id",
            postgresql_where=_REPAIR_OPEN,
        ),
        Index("ix_repairs_under_way", "updated_at", postgresql_where=_REPAIR_UNDER_WAY),
        Index("ix_repairs_operation_id", "operation_id"),
        Index("ix_repairs_unlearned", "learn_next_at", postgresql_where=text("NOT is_learned")),
        where_set("repairs", "drift_id"),
        where_set("repairs", "parent_id"),
        where_set("repairs", "snapshot_id"),
        where_set("repairs", "superseded_by"),
        where_set("repairs", "ended_at"),
        CheckConstraint("kind IN ('heal', 'rollback')", name="kind_known"),
        CheckConstraint(
            "state IN ('proposed', 'approved', 'applying', 'verifying', 'rolling_back', 'applied',"
            " 'rejected', 'expired', 'superseded', 'failed', 'rolled_back')",
            name="state_known",
        ),
        CheckConstraint(
            "(state IN ('proposed', 'approved', 'applying', 'verifying', 'rolling_back'))"
            " = (ended_at IS NULL)",
            name="ended_or_open",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    kind: Mapped[str] = mapped_column(default="heal", server_default="heal")
    state: Mapped[str]
    drift_id: Mapped[UUID | None] = mapped_column(ForeignKey(Drift.id))
    """The newest drift that it handles; None for a requested rollback."""
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("repairs.id"))
    """The repair that it was split from, because only some of its changes were decided."""
    superseded_by: Mapped[UUID | None]
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What the source offered when it was planned."""
    base_version: Mapped[int]
    """The head version that it was planned for; with any other it is stale and not applied."""
    target_version: Mapped[int | None]
    """Of a rollback: the version to restore."""
    changes: Mapped[str] = mapped_column(RawJson())
    """An array of changes with verdict, reaction, suggestion and decision, as JSON text."""
    connector_step: Mapped[str | None] = mapped_column(RawJson())
    """The change of the connector's version since the last plan, as JSON text; None without."""
    summary: Mapped[str | None] = mapped_column(
        RawJson(), Computed("summary_of_changes(changes)", persisted=True), deferred=True
    )
    """A summary of `changes` for lists, computed by Postgres on write."""
    severity: Mapped[str | None] = mapped_column(
        Computed("severity_of_changes(changes)", persisted=True), deferred=True
    )
    """The highest severity of `changes`, computed by Postgres on write; None without changes."""
    decisions: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """Who decided what, when and why, oldest first, as JSON text."""
    decided_at: Mapped[datetime | None] = mapped_column(
        Computed("decided_at(decisions)", persisted=True), deferred=True
    )
    """When its newest own decision was made, computed by Postgres on write."""
    verify_by_sync: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    operation_id: Mapped[UUID | None]
    """The newest operation that applies or rolls it back."""
    version_number: Mapped[int | None]
    """The catalog version that it created."""
    restored_version: Mapped[int | None]
    """The version that restored the old catalog after its sync failed."""
    job_id: Mapped[UUID | None]
    """The sync that verifies it."""
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it is checked next, while it is in progress."""
    deadline_at: Mapped[datetime | None]
    """Until when it may stay in its state; None until its first check in that state."""
    is_learned: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """Whether the rag_engine has recorded its decisions, or permanently refused them."""
    learn_attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    learn_next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When its decisions are sent to the rag_engine again."""
    not_learned: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """Decisions that the rag_engine refused, `[{"change": id, "code": why}]`, as JSON text."""
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    ended_at: Mapped[datetime | None]


class Knowledge(Base):
    """A person's decision about a removed field or stream: evidence for later suggestions.

    Written by the rag_engine.
    """

    __tablename__ = "knowledge"
    __table_args__ = (
        Index("ix_knowledge_source_type_created_at", "source_type", "created_at"),
        Index("ix_knowledge_created_at_id", "created_at", "id"),
        CheckConstraint("entity IN ('field', 'stream')", name="entity_known"),
        CheckConstraint("verdict IN ('accepted', 'rejected')", name="verdict_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """The decision's own id, so that recording it is idempotent."""
    source_type: Mapped[str]
    entity: Mapped[str]
    namespace: Mapped[str | None]
    stream: Mapped[str]
    removed: Mapped[str] = mapped_column(RawJson())
    """The path of what was removed, as a JSON array."""
    became: Mapped[str | None] = mapped_column(RawJson())
    """The path of its replacement; None if there was none."""
    verdict: Mapped[str]
    removed_schema: Mapped[str | None] = mapped_column(RawJson())
    added_schema: Mapped[str | None] = mapped_column(RawJson())
    connection_id: Mapped[UUID | None]
    decided_by: Mapped[str]
    """The person, as given by the caller; else the caller."""
    requested_by: Mapped[str | None]
    """The caller who requested it."""
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
