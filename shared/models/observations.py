"""Observation of sources: schedules, discoveries, drifts, and changes of settings."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
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
from shared.models.snapshots import Snapshot


class Observation(Base):
    """The observation state of a source: one row per source, however many connections use it.

    Written by the schema_observer; a running observation is fenced by `claimed_by`.
    """

    __tablename__ = "observations"
    __table_args__ = (
        Index("ix_observations_next_at", "next_at"),
        Index("ix_observations_claimed_until", "claimed_until"),
        where_set("observations", "snapshot_id"),
        Index(
            "ix_observations_not_trusted",
            "airbyte_source_id",
            postgresql_where=text("outcome IN ('suspicious', 'failed')"),
        ),
        CheckConstraint(
            "outcome IN ('unchanged', 'changed', 'suspicious', 'failed')", name="outcome_known"
        ),
    )

    airbyte_source_id: Mapped[UUID] = mapped_column(primary_key=True)
    airbyte_workspace_id: Mapped[UUID | None]
    """The workspace whose limit of concurrent discoveries applies; None if unknown."""
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the next observation is due."""
    claimed_by: Mapped[UUID | None]
    claimed_until: Mapped[datetime | None]
    """When the claim expires and another process may take over."""
    started_at: Mapped[datetime | None]
    """When the newest observation started."""
    observed_at: Mapped[datetime | None]
    """When the last observation ended, whatever its outcome."""
    outcome: Mapped[str | None]
    code: Mapped[str | None]
    """Why it was suspicious or failed."""
    detail: Mapped[str | None]
    """`code` as a sentence, with numbers."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """Consecutive observations that were suspicious or failed."""
    suspicious_since: Mapped[datetime | None]
    """Since when it is reported as suspicious for this `code`; None if it is not."""
    accepts_missing: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether a person has confirmed in advance what the next observation finds."""
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """The last snapshot that was accepted."""
    overdue_at: Mapped[datetime] = mapped_column(server_default=text("now() + interval '1 day'"))
    """Until when a trusted observation must have ended: then no check of the source is overdue."""
    postponed_since: Mapped[datetime | None]
    """Since when a due observation has waited for a sync or the daily limit."""
    cause: Mapped[str | None]
    """The known cause (`shared.failure_causes`) of its failure; None if unknown."""
    explanation: Mapped[str | None]
    """The cause as a fixed sentence."""
    log_reference: Mapped[str | None]
    """The Airbyte job or command whose log has the details."""


class DiscoveryRow(Base):
    """One schema discovery: inserted before it starts, completed after it ends.

    Written by the schema_observer and the orchestrator.
    """

    __tablename__ = "discoveries"
    __table_args__ = (
        Index("ix_discoveries_airbyte_source_id_started_at", "airbyte_source_id", "started_at"),
        Index("ix_discoveries_started_at", "started_at"),
        CheckConstraint(
            "purpose IN ('onboard', 'discover', 'observe', 'check')", name="purpose_known"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    airbyte_source_id: Mapped[UUID]
    purpose: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    """When it counts as ended, even if its process has not recorded that."""
    ended_at: Mapped[datetime | None]
    code: Mapped[str | None]
    """Why it failed; None if it succeeded or is running."""
    snapshot_id: Mapped[UUID | None]
    """Its result; None if that was not stored. No foreign key: snapshots may be pruned."""
    is_renewed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether the connector changed its configuration in Airbyte meanwhile, by a renewed token."""
    configuration_digest: Mapped[str | None]
    """Digest of the configuration after it, as Airbyte shows it, with masked secrets."""


class Watch(Base):
    """The observation settings of one connection. Written by the schema_observer."""

    __tablename__ = "watches"
    __table_args__ = (where_set("watches", "compared_snapshot_id"),)

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    interval_seconds: Mapped[int | None]
    """The interval between observations of its source; None for the configured default."""
    compared_snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """The newest snapshot for which its drifts are recorded."""
    mappers_version: Mapped[int | None]
    """The catalog version whose mappers were checked against that snapshot."""
    lapsed_mappers: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The lapsed mappers that were found then, `[[namespace, stream, field]]`, as JSON text."""


class Drift(Base):
    """A schema change of a source, as it affects one connection. Never updated.

    Written by the schema_observer. It is open until a plan or repair has handled it.
    """

    __tablename__ = "drifts"
    __table_args__ = (
        UniqueConstraint("connection_id", "after_snapshot_id", "head_version"),
        Index("ix_drifts_connection_id_first_seen_at", "connection_id", "first_seen_at"),
        Index("ix_drifts_first_seen_at_id", "first_seen_at", "id"),
        where_set("drifts", "before_snapshot_id"),
        where_set("drifts", "after_snapshot_id"),
        CheckConstraint(
            "severity IN ('harmless', 'needs_review', 'breaking')", name="severity_known"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    before_snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """None if the source was never observed before; it was compared with the head catalog."""
    after_snapshot_id: Mapped[UUID] = mapped_column(ForeignKey(Snapshot.id))
    head_version: Mapped[int] = mapped_column(default=0, server_default="0")
    """The catalog version whose mappers have lapsed although the source is unchanged; else 0."""
    severity: Mapped[str]
    """The highest severity of its changes."""
    affects_sync: Mapped[bool]
    """Whether any change affects what the connection syncs."""
    changes: Mapped[str] = mapped_column(RawJson())
    """An array of changes with their verdicts, as JSON text."""
    summary: Mapped[str | None] = mapped_column(
        RawJson(), Computed("summary_of_changes(changes)", persisted=True), deferred=True
    )
    """A summary of `changes` for lists, computed by Postgres on insert."""
    connector_step: Mapped[str | None] = mapped_column(RawJson())
    """The change of the connector's version that came with it, as JSON text; None without one."""
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SettingChange(Base):
    """One change of a setting by a person or a program. Append-only.

    Written by the drift_repair_agent (policies, webhooks), the schema_observer (observations) and
    the orchestrator (connections).
    """

    __tablename__ = "setting_changes"
    __table_args__ = (
        Index("ix_setting_changes_subject_id_id", "subject_id", "subject", "id"),
        Index("ix_setting_changes_subject_id_at", "subject_id", "at"),
        CheckConstraint(
            "subject IN ('policy', 'policy_layer', 'observation', 'webhook', 'connection')",
            name="subject_known",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    subject: Mapped[str]
    subject_id: Mapped[UUID]
    """The id of the connection or webhook; the policies above connections share one."""
    change: Mapped[str] = mapped_column(RawJson())
    """The requested change, as JSON text."""
    changed_by: Mapped[str]
    """The person on whose behalf it was changed, as given by the caller; else the caller."""
    requested_by: Mapped[str | None]
    """The caller who requested it."""
    at: Mapped[datetime] = mapped_column(server_default=func.now())
