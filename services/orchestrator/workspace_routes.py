"""Routes of Airbyte's workspaces, and the parameter with which other routes name one."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from services.orchestrator.service import Orchestrator
from services.orchestrator.workspaces import WorkspacePage
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.problems import problems

router = APIRouter(tags=["workspaces"])

Service = Annotated[Orchestrator, from_state("service")]


async def requested(
    service: Service,
    workspace_id: Annotated[
        UUID | None, Query(description="An Airbyte workspace. Default: the one that AAM uses.")
    ] = None,
) -> UUID:
    """The workspace that the query names, or the default."""
    return await service.workspaces.requested(workspace_id)


RequestedWorkspace = Annotated[UUID, Depends(requested)]


@router.get(
    "/workspaces",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(502, 503, 504),
)
async def workspaces(service: Service) -> WorkspacePage:
    """List the Airbyte workspaces that AAM uses: the default one, and those of connections.

    With the number of connections that are not archived, the limit of scheduled discoveries at
    once, and how much of it is in use. A name is read from Airbyte at most every five minutes. A
    workspace that Airbyte does not show has no name, but a `failure_code`.
    """
    return await service.workspaces.page()
