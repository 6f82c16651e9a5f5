"""Jobs: start a sync or a refresh, read with or without the log, list, cancel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from shared.airbyte_client import _job_schemas as job_shapes
from shared.airbyte_client._calls import MOST_PAGES, PAGE, expect_requested, is_no_such_endpoint
from shared.airbyte_client._connections import Connections
from shared.airbyte_client._job_logs import JobWithLogs, LoggedJob
from shared.airbyte_client._job_schemas import Job
from shared.domain.catalog import StreamId
from shared.errors import (
    Invalid,
    NotActive,
    SyncRunning,
    Upstream,
    UpstreamConflict,
    UpstreamForbidden,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
)
from shared.observability import logs

log = logs.get(__name__)
Json = Mapping[str, Any]
RUNNING = ["pending", "running", "incomplete"]
"""The states of an unfinished job that every release since 0.63 knows."""
REFRESH_UNSUPPORTED = "refresh_unsupported"
_JOB_KINDS = ["sync", "reset_connection", "refresh", "clear"]
_JOB = msgspec.json.Decoder(job_shapes.JobInfo)
_REFRESH = msgspec.json.Decoder(job_shapes.RefreshRead)
_JOBS = msgspec.json.Decoder(job_shapes.Jobs)
_JOB_WITH_LOGS = msgspec.json.Decoder(JobWithLogs)


class Jobs(Connections):
    """Jobs: start a sync or a refresh, read with or without the log, list, cancel."""

    async def trigger_sync(self, connection_id: UUID) -> Job:
        """Start a sync; Airbyte answers once it is running.

        Endpoint: POST connections/sync
        Sends:    {"connectionId": uuid}
        Receives: {"job": {"id": int, "status", ...}, "attempts": [...]}

        Raises:
            SyncRunning: a job of the connection is running; `airbyte_job_id` identifies it.
            NotActive: the connection is not active in Airbyte, which answers 500 for that.
            UpstreamConflict: a 409 although no job runs, caused by Airbyte's database or workflow.
            UpstreamUnknown: a job may have started: check with `list_jobs`.
        """
        try:
            async with self._turn("connections/sync"):
                read = await self._post("connections/sync", {"connectionId": connection_id}, _JOB)
            return read.to_domain()
        except UpstreamConflict:
            running = [
                job for job in await self.list_jobs(connection_id, limit=10) if not job.ended
            ]
            if not running:
                raise
        except UpstreamTimeout:
            raise
        except UpstreamUnknown:
            status = await self._status(connection_id)
            if status in (None, "active"):
                raise
            raise NotActive(f"Connection {connection_id} is {status} in Airbyte.") from None
        raise SyncRunning(
            f"Job {running[0].id} of connection {connection_id} is already running.",
            airbyte_job_id=running[0].id,
        )

    async def refresh_streams(
        self,
        connection_id: UUID,
        streams: Collection[StreamId],
        *,
        mode: Literal["Merge", "Truncate"] = "Merge",
    ) -> Job | None:
        """Read incremental streams from their start again, in a job of type `refresh`.

        The job syncs all of the connection's streams, and forgets the state of the named ones
        before. Their rows in the destination stay: Merge adds to them (an append_dedup stream has
        no row twice), Truncate removes them when the job has succeeded.

        Returns None where Airbyte names no job: before 1.0, while another job runs or the
        connection is inactive (the refresh is stored, and the next job carries it out), or where
        the destination does not support refreshes (see `supports_refreshes`; nothing happens).

        Endpoint: POST connections/refresh
        Sends:    {"connectionId", "refreshMode": Merge|Truncate,
                  "streams": [{"streamName": str, "streamNamespace"?: str}]}
        Receives: {"job"?: {"id": int, "status", ...}}; in 0.63 {"value": bool}
        Source:   StreamRefreshesHandler.createRefreshesForConnection, airbyte-platform 310e6cb6ac

        Raises:
            Invalid: no stream is named, which Airbyte would take for all; nothing was sent.
            UpstreamRefused: the destination does not support refreshes (`refresh_unsupported`),
                where Airbyte answers so (0.63).
            UpstreamUnknown: the refresh may have been stored, or its job have started.
        """
        if not streams:
            raise Invalid("A refresh must name at least one stream.")
        order = {
            "connectionId": connection_id,
            "refreshMode": mode,
            "streams": [_connection_stream(stream) for stream in streams],
        }
        async with self._turn("connections/refresh"):
            read = await self._post("connections/refresh", order, _REFRESH)
        if read.value is False:
            raise UpstreamRefused(
                f"The destination of connection {connection_id} does not support refreshes.",
                code=REFRESH_UNSUPPORTED,
            )
        return read.to_domain()

    async def _status(self, connection_id: UUID) -> str | None:
        """The connection's status; None where it cannot be read."""
        try:
            return (await self.get_connection(connection_id)).status
        except Upstream:
            return None

    async def get_job(self, job_id: int) -> Job:
        """One job with its attempts, without the logs.

        Endpoint: POST jobs/get_without_logs, or jobs/get where that does not exist
        Sends:    {"id": int}
        Receives: {"job": {...}, "attempts": [{"attempt": {...}}]}

        Raises:
            UpstreamUnknown: also for an unknown id, which Airbyte answers with 500.
        """
        try:
            read = await self._post("jobs/get_without_logs", {"id": job_id}, _JOB, repeat=True)
        except UpstreamRefused as refused:
            if not is_no_such_endpoint(refused):
                raise
            read = await self._post("jobs/get", {"id": job_id}, _JOB, repeat=True)
        expect_requested("jobs/get", read.job.id, job_id)
        return read.to_domain()

    async def get_job_with_logs(self, job_id: int) -> LoggedJob:
        """One job with the connector's errors and Airbyte's log of each attempt, unmasked.

        Endpoint: POST jobs/get
        Sends:    {"id": int}
        Receives: {"job": {...}, "attempts": [{"attempt": {...}, "logs": {"logLines": [str]} or,
                  with logType `structured`, {"events": [{"timestamp", "level", "logSource",
                  "message", "stackTrace"?}]}}]}; up to megabytes, since Airbyte sends whole logs

        Raises:
            UpstreamUnknown: also for an unknown id (500), and for a response over 64 MiB.
        """
        read = await self._post("jobs/get", {"id": job_id}, _JOB_WITH_LOGS, repeat=True)
        expect_requested("jobs/get", read.job.id, job_id)
        return read.to_domain()

    async def cancel_job(self, job_id: int) -> Job:
        """Cancel a job that has not ended; Airbyte answers once its workflow has the request.

        Endpoint: POST jobs/cancel
        Sends:    {"id": int}
        Receives: as `get_job`

        Raises:
            UpstreamUnknown: it may have been cancelled; also for a job that has ended, and for an
                unknown one: read the job.
        """
        read = await self._post("jobs/cancel", {"id": job_id}, _JOB)
        expect_requested("jobs/cancel", read.job.id, job_id)
        return read.to_domain()

    async def list_jobs(self, connection_id: UUID, *, limit: int) -> list[Job]:
        """The newest jobs of a connection, newest first.

        Endpoint: POST jobs/list
        Sends:    {"configTypes": [...], "configId": str, "pagination": {...}, "orderBy...": ...}
        Receives: {"jobs": [{"job": {...}, "attempts": [{...}]}], "totalJobCount": int}
        """
        jobs, _ = await self._jobs(
            0, size=limit, order="DESC", filters={"configId": str(connection_id)}, place={}
        )
        return jobs

    async def has_synced(self, connection_id: UUID) -> bool:
        """Whether one of the connection's newest jobs has succeeded, so that it has a state.

        Endpoint: POST jobs/list, as `list_jobs`
        """
        jobs = await self.list_jobs(connection_id, limit=PAGE)
        return any(job.status == "succeeded" for job in jobs)

    async def newest_job(self, workspaces: Collection[UUID] = ()) -> Job | None:
        """The newest job of any connection of the instance, or None.

        Where AAM's login may not list the jobs of the whole instance, as on Airbyte Cloud, this and
        the next two methods list those of the client's workspace and of `workspaces`. A workspace
        that Airbyte refuses is left out, and logged, unless it refuses all of them.

        Endpoint: POST jobs/list, without a configId, or jobs/list_for_workspaces
        Sends:    {"configTypes": [...], "pagination": {"pageSize": 1, ...}, "orderBy...": ...}
        Receives: as `list_jobs`
        """

        async def newest(place: Json) -> list[Job]:
            jobs, _ = await self._jobs(0, size=1, order="DESC", filters={}, place=place)
            return jobs

        found = await self._of_instance(newest, workspaces)
        return max(found, key=lambda job: job.created_at, default=None)

    async def recent_jobs(
        self,
        created_since: datetime,
        workspaces: Collection[UUID] = (),
        *,
        limit: int = MOST_PAGES * PAGE,
    ) -> list[Job]:
        """The jobs of all the instance's connections that were created since then, oldest first.

        Of more than `limit`, the oldest.

        Endpoint: POST jobs/list, without a configId: one call, however many connections there are
        Sends:    {"configTypes": [...], "createdAtStart": date-time, "pagination": {...}, ...}
        Receives: as `list_jobs`
        """
        found = await self._all_jobs(
            {"createdAtStart": created_since.isoformat(timespec="seconds")},
            workspaces,
            is_wanted=lambda job: job.created_at >= created_since,
            limit=limit,
        )
        return sorted(found, key=lambda job: (job.created_at, job.id))[:limit]

    async def running_jobs(self, workspaces: Collection[UUID] = ()) -> list[Job]:
        """The jobs of all the instance's connections that have not ended, oldest first.

        Jobs in a state newer than `RUNNING` may be missing; `get_job` finds them.

        Endpoint: POST jobs/list, without a configId
        Sends:    {"configTypes": [...], "statuses": [...], "pagination": {...}, ...}
        Receives: as `list_jobs`
        """
        return await self._all_jobs({"statuses": RUNNING}, workspaces)

    async def _all_jobs(
        self,
        filters: Json,
        workspaces: Collection[UUID],
        *,
        is_wanted: Callable[[Job], bool] = lambda _job: True,
        limit: int = MOST_PAGES * PAGE,
    ) -> list[Job]:
        """The wanted jobs by id; of more than `limit`, at least the `limit` oldest."""

        async def all_pages(place: Json) -> list[Job]:
            found: dict[int, Job] = {}
            async with self._listing("jobs/list"):
                for page in range(MOST_PAGES):
                    jobs, listed = await self._jobs(
                        page, size=PAGE, order="ASC", filters=filters, place=place
                    )
                    before = len(found)
                    found |= {job.id: job for job in jobs}
                    # A server that ignores the offset returns the same page again and again.
                    if listed < PAGE or (jobs and len(found) == before):
                        break
                    if sum(map(is_wanted, found.values())) >= limit:
                        break
            return [job for job in found.values() if is_wanted(job)]

        found = {job.id: job for job in await self._of_instance(all_pages, workspaces)}
        return sorted(found.values(), key=lambda job: job.id)

    async def _of_instance(
        self, read: Callable[[Json], Awaitable[list[Job]]], workspaces: Collection[UUID]
    ) -> list[Job]:
        """Read the jobs of all connections that AAM's login may list.

        Airbyte takes the permissions from the ids in the body, so a login that is no instance
        administrator is refused if the body has no such id, and also if it may not use one of
        them: then each workspace is listed alone. Source: RoleResolver, JobsApiController.
        """
        own = () if self._workspace_id is None else (self._workspace_id,)
        places = [str(one) for one in dict.fromkeys((*own, *workspaces))]
        if self._lists_jobs_of_instance:
            try:
                return await read({})
            except UpstreamForbidden:
                if not places:
                    raise
                self._lists_jobs_of_instance = False
        try:
            return await read({"workspaceIds": places})
        except UpstreamForbidden:
            if len(places) == 1:
                raise
        found, refused = [], []
        for place in places:
            try:
                found += await read({"workspaceIds": [place]})
            except UpstreamForbidden as error:
                refused.append(error)
                log.warning("jobs_of_workspace_refused", workspace=place, code=error.code)
        if len(refused) == len(places):
            raise refused[0]
        return found

    async def _jobs(
        self, page: int, *, size: int, order: str, filters: Json, place: Json
    ) -> tuple[list[Job], int]:
        """The readable jobs of one page, and how many jobs the page has.

        `place` has the `workspaceIds` whose jobs to list, or is empty.
        """
        body = {
            "configTypes": _JOB_KINDS,
            "pagination": {"pageSize": size, "rowOffset": page * size},
            "orderByField": "createdAt",
            "orderByMethod": order,
            **filters,
            **place,
        }
        path = "jobs/list_for_workspaces" if place else "jobs/list"
        read = await self._post(path, body, _JOBS, repeat=True)
        jobs = [job for job in read.to_domain() if job is not None]
        if len(jobs) < len(read.jobs):
            log.warning("jobs_unreadable", left=len(read.jobs) - len(jobs), of=len(read.jobs))
        return jobs, len(read.jobs)


def _connection_stream(stream: StreamId) -> dict[str, str]:
    namespace = {} if stream.namespace is None else {"streamNamespace": stream.namespace}
    return {"streamName": stream.name, **namespace}
