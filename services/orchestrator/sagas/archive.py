"""The archiving saga: deletes a connection from Airbyte; the registry keeps its history."""

from __future__ import annotations

from uuid import UUID

import msgspec

from services.orchestrator import job_queries
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.errors import UpstreamForbidden, UpstreamMissing
from shared.observability import logs
from shared.operations import Operation
from shared.outbox import EventType

log = logs.get(__name__)


class Archive(msgspec.Struct, frozen=True):
    """What to delete from Airbyte; nothing for a connection that was imported."""

    airbyte_connection_id: UUID | None
    airbyte_source_id: UUID | None
    workspace_id: UUID | None = None
    """The connection's own workspace, whatever the current setting; None where not known."""


class ArchiveSaga:
    """Removes a connection from Airbyte, and its source where nothing else uses it."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Delete the connection, then the source, each until Airbyte no longer has it."""
        made = msgspec.json.decode(operation.request, type=Archive)

        async def delete_connection() -> bool:
            if made.airbyte_connection_id is not None:
                await self._airbyte.delete_connection(
                    made.airbyte_connection_id, workspace_id=await self._workspace_of(made)
                )
            return True

        async def delete_source() -> bool:
            if made.airbyte_source_id is not None:
                await self._delete_unused_source(made.airbyte_source_id)
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

    async def _workspace_of(self, made: Archive) -> UUID | None:
        """The workspace to check for the deletion; another workspace would not list it."""
        if made.workspace_id is not None or made.airbyte_source_id is None:
            return made.workspace_id
        try:
            return (await self._airbyte.get_source(made.airbyte_source_id)).workspace_id
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
