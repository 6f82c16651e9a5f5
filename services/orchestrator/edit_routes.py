"""HTTP routes that change a connection's settings, and that list destinations."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from services.orchestrator.destinations import DESTINATION, Destinations, DestinationView
from services.orchestrator.edit_schemas import ConnectionEdit, EditedView
from services.orchestrator.edits import Editor
from services.orchestrator.workspace_routes import RequestedWorkspace
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.http.dependencies import from_state
from shared.http.openapi import example
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.paging import Limit, Page
from shared.http.problems import problems
from shared.http.setting_history import HistoryPage, SettingHistory

router = APIRouter(tags=["connections"])

Edits = Annotated[Editor, from_state("editor")]
Listed = Annotated[Destinations, from_state("destinations")]
Registry = Annotated[Database, from_state("db")]


@router.get(
    "/destinations",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses={
        200: example({"items": [DESTINATION], "next": None}),
        **problems(422, 502, 503, 504),
    },
)
async def destinations(
    listed: Listed,
    workspace_id: RequestedWorkspace,
    after: Annotated[UUID | None, Query(description="`next` of the previous page")] = None,
    limit: Limit = 100,
) -> Page[DestinationView]:
    """List the destinations of an Airbyte workspace, by name, without their configurations."""
    return await listed.page(workspace_id, after=after, limit=limit)


@router.patch(
    "/connections/{connection_id}",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=EditedView,
    responses={**ACCEPTED, **problems(400, 403, 404, 409, 422, 502, 503, 504)},
)
async def edit(
    connection_id: UUID, order: ConnectionEdit, edits: Edits, key: GivenKey, wait: Wait
) -> Response:
    """Change a connection's settings: name, schedule, tables, labels, credential, or pause it.

    Members that are left out stay as they are; the catalog is not changed, so there is no new
    version. `changed` in the response has each changed setting before and after, and `effects`
    what that means: another prefix or namespace means new tables. What Airbyte refuses, such as a
    credential that fails its check, changes nothing.

    A connection that a person paused stays paused until a person resumes it. To resume one that a
    repair keeps paused, or to take its pause over, repairs:decide is needed, too; the repair still
    waits for its decision.
    """
    return answered(await edits.edit(connection_id, order, key=key, wait=wait))


@router.get(
    "/connections/{connection_id}/history",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=SettingHistory,
    responses=problems(404, 422, 503),
)
async def history(connection_id: UUID, db: Registry, page: HistoryPage) -> Response:
    """List who changed the connection's settings, when and how, newest first."""
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return await page.of(session, "connection", connection_id)
