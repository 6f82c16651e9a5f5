"""Runs a failed sync again, once, after the source's changes were healed: by policy.

A sync that AAM started for this reason is never followed by another one, so that a source that goes
on failing causes at most one more sync for each that someone else started.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import job_queries
from services.orchestrator.job_queries import AwaitedHeal
from services.orchestrator.service import Orchestrator
from shared import batches, registry
from shared.database import Database
from shared.errors import Conflict, NotActive
from shared.observability import logs
from shared.operations import Key
from shared.periodic import PeriodicTask

log = logs.get(__name__)

LONGEST: Final = timedelta(days=1)
"""A sync is not run again because of a heal that comes later than this."""
_EVERY: Final = timedelta(seconds=10)
_BATCH: Final = 100
_AT_ONCE: Final = 4


class _Policy(msgspec.Struct, frozen=True):
    sync_after_heal: Literal["never", "once"] = "never"


async def follow_up_of_observed(
    session: AsyncSession, connection_id: UUID, *, started_at: datetime
) -> Literal["observed", "awaits_heal"]:
    """What follows from a failed sync whose source is observed now, by the connection's policy."""
    if not await _is_wanted(session, connection_id):
        return "observed"
    was_synced = await job_queries.is_after_synced(session, connection_id, started_at=started_at)
    return "observed" if was_synced else "awaits_heal"


async def _is_wanted(session: AsyncSession, connection_id: UUID) -> bool:
    stored = await registry.find_policy(session, connection_id)
    return msgspec.convert(stored.settings, type=_Policy).sync_after_heal == "once"


class SyncAfterHeal:
    """Starts the syncs of connections that were healed after a failed one."""

    def __init__(self, db: Database, service: Orchestrator) -> None:
        self._db = db
        self._service = service

    @property
    def periodic_task(self) -> PeriodicTask:
        """The search for healed connections, by one replica for all."""
        return PeriodicTask(self.resume, _EVERY, singleton_name="sync_after_heal")

    async def resume(self) -> None:
        """Start the sync of each healed connection; end the wait of those that need none."""
        async with self._db.read() as session:
            found = await job_queries.awaited_heals(session, longest=LONGEST, limit=_BATCH)
        await batches.each(
            found,
            self._follow,
            log_event="sync_not_repeated",
            fields=lambda awaited: {"job": str(awaited.job_id)},
            max_concurrency=_AT_ONCE,
        )

    async def _follow(self, awaited: AwaitedHeal) -> None:
        if awaited.is_started:
            await self._end(awaited, "synced")
            return
        async with self._db.read() as session:
            is_wanted = not awaited.is_over and await _is_wanted(session, awaited.connection_id)
        if not is_wanted:
            await self._end(awaited, "observed")
            return
        key = Key("AAM", job_queries.HEALED_SYNC, str(awaited.job_id), awaited.job_id.bytes)
        try:
            await self._service.sync(awaited.connection_id, key=key, wait=0)
        except Conflict as error:
            log.info("sync_not_repeated", connection=str(awaited.connection_id), code=error.code)
            if error.code == NotActive.code:  # such as disabled in Airbyte
                await self._end(awaited, "observed")
            return
        await self._end(awaited, "synced")

    async def _end(self, awaited: AwaitedHeal, follow_up: Literal["observed", "synced"]) -> None:
        async with self._db.transaction() as session:
            await job_queries.end_awaited_heal(session, awaited.job_id, follow_up)
        log.info("sync_followed_up", job=str(awaited.job_id), code=follow_up)
