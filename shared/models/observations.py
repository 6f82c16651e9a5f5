"""How sources are observed: schedule, discoveries, drifts, and changes of settings."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
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
    """How a source is being looked at: one row a source, however many connections stand on it.

    Written by the schema_observer; a look in progress is fenced by `claimed_by`.
    """

    __tablename__ = "observations"
    __table_args__ = (
        Index("ix_observations_next_at", "next_at"),
        Index("ix_observations_claimed_until", "claimed_until"),
        where_set("observations", "snapshot_id"),
        CheckConstraint(
            "outcome IN ('unchanged', 'changed', 'suspicious', 'failed')", name="outcome_known"
        ),
    )

    airbyte_source_id: Mapped[UUID] = mapped_column(primary_key=True)
    airbyte_workspace_id: Mapped[UUID | None]
    """Whose share of discoveries it takes; None where no connection of it tells."""
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it is to be looked at again."""
    claimed_by: Mapped[UUID | None]
    claimed_until: Mapped[datetime | None]
    """When whoever looks at it now is taken for dead."""
    began_at: Mapped[datetime | None]
    """When the newest look was begun."""
    observed_at: Mapped[datetime | None]
    """When a look last ended, whatever it found."""
    outcome: Mapped[str | None]
    code: Mapped[str | None]
    """Why it was suspicious, or failed."""
    detail: Mapped[str | None]
    """The same in a sentence, with the numbers."""
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many looks in a row were suspicious or failed."""
    suspicious_since: Mapped[datetime | None]
    """Since when it is told as suspicious for this `code`; None when it is not."""
    is_believed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether a person has said that what the next look finds is really so."""
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What it was last trusted to offer."""
    postponed_since: Mapped[datetime | None]
    """Since when an observation that is due waits for a sync, or for the daily limit."""
    cause: Mapped[str | None]
    """Which of the known causes (`shared.causes`) it failed for."""
    explanation: Mapped[str | None]
    """The cause in a fixed sentence."""
    log_reference: Mapped[str | None]
    """Which run of Airbyte's has the log."""


class DiscoveryRow(Base):
    """One run of a connector that lists a source's schema: written before, completed after.

    Written by whoever discovers: the schema_observer and the orchestrator.
    """

    __tablename__ = "discoveries"
    __table_args__ = (
        Index("ix_discoveries_airbyte_source_id_began_at", "airbyte_source_id", "began_at"),
        Index("ix_discoveries_began_at", "began_at"),
        CheckConstraint(
            "purpose IN ('onboard', 'discover', 'observe', 'check')", name="purpose_known"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    airbyte_source_id: Mapped[UUID]
    purpose: Mapped[str]
    began_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    """When it is taken for over, though its process has not said so."""
    ended_at: Mapped[datetime | None]
    code: Mapped[str | None]
    """Why it failed; None where it delivered a schema, or still runs."""
    snapshot_id: Mapped[UUID | None]
    """What it found; None where that was not stored. No foreign key: snapshots may be pruned."""
    is_renewed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether the connector's configuration in Airbyte changed meanwhile: a renewed token."""
    configuration_digest: Mapped[str | None]
    """Of the configuration that Airbyte shows, secrets masked, after it."""


class Watch(Base):
    """How one connection is watched. Written by the schema_observer."""

    __tablename__ = "watches"
    __table_args__ = (where_set("watches", "compared_snapshot_id"),)

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    interval_seconds: Mapped[int | None]
    """How often its source is looked at; None for the default of the installation."""
    compared_snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """Up to which snapshot its drifts are recorded."""


class Drift(Base):
    """What a source offers differently, as one connection sees it: a fact, never edited.

    Written by the schema_observer. It is open while no plan or repair has answered it.
    """

    __tablename__ = "drifts"
    __table_args__ = (
        UniqueConstraint("connection_id", "after_snapshot_id"),
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
    """None where the source was not looked at before: it was compared with the head catalog."""
    after_snapshot_id: Mapped[UUID] = mapped_column(ForeignKey(Snapshot.id))
    severity: Mapped[str]
    """The gravest of its changes."""
    concerns: Mapped[bool]
    """Whether any change touches what the connection syncs."""
    changes: Mapped[str] = mapped_column(RawJson())
    """An array of changes with their verdicts, as JSON text."""
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SettingChange(Base):
    """One change of what happens without a person. Append-only.

    Written by the drift_repair_agent (policies, webhooks) and the schema_observer (observations).
    """

    __tablename__ = "setting_changes"
    __table_args__ = (
        Index("ix_setting_changes_subject_id_id", "subject_id", "subject", "id"),
        CheckConstraint("subject IN ('policy', 'observation', 'webhook')", name="subject_known"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    subject: Mapped[str]
    subject_id: Mapped[UUID]
    """The connection, or the webhook."""
    change: Mapped[str] = mapped_column(RawJson())
    """What the order said: JSON text."""
    changed_by: Mapped[str]
    """The person that it is for, as the caller said; the caller where nobody was named."""
    requested_by: Mapped[str | None]
    """Whose credentials asked for it."""
    at: Mapped[datetime] = mapped_column(server_default=func.now())
