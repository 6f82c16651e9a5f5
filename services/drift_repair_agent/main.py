"""The drift_repair_agent's HTTP side: read, call, answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from services.drift_repair_agent import webhooks
from services.drift_repair_agent.delivering import Deliveries
from services.drift_repair_agent.receivers import Receivers
from services.drift_repair_agent.sending import Sender, Signer
from services.drift_repair_agent.service import ApplyOrder, DriftRepairAgent
from shared import background, failpoints, logs
from shared.airbyte_client import AirbyteClient
from shared.app import create_app, for_server, problems, told_to_stop
from shared.config import Settings, load
from shared.database import Database
from shared.jobs import Jobs
from shared.operations import Operations
from shared.operations_http import ACCEPTED, GivenKey, Wait, answered, routes

router = APIRouter(tags=["repairs"])

MAX_BODY_BYTES = 16 * 1024 * 1024
_LARGE_BODY_BYTES = 4 * 1024 * 1024


def _service(request: Request) -> DriftRepairAgent:
    agent: DriftRepairAgent = request.app.state.service
    return agent


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


Service = Annotated[DriftRepairAgent, Depends(_service)]
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
    openapi_extra=_BODY,
    responses={200: _APPLIED, **ACCEPTED, **problems(400, 404, 409, 413, 422, 502, 503, 504)},
)
async def apply_new_catalog(order: Order, service: Service, key: GivenKey, wait: Wait) -> Response:
    """Make a catalog the one that Airbyte syncs, and record it as the connection's next version.

    The body is what the orchestrator's /connections/{id}/discover answers, as it is or edited; up
    to 16 MiB. The connection is HEALING meanwhile. A catalog that means what the head means
    changes nothing: `changed` is false. When Airbyte refuses, the old version stays in force. While
    a sync runs the answer is 409 `sync_running`.
    """
    return answered(await service.apply_new_catalog(order, key=key, wait=wait))


def build(settings: Settings) -> FastAPI:
    """The application for these settings."""
    logs.set_up("drift_repair_agent", level=settings.log_level)
    failpoints.arm(settings.aam_failpoints)
    db = Database.at(settings.registry_address, application="drift_repair_agent")
    airbyte = AirbyteClient.from_settings(settings)

    jobs = Jobs(settings.registry_address, application="drift_repair_agent")
    operations = Operations(settings, db, jobs, service="drift_repair_agent")
    signer = Signer(settings.webhook_signing_key)
    deliveries = Deliveries(db, Sender(), signer)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            deliveries.running(),
            background.repeating(db, operations.look, *deliveries.looks) as stop_looking,
            jobs.running(),
            operations.running(),
        ):
            with told_to_stop(operations.stop, jobs.stop, stop_looking):
                yield
        await airbyte.aclose()
        await db.close()

    app = create_app(
        service="drift_repair_agent",
        description="Applies a new catalog to a connection whose source changed.",
        lifespan=lifespan,
        ready={"registry": db.ping, "airbyte": airbyte.health},
        max_body_bytes=MAX_BODY_BYTES,
    )
    app.state.db = db
    app.state.receivers = Receivers(db, deliveries, signer)
    app.state.operations = operations
    app.state.request_wait_s = settings.request_wait.total_seconds()
    app.state.service = DriftRepairAgent(settings, db, airbyte, operations)
    app.include_router(router)
    app.include_router(webhooks.router)
    app.include_router(routes())
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(Settings)))
