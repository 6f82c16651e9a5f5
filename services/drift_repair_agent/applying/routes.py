"""The route that applies a catalog."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from services.drift_repair_agent.applying.dry_run import DryRun, Rehearsed
from services.drift_repair_agent.applying.openapi import BODY, Applied
from services.drift_repair_agent.service import ApplyOrder, DriftRepairAgent
from shared.auth.scopes import Scope, may
from shared.http.dependencies import from_state
from shared.http.openapi import links
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.problems import problems
from shared.http.responses import raw_json

router = APIRouter(tags=["repairs"])


_LARGE_BODY_BYTES = 4 * 1024 * 1024


async def _order(request: Request) -> ApplyOrder:
    """Parse the body, leaving its catalog as raw bytes."""
    body = await request.body()
    await _yield_to_event_loop(body)
    order = ApplyOrder.read(body)
    await _yield_to_event_loop(body)
    return order


async def _yield_to_event_loop(body: bytes) -> None:
    """Yield to the event loop between two steps that each take a millisecond per MiB.

    `sleep(0)` would run only tasks that are ready already, not those waiting for a timer or socket.
    """
    if len(body) > _LARGE_BODY_BYTES:
        await asyncio.sleep(0.001)


Service = Annotated[DriftRepairAgent, from_state("service")]


Order = Annotated[ApplyOrder, Depends(_order)]


@router.post(
    "/repair/apply_new_catalog",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    response_model=Applied | DryRun,
    openapi_extra=BODY,
    responses={
        200: {
            "description": "Airbyte has the catalog, and it is recorded as a version; with "
            "`dry_run`, what it would do"
        }
        | links(
            "POST /connections/{connection_id}/rollback",
            "POST /connections/{connection_id}/plan",
            "GET /connections/{connection_id}/policy",
            connection_id="$response.body#/connection_id",
        ),
        **ACCEPTED,
        **problems(400, 404, 409, 413, 422, 502, 503, 504),
    },
)
async def apply_new_catalog(
    order: Order, service: Service, key: GivenKey, wait: Wait, dry_run: Rehearsed = False
) -> Response:
    """Apply a catalog in Airbyte and record it as the connection's next version.

    The body is the response of the orchestrator's /connections/{id}/discover, unchanged or edited;
    up to 16 MiB. The connection is HEALING meanwhile. A catalog that is equivalent to the current
    version changes nothing: `changed` is false. If Airbyte rejects the catalog, the old version
    stays in force. While a sync is running the response is 409 `sync_running`. 409 `global_state`
    if it selects streams again that would miss changes; `on_global_state` is the choice. 503 if
    Airbyte does not answer the checks within ten seconds; nothing is recorded then. With
    `dry_run`, nothing is recorded or changed: the response has the difference between the catalogs
    and the effects, or is the error that applying the catalog would meet.
    """
    if dry_run:
        return raw_json((await service.dry_run(order)).model_dump_json())
    return answered(await service.apply_new_catalog(order, key=key, wait=wait))
