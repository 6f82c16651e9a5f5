"""Connections, their catalog versions and jobs, and the outbox of events."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Enum,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson, where_set
from shared.models.snapshots import Snapshot


class ConnectionStatus(StrEnum):
    """The lifecycle status of a connection."""

    PENDING = "PENDING"
    """Being onboarded; parts of it may already exist in Airbyte."""
    ACTIVE = "ACTIVE"
    """Airbyte has the head version of its catalog."""
    FAILED = "FAILED"
    """Onboarding failed and was undone, or a repair left Airbyte in an unknown state."""
    HEALING = "HEALING"
    """A new catalog is being applied in Airbyte."""


class VersionOrigin(StrEnum):
    """What created a catalog version."""

    ONBOARD = "onboard"
    REPAIR = "repair"
    IMPORT = "import"
    ROLLBACK = "rollback"
    """An older version, appended again as the newest."""


class JobStarter(StrEnum):
    """What started a job."""

    AAM = "aam"
    AIRBYTE = "airbyte"
    """Airbyte's own scheduler, or a user of its UI."""


class Connection(Base):
    """A connection from a source to a destination, managed by AAM.

    Written by the orchestrator; status, head and the pauses of repairs also by the
    drift_repair_agent, by compare-and-set.
    """

    __tablename__ = "connections"
    __table_args__ = (
        # A failed onboarding and an archived connection release their name.
        Index(
            "uq_connections_name_live",
            "name",
            unique=True,
            postgresql_where=text(
                "archived_at IS NULL AND (status <> 'FAILED' OR airbyte_connection_id IS NOT NULL)"
            ),
        ),
        Index(
            "uq_connections_airbyte_connection_id_live",
            "airbyte_connection_id",
            unique=True,
            postgresql_where=text("archived_at IS NULL AND airbyte_connection_id IS NOT NULL"),
        ),
        Index(
            "ix_connections_airbyte_connection_id_archived",
            "airbyte_connection_id",
            postgresql_where=text("archived_at IS NOT NULL"),
        ),
        Index("ix_connections_airbyte_source_id", "airbyte_source_id"),
        Index(
            "ix_connections_airbyte_destination_id_live",
            "airbyte_destination_id",
            "id",
            postgresql_where=text("archived_at IS NULL"),
        ),
        Index(
            "ix_connections_credential_id_live",
            "credential_id",
            "id",
            postgresql_where=text("credential_id IS NOT NULL AND archived_at IS NULL"),
        ),
        where_set("connections", "paused_by"),
        where_set("connections", "credential_rejected_since"),
        Index("ix_connections_created_at_id", "created_at", "id"),
        Index(
            "ix_connections_airbyte_workspace_id_created_at_id",
            "airbyte_workspace_id",
            "created_at",
            "id",
        ),
        Index("ix_connections_lower_name_id", text("lower(name)"), "id"),
        Index("ix_connections_source_type_created_at_id", "source_type", "created_at", "id"),
        Index("ix_connections_credential_id", "credential_id"),
        where_set("connections", "upstream_code"),
        Index(
            "ix_connections_labels",
            "labels",
            postgresql_using="gin",
            postgresql_ops={"labels": "jsonb_path_ops"},
        ),
        CheckConstraint("(status = 'HEALING') = (heal_id IS NOT NULL)", name="healing_has_an_id"),
        CheckConstraint(
            "status NOT IN ('ACTIVE', 'HEALING')"
            " OR (airbyte_connection_id IS NOT NULL AND catalog_version > 0)",
            name="live_is_wired",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    source_type: Mapped[str]
    """The name of its source's definition in Airbyte."""
    source_definition_id: Mapped[UUID | None]
    """Airbyte's `sourceDefinitionId`; None for rows older than this column."""
    source_configuration: Mapped[str | None] = mapped_column(RawJson())
    """The part of its source's configuration that the order had: JSON text, without secrets."""
    credential_id: Mapped[str | None]
    """The credential's reference, as the auth_broker reads it."""
    credential_digests: Mapped[str | None] = mapped_column(RawJson())
    """HMAC of each value last sent to Airbyte, by its place; the key is not in the registry."""
    credential_changed_at: Mapped[datetime | None]
    """Since when the store is known to have another credential than its source; None if not."""
    credential_rejected_since: Mapped[datetime | None]
    """Since when its source rejects the credential that it has; None if it does not."""
    credential_rejected_cause: Mapped[str | None]
    """The known cause (`shared.failure_causes`) of that."""
    airbyte_source_id: Mapped[UUID | None]
    airbyte_connection_id: Mapped[UUID | None]
    airbyte_destination_id: Mapped[UUID]
    table_naming: Mapped[str | None] = mapped_column(RawJson())
    """Its namespace definition, namespace format and prefix, as Airbyte last had them: JSON text.
    None if they were never read, so that Airbyte's defaults are assumed."""
    airbyte_workspace_id: Mapped[UUID | None]
    """The workspace of its source, known before the source is; None in rows older than this."""
    status: Mapped[ConnectionStatus] = mapped_column(
        # With its schema, which the search path of limited callers does not have.
        Enum(ConnectionStatus, name="connection_status", schema="public")
    )
    catalog_version: Mapped[int] = mapped_column(default=0, server_default="0")
    """The head version's number; 0 until onboarding is done."""
    has_mappers: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether a stream of the head may have mappers, so that observations check them."""
    heal_id: Mapped[UUID | None]
    """The operation that has the connection while it is HEALING; fences its writes."""
    healing_since: Mapped[datetime | None]
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None]
    imported: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether it was created in Airbyte outside of AAM, which then deletes nothing of it there."""
    drifted_upstream_at: Mapped[datetime | None]
    """Since when Airbyte's connection differs from the registry; None if it does not."""
    upstream_code: Mapped[str | None]
    """How Airbyte's connection differs: catalog_differs, upstream_missing, paused, breaking_change,
    locked (by Airbyte itself) or status_unknown."""
    paused_by: Mapped[UUID | None]
    """The repair that paused it in Airbyte until it is decided; None if AAM has not paused it."""
    pause_requested_by: Mapped[str | None]
    """The person who paused it, which no repair ends; None if no person has."""
    unpaused_repair_id: Mapped[UUID | None]
    """The open repair whose pause a person ended: its changes do not pause the connection again."""
    description: Mapped[str | None]
    labels: Mapped[str] = mapped_column(RawJson(), default="{}", server_default=text("'{}'"))
    """What people sort connections by: a JSON object of texts."""
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Sequence number of its newest event, assigned under this row's lock."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    archived_at: Mapped[datetime | None]


class SyncCatalogVersion(Base):
    """A catalog exactly as sent to Airbyte: the selected streams. Append-only.

    Written by the orchestrator (version 1) and the drift_repair_agent (the rest).
    """

    __tablename__ = "sync_catalog_versions"
    __table_args__ = (
        UniqueConstraint("connection_id", "version_number"),
        Index("ix_sync_catalog_versions_connection_id_created_at", "connection_id", "created_at"),
        where_set("sync_catalog_versions", "repair_id"),
        where_set("sync_catalog_versions", "snapshot_id"),
        CheckConstraint("version_number > 0", name="version_number_positive"),
        CheckConstraint(
            "origin IN ('onboard', 'repair', 'import', 'rollback')", name="origin_known"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    version_number: Mapped[int]
    sync_catalog: Mapped[str] = mapped_column(RawJson())
    """JSON text."""
    stream_count: Mapped[int | None] = mapped_column(
        Computed("jsonb_array_length(sync_catalog->'streams')", persisted=True)
    )
    """The number of its streams, computed by Postgres on insert."""
    fingerprint: Mapped[str]
    """A hash of the catalog, independent of order and of Airbyte's defaults."""
    origin: Mapped[str]
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What the source offered when this catalog was made; None if unknown."""
    repair_id: Mapped[UUID | None] = mapped_column(ForeignKey("repairs.id"))
    """The repair that created it; None if a caller supplied the catalog."""
    decided_by: Mapped[str | None]
    """Who decided: a person's name as given by the caller, or `policy`."""
    policy_set_by: Mapped[str | None]
    """Who set the deciding policy entries; None for the default policy or a person's decision."""
    requested_by: Mapped[str | None]
    """The caller who requested it; None if AAM created it on its own."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobHistory(Base):
    """One Airbyte job, tracked to its end. Written by the orchestrator."""

    __tablename__ = "job_history"
    __table_args__ = (
        UniqueConstraint("airbyte_job_id", "connection_id"),
        Index("ix_job_history_connection_id_started_at", "connection_id", "started_at"),
        Index("ix_job_history_started_at_id", "started_at", "id"),
        Index("ix_job_history_status_started_at_id", "status", "started_at", "id"),
        # Only running jobs are polled, however many have ended.
        Index("ix_job_history_running", "id", postgresql_where=text("ended_at IS NULL")),
        where_set("job_history", "ended_at"),
        Index(
            "ix_job_history_follow_up_due",
            "ended_at",
            postgresql_where=text("follow_up = 'due'"),
        ),
        Index(
            "ix_job_history_awaits_heal",
            "ended_at",
            postgresql_where=text("follow_up = 'awaits_heal'"),
        ),
        CheckConstraint(
            "follow_up IN ('due', 'observed', 'retried', 'rejected', 'skipped', 'awaits_heal', "
            "'synced')",
            name="follow_up_known",
        ),
        CheckConstraint("started_by IN ('aam', 'airbyte')", name="started_by_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    airbyte_job_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(default="sync", server_default="sync")
    """Airbyte's word: sync, refresh, clear or reset_connection; sync where not known."""
    status: Mapped[str]
    catalog_version: Mapped[int]
    """The head version when the job started."""
    started_by: Mapped[str] = mapped_column(default=JobStarter.AAM, server_default=JobStarter.AAM)
    requested_by: Mapped[str | None]
    """The caller who requested it; None if Airbyte started it."""
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    records: Mapped[int | None] = mapped_column(BigInteger)
    bytes_: Mapped[int | None] = mapped_column("bytes", BigInteger)
    failure_code: Mapped[str | None]
    """Airbyte's failure type (config_error, system_error, …); never its message."""
    failure_cause: Mapped[str | None]
    """The known cause (`shared.failure_causes`) that its message matches; None if none does."""
    failure_explanation: Mapped[str | None]
    """The cause as a fixed sentence."""
    follow_up: Mapped[str | None]
    """What AAM did after a failure of the source: observed, retried, rejected (the credential was)
    or skipped; `due` until then, and None after any other end. By policy, awaits_heal once it was
    observed, and synced if AAM has run the sync again after the heal."""
    suspicious_streams: Mapped[str | None] = mapped_column(RawJson(), deferred=True)
    """The streams of which it brought far fewer rows than usual, with the catalog version since
    when, ordered by name: a JSON array; None if there are none."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class EventRow(Base):
    """The outbox: events of committed changes, in commit order per connection.

    Written by every service that changes state, in the same transaction.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("connection_id", "seq"),
        Index("ix_events_unpublished", "id", postgresql_where=text("published_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[UUID] = mapped_column(default=uuid4, unique=True)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    seq: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str]
    ref: Mapped[UUID | None]
    """Id of the job, snapshot or repair that the event is about."""
    status: Mapped[str]
    version: Mapped[int]
    code: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]


class TimelineEvent(Base):
    """A rare event of a connection that no other table records: part of its history.

    Written by every service that records such an event, in the same transaction; see
    `outbox.ON_TIMELINE`. The outbox itself keeps events for days only. Never updated, except that
    the drift_repair_agent ends `to_notify`.
    """

    __tablename__ = "timeline_events"
    __table_args__ = (
        Index("ix_timeline_events_connection_id_at", "connection_id", "at"),
        Index("ix_timeline_events_at", "at"),
        Index("ix_timeline_events_to_notify", "at", postgresql_where=text("to_notify")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    type: Mapped[str]
    ref: Mapped[UUID | None]
    """As the event's."""
    code: Mapped[str | None]
    to_notify: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether the messages to webhooks are still to be added."""
    at: Mapped[datetime] = mapped_column(server_default=func.now())
