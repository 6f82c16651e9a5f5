"""The sync saga: starts exactly one job in Airbyte, even if responses are lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from services.orchestrator import job_queries
from services.orchestrator.job_history import record_job
from services.orchestrator.schemas import SyncStarted
from shared import registry
from shared.airbyte_client import AirbyteClient, Job
from shared.config import Settings
from shared.database import Database
from shared.errors import SyncRunning
from shared.models import JobStarter
from shared.operations import Operation

_CLOCKS_DIFFER_BY = timedelta(seconds=5)


class SyncOrder(msgspec.Struct, frozen=True):
    """What to sync, and the earliest time at which a job of this order can exist."""

    airbyte_connection_id: UUID
    asked_at: datetime
    newest_job_id: int | None = None
    """The connection's newest earlier sync; None where it had none or Airbyte does not say."""


class SyncSaga:
    """Starts a job in Airbyte, at most one per operation, and records it."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Trigger the sync, or find the job that an earlier attempt started."""
        order = msgspec.json.decode(operation.request, type=SyncOrder)
        was_sent = operation.has_tried("job")

        async def trigger() -> dict[str, Any]:
            try:
                job = await self._airbyte.trigger_sync(order.airbyte_connection_id)
            except SyncRunning as running:
                # A job newer than this order was started by the earlier attempt.
                job_id = running.members.get("airbyte_job_id")
                if not was_sent or not isinstance(job_id, int):
                    raise
                job = await self._airbyte.get_job(job_id)
                if not is_of_order(job, order):
                    raise
            return {"id": job.id, "status": job.status}

        async def find() -> dict[str, Any] | None:
            jobs = await self._airbyte.list_jobs(order.airbyte_connection_id, limit=10)
            ours = [job for job in jobs if is_of_order(job, order)]
            known = await self._known(operation.connection_id, ours)
            ours = [job for job in ours if job.id not in known]
            return {"id": ours[-1].id, "status": ours[-1].status} if ours else None

        found = await operation.once("job", trigger, find=find, within=3 * self._call_s)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            recorded = await record_job(
                session,
                row,
                job_id=uuid4(),
                airbyte_job_id=found["id"],
                kind="sync",
                status=found["status"],
                started_by=JobStarter.AAM,
                requested_by=operation.requested_by,
            )
            answer = SyncStarted(
                operation_id=operation.id,
                job_id=recorded.id,
                airbyte_job_id=recorded.airbyte_job_id,
                status=recorded.status,
            )
            await operation.finish(session, status=202, body=answer.model_dump_json())

    async def undo(self, operation: Operation) -> None:
        """Finish the operation; a refused sync leaves nothing to undo."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """Finish the operation; if a job did start, it is recorded as started by Airbyte."""
        async with self._db.transaction() as session:
            await operation.finish(session)

    async def _known(self, connection_id: UUID, jobs: list[Job]) -> set[int]:
        """Which of these jobs an earlier operation recorded as its own."""
        async with self._db.read() as session:
            return await job_queries.jobs_started_by_aam(
                session, connection_id, [job.id for job in jobs]
            )


def is_of_order(
    job: Job, order: SyncOrder, *, types: frozenset[str] = frozenset({"sync", "refresh"})
) -> bool:
    """Whether a job is newer than an order, by Airbyte's job ids, which do not depend on clocks.

    Creation times are compared only where no earlier job is known. A sync is a `refresh` if Airbyte
    has stored one for the connection.
    """
    if job.config_type not in types:
        return False
    if order.newest_job_id is not None:
        return job.id > order.newest_job_id
    return job.created_at >= order.asked_at - _CLOCKS_DIFFER_BY


def order_for(airbyte_connection_id: UUID, *, newest_job_id: int | None) -> SyncOrder:
    """The order to sync a connection now."""
    return SyncOrder(airbyte_connection_id, datetime.now(UTC), newest_job_id)
