"""The drift_repair_agent's HTTP side: read, call, answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response

from services.drift_repair_agent.backlogs import BACKLOGS
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.decisions import Repairs
from services.drift_repair_agent.repairs.executor import Carrier
from services.drift_repair_agent.repairs.expiry import Expiring
from services.drift_repair_agent.repairs.planner import Planner
from services.drift_repair_agent.repairs.policies import Policies
from services.drift_repair_agent.repairs.schemas import (
    Approve,
    ChangePage,
    Decide,
    PolicyOrder,
    PolicyView,
    RepairDetail,
    RepairPage,
    RepairView,
    RollBack,
    SettingHistory,
    Unchanged,
)
from services.drift_repair_agent.repairs.suggestions import Suggesting
from services.drift_repair_agent.repairs.verification import Verifying
from services.drift_repair_agent.service import ApplyOrder, DriftRepairAgent
from services.drift_repair_agent.webhooks.addresses import Reach
from services.drift_repair_agent.webhooks.dispatcher import Deliveries
from services.drift_repair_agent.webhooks.routes import router as webhook_routes
from services.drift_repair_agent.webhooks.sender import Sender, Signer
from services.drift_repair_agent.webhooks.subscriptions import Receivers
from shared import failpoints, periodic
from shared.airbyte_client import AirbyteClient
from shared.auth.scopes import Scope, may
from shared.backlogs import Gauges
from shared.config import Settings, load, networks
from shared.database import Database
from shared.http.app import create_app
from shared.http.dependencies import from_state
from shared.http.gate import access_for, signer_for
from shared.http.openapi import links
from shared.http.operations import ACCEPTED, GivenKey, Wait, answered, routes
from shared.http.paging import After, Limit
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.shutdown import for_server, told_to_stop
from shared.http.strict_json import CATALOG
from shared.jobs import Jobs
from shared.models import RepairState
from shared.observability import logs, tracing
from shared.operations import Operations
from shared.peers import Orchestrator, RagEngine
from shared.periodic import Look

router = APIRouter(tags=["repairs"])

_PLANS_AT_ONCE = 4
_PLANNED_EVERY = timedelta(seconds=5)
_ALL_PLANNED_EVERY = timedelta(minutes=5)
_EXPIRED_EVERY = timedelta(seconds=5)
_ASKED_EVERY = timedelta(seconds=30)
_TOLD_EVERY = timedelta(seconds=5)
_LARGE_BODY_BYTES = 4 * 1024 * 1024


async def _order(request: Request) -> ApplyOrder:
    """The body, its catalog left as the bytes it came in."""
    body = await request.body()
    await _let_others_in(body)
    order = ApplyOrder.read(body)
    await _let_others_in(body)
    return order


async def _let_others_in(body: bytes) -> None:
    """Pause between two steps that each take a millisecond per MiB.

    A pause without a length would let in only those who are ready already, not who waits for a
    timer or a socket.
    """
    if len(body) > _LARGE_BODY_BYTES:
        await asyncio.sleep(0.001)


Service = Annotated[DriftRepairAgent, from_state("service")]
Decisions = Annotated[Repairs, from_state("repairs")]
Plans = Annotated[Planner, from_state("planner")]
PolicyStore = Annotated[Policies, from_state("policies")]
Registry = Annotated[Database, from_state("db")]
Order = Annotated[ApplyOrder, Depends(_order)]

_STREAM: dict[str, Any] = {
    "stream": {
        "name": "Account",
        "jsonSchema": {
            "type": "object",
            "properties": {
                "Id": {"type": ["string", "null"]},
                "SystemModstamp": {"type": ["string", "null"], "format": "date-time"},
            },
        },
        "supportedSyncModes": ["full_refresh", "incremental"],
        "sourceDefinedCursor": True,
        "defaultCursorField": ["SystemModstamp"],
        "sourceDefinedPrimaryKey": [["Id"]],
    },
    "config": {
        "syncMode": "incremental",
        "cursorField": ["SystemModstamp"],
        "destinationSyncMode": "append_dedup",
        "primaryKey": [["Id"]],
        "selected": True,
    },
}
_ID = {"type": "string", "format": "uuid"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["connection_id", "sync_catalog"],
                    "properties": {
                        "connection_id": _ID,
                        "sync_catalog": {
                            "type": "object",
                            "required": ["streams"],
                            "description": "Airbyte's syncCatalog; unselected streams are dropped.",
                            "properties": {"streams": {"type": "array", "minItems": 1}},
                        },
                        "expected_version": {
                            "type": ["integer", "null"],
                            "description": "The head you read; another one answers 409.",
                        },
                        "snapshot_id": {
                            **_ID,
                            "type": ["string", "null"],
                            "description": "The discovery it was made from, as /discover told it.",
                        },
                        "notes": {
                            "type": "array",
                            "description": "What /discover remarked; not read.",
                        },
                    },
                },
                "example": {
                    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
                    "expected_version": 1,
                    "sync_catalog": {"streams": [_STREAM]},
                },
            }
        },
    }
}
_APPLIED: dict[str, Any] = {
    "description": "Airbyte holds the catalog, and the registry says so",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": [
                    "connection_id",
                    "previous_version",
                    "version_number",
                    "status",
                    "changed",
                ],
                "properties": {
                    "connection_id": _ID,
                    "previous_version": {"type": "integer"},
                    "version_number": {"type": "integer"},
                    "status": {"type": "string", "examples": ["ACTIVE"]},
                    "changed": {"type": "boolean"},
                },
            },
            "example": {
                "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
                "previous_version": 1,
                "version_number": 2,
                "status": "ACTIVE",
                "changed": True,
            },
        }
    },
}


@router.post(
    "/repair/apply_new_catalog",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    openapi_extra=_BODY,
    responses={
        200: _APPLIED
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
async def apply_new_catalog(order: Order, service: Service, key: GivenKey, wait: Wait) -> Response:
    """Make a catalog the one that Airbyte syncs, and record it as the connection's next version.

    The body is what the orchestrator's /connections/{id}/discover answers, as it is or edited; up
    to 16 MiB. The connection is HEALING meanwhile. A catalog that means what the head means
    changes nothing: `changed` is false. When Airbyte refuses, the old version stays in force. While
    a sync runs the answer is 409 `sync_running`.
    """
    return answered(await service.apply_new_catalog(order, key=key, wait=wait))


_WAITS: dict[int | str, dict[str, Any]] = {
    200: {"model": RepairView, "description": "It is decided, and over"},
    202: {"model": RepairView, "description": "It is decided; GET /repairs/{repair_id} tells more"},
}


@router.get(
    "/repairs",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairPage,
    responses={
        200: links(
            "GET /repairs/{repair_id}",
            "GET /repairs/{repair_id}/changes",
            "POST /repairs/{repair_id}/approve",
            "POST /repairs/{repair_id}/reject",
            repair_id="$response.body#/items/0/id",
        ),
        **problems(422, 503),
    },
)
async def repairs(
    db: Registry,
    state: Annotated[list[RepairState] | None, Query()] = None,
    connection_id: Annotated[UUID | None, Query()] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """List repairs, newest first; `state=proposed` are those that wait for a person.

    Of each repair's changes it has their numbers and the first three; GET /repairs/{repair_id} has
    all, GET /repairs/{repair_id}/changes a page of them.
    """
    shown = queries.RepairFilter(
        connection_id=connection_id,
        states=state or (),
        after=after,
    )
    async with db.read() as session:
        return raw_json(await queries.page_of_repairs(session, shown, limit=limit))


@router.get(
    "/repairs/{repair_id}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=RepairDetail,
    responses=problems(404, 503),
)
async def repair(repair_id: UUID, repairs: Decisions) -> Response:
    """One repair: its changes, what each destroys or resets, and the catalog before and after."""
    return raw_json(await repairs.view(repair_id))


@router.get(
    "/repairs/{repair_id}/changes",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ChangePage,
    responses=problems(404, 422, 503),
)
async def changes(
    repair_id: UUID,
    db: Registry,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="`next` of the page before")] = 0,
) -> Response:
    """The changes of one repair, in its order: what each is, and what is done about it."""
    async with db.read() as session:
        return raw_json(await queries.page_of_changes(session, repair_id, after=after, limit=limit))


@router.post(
    "/repairs/{repair_id}/approve",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    response_model=RepairView,
    responses={**_WAITS, **problems(400, 404, 409, 422, 503, 504)},
)
async def approve(
    repair_id: UUID, order: Approve, repairs: Decisions, key: GivenKey, wait: Wait
) -> Response:
    """Approve a repair, or some of its changes; it is applied, or waits for the end of a sync.

    With `changes` these are split off into a repair of their own, which is answered; the rest stays
    open under its id. A removed field is taken as renamed where the suggestion says
    `taken_by_approve`; a weaker one must be named in `choices`, else the field is gone and the new
    one is a field of its own. 409 `stale_plan`: the catalog or the source has changed; `newer` is
    the repair to look at. 409 `not_proposed`: it is decided already, or over.
    """
    return answered(await repairs.approve(repair_id, order, key=key, wait=wait))


@router.post(
    "/repairs/{repair_id}/reject",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    response_model=RepairView,
    responses=problems(400, 404, 409, 422, 503, 504),
)
async def reject(repair_id: UUID, order: Decide, repairs: Decisions, key: GivenKey) -> Response:
    """Reject a repair, or some of its changes: nothing is done about them.

    A connection that is paused until then stays paused.
    """
    return answered(await repairs.reject(repair_id, order, key=key))


@router.post(
    "/connections/{connection_id}/rollback",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    response_model=RepairView | Unchanged,
    responses={
        **_WAITS,
        200: {"model": RepairView | Unchanged, "description": "It is in force, and was before"},
        **problems(400, 404, 409, 422, 503, 504),
    },
)
async def roll_back(
    connection_id: UUID, order: RollBack, repairs: Decisions, key: GivenKey, wait: Wait
) -> Response:
    """Put an older catalog version in force again: it is appended as the newest one.

    409 `rollback_impossible` where the source no longer has what that version needs; `problems`
    says what. What it takes back is not applied again without a person.
    """
    return answered(await repairs.roll_back(connection_id, order, key=key, wait=wait))


@router.post(
    "/connections/{connection_id}/plan",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=RepairPage,
    responses=problems(404, 409, 422, 503, 504),
)
async def plan(connection_id: UUID, planner: Plans, db: Registry) -> Response:
    """Plan again now, whatever was decided before: what expired or was rejected is proposed again.

    The answer are the repairs of the connection that are open then. A source that has not changed
    since the connection was made has nothing to plan for.
    """
    await planner.again(connection_id)
    shown = queries.RepairFilter(connection_id=connection_id, states=queries.OPEN_STATES)
    async with db.read() as session:
        return raw_json(await queries.page_of_repairs(session, shown, limit=10))


@router.get(
    "/connections/{connection_id}/policy",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 503),
)
async def policy(connection_id: UUID, policies: PolicyStore) -> PolicyView:
    """What may happen to the connection without a person: the policy in effect."""
    return await policies.view(connection_id)


@router.put(
    "/connections/{connection_id}/policy",
    dependencies=[may(Scope.REPAIRS_DECIDE)],
    responses=problems(404, 409, 422, 503),
)
async def put_policy(connection_id: UUID, order: PolicyOrder, policies: PolicyStore) -> PolicyView:
    """Change the policy where the order says so; null is the default again.

    What waits for a person is planned again by the new policy. It takes who may decide about
    repairs, since a policy decides without a person. An order that names nothing is refused with
    422 `empty_policy`.
    """
    return await policies.put(connection_id, order)


@router.get(
    "/connections/{connection_id}/policy/history",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=SettingHistory,
    responses=problems(404, 422, 503),
)
async def policy_history(
    connection_id: UUID,
    policies: PolicyStore,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Annotated[
        int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before")
    ] = None,
) -> Response:
    """List who changed the connection's policy, when and how, newest first."""
    return raw_json(await policies.history(connection_id, limit=limit, after=after))


def build(settings: Settings) -> FastAPI:
    """The application for these settings."""
    logs.set_up("drift_repair_agent", level=settings.log_level)
    tracing.set_up("drift_repair_agent", settings)
    failpoints.arm(settings.aam_failpoints)
    db = Database.at(
        settings.registry_address,
        application="drift_repair_agent",
        connections=settings.registry_connections,
    )
    airbyte = AirbyteClient.from_settings(settings)

    jobs = Jobs(settings.registry_address, application="drift_repair_agent")
    operations = Operations(settings, db, jobs, service="drift_repair_agent")
    signer = Signer(settings.webhook_signing_key)
    reach = Reach(networks(settings.webhook_networks))
    deliveries = Deliveries(db, Sender(reach), signer)

    service = DriftRepairAgent(settings, db, airbyte, operations)
    carrier = Carrier(db, airbyte, operations, deadline=settings.repair_deadline)
    own_key = signer_for("drift_repair_agent", settings)
    orchestrator = Orchestrator.from_settings(settings, own_key)
    rag = RagEngine.from_settings(settings, own_key)
    carrier.verify_with(Verifying(db, orchestrator).step)
    suggesting = Suggesting(db, rag)
    planner = Planner(settings, db, airbyte, operations, suggesting, carrier)
    jobs.on("plan", planner.job, at_once=_PLANS_AT_ONCE)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            deliveries.running(),
            periodic.repeating(
                db,
                operations.look,
                *deliveries.looks,
                Look(planner.look, _PLANNED_EVERY, name="plan"),
                Look(planner.look_at_all, _ALL_PLANNED_EVERY, name="plan_all"),
                Look(carrier.look, settings.job_poll_interval),
                Look(carrier.end_stranded, _EXPIRED_EVERY, name="end_stranded"),
                Look(Expiring(db).look, _EXPIRED_EVERY, name="expire"),
                Look(planner.ask_again, _ASKED_EVERY, name="ask_again"),
                Look(suggesting.learn, _TOLD_EVERY, name="learn"),
                *Gauges(db, BACKLOGS).looks,
            ) as stop_looking,
            jobs.running(),
            operations.running(),
        ):
            with told_to_stop(operations.stop, jobs.stop, stop_looking):
                yield
        await orchestrator.close()
        await rag.close()
        await airbyte.aclose()
        await db.close()

    app = create_app(
        service="drift_repair_agent",
        description="Plans, decides, applies, verifies and takes back what a changed source needs.",
        access=access_for("drift_repair_agent", settings, db),
        lifespan=lifespan,
        ready={"registry": db.ping},
        degraded={"airbyte": airbyte.health},
        limits=CATALOG,
        body_deadline=settings.body_deadline,
    )
    app.state.db = db
    app.state.receivers = Receivers(db, deliveries, signer)
    app.state.operations = operations
    app.state.request_wait_s = settings.request_wait.total_seconds()
    app.state.service = service
    app.state.repairs = Repairs(db, operations, carrier)
    app.state.planner = planner
    app.state.policies = Policies(db, jobs)
    app.include_router(router)
    app.include_router(webhook_routes)
    app.include_router(routes())
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(Settings)))
