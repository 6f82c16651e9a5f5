"""What sources offered: snapshots, and each stream's schema once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    Index,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base


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
