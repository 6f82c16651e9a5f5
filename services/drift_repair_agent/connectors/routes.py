"""The route that upgrades a connector."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Response

from services.drift_repair_agent.connectors.schemas import Upgrade, Upgraded
from services.drift_repair_agent.connectors.service import Upgrades
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.openapi import links
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.problems import problems

router = APIRouter(tags=["repairs"])


Service = Annotated[Upgrades, from_state("upgrades")]


@router.post(
    "/connections/{connection_id}/connector/upgrade",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    response_model=Upgraded,
    responses={
        200: {"description": "The source runs the newest version of its connector"}
        | links("GET /operations/{operation_id}", operation_id="$response.body#/operation_id"),
        **ACCEPTED,
        **problems(400, 404, 409, 422, 502, 503, 504),
    },
)
async def upgrade(
    connection_id: UUID,
    upgrades: Service,
    key: GivenKey,
    wait: Wait,
    order: Annotated[
        Upgrade | None, Body(examples=[{"reason": "The deadline is on Thursday."}])
    ] = None,
) -> Response:
    """Upgrade the connector of the connection's source across its breaking changes.

    All connections of the source get the new version, and Airbyte has no way back. Airbyte's state
    of the connection is saved before. Afterwards the source is observed, and what has changed is
    planned by the policy: `drift_id` is the drift, GET /repairs has the repairs. 409
    `nothing_to_upgrade`: no newer version has a breaking change, and Airbyte moves to other
    versions by itself. 409 `connector_pinned`: a user has pinned the source in Airbyte. 409
    `sync_running`: a connection of the source is syncing.
    """
    return answered(await upgrades.upgrade(connection_id, order or Upgrade(), key=key, wait=wait))
