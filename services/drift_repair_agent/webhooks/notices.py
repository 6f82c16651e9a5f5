"""Add the messages about events that any service recorded in a connection's history.

The service that records an event marks it in the same transaction (`outbox.NOTIFIED`), so none is
lost. The messages are added and the mark is removed in one transaction, so none is added twice.
"""

from __future__ import annotations

from uuid import UUID

from services.drift_repair_agent.recent_failures import Postponed
from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.messages import notify_from_history
from shared import batches
from shared.database import Database

_BATCH_SIZE = 50


class Notices:
    """Adds messages; it reads the registry only."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._postponed = Postponed()

    async def add_due(self) -> None:
        """Add the messages about each event in a transaction; one that fails waits for a while."""
        async with self._db.read() as session:
            due = await queries.events_to_notify(
                session, limit=_BATCH_SIZE, but=self._postponed.ids
            )
        outcomes = await batches.each(
            due,
            self._add,
            log_event="webhooks_not_notified",
            fields=lambda event_id: {"event_id": str(event_id)},
        )
        self._postponed.add_failed(outcomes)

    async def _add(self, event_id: UUID) -> None:
        async with self._db.transaction() as session:
            event = await queries.lock_event(session, event_id)
            if event is not None:
                await notify_from_history(session, event)
                event.to_notify = False
