"""Pruning of history, by the SQL function in `migrations/retention.sql`."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def prune_history(session: AsyncSession, what: str, *, kept: timedelta, at_most: int) -> int:
    """Delete up to `at_most` of a table's oldest rows beyond the age `kept`; return how many.

    Rows that are still referenced stay, whatever their age. Needs a transaction.
    """
    return int(await session.scalar(_PRUNE, {"what": what, "kept": kept, "at_most": at_most}) or 0)


_PRUNE = text("SELECT prune_history(:what, CAST(:kept AS interval), :at_most)")
