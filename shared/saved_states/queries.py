"""Queries that save and read states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import SavedState

Kind = Literal["heal", "rollback", "pause", "upgrade"]
NotSaved = Literal["no_key", "no_state", "too_large", "unreadable"]
"""Why a state was not saved: there is no key to encrypt it with, Airbyte has none, it is larger
than the limit, or Airbyte did not return it."""


@dataclass(frozen=True, slots=True)
class ToSave:
    """The state of a connection before an operation changes it."""

    operation_id: UUID
    connection_id: UUID
    kind: Kind
    catalog_version: int
    airbyte_job_id: int | None
    state: bytes | None
    """Sealed; None if `not_saved` has the reason."""
    not_saved: NotSaved | None


async def save(session: AsyncSession, row: ToSave) -> datetime:
    """Store a state, unless the operation has stored one before; return when it was saved."""
    found = await session.scalar(
        _SAVE,
        {
            "id": uuid4(),
            "operation_id": row.operation_id,
            "connection_id": row.connection_id,
            "kind": row.kind,
            "catalog_version": row.catalog_version,
            "job": row.airbyte_job_id,
            "state": row.state,
            "not_saved": row.not_saved,
        },
    )
    saved_at: datetime = found
    return saved_at


_CONNECTOR = """
    SELECT CASE WHEN k.manifest_version IS NULL THEN k.version
        ELSE 'manifest ' || k.manifest_version END
    FROM source_connectors k JOIN connections c ON c.airbyte_source_id = k.airbyte_source_id
    WHERE c.id = :connection_id
"""
_SAVE = text(f"""
    WITH saved AS (
        INSERT INTO stream_states (
            id, operation_id, connection_id, kind, catalog_version, connector_version,
            airbyte_job_id, state, not_saved
        ) VALUES (
            :id, :operation_id, :connection_id, :kind, :catalog_version, ({_CONNECTOR}),
            CAST(:job AS bigint), CAST(:state AS bytea), :not_saved
        )
        ON CONFLICT (operation_id) DO NOTHING RETURNING saved_at
    )
    SELECT saved_at FROM saved
    UNION ALL SELECT saved_at FROM stream_states WHERE operation_id = :operation_id
    LIMIT 1
""")  # noqa: S608 - no input


async def saved_ids(session: AsyncSession, connection_id: UUID, *, limit: int) -> Sequence[UUID]:
    """The newest saved states of a connection, newest first."""
    rows = await session.scalars(
        select(SavedState.id)
        .where(SavedState.connection_id == connection_id, SavedState.state.is_not(None))
        .order_by(SavedState.saved_at.desc())
        .limit(limit)
    )
    return rows.all()


async def find(session: AsyncSession, saved_id: UUID) -> SavedState | None:
    """A saved state; None if it was pruned."""
    return await session.get(SavedState, saved_id)
