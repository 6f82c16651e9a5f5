"""The connectors of the observed sources: their versions are checked in turn, and shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from services.schema_observer import connector_queries
from shared import batches, registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.connectors import Connectors
from shared.database import Database
from shared.errors import NotActive, Unavailable
from shared.periodic import PeriodicTask

_EVERY = timedelta(seconds=10)
_FIRST_WITHIN: Final = timedelta(minutes=10)
"""Sources that are new to AAM are read within this time, so that many are not read at once."""
_AGAIN_AFTER: Final = timedelta(minutes=5)
"""When a version that could not be read is due again."""
_BATCH_SIZE: Final = 20
_MAX_CONCURRENCY: Final = 4


class ConnectorChecks:
    """Reads each source's version at an interval: one call per source, or three with a manifest."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._first_within = min(settings.connector_check_interval, _FIRST_WITHIN)
        self._db = db
        self._connectors = Connectors(settings, db, airbyte)

    @property
    def periodic_task(self) -> PeriodicTask:
        """The task that one replica runs for all."""
        return PeriodicTask(self.check_due, _EVERY, singleton_name="check_connectors")

    async def check_due(self) -> None:
        """Read the versions that are due, at most twenty; one that fails does not stop the rest."""
        async with self._db.transaction() as session:
            await connector_queries.enrol_connectors(session, within=self._first_within)
            due = await connector_queries.claim_connectors(
                session, limit=_BATCH_SIZE, again_after=_AGAIN_AFTER
            )
        await batches.each(
            due,
            self._connectors.read,
            log_event="connector_not_read",
            fields=lambda source_id: {"source": str(source_id)},
            max_concurrency=_MAX_CONCURRENCY,
        )

    async def connector(self, connection_id: UUID) -> str:
        """The connector of a connection's source as JSON; read from Airbyte if it never was.

        Raises:
            NotFound: there is no such connection.
            NotActive: it has no source.
            Upstream: the version is not known, and Airbyte did not return it.
            Unavailable: the registry is unavailable.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            found = await connector_queries.connector_json(session, connection_id)
        if found is not None:
            return found
        if row.airbyte_source_id is None:
            raise NotActive(f"Connection {row.id} has no source in Airbyte.")
        await self._connectors.read(row.airbyte_source_id)
        async with self._db.read() as session:
            found = await connector_queries.connector_json(session, connection_id)
        if found is None:
            raise Unavailable(f"The connector of connection {row.id} changed while it was read.")
        return found
