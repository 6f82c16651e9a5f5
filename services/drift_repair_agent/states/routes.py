"""The route that shows the state of a connection."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter

from services.drift_repair_agent.states.schemas import StateView
from services.drift_repair_agent.states.service import States
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.problems import problems

router = APIRouter(tags=["repairs"])


Service = Annotated[States, from_state("states")]


@router.get(
    "/connections/{connection_id}/state",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 409, 422, 503),
)
async def state(connection_id: UUID, states: Service) -> StateView:
    """Get what the connection's next sync resumes from: its type, streams and shapes, no values.

    `orphaned` lists the streams that have state in Airbyte although the newest version does not
    select them. `saved` is the newest state that AAM saved before a change, which a rollback may
    put back.
    """
    return await states.view(connection_id)
