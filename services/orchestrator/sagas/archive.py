"""The archiving saga: deletes a connection from Airbyte; the registry keeps its history."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.orchestrator import job_queries
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.errors import UpstreamForbidden, UpstreamMissing
from shared.models import Connection
from shared.observability import logs
from shared.operations import Operation
from shared.outbox import EventType

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class _InAirbyte:
    """What to delete from Airbyte; nothing for a connection that was imported."""

    connection_id: UUID | None
    source_id: UUID | None
    workspace_id: UUID | None
    """The connection's own workspace, whatever the current setting; None where not known."""

    @classmethod
    def of(cls, row: Connection) -> _InAirbyte:
        """What AAM created for a connection."""
        if row.imported:
            return cls(None, None, row.airbyte_workspace_id)
        return cls(row.airbyte_connection_id, row.airbyte_source_id, row.airbyte_workspace_id)


class ArchiveSaga:
    """Removes a connection from Airbyte, and its source where nothing else uses it."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Delete the connection, then the source, each until Airbyte no longer has it.

        What to delete is in the connection's row, which no other operation changes from now on; the
        request may have been sent while an onboarding was about to record it.
        """
        async with self._db.read() as session:
            made = _InAirbyte.of(await registry.find_connection(session, operation.connection_id))

        async def delete_connection() -> bool:
            if made.connection_id is not None:
                await self._airbyte.delete_connection(
                    made.connection_id, workspace_id=await self._workspace_of(made)
                )
            return True

        async def delete_source() -> bool:
            if made.source_id is not None:
                await self._delete_unused_source(made.source_id)
            return True

        await operation.once("connection", delete_connection, within=4 * self._call_s)
        await operation.once("source", delete_source, within=4 * self._call_s)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            if row.archived_at is None:
                row.archived_at = await registry.now(session)
                code = "connection_archived"
                for job_id in await job_queries.end_running_jobs(session, row.id, code=code):
                    outbox.record(
                        session,
                        EventType.SYNC_FINISHED,
                        row,
                        status="cancelled",
                        ref=job_id,
                        code=code,
                    )
                outbox.record(session, EventType.CONNECTION_ARCHIVED, row)
            await operation.finish(session, status=204)

    async def undo(self, operation: Operation) -> None:
        """Finish the operation; deletions are not reverted, and another request continues there."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """Finish the operation; the connection is not archived."""
        async with self._db.transaction() as session:
            await operation.finish(session)

    async def _workspace_of(self, made: _InAirbyte) -> UUID | None:
        """The workspace to check for the deletion; another workspace would not list it."""
        if made.workspace_id is not None or made.source_id is None:
            return made.workspace_id
        try:
            return (await self._airbyte.get_source(made.source_id)).workspace_id
        except (UpstreamMissing, UpstreamForbidden):
            return None

    async def _delete_unused_source(self, source_id: UUID) -> None:
        """Delete a source that AAM created, unless another connection uses it by now."""
        try:
            source = await self._airbyte.get_source(source_id)
        except UpstreamMissing:
            return
        except UpstreamForbidden:
            # Newer releases answer this for an unknown id; the sweeper deletes it if it exists.
            log.warning(
                "source_not_deleted", source=str(source_id), reason="it is not visible in Airbyte"
            )
            return
        # The source's own workspace, not the current setting: another would list no connections.
        if await self._airbyte.connections_of_source(source_id, source.workspace_id):
            log.warning(
                "source_not_deleted", source=str(source_id), reason="other connections use it"
            )
            return
        await self._airbyte.delete_source(source_id, workspace_id=source.workspace_id)
