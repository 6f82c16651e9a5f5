"""Queries for saved states, and for what the job history knows of full reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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


CONNECTOR = """
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
            :id, :operation_id, :connection_id, :kind, :catalog_version, ({CONNECTOR}),
            CAST(:job AS bigint), CAST(:state AS bytea), :not_saved
        )
        ON CONFLICT (operation_id) DO NOTHING RETURNING saved_at
    )
    SELECT saved_at FROM saved
    UNION ALL SELECT saved_at FROM stream_states WHERE operation_id = :operation_id
    LIMIT 1
""")  # noqa: S608 - no input


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to save a state, without the state."""

    saved_at: datetime
    kind: Kind
    operation_id: UUID
    catalog_version: int
    connector_version: str | None
    not_saved: NotSaved | None


async def newest(
    session: AsyncSession, connection_id: UUID, *, only_saved: bool = False
) -> Attempt | None:
    """The newest attempt to save a connection's state, or the newest that saved one."""
    order = (
        select(
            SavedState.saved_at,
            SavedState.kind,
            SavedState.operation_id,
            SavedState.catalog_version,
            SavedState.connector_version,
            SavedState.not_saved,
        )
        .where(SavedState.connection_id == connection_id)
        .order_by(SavedState.saved_at.desc())
        .limit(1)
    )
    if only_saved:
        order = order.where(SavedState.not_saved.is_(None))
    found = (await session.execute(order)).one_or_none()
    return None if found is None else Attempt(**found._mapping)


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


@dataclass(frozen=True, slots=True)
class FullRead:
    """A successful sync that read a stream in full, together with the connection's others."""

    took: timedelta
    records: int | None
    """The rows of all streams; None if Airbyte did not count them."""


async def last_full_read(
    session: AsyncSession,
    connection_id: UUID,
    *,
    full_version: int | None,
    is_since_first: bool,
    kept: timedelta | None,
) -> FullRead | None:
    """The last sync that is known to have read a stream in full; None if none is known.

    A sync of `full_version` has, in which the stream is read in full. With `is_since_first`, so has
    the connection's first sync, which is known if AAM onboarded the connection and has pruned none
    of its jobs, which it keeps for `kept`.
    """
    found = (
        await session.execute(
            _FULL_READ,
            {
                "id": connection_id,
                "version": full_version,
                "since_first": is_since_first,
                "kept": kept,
            },
        )
    ).one_or_none()
    return None if found is None else FullRead(found.took, found.records)


_FULL_READ = text("""
    SELECT j.ended_at - j.started_at AS took, j.records
    FROM job_history j JOIN connections c ON c.id = j.connection_id
    WHERE j.connection_id = :id AND j.status = 'succeeded' AND j.ended_at IS NOT NULL AND (
        j.catalog_version = CAST(:version AS integer)
        OR CAST(:since_first AS boolean)
            AND (CAST(:kept AS interval) IS NULL OR c.created_at > now() - CAST(:kept AS interval))
            AND j.catalog_version = 1
            AND NOT EXISTS (
                SELECT FROM job_history before
                WHERE before.connection_id = j.connection_id AND before.started_at < j.started_at
            )
            AND EXISTS (
                SELECT FROM sync_catalog_versions v
                WHERE v.connection_id = j.connection_id AND v.version_number = 1
                    AND v.origin = 'onboard'
            )
    )
    ORDER BY j.started_at DESC LIMIT 1
""")
