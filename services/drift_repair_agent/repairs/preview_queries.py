"""Queries for previews of policies: the drifts that a policy is tried on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import Drift, Repair
from shared.registry.paging import Cursor


async def newest_drifts(
    session: AsyncSession, connection_id: UUID, *, after: Cursor | None, limit: int
) -> Sequence[Drift]:
    """Drifts of a connection, newest first, from the position `after` on."""
    wanted = select(Drift).where(Drift.connection_id == connection_id)
    if after is not None:
        at, id_ = after
        is_older = (Drift.first_seen_at < at) | ((Drift.first_seen_at == at) & (Drift.id < id_))
        wanted = wanted.where(is_older)
    newest_first = wanted.order_by(Drift.first_seen_at.desc(), Drift.id.desc())
    return (await session.scalars(newest_first.limit(limit))).all()


async def changes_of_drifts(
    session: AsyncSession, drift_ids: Collection[UUID]
) -> Mapping[UUID, list[str]]:
    """The changes of the repairs that were planned for these drifts, as JSON text."""
    rows = await session.execute(
        select(Repair.drift_id, Repair.changes).where(Repair.drift_id.in_(drift_ids))
    )
    found: dict[UUID, list[str]] = {}
    for drift_id, changes in rows:
        if drift_id is not None:
            found.setdefault(drift_id, []).append(changes)
    return found
