"""Queries for when states were saved, and for what the job history knows of full reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import SavedState
from shared.registry.job_kinds import is_sync
from shared.saved_states.queries import Kind, NotSaved


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


_FULL_READ = text(f"""
    SELECT j.ended_at - j.started_at AS took, j.records
    FROM job_history j JOIN connections c ON c.id = j.connection_id
    WHERE j.connection_id = :id AND j.status = 'succeeded' AND j.ended_at IS NOT NULL
        AND {is_sync("j")} AND (
        j.catalog_version = CAST(:version AS integer)
        OR CAST(:since_first AS boolean)
            AND (CAST(:kept AS interval) IS NULL OR c.created_at > now() - CAST(:kept AS interval))
            AND j.catalog_version = 1
            AND NOT EXISTS (
                SELECT FROM job_history before
                WHERE before.connection_id = j.connection_id AND before.started_at < j.started_at
                    AND {is_sync("before")}
            )
            AND EXISTS (
                SELECT FROM sync_catalog_versions v
                WHERE v.connection_id = j.connection_id AND v.version_number = 1
                    AND v.origin = 'onboard'
            )
    )
    ORDER BY j.started_at DESC LIMIT 1
""")  # noqa: S608 - no input
