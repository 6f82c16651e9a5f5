"""The registry's tables. A table's docstring names who writes it; times are UTC with time zone."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType


class RawJson(UserDefinedType[str]):
    """A JSONB column whose values go in and come out as JSON text.

    SQLAlchemy's own JSON type would parse and dump them: as dear as the insert on a large catalog.
    """

    cache_ok = True

    def get_col_spec(self, **_kwargs: Any) -> str:
        """The column's type in DDL."""
        return "JSONB"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can find it again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: DateTime(timezone=True),
        str: Text(),
        bytes: LargeBinary(),
    }


class ConnectionStatus(StrEnum):
    """Where a connection is in its life."""

    PENDING = "PENDING"
    """Being onboarded: Airbyte may hold a part of it."""
    ACTIVE = "ACTIVE"
    """Airbyte holds the head version of its catalog."""
    FAILED = "FAILED"
    """Onboarding failed and was undone, or a repair left Airbyte in a state that is not known."""
    HEALING = "HEALING"
    """A new catalog is on its way to Airbyte."""


class VersionOrigin(StrEnum):
    """What made a catalog version."""

    ONBOARD = "onboard"
    REPAIR = "repair"
    IMPORT = "import"
    ROLLBACK = "rollback"
    """An older version again, appended as the newest."""


class OperationStatus(StrEnum):
    """How far an operation is."""

    RUNNING = "running"
    UNDOING = "undoing"
    """It failed, and what it made is being taken back."""
    DONE = "done"
    FAILED = "failed"


class RepairState(StrEnum):
    """How far a repair is."""

    PROPOSED = "proposed"
    """It waits for a person, until `expires_at`."""
    APPROVED = "approved"
    """Decided, by a person or by the policy; applied as soon as the connection is free."""
    APPLYING = "applying"
    VERIFYING = "verifying"
    """Applied and read back; a sync with it runs."""
    ROLLING_BACK = "rolling_back"
    """That sync failed for a schema reason: the version before is on its way back."""
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"
    """Nobody answered: nothing was done."""
    SUPERSEDED = "superseded"
    """A newer plan took its place, or what it was made from is gone."""
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class DeliveryState(StrEnum):
    """How far a webhook's message is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after the last try."""


class JobStarter(StrEnum):
    """Who had a job started."""

    AAM = "aam"
    AIRBYTE = "airbyte"
    """Airbyte's own scheduler, or a person in its pages."""


def _where_set(table: str, column: str) -> Index:
    """An index of the rows in which a column is set: of those that end, or refer to another row."""
    is_set = text(f"{column} IS NOT NULL")  # nosemgrep: built-sql - a column's name, of ours
    return Index(f"ix_{table}_{column}", column, postgresql_where=is_set)


class Connection(Base):
    """One source kept in step with one destination.

    Written by the orchestrator; status and head also by the drift_repair_agent, by compare-and-set.
    """

    __tablename__ = "connections"
    __table_args__ = (
        # A failed onboarding and an archived connection free their name.
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
        Index("ix_connections_airbyte_source_id", "airbyte_source_id"),
        _where_set("connections", "paused_by"),
        Index("ix_connections_created_at_id", "created_at", "id"),
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
    credential_id: Mapped[str | None]
    """The credential's reference, as the auth_broker reads it."""
    credential_digests: Mapped[str | None] = mapped_column(RawJson())
    """What its source was given last: each field's HMAC by a key that is not in the registry."""
    airbyte_source_id: Mapped[UUID | None]
    airbyte_connection_id: Mapped[UUID | None]
    airbyte_destination_id: Mapped[UUID]
    airbyte_workspace_id: Mapped[UUID | None]
    """Where its source is; None where it was made before this was kept."""
    status: Mapped[ConnectionStatus] = mapped_column(
        Enum(ConnectionStatus, name="connection_status")
    )
    catalog_version: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the head version; 0 until onboarding is done."""
    heal_id: Mapped[UUID | None]
    """The operation that holds the connection while it is HEALING; its writes are fenced by it."""
    healing_since: Mapped[datetime | None]
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None]
    imported: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether somebody else made it in Airbyte: AAM deletes nothing of it there."""
    drifted_upstream_at: Mapped[datetime | None]
    """Since when Airbyte is seen to hold it otherwise than the registry; None when it does not."""
    upstream_code: Mapped[str | None]
    """What is otherwise there: catalog_differs, upstream_missing, paused, breaking_change, locked
    (by Airbyte itself) or status_unknown."""
    paused_by: Mapped[UUID | None]
    """The repair that paused it in Airbyte until it is decided; None when it was not AAM."""
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Sequence number of its newest event, drawn under this row's lock."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    archived_at: Mapped[datetime | None]


class StreamSchema(Base):
    """What a source offers for one stream, stored once however many snapshots hold it.

    Written by whoever takes a snapshot, never changed.
    """

    __tablename__ = "stream_schemas"
    __table_args__ = (Index("ix_stream_schemas_created_at", "created_at"),)

    hash: Mapped[bytes] = mapped_column(primary_key=True)
    """blake2b of the canonical form, 16 bytes: equal for a mere reordering of keys."""
    name: Mapped[str]
    namespace: Mapped[str | None]
    body: Mapped[str]
    """The `{"stream": …, "config": …}` pair as Airbyte's discovery gave it: JSON text."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was stored last: a snapshot that is about to list it sets it again."""


class Snapshot(Base):
    """What a source offered at a time: a list of stream hashes.

    Written by the orchestrator, and by the schema_observer.
    """

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("ix_snapshots_airbyte_source_id_taken_at", "airbyte_source_id", "taken_at"),
        Index("ix_snapshots_taken_at", "taken_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    airbyte_source_id: Mapped[UUID]
    airbyte_catalog_id: Mapped[UUID | None]
    """Airbyte's `catalogId` of the discovery, sent back to it as `sourceCatalogId`."""
    raw_hashes: Mapped[bytes]
    """xxh3 of each stream's bytes in order, 16 bytes each: equal means nothing changed at all."""
    stream_hashes: Mapped[bytes]
    """Keys into `stream_schemas` in order, 16 bytes each."""
    taken_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When a discovery last found the source still like this."""


class SyncCatalogVersion(Base):
    """Exactly the catalog that Airbyte was given: the selected streams. Append-only.

    Written by the orchestrator (version 1) and the drift_repair_agent (the rest).
    """

    __tablename__ = "sync_catalog_versions"
    __table_args__ = (
        UniqueConstraint("connection_id", "version_number"),
        _where_set("sync_catalog_versions", "repair_id"),
        _where_set("sync_catalog_versions", "snapshot_id"),
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
    """How many streams it has; Postgres counts them when the row is inserted."""
    fingerprint: Mapped[str]
    """What the catalog means, independent of order and of Airbyte's defaults."""
    origin: Mapped[str]
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What the source offered when this catalog was made; None where nobody said."""
    repair_id: Mapped[UUID | None] = mapped_column(ForeignKey("repairs.id"))
    """The repair that made it; None where a caller gave the catalog."""
    decided_by: Mapped[str | None]
    """Who decided: a person's name as it was told, or `policy`."""
    policy_set_by: Mapped[str | None]
    """Who set the policy's entries that decided; None for the default and for a person."""
    asked_by: Mapped[str | None]
    """Whose credentials asked for it; None where AAM made it by itself."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobHistory(Base):
    """One Airbyte job, followed to its end. Written by the orchestrator."""

    __tablename__ = "job_history"
    __table_args__ = (
        UniqueConstraint("airbyte_job_id", "connection_id"),
        Index("ix_job_history_connection_id_started_at", "connection_id", "started_at"),
        # Only running jobs are looked at, however many have ended.
        Index("ix_job_history_running", "id", postgresql_where=text("ended_at IS NULL")),
        _where_set("job_history", "ended_at"),
        CheckConstraint("started_by IN ('aam', 'airbyte')", name="started_by_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    airbyte_job_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    catalog_version: Mapped[int]
    """The head version when the job was started."""
    started_by: Mapped[str] = mapped_column(default=JobStarter.AAM, server_default=JobStarter.AAM)
    asked_by: Mapped[str | None]
    """Who asked AAM for it; None where Airbyte started it."""
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    records: Mapped[int | None] = mapped_column(BigInteger)
    bytes_: Mapped[int | None] = mapped_column("bytes", BigInteger)
    failure_code: Mapped[str | None]
    """Airbyte's failure type (config_error, system_error, …); never its message."""
    failure_cause: Mapped[str | None]
    """Which of the known causes (`shared.causes`) its message names."""
    failure_explanation: Mapped[str | None]
    """The cause in a fixed sentence."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


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
        _where_set("operations", "ended_at"),
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


class Look(Base):
    """A look that one replica takes for all of them. Written by whoever takes it."""

    __tablename__ = "looks"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """From when on the next one is due."""
    seen_until: Mapped[datetime | None]
    """How far the last one saw, where looks go through something that grows."""


class EventRow(Base):
    """The outbox: events of committed changes, in commit order per connection, until relayed.

    Written by whoever changes state, in the same transaction.
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


class Observation(Base):
    """How a source is being looked at: one row a source, however many connections stand on it.

    Written by the schema_observer; a look in progress is fenced by `claimed_by`.
    """

    __tablename__ = "observations"
    __table_args__ = (
        Index("ix_observations_next_at", "next_at"),
        Index("ix_observations_claimed_until", "claimed_until"),
        _where_set("observations", "snapshot_id"),
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
    __table_args__ = (_where_set("watches", "compared_snapshot_id"),)

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
        _where_set("drifts", "before_snapshot_id"),
        _where_set("drifts", "after_snapshot_id"),
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


class Policy(Base):
    """What may happen to a connection without a person, where it differs from the default.

    Written by the drift_repair_agent.
    """

    __tablename__ = "policies"

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    policy: Mapped[str] = mapped_column(RawJson())
    """As PUT /connections/{id}/policy took it: JSON text."""
    authors: Mapped[str] = mapped_column(RawJson(), server_default=text("'{}'"))
    """Who set each entry that differs, by `entity.what` or the setting's name: JSON text."""
    updated_by: Mapped[str | None]
    """The person that the newest change is for, as the caller said."""
    requested_by: Mapped[str | None]
    """Whose credentials asked for the newest change."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


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


class Plan(Base):
    """What a connection was last planned against. Written by the drift_repair_agent."""

    __tablename__ = "plans"
    __table_args__ = (_where_set("plans", "snapshot_id"),)

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    snapshot_id: Mapped[UUID] = mapped_column(ForeignKey(Snapshot.id))
    base_version: Mapped[int]
    planned_at: Mapped[datetime] = mapped_column(server_default=func.now())


_REPAIR_OPEN = text("state = 'proposed'")
_REPAIR_UNDER_WAY = text("state IN ('approved', 'applying', 'verifying', 'rolling_back')")


class Repair(Base):
    """A plan for a connection, what was decided about it, and what came of it.

    Written by the drift_repair_agent. A connection has at most one that waits for a person, and one
    that is under way.
    """

    __tablename__ = "repairs"
    __table_args__ = (
        Index("uq_repairs_proposed", "connection_id", unique=True, postgresql_where=_REPAIR_OPEN),
        Index(
            "uq_repairs_under_way", "connection_id", unique=True, postgresql_where=_REPAIR_UNDER_WAY
        ),
        Index("ix_repairs_connection_id_created_at", "connection_id", "created_at"),
        Index("ix_repairs_created_at_id", "created_at", "id"),
        Index("ix_repairs_expires_at", "expires_at", postgresql_where=_REPAIR_OPEN),
        Index("ix_repairs_under_way", "updated_at", postgresql_where=_REPAIR_UNDER_WAY),
        Index("ix_repairs_operation_id", "operation_id"),
        Index("ix_repairs_unlearned", "learn_next_at", postgresql_where=text("NOT is_learned")),
        _where_set("repairs", "drift_id"),
        _where_set("repairs", "parent_id"),
        _where_set("repairs", "snapshot_id"),
        _where_set("repairs", "superseded_by"),
        _where_set("repairs", "ended_at"),
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
    """The newest drift that it answers; None for a rollback that a person asked for."""
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("repairs.id"))
    """The repair that it was split from, when only some of its changes were decided."""
    superseded_by: Mapped[UUID | None]
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What the source offered when it was planned."""
    base_version: Mapped[int]
    """The head that it was planned on; on another one it is stale, and is not applied."""
    target_version: Mapped[int | None]
    """Of a rollback: the version that is to be in force again."""
    changes: Mapped[str] = mapped_column(RawJson())
    """An array of changes with verdict, reaction, suggestion and decision: JSON text."""
    summary: Mapped[str | None] = mapped_column(
        RawJson(), Computed("summary_of_changes(changes)", persisted=True), deferred=True
    )
    """What the list of repairs shows of `changes`; Postgres computes it when they are written."""
    decisions: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """Who decided what, when and why, oldest first: JSON text."""
    verify_by_sync: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    operation_id: Mapped[UUID | None]
    """The newest operation that works on it."""
    version_number: Mapped[int | None]
    """The catalog version that it became."""
    restored_version: Mapped[int | None]
    """The version that put the old catalog back, where its sync failed."""
    job_id: Mapped[UUID | None]
    """The sync that verifies it."""
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None]
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it is looked at again, while it is under way."""
    deadline_at: Mapped[datetime | None]
    """Until when it may stay in its state; None until somebody has looked at it there."""
    is_learned: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """Whether the rag_engine knows what a person decided about it, or has refused it for good."""
    learn_tries: Mapped[int] = mapped_column(default=0, server_default="0")
    learn_next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the rag_engine is to be told again."""
    not_learned: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """Decisions that it did not take, `[{"change": id, "code": why}]`: JSON text."""
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    ended_at: Mapped[datetime | None]


class Webhook(Base):
    """Who is told about repairs. Written by the drift_repair_agent.

    Its signing secret is not here: it is derived from WEBHOOK_SIGNING_KEY, the id and `generation`.
    """

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    url: Mapped[str]
    events: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The event types that it is told of, as a JSON array."""
    connection_id: Mapped[UUID | None] = mapped_column(ForeignKey(Connection.id))
    """The one connection that it is told of; None for every one."""
    generation: Mapped[int] = mapped_column(default=1, server_default="1")
    """Which of its secrets is in force; the one before it still signs for a day."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str | None]
    """Whose credentials asked for it; so with the two below."""
    rotated_at: Mapped[datetime | None]
    rotated_by: Mapped[str | None]
    deleted_at: Mapped[datetime | None]
    """When it was deleted, by a person or by its receiver's 410."""
    deleted_by: Mapped[str | None]
    """None where its receiver answered 410."""


class WebhookDelivery(Base):
    """One message to one webhook, and how its delivery went. Written by the drift_repair_agent."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "repair_id", "type"),
        Index(
            "ix_webhook_deliveries_waiting",
            "next_at",
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", "created_at"),
        _where_set("webhook_deliveries", "repair_id"),
        _where_set("webhook_deliveries", "ended_at"),
        CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name="state_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    """Sent as `webhook-id`: the same on every try."""
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey(Webhook.id))
    repair_id: Mapped[UUID | None] = mapped_column(ForeignKey(Repair.id))
    """None for a test message."""
    type: Mapped[str]
    body: Mapped[str]
    """What is sent: JSON text, the same bytes on every try."""
    state: Mapped[str] = mapped_column(default=DeliveryState.WAITING, server_default="waiting")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_status: Mapped[int | None]
    """The HTTP status that the last try was answered with; None where there was no answer."""
    last_code: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class Knowledge(Base):
    """What a person decided about a field or stream that was gone: evidence for the next time.

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
    """The decision's own id, so that telling it twice is telling it once."""
    source_type: Mapped[str]
    entity: Mapped[str]
    namespace: Mapped[str | None]
    stream: Mapped[str]
    removed: Mapped[str] = mapped_column(RawJson())
    """What was gone: the path as a JSON array."""
    became: Mapped[str | None] = mapped_column(RawJson())
    """What it became; None where it became nothing."""
    verdict: Mapped[str]
    removed_schema: Mapped[str | None] = mapped_column(RawJson())
    added_schema: Mapped[str | None] = mapped_column(RawJson())
    connection_id: Mapped[UUID | None]
    decided_by: Mapped[str]
    """The person, as the caller said; the caller where nobody was named."""
    requested_by: Mapped[str | None]
    """Whose credentials asked for it."""
    why: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """Who may call, and what. The key itself is nowhere. Written by the orchestrator."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """The part of the key that may be told: eight letters and digits."""
    digest: Mapped[bytes]
    """SHA-256 of the whole key."""
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    owner: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""
    revoked_at: Mapped[datetime | None]


class CredentialRead(Base):
    """Who read which credential when; never what it is. Append-only, by the auth_broker.

    A row is committed before the secret leaves; its unique `jti` refuses a token that came before.
    """

    __tablename__ = "credential_audit"
    __table_args__ = (
        UniqueConstraint("jti"),
        Index("ix_credential_audit_credential_id_at", "credential_id", "at"),
        Index("ix_credential_audit_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    caller: Mapped[str]
    """The service, and for whom it asked where it said so."""
    jti: Mapped[str]
    """The id of the token that it came with."""
    credential_id: Mapped[str]
    source_type: Mapped[str]
    result: Mapped[str]
    """`granted`, or the code of what was answered instead."""
    request_id: Mapped[str]
