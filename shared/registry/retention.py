"""History that is pruned, by the function of `migrations/retention.sql`."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def prune_history(session: AsyncSession, what: str, *, kept: timedelta, at_most: int) -> int:
    """Delete the oldest rows of a table that are older than `kept`; how many there were.

    What something still refers to stays, whatever its age. Needs a transaction.
    """
    return int(await session.scalar(_PRUNE, {"what": what, "kept": kept, "at_most": at_most}) or 0)


_PRUNE = text("SELECT prune_history(:what, CAST(:kept AS interval), :at_most)")
