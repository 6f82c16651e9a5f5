"""Queries for previews of policies: the drifts that a policy is tried on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import Drift, Repair
from shared.registry.paging import Cursor

_MOST_REPAIRS: Final = 10
"""How many repairs of a drift are read: each plan makes two at most, and each approval of a part
one more."""


async def newest_drifts(
    session: AsyncSession, connection_id: UUID, *, after: Cursor | None, limit: int
) -> Sequence[Drift]:
    """Drifts of a connection, newest first, from the position `after` on."""
    wanted = select(Drift).where(Drift.connection_id == connection_id)
    if after is not None:
        at, id_ = after
        # The first part alone is a range of the index; the second one is for equal times.
        is_before = (Drift.first_seen_at < at) | (Drift.id < id_)
        wanted = wanted.where(Drift.first_seen_at <= at, is_before)
    newest_first = wanted.order_by(Drift.first_seen_at.desc(), Drift.id.desc())
    return (await session.scalars(newest_first.limit(limit))).all()


async def changes_of_drifts(
    session: AsyncSession, drift_ids: Collection[UUID]
) -> Mapping[UUID, list[str]]:
    """The changes of the repairs that were planned for these drifts, as JSON text, oldest first.

    Those of the newest repairs of each drift, at most _MOST_REPAIRS.
    """
    age = func.row_number().over(
        partition_by=Repair.drift_id, order_by=(Repair.created_at.desc(), Repair.id.desc())
    )
    planned = select(Repair.id, age.label("age")).where(Repair.drift_id.in_(drift_ids)).subquery()
    rows = await session.execute(
        select(Repair.drift_id, Repair.changes)
        .join(planned, planned.c.id == Repair.id)
        .where(planned.c.age <= _MOST_REPAIRS)
        .order_by(Repair.created_at, Repair.id)
    )
    found: dict[UUID, list[str]] = {}
    for drift_id, changes in rows:
        if drift_id is not None:
            found.setdefault(drift_id, []).append(changes)
    return found
