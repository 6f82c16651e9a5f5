"""HTTP routes about the rows that syncs brought."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.orchestrator.jobs import Jobs
from services.orchestrator.schemas import VolumePage
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.paging import Limit
from shared.http.problems import problems

router = APIRouter(tags=["connections"])

Service = Annotated[Jobs, from_state("jobs")]


@router.get(
    "/connections/{connection_id}/volume",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def volume(
    connection_id: UUID,
    jobs: Service,
    suspicious: Annotated[
        bool | None, Query(description="Only streams that are suspicious, or only the others")
    ] = None,
    after: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="`next` of the previous page")
    ] = None,
    limit: Limit = 100,
) -> VolumePage:
    """List the streams that the connection syncs, with the rows of each one's newest sync.

    `usual_low` to `usual_high` are the rows that were usual before it, by the stream's own history
    of at least eight syncs. A stream is suspicious from the first sync with no rows or far fewer
    until one with its usual rows, or until fewer rows have become usual, after a week.
    """
    return await jobs.volumes.page(
        connection_id, is_suspicious=suspicious, after=after, limit=limit
    )
