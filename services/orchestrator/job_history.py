"""Recording of an Airbyte job, whether AAM or Airbyte started it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import job_queries
from shared import outbox
from shared.models import Connection, JobHistory, JobStarter
from shared.outbox import EventType


async def record_job(
    session: AsyncSession,
    row: Connection,
    *,
    job_id: UUID,
    airbyte_job_id: int,
    status: str,
    started_by: JobStarter,
    requested_by: str | None = None,
    started_at: datetime | None = None,
) -> JobHistory:
    """The job's row, created where there is none; the job is tracked to its end from now on.

    The connection's row must be locked by this transaction. `started_at` None means now. A row
    that was recorded as started by Airbyte is corrected if AAM turns out to have started the job.
    """
    known = await job_queries.find_job(session, row.id, airbyte_job_id)
    if known is not None:
        if started_by is JobStarter.AAM:
            known.started_by, known.requested_by = JobStarter.AAM, requested_by
        return known
    job = JobHistory(
        id=job_id,
        connection_id=row.id,
        airbyte_job_id=airbyte_job_id,
        status=status,
        catalog_version=row.catalog_version,
        started_by=started_by,
        requested_by=requested_by,
        **({} if started_at is None else {"started_at": started_at}),
    )
    session.add(job)
    outbox.record(session, EventType.SYNC_TRIGGERED, row, status=status, ref=job.id)
    return job
