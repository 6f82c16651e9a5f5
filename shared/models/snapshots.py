"""Snapshots of what sources offer, and each distinct stream schema once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    Index,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base


class StreamSchema(Base):
    """A stream as a source offers it, stored once however many snapshots contain it.

    Written by every service that takes snapshots; the content is never changed.
    """

    __tablename__ = "stream_schemas"
    __table_args__ = (Index("ix_stream_schemas_created_at", "created_at"),)

    hash: Mapped[bytes] = mapped_column(primary_key=True)
    """16-byte blake2b of the canonical form, independent of the order of keys."""
    name: Mapped[str]
    namespace: Mapped[str | None]
    body: Mapped[str]
    """The `{"stream": …, "config": …}` object as Airbyte's discovery returned it, as JSON text."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was last stored: a new snapshot that contains it updates this."""


class Snapshot(Base):
    """What a source offered at one time: a list of stream hashes.

    Written by the orchestrator and the schema_observer.
    """

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("ix_snapshots_airbyte_source_id_taken_at", "airbyte_source_id", "taken_at"),
        Index("ix_snapshots_taken_at", "taken_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    airbyte_source_id: Mapped[UUID]
    airbyte_catalog_id: Mapped[UUID | None]
    """Airbyte's `catalogId` of the discovery, sent to Airbyte as `sourceCatalogId`."""
    raw_hashes: Mapped[bytes]
    """xxh3 of each stream's bytes in order, 16 bytes each; equal if not a byte changed."""
    stream_hashes: Mapped[bytes]
    """Keys into `stream_schemas` in order, 16 bytes each."""
    taken_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When a discovery last found the source unchanged."""
    connector_version: Mapped[str | None]
    """The connector's image tag at the last discovery that is known to have found this schema.

    For a source's newest snapshot, `source_connectors` may have a newer one: see
    `registry.connectors`. None where it could not be read.
    """
    manifest_version: Mapped[int | None] = mapped_column(BigInteger)
    """The same of the manifest of a connector that was made in the connector builder."""
