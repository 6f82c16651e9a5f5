"""The saga that refreshes streams: starts one job in Airbyte that reads them from their start."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from services.orchestrator import job_queries
from services.orchestrator.credentials import OrderNote
from services.orchestrator.edit_schemas import Effect
from services.orchestrator.job_history import record_job
from services.orchestrator.job_schemas import RefreshStarted
from services.orchestrator.sagas.sync import SyncOrder, is_of_order
from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.domain.catalog import StreamId
from shared.errors import SyncRunning
from shared.models import JobStarter
from shared.operations import Operation

STORED = "stored"
"""Instead of a job's status: Airbyte carries the refresh out with its next job."""
_TYPES = frozenset({"refresh"})


class RefreshOrder(msgspec.Struct, frozen=True):
    """The streams to refresh, and the earliest time at which a job of this order can exist."""

    airbyte_connection_id: UUID
    asked_at: datetime
    newest_job_id: int | None
    streams: list[StreamId]
    mode: Literal["Merge", "Truncate"]
    effects: list[OrderNote]


class RefreshSaga:
    """Starts a refresh in Airbyte, at most one per operation, and records its job."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Request the refresh, or find the job that an earlier attempt started."""
        order = msgspec.json.decode(operation.request, type=RefreshOrder)

        async def request() -> dict[str, Any]:
            running = await self._airbyte.list_jobs(order.airbyte_connection_id, limit=5)
            job = next((one for one in running if not one.ended), None)
            if job is not None:
                # Airbyte would store the refresh, and carry it out whenever it likes.
                raise SyncRunning(
                    f"Job {job.id} of connection {operation.connection_id} is already running.",
                    airbyte_job_id=job.id,
                )
            started = await self._airbyte.refresh_streams(
                order.airbyte_connection_id, order.streams, mode=order.mode
            )
            if started is not None:
                return {"id": started.id, "status": started.status}
            # Before 1.0, Airbyte does not name the job. If its schedule has just started another
            # one, the refresh is stored, and the next job carries it out.
            return await find() or {"id": None, "status": STORED}

        async def find() -> dict[str, Any] | None:
            jobs = await self._airbyte.list_jobs(order.airbyte_connection_id, limit=10)
            since = SyncOrder(order.airbyte_connection_id, order.asked_at, order.newest_job_id)
            ours = [job for job in jobs if is_of_order(job, since, types=_TYPES)]
            async with self._db.read() as session:
                known = await job_queries.jobs_started_by_aam(
                    session, operation.connection_id, [job.id for job in ours]
                )
            ours = [job for job in ours if job.id not in known]
            return {"id": ours[-1].id, "status": ours[-1].status} if ours else None

        found = await operation.once("job", request, find=find, within=4 * self._call_s)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            answer = RefreshStarted(
                operation_id=operation.id,
                status=found["status"],
                effects=[Effect(code=one.code, message=one.message) for one in order.effects],
            )
            if found["id"] is not None:
                recorded = await record_job(
                    session,
                    row,
                    job_id=uuid4(),
                    airbyte_job_id=found["id"],
                    kind="refresh",
                    status=found["status"],
                    started_by=JobStarter.AAM,
                    requested_by=operation.requested_by,
                )
                answer.job_id, answer.airbyte_job_id = recorded.id, recorded.airbyte_job_id
                answer.status = recorded.status
            await operation.finish(session, status=202, body=answer.model_dump_json())

    async def undo(self, operation: Operation) -> None:
        """End the operation; a refused refresh leaves nothing to undo."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """End the operation; if a job did start, it is recorded as started by Airbyte."""
        async with self._db.transaction() as session:
            await operation.finish(session)
