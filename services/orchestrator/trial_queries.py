"""Queries on trials: checks and previews of configurations that no connection uses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import SourceTrial

KEPT = timedelta(days=30)
"""How long a trial is kept whose temporary source was not found again."""


@dataclass(frozen=True, slots=True)
class Load:
    """The trials of one account of a source."""

    used: int
    """Trials in the last 24 hours."""
    frees_at: datetime
    """When the oldest of the newest `allowed` ones is 24 hours old."""
    is_running: bool


async def lock_account(session: AsyncSession, account: UUID) -> None:
    """Lock until the transaction ends, so that trials of an account start one at a time."""
    await session.execute(_LOCK, {"account": str(account)})


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('aam.trial ' || :account, 0))")


async def load_of(session: AsyncSession, account: UUID, *, allowed: int) -> Load:
    """The trials of an account; `allowed` is its limit in 24 hours."""
    row = (await session.execute(_LOAD, {"account": account, "offset": allowed - 1})).one()
    return Load(*row)


_LOAD = text("""
    SELECT
        (SELECT count(*) FROM source_trials
         WHERE account = :account AND started_at > now() - interval '24 hours'),
        coalesce(
            (SELECT started_at + interval '24 hours' FROM source_trials
             WHERE account = :account AND started_at > now() - interval '24 hours'
             ORDER BY started_at DESC OFFSET :offset LIMIT 1),
            now()
        ),
        EXISTS (
            SELECT FROM source_trials
            WHERE account = :account AND ended_at IS NULL AND expires_at > now()
        )
""")


def begin(session: AsyncSession, trial: SourceTrial) -> None:
    """Record a trial before it is requested."""
    session.add(trial)


async def end(session: AsyncSession, trial_id: UUID, *, code: str | None) -> None:
    """Record how a trial ended."""
    await session.execute(_END, {"id": trial_id, "code": code})


_END = text("""
    UPDATE source_trials SET ended_at = clock_timestamp(), code = :code WHERE id = :id
""")


async def mark_deleted(session: AsyncSession, trial_id: UUID) -> None:
    """Record that a trial's temporary source is deleted; nothing if it is no trial's id."""
    await session.execute(_DELETED, {"id": trial_id})


_DELETED = text("UPDATE source_trials SET is_left = false WHERE id = :id")


async def prune(session: AsyncSession) -> None:
    """Delete trials that no limit counts and whose source is deleted, and any that are old."""
    await session.execute(_PRUNE, {"kept": KEPT, "limit": 5_000})


_PRUNE = text("""
    DELETE FROM source_trials WHERE id IN (
        SELECT id FROM source_trials
        WHERE started_at < now() - interval '48 hours'
            AND (ended_at IS NOT NULL AND NOT is_left
                 OR started_at < now() - CAST(:kept AS interval))
        ORDER BY started_at LIMIT :limit
    )
""")
