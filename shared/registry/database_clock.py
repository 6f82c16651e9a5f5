"""The registry's clock, and which replica runs a periodic task."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession


async def now(session: AsyncSession) -> datetime:
    """The registry's current time."""
    return (await session.execute(select(func.now()))).scalar_one()


async def take_turn(session: AsyncSession, task: str, *, every: timedelta) -> bool:
    """Claim a periodic task that is due, on behalf of all replicas; whether the caller got it."""
    return await session.scalar(_TURN, {"name": task, "every": every}) is not None


_TURN = text("""
    INSERT INTO periodic_runs (name, next_at) VALUES (:name, now() + CAST(:every AS interval))
    ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at WHERE periodic_runs.next_at <= now()
    RETURNING name
""")
