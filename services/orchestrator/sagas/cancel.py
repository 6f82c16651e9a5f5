"""The saga that cancels a job in Airbyte; the end that Airbyte reports is recorded."""

from __future__ import annotations

from uuid import UUID

import msgspec

from services.orchestrator import job_queries
from services.orchestrator.job_history import record_progress
from services.orchestrator.job_schemas import JobCancelled
from services.orchestrator.volumes import Volumes
from shared import registry
from shared.airbyte_client import AirbyteClient, Job
from shared.airbyte_reads import reading_back
from shared.config import Settings
from shared.database import Database
from shared.errors import UpstreamConflict, UpstreamUnknown
from shared.operations import Operation


class Cancel(msgspec.Struct, frozen=True):
    """The job to cancel, by AAM's id and by Airbyte's."""

    job_id: UUID
    airbyte_job_id: int


class CancelSaga:
    """Cancels a job; a repeated request does no harm, since Airbyte refuses it for an ended job."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, volumes: Volumes
    ) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._volumes = volumes

    async def run(self, operation: Operation) -> None:
        """Cancel the job, read it back, and record how it is now."""
        order = msgspec.json.decode(operation.request, type=Cancel)

        async def cancel() -> str:
            return (await self._cancelled(order.airbyte_job_id)).status

        async def ended() -> str | None:
            job = await self._airbyte.get_job(order.airbyte_job_id)
            return job.status if job.ended else None

        await operation.once("cancel", cancel, find=ended, within=3 * self._call_s)
        job = await self._airbyte.get_job(order.airbyte_job_id)
        volumes = await self._volumes.judge(operation.connection_id, order.job_id, job)
        async with self._db.transaction() as session:
            connection = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            recorded = await job_queries.job_of(session, connection.id, order.job_id)
            if recorded.ended_at is None:
                record_progress(session, connection, recorded, job)
                await self._volumes.save(session, connection, recorded, volumes)
            answer = JobCancelled(
                operation_id=operation.id,
                job_id=recorded.id,
                airbyte_job_id=recorded.airbyte_job_id,
                status=recorded.status,
            )
            await operation.finish(session, status=200, body=answer.model_dump_json())

    async def _cancelled(self, airbyte_job_id: int) -> Job:
        """Cancel a job that has not ended; Airbyte answers 500 for one that has."""
        try:
            return await self._airbyte.cancel_job(airbyte_job_id)
        except (UpstreamUnknown, UpstreamConflict):
            with reading_back():
                job = await self._airbyte.get_job(airbyte_job_id)
            if not job.ended:
                raise
            return job

    async def undo(self, operation: Operation) -> None:
        """End the operation; Airbyte refused the request, and the job goes on."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """End the operation; the job's end is recorded when Airbyte reports it."""
        async with self._db.transaction() as session:
            await operation.finish(session)
