"""Ending proposals that nobody answered: by doing nothing, which is told."""

from __future__ import annotations

from services.drift_repair_agent import outcomes
from shared import registry
from shared.database import Database
from shared.events import EventType
from shared.models import RepairState

_AT_ONCE = 100
STILL_PAUSED = "still_paused"


class Expiring:
    """Ends proposed repairs whose time is over; a connection that is paused by one stays paused."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def look(self) -> None:
        """End each in a transaction of its own; one that was decided meanwhile is left alone."""
        async with self._db.read() as session:
            over = await registry.expired_repairs(session, limit=_AT_ONCE)
        for repair_id, connection_id in over:
            async with self._db.transaction() as session:
                row = await registry.lock_connection(session, connection_id, even_archived=True)
                repair = await registry.find_repair(session, repair_id, lock=True)
                if repair.state != RepairState.PROPOSED:
                    continue
                if row.archived_at is not None:
                    await outcomes.superseded(session, row, repair, by=None)
                    continue
                outcomes.end(repair, RepairState.EXPIRED)
                code = STILL_PAUSED if row.paused_by == repair.id else None
                await outcomes.told(session, row, repair, EventType.REPAIR_EXPIRED, code)
