"""HTTP API of the schema_observer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Body, FastAPI, Query, Request, Response

from services.schema_observer import drift_queries
from services.schema_observer.backlogs import BACKLOGS
from services.schema_observer.connectors import ConnectorChecks
from services.schema_observer.observation_queries import ObservationFilter
from services.schema_observer.observer import Observer
from services.schema_observer.scheduler import Scheduler
from services.schema_observer.schemas import (
    SNAPSHOT,
    ConnectorView,
    DriftPage,
    DriftView,
    ObservationContinues,
    ObservationInterval,
    ObservationResult,
    ObservationView,
    ObservedSourcePage,
    ObserveRequest,
    SnapshotDiff,
    SnapshotView,
    SourceOutcome,
)
from services.schema_observer.service import SchemaObserver
from shared import failpoints, periodic, registry
from shared.airbyte_client import AirbyteClient
from shared.auth.scopes import Scope, caller_of, may, require
from shared.backlogs import Gauges
from shared.config import Settings, load
from shared.database import Database
from shared.domain.drift import Severity
from shared.http.app import create_app
from shared.http.authentication import access_for
from shared.http.dependencies import from_state
from shared.http.diff_pages import (
    DiffSummary,
    FirstChange,
    MostChanges,
    Namespace,
    OnlyStream,
    only,
)
from shared.http.openapi import example, links
from shared.http.operation_routes import Wait
from shared.http.paging import After, AfterStream, Limit, Page, Search
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.setting_history import HistoryPage, SettingHistory
from shared.http.shutdown import for_server, stop_on_signal
from shared.job_queue import Jobs
from shared.observability import logs, tracing

router = APIRouter(tags=["drifts"])


Service = Annotated[SchemaObserver, from_state("service")]
Connectors = Annotated[ConnectorChecks, from_state("connectors")]
Registry = Annotated[Database, from_state("db")]


@router.post(
    "/connections/{connection_id}/observe",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=ObservationResult,
    responses={
        200: links("GET /drifts/{drift_id}", drift_id="$response.body#/drift_id"),
        202: {"model": ObservationContinues, "description": "It takes longer, and continues"},
        **problems(404, 409, 422, 503, 504),
    },
)
async def observe(
    connection_id: UUID,
    service: Service,
    wait: Wait,
    request: Annotated[ObserveRequest | None, Body(examples=[{"accept_missing": False}])] = None,
) -> Response:
    """Observe the connection's source now, and record how its schema has changed.

    Every connection of the source is compared. `outcome` is `changed` where any of them has a
    drift; `drift_id` and `changes` are those of this connection. `suspicious` and `failed` change
    nothing: `code` gives the reason, and the source is observed again automatically. With
    `{"accept_missing": true}` missing streams and fields are accepted at once, so that a policy
    may act on them; this requires `repairs:decide`. After `wait` seconds the response is 202, and
    the observation continues.

    Each request discovers the source and counts towards its limit: 429 `discovery_quota` means
    that the source has reached its policy's limit of discoveries in 24 hours. 409 `sync_running`
    means that the connector renews tokens and a running sync is using one; with
    `{"accept_missing": true}` the source is discovered anyway.
    """
    if request is not None and request.accept_missing:
        require(Scope.REPAIRS_DECIDE)
    found = await service.observe(
        connection_id, accept_missing=request is not None and request.accept_missing, wait=wait
    )
    if isinstance(found, str):
        return raw_json(found)
    return raw_json(found.model_dump_json(), status_code=202)


@router.get(
    "/observations",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ObservedSourcePage,
    responses={
        200: links(
            "GET /connections/{connection_id}/observation",
            connection_id="$response.body#/items/0/connections/0/connection_id",
        ),
        **problems(422, 503),
    },
)
async def observations(
    service: Service,
    outcome: Annotated[
        SourceOutcome | None, Query(description="Only sources with this newest outcome")
    ] = None,
    overdue: Annotated[
        bool | None, Query(description="Only overdue sources, or only the others")
    ] = None,
    suspicious: Annotated[
        bool | None,
        Query(description="Only sources reported as suspicious or failing, or only the others"),
    ] = None,
    after: Annotated[UUID | None, Query(description="`next` of the previous page")] = None,
    limit: Limit = 100,
) -> Response:
    """List the sources of live connections with the state of their observation, by id.

    A source is `overdue` if it was requested, or has been due for more than a minute, and is
    neither being observed nor postponed. Such sources wait for a slot.
    """
    shown = ObservationFilter(outcome, overdue, suspicious, after)
    return raw_json(await service.observations(shown, limit=limit))


@router.get(
    "/connections/{connection_id}/observation",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ObservationView,
    responses=problems(404, 422, 503),
)
async def observation(request: Request, connection_id: UUID, service: Service) -> Response:
    """Get when the connection's source is observed next, and what the last observation found.

    `cause` is the known cause of a failure; `explanation` and `log` are shown only to callers with
    connections:write.
    """
    is_explained = caller_of(request).may_change_connections
    return raw_json(await service.observation(connection_id, is_explained=is_explained))


@router.put(
    "/connections/{connection_id}/observation",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=ObservationView,
    responses={
        200: links(
            "GET /connections/{connection_id}/observation",
            connection_id="$request.path.connection_id",
        ),
        **problems(404, 409, 422, 503, 504),
    },
)
async def watch(connection_id: UUID, watched: ObservationInterval, service: Service) -> Response:
    """Set how often the connection's source is observed; null means the installation's default.

    If several connections share a source, the shortest interval applies.
    """
    seconds = watched.interval_seconds
    interval = None if seconds is None else timedelta(seconds=seconds)
    return raw_json(await service.watch(connection_id, interval))


@router.get(
    "/connections/{connection_id}/observation/history",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=SettingHistory,
    responses=problems(404, 422, 503),
)
async def observation_history(connection_id: UUID, db: Registry, page: HistoryPage) -> Response:
    """List who changed the interval or accepted a suspicious discovery, newest first."""
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return await page.of(session, "observation", connection_id)


@router.get(
    "/connections/{connection_id}/connector",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ConnectorView,
    responses=problems(404, 409, 422, 502, 503, 504),
)
async def connector(connection_id: UUID, connectors: Connectors) -> Response:
    """Get the version of the source's connector, its support, and upcoming breaking changes.

    As it was checked last, at `checked_at`. Airbyte is queried only if it never was, and every
    CONNECTOR_CHECK_INTERVAL.
    """
    return raw_json(await connectors.connector(connection_id))


@router.get(
    "/connections/{connection_id}/snapshots",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Page[SnapshotView],
    responses={
        200: example({"items": [SNAPSHOT], "next": None})
        | links(
            "GET /connections/{connection_id}/snapshots/{before}/diff/{after}",
            connection_id="$request.path.connection_id",
            before="$response.body#/items/0/snapshot_id",
            after="$response.body#/items/0/snapshot_id",
        ),
        **problems(404, 422, 503),
    },
)
async def snapshots(
    connection_id: UUID, db: Registry, after: After = None, limit: Limit = 100
) -> Response:
    """List the snapshots of the connection's source, newest first, without their streams."""
    async with db.read() as session:
        row = await registry.find_connection(session, connection_id)
        return raw_json(
            await drift_queries.page_of_snapshots(
                session, row.airbyte_source_id, cursor=after, limit=limit
            )
        )


@router.get(
    "/connections/{connection_id}/snapshots/{before}/diff/{after}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=SnapshotDiff,
    responses=problems(404, 422, 503),
)
async def snapshot_diff(
    connection_id: UUID,
    before: UUID,
    after: UUID,
    service: Service,
    stream: OnlyStream = None,
    namespace: Namespace = None,
    position: FirstChange = 0,
    limit: MostChanges = None,
) -> Response:
    """Compare two snapshots of the source by stream and field.

    With `stream`, only that stream is compared. With `limit`, the response is a page of the
    changes.
    """
    found = await service.diff(
        connection_id,
        before,
        after,
        only=only(stream, namespace),
        position=position,
        limit=limit,
    )
    return raw_json(msgspec.json.encode(found))


@router.get(
    "/connections/{connection_id}/snapshots/{before}/diff/{after}/summary",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def snapshot_diff_summary(
    connection_id: UUID,
    before: UUID,
    after: UUID,
    service: Service,
    position: AfterStream,
    search: Search = None,
    limit: Limit = 100,
) -> DiffSummary:
    """List the streams that differ between two snapshots, with the number of changes of each."""
    return await service.diff_summary(
        connection_id, before, after, search=search, position=position, limit=limit
    )


@router.get(
    "/drifts",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=DriftPage,
    responses={
        200: links("GET /drifts/{drift_id}", drift_id="$response.body#/items/0/id"),
        **problems(404, 422, 503),
    },
)
async def drifts(
    db: Registry,
    connection_id: Annotated[UUID | None, Query()] = None,
    is_open: Annotated[
        bool | None, Query(alias="open", description="Only open drifts, or only the others")
    ] = None,
    severity: Annotated[Severity | None, Query()] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """List drifts, newest first, without their changes.

    A drift is `open` while it concerns its connection and either no plan has been made for it or a
    repair of it is in progress.
    """
    shown = drift_queries.DriftFilter(
        connection_id=connection_id,
        severity=severity,
        is_open=is_open,
        after=after,
    )
    async with db.read() as session:
        if connection_id is not None:
            await registry.find_connection(session, connection_id)
        return raw_json(await drift_queries.page_of_drifts(session, shown, limit=limit))


@router.get(
    "/drifts/{drift_id}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=DriftView,
    responses=problems(404, 422, 503),
)
async def drift(drift_id: UUID, db: Registry) -> Response:
    """Get one drift: each change with its severity, the reason, and what would be lost.

    At most 2,000 changes are listed, those that concern the connection first; the diff of the two
    snapshots has all of them.
    """
    async with db.read() as session:
        return raw_json(await drift_queries.drift_json(session, drift_id))


def build(settings: Settings) -> FastAPI:
    """Create the application for these settings."""
    logs.set_up("schema_observer", level=settings.log_level)
    tracing.set_up("schema_observer", settings)
    failpoints.arm(settings.aam_failpoints)
    db = Database.at(
        settings.registry_address,
        application="schema_observer",
        connections=settings.registry_connections,
    )
    airbyte = AirbyteClient.from_settings(settings)
    jobs = Jobs(settings.registry_address, application="schema_observer")
    scheduling = Scheduler(settings, db, jobs, Observer(settings, db, airbyte, jobs))
    connectors = ConnectorChecks(settings, db, airbyte)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            periodic.repeating(
                db,
                *scheduling.periodic_tasks,
                connectors.periodic_task,
                *Gauges(db, BACKLOGS).periodic_tasks,
            ) as stop_looking,
            jobs.running(),
            scheduling.running(),
        ):
            with stop_on_signal(scheduling.stop, jobs.stop, stop_looking):
                yield
        await airbyte.aclose()
        await db.close()

    app = create_app(
        service="schema_observer",
        description="Observes sources, and records how their schemas change.",
        access=access_for("schema_observer", settings, db),
        lifespan=lifespan,
        ready={"registry": db.ping},
        degraded={"airbyte": airbyte.health},
        body_deadline=settings.body_deadline,
    )
    app.state.db = db
    app.state.request_wait_s = settings.request_wait.total_seconds()
    app.state.connectors = connectors
    app.state.service = SchemaObserver(settings, db, airbyte, scheduling)
    app.include_router(router)
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(Settings)))
