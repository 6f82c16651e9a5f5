"""The routes about columns that renamed fields keep."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response

from services.drift_repair_agent.applying.openapi import Applied
from services.drift_repair_agent.continuity.adoption import Adoption
from services.drift_repair_agent.continuity.schemas import AdoptName, KeptColumns
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.problems import problems

router = APIRouter(tags=["repairs"])


Service = Annotated[Adoption, from_state("adoption")]


@router.get(
    "/connections/{connection_id}/kept-columns",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 409, 422, 503),
)
async def kept_columns(connection_id: UUID, adoption: Service) -> KeptColumns:
    """List the renamed fields whose old column is kept, with a mapper in Airbyte.

    Airbyte's open-source edition does not show mappers on its pages. `if_adopted` says what happens
    if a field's own name is adopted.
    """
    return await adoption.kept(connection_id)


@router.post(
    "/connections/{connection_id}/kept-columns/adopt",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    response_model=Applied,
    responses={
        200: {"description": "Airbyte has the catalog, and it is recorded as a version"},
        **ACCEPTED,
        **problems(404, 409, 422, 502, 503, 504),
    },
)
async def adopt_name(
    connection_id: UUID, order: AdoptName, adoption: Service, key: GivenKey, wait: Wait
) -> Response:
    """Write a renamed field into a column of its own name from now on.

    Removes the mapper that keeps the former column. Mappers after it follow to the field's own
    name, so that a hash stays in force under another column. A rollback brings the mapper back.
    """
    return answered(await adoption.adopt(connection_id, order, key=key, wait=wait))
