"""Recording of an Airbyte job, whether AAM or Airbyte started it, and of its progress."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import job_queries
from shared import outbox
from shared.airbyte_client import Job, LoggedJob
from shared.errors import NotFound
from shared.failure_causes import Cause
from shared.models import Connection, JobHistory, JobStarter
from shared.outbox import EventType
from shared.registry.job_kinds import SYNCING

FAILED_SYNC: Final = "failed_sync"
"""The job that follows up a failed sync; its payload is the id of the row."""


def is_of(job: Job | LoggedJob, airbyte_connection_id: UUID | None) -> bool:
    """Whether a job belongs to a connection; True if either has no id of a connection in Airbyte.

    After Airbyte's database was restored, a recorded id may be that of another connection's job.
    """
    return None in (job.connection_id, airbyte_connection_id) or (
        job.connection_id == airbyte_connection_id
    )


def expect_own(job: Job | LoggedJob, connection: Connection) -> None:
    """Check that a job, which was read by its recorded id, belongs to the connection.

    Raises:
        NotFound: it belongs to another one.
    """
    if not is_of(job, connection.airbyte_connection_id):
        raise NotFound(f"Airbyte no longer has job {job.id} of connection {connection.id}.")


async def record_job(
    session: AsyncSession,
    row: Connection,
    *,
    job_id: UUID,
    airbyte_job_id: int,
    kind: str,
    status: str,
    started_by: JobStarter,
    requested_by: str | None = None,
    started_at: datetime | None = None,
) -> JobHistory:
    """The job's row, created where there is none; the job is tracked to its end from now on.

    The connection's row must be locked by this transaction. `started_at` None means now. `kind` is
    Airbyte's word, as far as it is known yet; `record_progress` corrects it. A row that was
    recorded as started by Airbyte is corrected if AAM turns out to have started the job.
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
        kind=kind,
        status=status,
        catalog_version=row.catalog_version,
        started_by=started_by,
        requested_by=requested_by,
        **({} if started_at is None else {"started_at": started_at}),
    )
    session.add(job)
    outbox.record(session, EventType.SYNC_TRIGGERED, row, status=status, ref=job.id)
    return job


def record_progress(
    session: AsyncSession, connection: Connection, recorded: JobHistory, job: Job
) -> None:
    """Record what Airbyte reports of a job that has not ended yet; its end with an event.

    Only a sync shows that the source accepts its credential, or needs to be followed up. The
    connection's row must be locked by this transaction.
    """
    if recorded.ended_at is not None:
        return
    recorded.kind, recorded.status = job.config_type, job.status
    recorded.attempts = job.attempts
    recorded.records, recorded.bytes_ = job.records, job.bytes_
    if not job.ended:
        return
    recorded.ended_at = job.ended_at or datetime.now(UTC)
    if job.status != "succeeded":
        recorded.failure_code = job.failure_type or job.status
    elif job.config_type in SYNCING:
        connection.credential_rejected_since = connection.credential_rejected_cause = None
    if _is_to_follow_up(job) and connection.archived_at is None:
        recorded.follow_up = "due"
    if job.reason is not None:
        recorded.failure_cause = job.reason.cause
        recorded.failure_explanation = job.reason.explanation
    outbox.record(
        session,
        EventType.SYNC_FINISHED,
        connection,
        status=job.status,
        ref=recorded.id,
        code=recorded.failure_code,
    )


def _is_to_follow_up(job: Job) -> bool:
    """Whether a sync failed for a lasting reason of the source: a changed schema or credential."""
    is_passing = job.failure_type == "transient_error" or (
        job.reason is not None and job.reason.cause == Cause.QUOTA_EXCEEDED
    )
    is_failed_sync = job.status == "failed" and job.config_type in SYNCING
    return is_failed_sync and job.failure_origin == "source" and not is_passing
