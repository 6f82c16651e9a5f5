"""HTTP routes about jobs: the list over all connections, logs, cancellation, and refreshes."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from services.orchestrator.job_schemas import (
    JOB,
    JobCancelled,
    JobLogView,
    JobView,
    Refresh,
    RefreshStarted,
)
from services.orchestrator.jobs import Jobs
from shared import registry
from shared.auth.scopes import Scope, caller_of, may
from shared.database import Database
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.paging import After, Limit, Page
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.models import JobStarter

router = APIRouter(tags=["connections"])

Service = Annotated[Jobs, from_state("jobs")]
Registry = Annotated[Database, from_state("db")]
Status = Literal["pending", "running", "incomplete", "succeeded", "failed", "cancelled"]


@router.get(
    "/jobs",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Page[JobView],
    responses={
        200: example({"items": [JOB], "next": None})
        | links(
            "GET /connections/{connection_id}/jobs/{job_id}/logs",
            connection_id="$response.body#/items/0/connection_id",
            job_id="$response.body#/items/0/job_id",
        ),
        **problems(422, 503),
    },
)
async def jobs_of_all(
    request: Request,
    db: Registry,
    status: Annotated[Status | None, Query(description="Only jobs with this status")] = None,
    started_by: Annotated[
        JobStarter | None, Query(description="Only jobs that AAM, or Airbyte, started")
    ] = None,
    since: Annotated[
        AwareDatetime | None, Query(description="Only jobs that started then or later")
    ] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """List the syncs of all connections, archived ones too, newest first.

    `failure_explanation` is shown only to callers with connections:write.
    """
    shown = registry.JobFilter(status=status, started_by=started_by, since=since, after=after)
    is_explained = caller_of(request).may_change_connections
    async with db.read() as session:
        return raw_json(
            await registry.page_of_jobs(session, shown, limit=limit, is_explained=is_explained)
        )


@router.get(
    "/connections/{connection_id}/jobs/{job_id}/logs",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses=problems(404, 422, 502, 503, 504),
)
async def job_log(
    connection_id: UUID,
    job_id: UUID,
    jobs: Service,
    attempt: Annotated[
        int | None, Query(ge=0, le=1000, description="Number of the attempt. Default: the last")
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="`next` of the previous page")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of lines")] = 200,
) -> JobLogView:
    """Read the end of a job's log in Airbyte, and the errors of its connector.

    The last `limit` lines come first, each page in reading order; `next` leads to the lines before
    them. A line has at most 2,000 characters. Words that may be secrets or data are masked as
    `***`: shown are plain words, small numbers, dates, and the names of the connection's streams
    and fields. The log is read from Airbyte for each request and stored nowhere.
    """
    return await jobs.log(connection_id, job_id, attempt=attempt, before=after, limit=limit)


@router.post(
    "/connections/{connection_id}/jobs/{job_id}/cancel",
    dependencies=[may(Scope.CONNECTIONS_SYNC)],
    response_model=JobCancelled,
    responses={**ACCEPTED, **problems(400, 404, 409, 422, 502, 503, 504)},
)
async def cancel(
    connection_id: UUID, job_id: UUID, jobs: Service, key: GivenKey, wait: Wait
) -> Response:
    """Cancel a job that is running, even if Airbyte started it.

    Rows that are in the destination already stay there. `status` in the response is `cancelled`,
    or how the job ended if it was faster. 409 `job_ended`: it had ended before; `job_status` is
    its status.
    """
    return answered(await jobs.cancel(connection_id, job_id, key=key, wait=wait))


@router.post(
    "/connections/{connection_id}/streams/refresh",
    dependencies=[may(Scope.CONNECTIONS_SYNC)],
    status_code=202,
    response_model=RefreshStarted,
    responses={
        202: links("GET /operations/{operation_id}", operation_id="$response.body#/operation_id"),
        **problems(400, 403, 404, 409, 422, 502, 503, 504),
    },
)
async def refresh(
    connection_id: UUID, order: Refresh, jobs: Service, key: GivenKey, wait: Wait
) -> Response:
    """Read streams again from their start, in one job that also syncs the others.

    Only for streams that are synced incrementally. `merge`, the default, keeps the rows that are
    in the destination: a stream with `append_dedup` has no row twice, one with `append` has.
    `truncate` removes the rows of all earlier syncs of these streams when the job has succeeded,
    and needs connections:write, too. `effects` in the response describes this for each stream.
    """
    return answered(await jobs.refresh(connection_id, order, key=key, wait=wait))
