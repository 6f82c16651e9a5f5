"""Tracks sync jobs to their end, and finds those that Airbyte started itself.

A run lists all running jobs and all new jobs in Airbyte, in pages, and fetches individually those
that ended since the last run. Its cost does not grow with the number of connections or of finished
jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import job_queries, reconciliation_queries, workspace_queries
from services.orchestrator.job_history import FAILED_SYNC, is_of, record_job, record_progress
from services.orchestrator.job_queries import RunningJob
from services.orchestrator.sync_after_heal import follow_up_of_observed
from services.orchestrator.volumes import Volumes
from shared import batches, outbox, registry
from shared.airbyte_client import AirbyteClient, Job
from shared.database import Database
from shared.discoveries import OBSERVE_SOURCE
from shared.errors import AamError, Unavailable, Upstream, UpstreamDenied, UpstreamForbidden
from shared.job_queue import Jobs
from shared.models import Connection, JobHistory, JobStarter
from shared.observability import logs
from shared.outbox import EventType

log = logs.get(__name__)

MAX_CONCURRENCY = 10
_OVERLAP = timedelta(minutes=1)
"""How far the search for new jobs overlaps the previous one, since jobs may be listed late."""
_LONGEST_WAIT = timedelta(hours=1)
"""How long a new job may wait for its busy connection and hold back the position of the search;
after that it is recorded although the connection is busy."""
_BEFORE_ANY_JOB = timedelta(days=1)
"""Maximum lag of Airbyte's clock behind the registry's, assumed until Airbyte has run a job."""
_TASK = "new_jobs"
_CHUNK = 1000
"""How many new jobs are listed and recorded before the position of the search is saved."""
_LISTED_JOBS = 100
"""How many of a connection's newest jobs are searched for a missing one."""


class JobFollower:
    """Updates job_history from Airbyte."""

    def __init__(
        self,
        db: Database,
        airbyte: AirbyteClient,
        jobs: Jobs,
        volumes: Volumes,
        *,
        lost_after: timedelta,
        search_every: timedelta = timedelta(0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._volumes = volumes
        self._jobs = jobs
        self._clock = clock
        self._lost_after_s = lost_after.total_seconds()
        self._search_every_s = search_every.total_seconds()
        self._next_search = clock()
        self._missing_since: dict[UUID, float] = {}
        """When each job that Airbyte does not know was first missed, by the clock.

        Such a job is queried once more after `lost_after`, and then ended. Held in memory only:
        after a restart the wait begins again.
        """

    async def update_running(self) -> None:
        """Update every running job; those that cannot be queried are retried in the next run.

        Every `search_every`, also record the jobs that Airbyte started itself.
        """
        is_search_due = self._clock() >= self._next_search
        try:
            async with self._db.read() as session:
                running = await job_queries.running_jobs(session)
                self._forget_others(running)
                if not running and not is_search_due:
                    return
                workspaces = await workspace_queries.live_workspaces(session)
        except Unavailable as error:
            log.warning("jobs_not_updated", code=error.code)
            return
        try:
            jobs = await self._airbyte.running_jobs(workspaces) if running else []
            listed = {job.id: job for job in jobs}
            await batches.each(
                running,
                lambda row: self._follow(row, listed),
                log_event="job_not_followed",
                fields=lambda row: {"job": str(row.id)},
                max_concurrency=MAX_CONCURRENCY,
            )
        except AamError as error:
            log.warning("jobs_not_updated", code=error.code)
        if not is_search_due:
            return
        self._next_search = self._clock() + self._search_every_s
        try:
            await self._find_new(workspaces)
        except AamError as error:
            log.warning("new_jobs_not_listed", code=error.code)

    async def _find_new(self, workspaces: Collection[UUID]) -> None:
        """Record unrecorded jobs of our connections, which Airbyte started itself.

        The position of the search is a creation time given by Airbyte, so its clock may differ
        from the registry's. It starts at Airbyte's newest job. A job that cannot be recorded yet
        because its connection is busy holds the position back for at most `_LONGEST_WAIT`. So does
        a running onboarding, since Airbyte may sync the new connection before AAM has recorded it.
        Small steps are not saved: the next search then begins a little earlier.

        After a long pause there may be many jobs. They are listed in chunks, oldest first, and the
        position is saved after each, so that an interrupted search continues from there.
        """
        async with self._db.read() as session:
            since = await reconciliation_queries.task_position(session, _TASK)
            began = await registry.now(session)
            is_onboarding = await reconciliation_queries.is_onboarding(session)
        saved = since
        if since is None:
            newest = await self._airbyte.newest_job(workspaces)
            since = began - _BEFORE_ANY_JOB if newest is None else min(began, newest.created_at)
        seen, start, limit = since, since - _OVERLAP, _CHUNK
        waiting: dict[int, tuple[Job, UUID]] = {}
        while True:
            jobs = await self._airbyte.recent_jobs(start, workspaces, limit=limit)
            seen = min(began, max([seen, *(job.created_at for job in jobs)]))
            waiting = await self._record_all(
                waiting | await self._unrecorded(jobs), even_busy_before=seen - _LONGEST_WAIT
            )
            held_back = [job.created_at for job, _ in waiting.values()]
            if is_onboarding:
                held_back.append(since)
            until = max(min([seen, *held_back]), seen - _LONGEST_WAIT)
            if saved is None or until - saved >= _OVERLAP / 4:
                async with self._db.transaction() as session:
                    await reconciliation_queries.save_task_position(session, _TASK, until)
                saved = until
            if len(jobs) < limit:
                return
            # Creation times are whole seconds, so more jobs of the last one may follow.
            is_one_second = jobs[-1].created_at <= start
            start, limit = jobs[-1].created_at, limit * 2 if is_one_second else _CHUNK

    async def _unrecorded(self, jobs: Sequence[Job]) -> dict[int, tuple[Job, UUID]]:
        """The jobs of our connections that are not recorded, by Airbyte's id, with the connection.

        Airbyte may have many more jobs, of connections that are not ours.
        """
        async with self._db.read() as session:
            known = await reconciliation_queries.known_jobs(session, [job.id for job in jobs])
            ours = await reconciliation_queries.connections_in_airbyte(
                session, {job.connection_id for job in jobs if job.connection_id}
            )
        return {
            job.id: (job, ours[job.connection_id])
            for job in jobs
            if job.connection_id in ours and (job.id, ours[job.connection_id]) not in known
        }

    async def _record_all(
        self, found: Mapping[int, tuple[Job, UUID]], *, even_busy_before: datetime
    ) -> dict[int, tuple[Job, UUID]]:
        """Record jobs that Airbyte started; those that cannot be recorded yet."""
        outcomes = await batches.each(
            found.values(),
            partial(self._record, even_busy_before=even_busy_before),
            log_event="new_job_not_recorded",
            fields=lambda item: {"connection": str(item[1]), "id": item[0].id},
        )
        return {outcome.item[0].id: outcome.item for outcome in outcomes if not outcome.result}

    async def _record(self, item: tuple[Job, UUID], *, even_busy_before: datetime) -> bool:
        """Record a job that Airbyte started; False while its connection is busy.

        The connection may be busy with a sync operation, which records the job as AAM's own. A job
        created before `even_busy_before` has waited long enough and is recorded in any case.
        """
        job, connection_id = item
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            if job.created_at > even_busy_before and await registry.is_busy(session, row.id):
                return False
            await record_job(
                session,
                row,
                job_id=uuid4(),
                airbyte_job_id=job.id,
                kind=job.config_type,
                status=job.status,
                started_by=JobStarter.AIRBYTE,
                started_at=job.created_at,
            )
        return True

    def _forget_others(self, running: Sequence[RunningJob]) -> None:
        ids = {row.id for row in running}
        self._missing_since = {
            id_: since for id_, since in self._missing_since.items() if id_ in ids
        }

    async def _follow(self, row: RunningJob, listed: Mapping[int, Job]) -> None:
        job = listed.get(row.airbyte_job_id)
        if job is None or not is_of(job, row.airbyte_connection_id):
            if self._is_waited_for(row):
                return
            job = await self._asked_for(row)
        if job is None:
            await self._miss(row)
            return
        self._missing_since.pop(row.id, None)
        if _differs(job, row):
            await self._write(row, job)

    def _is_waited_for(self, row: RunningJob) -> bool:
        """Whether it is too early to query a missing job again."""
        since = self._missing_since.get(row.id)
        return since is not None and self._clock() - since < self._lost_after_s

    async def _asked_for(self, row: RunningJob) -> Job | None:
        """The job as Airbyte has it; None where Airbyte has no such job.

        For an unknown id Airbyte answers 404 or, in current releases, 500. As a 500 may also be a
        temporary fault, the list of the connection's jobs decides. Where Airbyte refuses that list
        as well, it does not know the connection either, and the job is not running.

        Raises:
            Upstream: Airbyte cannot be queried now.
        """
        try:
            job = await self._airbyte.get_job(row.airbyte_job_id)
        except Upstream as error:
            if not error.is_over or row.airbyte_connection_id is None:
                raise
        else:
            return job if is_of(job, row.airbyte_connection_id) else None
        try:
            newest = await self._airbyte.list_jobs(row.airbyte_connection_id, limit=_LISTED_JOBS)
        except Upstream as error:
            is_about_the_login = isinstance(error, UpstreamDenied) and not isinstance(
                error, UpstreamForbidden
            )
            if is_about_the_login or not error.is_over:
                raise
            return None
        return next((job for job in newest if job.id == row.airbyte_job_id), None)

    async def _miss(self, row: RunningJob) -> None:
        """Note that Airbyte does not know a job; end it once `lost_after` has passed."""
        self._missing_since.setdefault(row.id, self._clock())
        if self._is_waited_for(row):
            return
        async with self._db.transaction() as session:
            connection = await registry.lock_connection(
                session, row.connection_id, even_archived=True
            )
            written = await session.get(JobHistory, row.id, populate_existing=True)
            if written is None or written.ended_at is not None:
                return
            written.status, written.failure_code = "cancelled", "job_lost"
            written.ended_at = await registry.now(session)
            outbox.record(
                session,
                EventType.SYNC_FINISHED,
                connection,
                status=written.status,
                ref=written.id,
                code=written.failure_code,
            )
        log.warning("job_lost", job=str(row.id), connection=str(row.connection_id))

    async def _write(self, row: RunningJob, job: Job) -> None:
        volumes = await self._volumes.judge(row.connection_id, row.id, job)
        async with self._db.transaction() as session:
            connection = await registry.lock_connection(
                session, row.connection_id, even_archived=True
            )
            written = await session.get(JobHistory, row.id, populate_existing=True)
            if written is not None and written.ended_at is None:
                record_progress(session, connection, written, job)
                await self._volumes.save(session, connection, written, volumes)
                if written.follow_up == "due":
                    await self._follow_up(session, connection, written)

    async def _follow_up(
        self, session: AsyncSession, connection: Connection, written: JobHistory
    ) -> None:
        """Start what follows from a source's failure, in the transaction that records it.

        A rejected configuration may be the credential's fault. Otherwise a changed schema is the
        usual cause, and the source is observed at once.
        """
        source_id = connection.airbyte_source_id
        if written.failure_code == "config_error" or source_id is None:
            job, payload = FAILED_SYNC, written.id
        else:
            job, payload = OBSERVE_SOURCE, source_id
            written.follow_up = await follow_up_of_observed(
                session, connection.id, started_at=written.started_at
            )
        await self._jobs.enqueue(session, job, str(payload), after=timedelta(0))


def _differs(job: Job, row: RunningJob) -> bool:
    current = (job.status, job.attempts, job.records, job.bytes_)
    return job.ended or current != (row.status, row.attempts, row.records, row.bytes_)
