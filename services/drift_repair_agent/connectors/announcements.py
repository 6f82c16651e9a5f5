"""Announce that a connector's breaking change takes effect soon, once for each deadline."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from services.drift_repair_agent.connectors import queries
from services.drift_repair_agent.recent_failures import Postponed
from services.drift_repair_agent.webhooks.messages import notify_upgrade_due
from shared import batches, outbox, registry
from shared.database import Database
from shared.observability import logs
from shared.outbox import EventType

log = logs.get(__name__)

_BATCH_SIZE = 50


class Announcements:
    """Records `connector.upgrade_due` for each live connection of a source, and notifies webhooks.

    It reads the registry only: the schema_observer reads deadlines from Airbyte.
    """

    def __init__(self, db: Database, *, notice: timedelta) -> None:
        self._notice = notice
        self._db = db
        self._postponed = Postponed()

    async def announce_due(self) -> None:
        """Announce each in a transaction of its own; one that fails is skipped for a while."""
        async with self._db.read() as session:
            due = await queries.due_announcements(
                session, notice=self._notice, limit=_BATCH_SIZE, but=self._postponed.ids
            )
        outcomes = await batches.each(
            due,
            self._announce,
            log_event="upgrade_not_announced",
            fields=lambda source_id: {"source": str(source_id)},
        )
        self._postponed.add_failed(outcomes)

    async def _announce(self, source_id: UUID) -> None:
        async with self._db.transaction() as session:
            found = await queries.connections_of_source(session, source_id)
            rows = [
                await registry.lock_connection(session, one.id, even_archived=True) for one in found
            ]
            connector = await queries.lock_connector(session, source_id)
            if connector is None or connector.deadline in (None, connector.announced_deadline):
                return
            for row in rows:
                if row.archived_at is not None:
                    continue
                deadline = str(connector.deadline)
                outbox.record(session, EventType.CONNECTOR_UPGRADE_DUE, row, code=deadline)
                await notify_upgrade_due(session, row, connector)
            connector.announced_deadline = connector.deadline
        log.info("upgrade_announced", source=str(source_id))
