"""HTTP API of the orchestrator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response

from services.orchestrator import (
    about_routes,
    api_key_routes,
    catalog_routes,
    connection_routes,
    credential_routes,
    edit_routes,
    event_routes,
    health_rebuild,
    job_routes,
    source_routes,
    timeline_routes,
    trial_queries,
    volume_routes,
    workspace_routes,
)
from services.orchestrator.backlogs import BACKLOGS
from services.orchestrator.catalog_adoption import CatalogAdoption
from services.orchestrator.catalog_reconciler import Reconciler
from services.orchestrator.connection_routes import FROM_CONNECTION
from services.orchestrator.credential_watch import CredentialWatch
from services.orchestrator.edits import Editor
from services.orchestrator.event_pages import EventPages
from services.orchestrator.event_streams import EventStreams
from services.orchestrator.follow_up import FollowUp
from services.orchestrator.history_retention import Retention, histories
from services.orchestrator.importer import Importing, ImportOrder
from services.orchestrator.job_follower import JobFollower
from services.orchestrator.job_schemas import JOB, JobView
from services.orchestrator.jobs import Jobs as JobActions
from services.orchestrator.leftover_sweeper import Sweeper
from services.orchestrator.rotation import Rotator
from services.orchestrator.schemas import (
    IMPORT,
    ROTATION,
    ConnectionView,
    Import,
    ImportOutcome,
    ImportReport,
    MergedCatalog,
    Onboard,
    RotationView,
    SyncStarted,
)
from services.orchestrator.service import Orchestrator
from services.orchestrator.source_trials import SourceTrials
from services.orchestrator.sync_after_heal import SyncAfterHeal
from services.orchestrator.volumes import Volumes
from shared import failpoints, outbox, periodic, registry
from shared.airbyte_client import AirbyteClient
from shared.auth.scopes import Scope, caller_of, may
from shared.backlogs import Gauges, watching_airbyte
from shared.config import Settings, load
from shared.credential_digests import Digests
from shared.database import Database
from shared.http import operation_routes
from shared.http.app import create_app
from shared.http.authentication import access_for, signer_for
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.operation_routes import ACCEPTED, GivenKey, Wait, answered
from shared.http.paging import After, Limit, Page
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.shutdown import for_server, stop_on_signal
from shared.job_queue import Jobs
from shared.observability import logs, tracing
from shared.operations import Operations
from shared.periodic import PeriodicTask
from shared.saved_states.store import StateStore
from shared.service_clients import AuthBroker
from shared.source_types import CREDENTIAL_REFERENCE

router = APIRouter(tags=["connections"])


Service = Annotated[Orchestrator, from_state("service")]
Importer = Annotated[Importing, from_state("importing")]
Rotation = Annotated[Rotator, from_state("rotator")]
Registry = Annotated[Database, from_state("db")]
_PRUNED_EVERY = timedelta(minutes=10)
_SEARCH_EVERY = timedelta(seconds=2)
"""How often AAM searches for jobs that Airbyte started itself; it reads running ones more often."""


@router.post(
    "/connections/onboard",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    status_code=201,
    response_model=ConnectionView,
    responses={
        201: links(*FROM_CONNECTION, connection_id="$response.body#/id"),
        **ACCEPTED,
        **problems(400, 409, 413, 422, 502, 503, 504),
    },
)
async def onboard(order: Onboard, service: Service, key: GivenKey, wait: Wait) -> Response:
    """Connect a source to a destination in Airbyte and record its catalog as version 1.

    Waits for Airbyte to discover the source, which takes seconds, or minutes for a source
    with many streams. After `wait` seconds the response is 202 with the operation, which continues.
    An invalid request is rejected and nothing is recorded. If the onboarding fails later,
    everything that it created in Airbyte is deleted again. The connection is then listed as FAILED
    with the reason, the response has its `connection_id`, and its name can be used again.

    The source is created in the Airbyte workspace of the destination. 422 `workspace_mismatch`: the
    destination is in another one than `workspace_id`.
    """
    return answered(await service.onboard(order, key=key, wait=wait))


@router.post(
    "/connections/import",
    dependencies=[may(Scope.CONNECTIONS_WRITE, spans_installation=True)],
    response_model=ImportReport,
    responses={
        200: example(IMPORT)
        | links("GET /imports/{import_id}", import_id="$response.body#/operation_id"),
        **ACCEPTED,
        **problems(400, 404, 409, 422, 502, 503, 504),
    },
)
async def import_connections(
    order: Import, service: Service, importing: Importer, key: GivenKey, wait: Wait
) -> Response:
    """Import connections that exist in Airbyte; their current catalog becomes version 1.

    Nothing in Airbyte is changed, neither now nor when the connection is archived in AAM. For a
    whole workspace the default is a dry run: set `dry_run` to false to import. After `wait` seconds
    the response is 202 with the operation, which continues; GET /imports/{import_id} reports its
    progress. A connection that cannot be imported does not stop the others. `adopt` is for those
    that AAM created, and that the registry does not know any more. 409 `import_running`:
    the workspace is being imported already, by `operation_id`.
    """
    if order.airbyte_connection_id is not None:
        one = await importing.one(
            order.airbyte_connection_id, dry_run=bool(order.dry_run), adopt=order.adopt
        )
        return raw_json(one.model_dump_json(exclude_none=True))
    request = ImportOrder(
        workspace_id=order.workspace_id or await service.workspaces.default(),
        dry_run=order.dry_run is not False,
        adopt=order.adopt,
    )
    return answered(await importing.workspace(request, key=key, wait=wait))


@router.get(
    "/imports/{import_id}",
    dependencies=[may(Scope.CONNECTIONS_READ, spans_installation=True)],
    response_model=ImportReport,
    responses=problems(404, 422, 503),
)
async def import_report(
    import_id: Annotated[UUID, Path(description="The `operation_id` of the import")],
    importing: Importer,
    outcome: Annotated[ImportOutcome | None, Query(description="Only items with it")] = None,
    after: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="`next` of the previous page")
    ] = None,
    limit: Limit = 100,
) -> Response:
    """Get the progress of a workspace's import, and what it found, in Airbyte's order.

    `outcomes` counts the connections by outcome; those that are not processed yet are `pending`.
    """
    return raw_json(await importing.report(import_id, outcome=outcome, after=after, limit=limit))


@router.get(
    "/connections/{connection_id}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ConnectionView,
    responses=problems(404, 503),
)
async def connection(connection_id: UUID, db: Registry) -> Response:
    """Get one connection, archived or not."""
    async with db.read() as session:
        return raw_json(await registry.connection_json(session, connection_id))


@router.delete(
    "/connections/{connection_id}",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    status_code=204,
    responses={**ACCEPTED, **problems(404, 409, 502, 503, 504)},
)
async def archive(connection_id: UUID, service: Service, wait: Wait) -> Response:
    """Delete the connection in Airbyte and archive it in AAM, with its history.

    The source is deleted too, unless another Airbyte connection uses it. Data that was synced
    stays in the destination. For an imported connection, nothing in Airbyte is deleted. Archiving
    twice has no further effect.
    """
    return answered(await service.archive(connection_id, wait=wait))


@router.post(
    "/connections/{connection_id}/discover",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=MergedCatalog,
    responses=problems(404, 409, 422, 502, 503, 504),
)
async def discover(
    connection_id: UUID,
    service: Service,
    every_stream: Annotated[
        bool, Query(alias="all", description="Include streams that are not selected")
    ] = False,
    fresh: Annotated[
        bool,
        Query(description="Discover the source even if it was discovered less than a minute ago"),
    ] = False,
) -> Response:
    """Discover the source now, store a snapshot, and merge the current catalog with it.

    Selected streams keep their settings and get the source's current schema. Streams that no
    longer exist are listed last, deselected. A hand-picked list of fields is not extended. Nothing
    is applied: the response is the request body for drift_repair_agent's
    POST /repair/apply_new_catalog.

    A discovery costs the source one API call per object. A discovery that is running, or that was
    requested less than a minute ago, is reused unless `fresh` is true. 429 `discovery_quota`: the
    source has reached its policy's limit of discoveries in 24 hours; Retry-After gives the wait.
    409 `sync_running`: the connector renews tokens, and a running sync is using one.
    """
    merged = await service.discover(connection_id, every_stream=every_stream, is_fresh=fresh)
    return raw_json(merged)


@router.post(
    "/connections/{connection_id}/sync",
    dependencies=[may(Scope.CONNECTIONS_SYNC)],
    status_code=202,
    response_model=SyncStarted,
    responses={
        202: links("GET /operations/{operation_id}", operation_id="$response.body#/operation_id"),
        **problems(400, 404, 409, 422, 502, 503, 504),
    },
)
async def sync(connection_id: UUID, service: Service, key: GivenKey, wait: Wait) -> Response:
    """Start a sync in Airbyte; GET /connections/{connection_id}/jobs shows its progress.

    409 `sync_running` identifies the job that is already running by `job_id` and
    `airbyte_job_id`, and its `job_kind`: `sync`, `refresh`, `clear` or `reset_connection`. Without
    a `job_id` it is not yet known whether the job started; the operation finds out.
    """
    return answered(await service.sync(connection_id, key=key, wait=wait))


@router.get(
    "/connections/{connection_id}/jobs",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Page[JobView],
    responses={
        200: example({"items": [JOB], "next": None})
        | links(
            "GET /connections/{connection_id}/jobs/{job_id}/logs",
            "POST /connections/{connection_id}/jobs/{job_id}/cancel",
            connection_id="$request.path.connection_id",
            job_id="$response.body#/items/0/job_id",
        ),
        **problems(404, 422, 503),
    },
)
async def jobs(
    request: Request, connection_id: UUID, db: Registry, after: After = None, limit: Limit = 100
) -> Response:
    """List the connection's syncs, newest first.

    `failure_cause` is the known cause of a failed sync; `failure_explanation` is shown only to
    callers with connections:write. `suspicious_streams` brought far fewer rows than usual.
    """
    is_explained = caller_of(request).may_change_connections
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return raw_json(
            await registry.page_of_jobs(
                session,
                registry.JobFilter(connection_id, after=after),
                limit=limit,
                is_explained=is_explained,
            )
        )


@router.post(
    "/credentials/{credential_id}/rotate",
    dependencies=[may(Scope.ADMIN)],
    response_model=RotationView,
    responses={
        200: example(ROTATION),
        202: {
            "model": RotationView,
            "description": "Some are `running`: their operations continue",
        },
        **problems(404, 409, 422, 502, 503, 504),
    },
)
async def rotate(
    credential_id: Annotated[str, Path(pattern=CREDENTIAL_REFERENCE, examples=["salesforce-prod"])],
    rotator: Rotation,
    wait: Wait,
) -> Response:
    """Update every source that uses a credential with the credential's current values.

    The request contains no secret: put the new one into the store first. It is checked against
    each source; if a check fails, the response is 422 `check_failed` and no source is changed.
    Sources are updated in place, and a token that the connector renewed itself is preserved.
    Repeating the request is safe: it retries what was `busy`, `failed` or `unknown`.
    `connections` lists the outcome for each connection, in error responses too.
    """
    return answered(await rotator.rotate(credential_id, wait=wait))


def build(settings: Settings) -> FastAPI:
    """Create the application for these settings, with its event relay and job follower."""
    logs.set_up("orchestrator", level=settings.log_level)
    tracing.set_up("orchestrator", settings)
    failpoints.arm(settings.aam_failpoints)
    db = Database.at(
        settings.registry_address,
        application="orchestrator",
        connections=settings.registry_connections,
    )
    airbyte = AirbyteClient.from_settings(settings)
    auth_broker = AuthBroker.from_settings(settings, signer_for("orchestrator", settings))
    redis, streams = outbox.open_redis(settings), EventStreams.from_settings(settings, db)
    jobs = Jobs(settings.registry_address, application="orchestrator")
    operations = Operations(settings, db, jobs, service="orchestrator")
    relay = outbox.Relay(db, redis)
    follower = JobFollower(
        db,
        airbyte,
        jobs,
        Volumes(db),
        lost_after=settings.job_lost_after,
        search_every=_SEARCH_EVERY,
    )
    digests = Digests.under(settings.rotation_digest_key)
    service = Orchestrator(settings, db, airbyte, auth_broker, operations, digests)
    rotator = Rotator(
        settings, db, airbyte, auth_broker, service.configurations, operations, jobs, digests
    )
    healing = (
        CredentialWatch(settings, db, auth_broker, rotator, digests).periodic_task,
        FollowUp(settings, db, rotator, service, jobs).periodic_task,
        SyncAfterHeal(db, service).periodic_task,
    )
    sweeper = Sweeper(db, airbyte, grace=settings.sweep_grace)
    reconciler = Reconciler(settings, db, airbyte, operations)

    async def sweep() -> None:
        await sweeper.sweep(await service.workspaces.default(), dry_run=False)

    async def reconcile() -> None:
        await reconciler.reconcile(dry_run=False)

    async def prune() -> None:
        async with db.transaction() as session:
            await jobs.prune(session)
        async with db.transaction() as session:
            await trial_queries.prune(session)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            periodic.repeating(
                db,
                operations.takeover_task,
                PeriodicTask(relay.publish, settings.event_relay_interval),
                PeriodicTask(
                    follower.update_running, settings.job_poll_interval, singleton_name="jobs"
                ),
                PeriodicTask(sweep, settings.sweep_interval, singleton_name="sweep"),
                PeriodicTask(reconcile, settings.reconcile_interval, singleton_name="reconcile"),
                PeriodicTask(prune, _PRUNED_EVERY, singleton_name="prune"),
                *healing,
                health_rebuild.periodic_task(db),
                Retention(db, histories(settings)).task,
                *Gauges(db, BACKLOGS).periodic_tasks,
                *watching_airbyte(airbyte.health),
            ) as stop_looking,
            jobs.running(),
            operations.running(),
            streams.feed.running(),
        ):
            with stop_on_signal(streams.feed.stop, operations.stop, jobs.stop, stop_looking):
                yield
        about = app.state.installation
        for close in (about.close, auth_broker.close, airbyte.aclose, redis.aclose, db.close):
            await close()

    app = create_app(
        service="orchestrator",
        description="Onboards connections, starts syncs, and shows state and history.",
        access=access_for("orchestrator", settings, db),
        lifespan=lifespan,
        ready={"registry": db.ping},
        degraded={"airbyte": airbyte.health, "auth_broker": auth_broker.health},
        body_deadline=settings.body_deadline,
    )
    app.state.db = db
    app.state.operations = operations
    app.state.request_wait_s = settings.request_wait.total_seconds()
    app.state.service = service
    app.state.importing = Importing(settings, db, airbyte, operations)
    app.state.adoption = CatalogAdoption(db, airbyte, service.fit)
    app.state.rotator = rotator
    app.state.definitions = service.definitions
    app.state.destinations = service.destinations
    app.state.trials = SourceTrials(settings, db, airbyte, service, digests)
    app.state.editor = Editor(
        settings,
        db,
        airbyte,
        auth_broker,
        service.configurations,
        operations,
        digests,
        StateStore(settings, db, airbyte),
        service.fit,
    )
    app.state.jobs = JobActions(settings, db, airbyte, operations, service, Volumes(db))
    app.state.key_environment = settings.key_environment
    _show(app, streams, about_routes.Installation(settings, airbyte))
    parts = (
        *(source_routes, workspace_routes, edit_routes, job_routes),
        *(volume_routes, api_key_routes, event_routes, about_routes),
        *(timeline_routes, credential_routes, catalog_routes, operation_routes),
    )
    # `/connections/summary` comes before `/connections/{connection_id}`.
    for each in (connection_routes.router, router, *(part.router for part in parts)):
        app.include_router(each)
    return app


def _show(app: FastAPI, streams: EventStreams, installation: about_routes.Installation) -> None:
    """Give the routes of events and of the installation what they show."""
    app.state.event_streams = streams
    app.state.event_pages = EventPages(streams.feed.log, streams.db)
    app.state.installation = installation


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(Settings)))
