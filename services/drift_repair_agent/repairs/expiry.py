"""End proposals that were not decided in time; nothing is applied, and the expiry is announced."""

from __future__ import annotations

from uuid import UUID

from services.drift_repair_agent.recent_failures import Postponed
from services.drift_repair_agent.repairs import queries, transitions
from shared import batches, registry
from shared.database import Database
from shared.models import RepairState
from shared.outbox import EventType

_BATCH_SIZE = 100
STILL_PAUSED = "still_paused"


class Expiry:
    """Ends expired proposals; a connection that is paused because of one stays paused."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._postponed = Postponed()

    async def expire_due(self) -> None:
        """End each in a transaction of its own; one that fails is skipped for a while."""
        async with self._db.read() as session:
            over = await queries.expired_repairs(
                session, limit=_BATCH_SIZE, but=self._postponed.ids
            )
        outcomes = await batches.each(
            over,
            self._expire,
            log_event="not_expired",
            fields=lambda repair_id: {"repair": str(repair_id)},
        )
        self._postponed.add_failed(outcomes)

    async def _expire(self, repair_id: UUID) -> None:
        """End one proposal, unless it was decided in the meantime."""
        async with self._db.transaction() as session:
            known = await queries.find_repair(session, repair_id)
            row = await registry.lock_connection(session, known.connection_id, even_archived=True)
            repair = await queries.find_repair(session, repair_id, lock=True)
            if repair.state != RepairState.PROPOSED:
                return
            if row.archived_at is not None:
                await transitions.mark_superseded(session, row, repair, by=None)
                return
            transitions.expire(repair)
            code = STILL_PAUSED if row.paused_by == repair.id else None
            await transitions.announce(session, row, repair, EventType.REPAIR_EXPIRED, code)
