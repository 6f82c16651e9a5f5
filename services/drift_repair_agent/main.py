"""Assemble the drift_repair_agent: its components, periodic tasks and routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from services.drift_repair_agent.applying.routes import router as apply_routes
from services.drift_repair_agent.backlogs import BACKLOGS
from services.drift_repair_agent.connectors.announcements import Announcements
from services.drift_repair_agent.connectors.routes import router as connector_routes
from services.drift_repair_agent.connectors.saga import UpgradeSaga
from services.drift_repair_agent.connectors.service import Upgrades
from services.drift_repair_agent.continuity.adoption import Adoption
from services.drift_repair_agent.continuity.choices import Continuity
from services.drift_repair_agent.continuity.routes import router as continuity_routes
from services.drift_repair_agent.continuity.support import MapperSupport
from services.drift_repair_agent.repairs.decisions import Repairs
from services.drift_repair_agent.repairs.destination_limits import DestinationLimits
from services.drift_repair_agent.repairs.executor import RepairExecutor
from services.drift_repair_agent.repairs.expiry import Expiry
from services.drift_repair_agent.repairs.group_routes import router as group_routes
from services.drift_repair_agent.repairs.layer_routes import router as layer_routes
from services.drift_repair_agent.repairs.planner import Planner
from services.drift_repair_agent.repairs.policy_store import Policies
from services.drift_repair_agent.repairs.routes import router as repair_routes
from services.drift_repair_agent.repairs.suggestions import Suggestions
from services.drift_repair_agent.repairs.verification import Verification
from services.drift_repair_agent.service import DriftRepairAgent
from services.drift_repair_agent.states.effects import StateEffects
from services.drift_repair_agent.states.restorer import StateRestorer
from services.drift_repair_agent.states.routes import router as state_routes
from services.drift_repair_agent.states.service import States
from services.drift_repair_agent.webhooks.addresses import AllowedAddresses
from services.drift_repair_agent.webhooks.dispatcher import Deliveries
from services.drift_repair_agent.webhooks.notices import Notices
from services.drift_repair_agent.webhooks.routes import router as webhook_routes
from services.drift_repair_agent.webhooks.sender import Sender, Signer
from services.drift_repair_agent.webhooks.subscriptions import Receivers
from shared import failpoints, periodic
from shared.airbyte_client import AirbyteClient
from shared.backlogs import Gauges
from shared.config import Settings, load, networks
from shared.database import Database
from shared.destinations import DestinationReader
from shared.http import operation_routes
from shared.http.app import create_app
from shared.http.authentication import access_for, signer_for
from shared.http.shutdown import for_server, stop_on_signal
from shared.http.strict_json import CATALOG
from shared.job_queue import Jobs
from shared.observability import logs, tracing
from shared.operations import Operations
from shared.periodic import PeriodicTask
from shared.saved_states.store import StateStore
from shared.service_clients import Orchestrator, RagEngine, SchemaObserver

_MAX_CONCURRENT_PLANS = 4
_PLAN_INTERVAL = timedelta(seconds=5)
_PLAN_ALL_INTERVAL = timedelta(minutes=5)
_EXPIRE_INTERVAL = timedelta(seconds=5)
_ASK_AGAIN_INTERVAL = timedelta(seconds=30)
_LEARN_INTERVAL = timedelta(seconds=5)
_ANNOUNCE_INTERVAL = timedelta(minutes=1)
_NOTICE_INTERVAL = timedelta(seconds=5)
_ROUTERS = (
    apply_routes,
    layer_routes,
    group_routes,
    repair_routes,
    continuity_routes,
    connector_routes,
    state_routes,
    webhook_routes,
    operation_routes.router,
)


def build(settings: Settings) -> FastAPI:
    """Build the application for these settings."""
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
    reach = AllowedAddresses(networks(settings.webhook_networks))
    deliveries = Deliveries(db, Sender(reach), signer, console_url=settings.console_url)

    states = StateStore(settings, db, airbyte)
    restorer = StateRestorer(settings, db, airbyte, states)
    effects = StateEffects(settings, db, restorer)
    destinations = DestinationReader(airbyte)
    continuity = Continuity(MapperSupport(db, airbyte), destinations)
    executor = RepairExecutor(db, airbyte, operations, deadline=settings.repair_deadline)
    own_key = signer_for("drift_repair_agent", settings)
    orchestrator = Orchestrator.from_settings(settings, own_key)
    rag = RagEngine.from_settings(settings, own_key)
    observer = SchemaObserver.from_settings(settings, own_key)
    operations.register("upgrade", UpgradeSaga(settings, db, airbyte, jobs, observer, states))
    announcements = Announcements(db, notice=settings.upgrade_notice)
    executor.verify_with(Verification(db, orchestrator).step)
    suggesting = Suggestions(db, rag)
    planner = Planner(
        settings,
        db,
        airbyte,
        operations,
        suggesting,
        executor,
        states,
        DestinationLimits(db, destinations),
        continuity,
    )
    jobs.on("plan", planner.job, at_once=_MAX_CONCURRENT_PLANS)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with (
            deliveries.running(),
            periodic.repeating(
                db,
                operations.takeover_task,
                *deliveries.periodic_tasks,
                PeriodicTask(planner.plan_recent, _PLAN_INTERVAL, singleton_name="plan"),
                PeriodicTask(planner.plan_all_due, _PLAN_ALL_INTERVAL, singleton_name="plan_all"),
                PeriodicTask(executor.run_due, settings.job_poll_interval),
                PeriodicTask(
                    executor.end_stranded, _EXPIRE_INTERVAL, singleton_name="end_stranded"
                ),
                PeriodicTask(Expiry(db).expire_due, _EXPIRE_INTERVAL, singleton_name="expire"),
                PeriodicTask(planner.ask_again, _ASK_AGAIN_INTERVAL, singleton_name="ask_again"),
                PeriodicTask(suggesting.learn, _LEARN_INTERVAL, singleton_name="learn"),
                PeriodicTask(
                    announcements.announce_due,
                    _ANNOUNCE_INTERVAL,
                    singleton_name="announce_upgrades",
                ),
                PeriodicTask(Notices(db).add_due, _NOTICE_INTERVAL, singleton_name="notices"),
                *Gauges(db, BACKLOGS).periodic_tasks,
            ) as stop_looking,
            jobs.running(),
            operations.running(),
        ):
            with stop_on_signal(operations.stop, jobs.stop, stop_looking):
                yield
        await orchestrator.close()
        await rag.close()
        await observer.close()
        await airbyte.aclose()
        await db.close()

    app = create_app(
        service="drift_repair_agent",
        description="Plans, decides, applies, verifies and rolls back repairs.",
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
    app.state.service = DriftRepairAgent(
        settings, db, airbyte, operations, states, restorer, destinations, effects
    )
    app.state.repairs = Repairs(
        db, airbyte, operations, executor, effects, continuity, destinations
    )
    app.state.planner = planner
    app.state.upgrades = Upgrades(settings, db, airbyte, operations)
    app.state.policies = Policies(db, jobs)
    app.state.states = States(db, airbyte, states)
    app.state.adoption = Adoption(db, app.state.service)
    for router in _ROUTERS:
        app.include_router(router)
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module does not read the environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(Settings)))
