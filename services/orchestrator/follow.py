"""Follows syncs to their end: asks Airbyte about the jobs that run, and about no others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from shared import events, logs, registry
from shared.airbyte_client import AirbyteClient, Job
from shared.database import Database
from shared.errors import AamError, Unavailable, UpstreamMissing
from shared.events import EventType
from shared.models import JobHistory

log = logs.get(__name__)

_AT_ONCE = 10


class JobFollower:
    """Keeps job_history in step with Airbyte; its cost does not grow with finished jobs."""

    def __init__(self, db: Database, airbyte: AirbyteClient) -> None:
        self._db = db
        self._airbyte = airbyte
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def look(self) -> None:
        """Ask about every running job once; what cannot be asked now is asked at the next look."""
        try:
            async with self._db.read() as session:
                running = await registry.running_jobs(session)
        except Unavailable as error:
            log.warning("jobs_not_followed", code=error.code)
            return
        await asyncio.gather(*(self._look_at(row) for row in running))

    async def _look_at(self, row: JobHistory) -> None:
        try:
            await self._follow(row)
        except AamError as error:
            log.warning("job_not_followed", job=str(row.id), code=error.code)

    async def _follow(self, row: JobHistory) -> None:
        try:
            async with self._slots:
                job = await self._airbyte.get_job(row.airbyte_job_id)
        except UpstreamMissing:
            # Airbyte has forgotten it: nobody will ever tell more.
            async with self._db.transaction() as session:
                await registry.end_running_jobs(session, row.connection_id, code="job_lost")
            return
        if _says_more(job, row):
            await self._write(row, job)

    async def _write(self, row: JobHistory, job: Job) -> None:
        async with self._db.transaction() as session:
            connection = await registry.lock_connection(
                session, row.connection_id, even_archived=True
            )
            written = await session.get(JobHistory, row.id, populate_existing=True)
            if written is None or written.ended_at is not None:
                return
            written.status = job.status
            written.attempts = job.attempts
            written.records, written.bytes_ = job.records, job.bytes_
            if not job.ended:
                return
            written.ended_at = job.ended_at or datetime.now(UTC)
            if job.status != "succeeded":
                written.failure_code = job.failure_type or job.status
            events.record(
                session,
                EventType.SYNC_FINISHED,
                connection,
                status=job.status,
                ref=written.id,
                code=written.failure_code,
            )


def _says_more(job: Job, row: JobHistory) -> bool:
    told = (job.status, job.attempts, job.records, job.bytes_)
    return job.ended or told != (row.status, row.attempts, row.records, row.bytes_)
