"""Pruning of history, by the SQL function in `migrations/prune_history.sql`."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def prune_history(
    session: AsyncSession, what: str, *, max_age: timedelta, at_most: int
) -> int:
    """Delete up to `at_most` rows of a table that are older than `max_age`; return how many.

    Rows that are still referenced stay, whatever their age. Needs a transaction.
    """
    return int(
        await session.scalar(_PRUNE, {"what": what, "max_age": max_age, "at_most": at_most}) or 0
    )


_PRUNE = text("SELECT prune_history(:what, CAST(:max_age AS interval), :at_most)")
