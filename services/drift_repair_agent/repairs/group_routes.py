"""The routes of groups of repairs, and of one decision about several."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from services.drift_repair_agent.repairs import group_queries, groups
from services.drift_repair_agent.repairs.decisions import Repairs
from services.drift_repair_agent.repairs.group_schemas import (
    DecidedSeveral,
    DecideSeveral,
    RepairGroupPage,
)
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.http.dependencies import from_state
from shared.http.operation_routes import GivenKey, Service
from shared.http.paging import AfterText, Limit
from shared.http.problems import problems
from shared.http.responses import raw_json

router = APIRouter(tags=["repairs"])

Decisions = Annotated[Repairs, from_state("repairs")]
Registry = Annotated[Database, from_state("db")]


@router.get(
    "/repairs/groups",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairGroupPage,
    responses=problems(422, 503),
)
async def repair_groups(db: Registry, after: AfterText = None, limit: Limit = 100) -> Response:
    """List the changes that wait for a decision on several connections, most connections first.

    A change is the same if the source type, the stream, the kind, the path and the types are. A
    rename is one change: approve it with what it `became`, or with another choice.
    """
    position = groups.read_position(after) if after else None
    async with db.read() as session:
        return raw_json(await group_queries.page_of_groups(session, limit=limit, after=position))


@router.post(
    "/repairs/decide",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    responses=problems(400, 404, 409, 422, 503, 504),
)
async def decide_several(
    order: DecideSeveral, repairs: Decisions, operations: Service, key: GivenKey
) -> DecidedSeveral:
    """Approve or reject several repairs with one reason; the response has a result per repair.

    Each repair is decided as by its own route, and one that cannot be decided does not stop the
    others: `code` says why. Approved repairs are applied afterwards; GET /repairs/{repair_id}
    reports their state. Repeating the request with the same Idempotency-Key decides what failed.
    """
    return await groups.decide(operations, repairs, order, key=key)
