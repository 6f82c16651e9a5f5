"""HTTP routes about single jobs: their logs, their cancellation, and refreshes of streams."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.orchestrator.job_schemas import JobCancelled, JobLogView, Refresh, RefreshStarted
from services.orchestrator.jobs import Jobs
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.openapi import links
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.problems import problems

router = APIRouter(tags=["connections"])

Service = Annotated[Jobs, from_state("jobs")]


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
