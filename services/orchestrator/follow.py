"""Follows syncs to their end, and finds those that Airbyte started by itself.

Airbyte is asked about the jobs that run, and once a look about those that are new: what it costs
does not grow with finished jobs.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from services.orchestrator.jobs import record_job
from shared import events, logs, registry
from shared.airbyte_client import AirbyteClient, Job
from shared.database import Database
from shared.errors import AamError, Unavailable, UpstreamMissing
from shared.events import EventType
from shared.models import JobHistory, JobStarter

log = logs.get(__name__)

_AT_ONCE = 10
_OVERLAP = timedelta(minutes=1)
"""Looked through again, since clocks differ and a job may be seen late."""
_LOOK = "new_jobs"


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
        try:
            await self._find_new()
        except AamError as error:
            log.warning("new_jobs_not_found", code=error.code)

    async def _find_new(self) -> None:
        """Record the jobs of our connections that nobody has recorded: Airbyte started them.

        A sync of ours may be among them while it is being recorded; that record says so.
        """
        async with self._db.read() as session:
            since = await registry.seen_until(session, _LOOK)
            began = await registry.now(session)
        jobs = await self._airbyte.recent_jobs((since or began) - _OVERLAP)
        async with self._db.read() as session:
            known = await registry.known_jobs(session, [job.id for job in jobs])
            ours = await registry.connections_in_airbyte(
                session, {job.connection_id for job in jobs if job.connection_id}
            )
        for job in jobs:
            if job.id in known or job.connection_id not in ours:
                continue
            async with self._db.transaction() as session:
                row = await registry.lock_connection(session, ours[job.connection_id])
                if not await registry.is_busy(session, row.id):
                    await record_job(
                        session,
                        row,
                        job_id=uuid4(),
                        airbyte_job_id=job.id,
                        status=job.status,
                        started_by=JobStarter.AIRBYTE,
                        started_at=job.created_at,
                    )
        async with self._db.transaction() as session:
            await registry.see_until(session, _LOOK, began)

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
            if job.reason is not None:
                written.failure_cause = job.reason.cause
                written.failure_explanation = job.reason.explanation
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
