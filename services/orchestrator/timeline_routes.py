"""The HTTP route of a connection's timeline."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.orchestrator import timeline_queries
from services.orchestrator.timeline_schemas import Kind, TimelinePage
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.http.dependencies import from_state
from shared.http.paging import Limit
from shared.http.problems import problems
from shared.http.responses import raw_json

router = APIRouter(tags=["connections"])

Registry = Annotated[Database, from_state("db")]


@router.get(
    "/connections/{connection_id}/timeline",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=TimelinePage,
    responses=problems(404, 422, 503),
)
async def timeline(
    connection_id: UUID,
    db: Registry,
    kinds: Annotated[
        list[Kind] | None, Query(max_length=len(Kind), description="Only these; default: all")
    ] = None,
    before: Annotated[
        str | None, Query(max_length=200, description="`next` of the previous page")
    ] = None,
    limit: Limit = 100,
) -> Response:
    """List what happened to a connection, archived or not, newest first.

    - `sync`: each job, at its start. `version`: each version of the catalog, with its origin.
    - `drift`: the source's schema changed. `repair_proposed`: a repair waited for a decision.
      `repair_decided`: by a person or the policy, at the newest decision; all are in `details`.
      `repair_ended`: applied, expired, superseded, failed or rolled back.
    - `pause`: paused or resumed by a person or a repair. `setting`: changes of the connection, its
      policy or its observation. `credential`: replaced, rotated, changed in its store, rejected,
      or expiring.
    - `connector`: changed, upgraded, or to be upgraded. `observation`: suspicious or failed, or
      recovered. `upstream`: edited in Airbyte (`drifted_upstream`), or in step again. `volume`: a
      sync brought far fewer rows than usual.
    - `operation`: runs or failed. `archived`.

    Each entry has the ids of what it is about. Entries are as old as the retention settings allow:
    TIMELINE_RETENTION, JOB_RETENTION, OPERATION_RETENTION, DRIFT_RETENTION and REPAIR_RETENTION.
    Versions and settings are kept for ever.
    """
    position = registry.read_position(before, parameter="before") if before else None
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return raw_json(
            await timeline_queries.timeline_json(
                session, connection_id, kinds=kinds or (), before=position, limit=limit
            )
        )
