"""The registry's tables. A table's docstring names who writes it; times are UTC with time zone."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
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


class OperationStatus(StrEnum):
    """How far an operation is."""

    RUNNING = "running"
    UNDOING = "undoing"
    """It failed, and what it made is being taken back."""
    DONE = "done"
    FAILED = "failed"


class JobStarter(StrEnum):
    """Who had a job started."""

    AAM = "aam"
    AIRBYTE = "airbyte"
    """Airbyte's own scheduler, or a person in its pages."""


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
    airbyte_source_id: Mapped[UUID | None]
    airbyte_connection_id: Mapped[UUID | None]
    airbyte_destination_id: Mapped[UUID]
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
    """Since when Airbyte has been seen to hold another catalog than the head; None when it does."""
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

    hash: Mapped[bytes] = mapped_column(primary_key=True)
    """blake2b of the canonical form, 16 bytes: equal for a mere reordering of keys."""
    name: Mapped[str]
    namespace: Mapped[str | None]
    body: Mapped[str]
    """The `{"stream": …, "config": …}` pair as Airbyte's discovery gave it: JSON text."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Snapshot(Base):
    """What a source offered at a time: a list of stream hashes.

    Written by the orchestrator, and by the schema_observer.
    """

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("ix_snapshots_airbyte_source_id_taken_at", "airbyte_source_id", "taken_at"),
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
        CheckConstraint("version_number > 0", name="version_number_positive"),
        CheckConstraint("origin IN ('onboard', 'repair', 'import')", name="origin_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    version_number: Mapped[int]
    sync_catalog: Mapped[str] = mapped_column(RawJson())
    """JSON text."""
    fingerprint: Mapped[str]
    """What the catalog means, independent of order and of Airbyte's defaults."""
    origin: Mapped[str]
    snapshot_id: Mapped[UUID | None] = mapped_column(ForeignKey(Snapshot.id))
    """What the source offered when this catalog was made; None where nobody said."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobHistory(Base):
    """One Airbyte job, followed to its end. Written by the orchestrator."""

    __tablename__ = "job_history"
    __table_args__ = (
        UniqueConstraint("airbyte_job_id", "connection_id"),
        Index("ix_job_history_connection_id_started_at", "connection_id", "started_at"),
        # Only running jobs are looked at, however many have ended.
        Index("ix_job_history_running", "id", postgresql_where=text("ended_at IS NULL")),
        CheckConstraint("started_by IN ('aam', 'airbyte')", name="started_by_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id))
    airbyte_job_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    catalog_version: Mapped[int]
    """The head version when the job was started."""
    started_by: Mapped[str] = mapped_column(default=JobStarter.AAM, server_default=JobStarter.AAM)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    records: Mapped[int | None] = mapped_column(BigInteger)
    bytes_: Mapped[int | None] = mapped_column("bytes", BigInteger)
    failure_code: Mapped[str | None]
    """Airbyte's failure type (config_error, system_error, …); never its message."""
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
