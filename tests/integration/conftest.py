"""The services with a real registry, a real Valkey and the scriptable Airbyte server."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import asyncpg
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import Secret
from redis.asyncio import Redis
from starlette.types import ASGIApp

from local.processes import servers
from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from services.rag_engine import main as rag_engine
from services.schema_observer import connectors
from services.schema_observer import main as schema_observer
from shared import periodic
from shared.airbyte_client import AirbyteClient
from shared.airbyte_client._transport import Transport
from shared.config import RagEngineSettings, Settings
from shared.database import Database
from shared.errors import UpstreamUnknown
from shared.outbox import STREAM
from shared.postgres_address import postgres_address
from shared.service_clients import Peer
from tests import access, leaks
from tests.fakes.airbyte_server import POSTGRES, WORKSPACE_ID, AirbyteServer
from tests.given_settings import given
from tests.integration import brokers
from tests.integration.brokers import CANARY, CREDENTIALS, broker_for
from tests.pools import Pools, Sql
from tests.waiting import until

__all__ = ["CANARY", "CREDENTIALS", "broker_for"]

REPOSITORY = Path(__file__).parents[2]
ORDER = {
    "source_type": "Salesforce",
    "connection_name": "Salesforce production",
    "credential_id": "salesforce-prod",
    "streams": ["Account", "Contact"],
}
DESTINATION_ID = "5f0c6a1e-8f64-4f0b-9a3c-0b1c2d3e4f50"
TABLES = (
    "connection_health",
    "events",
    "job_history",
    "sync_catalog_versions",
    "snapshots",
    "stream_schemas",
    "import_items",
    "operations",
    "periodic_runs",
    "connections",
    "pgqueuer",
    "pgqueuer_log",
    "observations",
    "discoveries",
    "watches",
    "drifts",
    "policies",
    "policy_layers",
    "plans",
    "repairs",
    "webhooks",
    "webhook_deliveries",
    "knowledge",
    "credential_audit",
    "credential_versions",
    "setting_changes",
    "source_trials",
    "source_connectors",
    "stream_states",
    "sync_volumes",
    "timeline_events",
    "refusals",
)
_LARGE_BYTES = 1024 * 1024


# Tests would have to wait for what a mesh does every five or ten seconds.
for name in (
    "_PLAN_INTERVAL",
    "_EXPIRE_INTERVAL",
    "_LEARN_INTERVAL",
    "_ANNOUNCE_INTERVAL",
    "_NOTICE_INTERVAL",
):
    assert hasattr(drift_repair_agent, name)
    setattr(drift_repair_agent, name, timedelta(seconds=0.5))
assert hasattr(orchestrator, "_SEARCH_EVERY")
orchestrator._SEARCH_EVERY = timedelta(0)
assert hasattr(connectors, "_EVERY")
connectors._EVERY = timedelta(seconds=0.5)
# What runs every few minutes would run in some tests and not in others: those that need it call it.
assert hasattr(periodic, "_RARE_AFTER_S")
periodic._RARE_AFTER_S = 120

FAULT_RATE = float(os.environ.get("AAM_FAULT_RATE", "0"))
FAULT_SEED = int(os.environ.get("AAM_SEED", "20261123"))
_dice = random.Random(FAULT_SEED)  # noqa: S311 (faults, not secrets)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `exact`, which count or time calls, when faults are injected."""
    if FAULT_RATE:
        items[:] = [item for item in items if item.get_closest_marker("exact") is None]


@pytest.fixture(autouse=FAULT_RATE > 0)
def lossy_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose requests and responses at random: half before, half after their effect."""
    exchange = Transport._exchange

    async def lossy(self: Transport, path: str, *rest: Any) -> Any:
        if _dice.random() >= FAULT_RATE:
            return await exchange(self, path, *rest)
        if _dice.random() < 0.5:
            await exchange(self, path, *rest)
        raise UpstreamUnknown(f"The connection to Airbyte was lost after {path} was sent.")

    monkeypatch.setattr(Transport, "_exchange", lossy)


@pytest.fixture(scope="session")
def registry_url(postgres: servers.Postgres, pools: Pools) -> str:
    """A migrated registry, with a login that has the privileges of all services.

    `as_service` builds each service with its own login, so that the tests also prove that its
    privileges are sufficient.
    """
    migrate(postgres.url)
    return postgres.services_url


def migrate(url: str) -> None:
    """Create the registry's tables in an empty database."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "SUPABASE_DB_URL": url, "MIGRATION_DB_URL": ""},
        timeout=60,
    )
    access.let_in(url)


@pytest.fixture
async def sql(postgres_url: str, registry_url: str, pools: Pools) -> AsyncIterator[Sql]:
    """The owner's connection, to inspect the registry; all tables are empty at the test's start."""
    async with pools.connection(("owner",), partial(asyncpg.connect, postgres_url)) as connection:
        await empty(connection)
        yield connection
        await leaks.add_rows(connection)


async def empty(connection: Sql) -> None:
    """Delete every row; for small tables DELETE is seventy times as fast as TRUNCATE.

    Waits for transactions of running services, which may lock tables in another order.
    """
    sizes = "SELECT name, pg_table_size(name::regclass) FROM unnest($1::text[]) AS name"
    large = [name for name, size in await connection.fetch(sizes, TABLES) if size > _LARGE_BYTES]
    statements = [
        f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE",
        *([f"TRUNCATE {', '.join(large)} CASCADE"] if large else []),
        # Foreign keys are not checked, so the order does not matter.
        "SET LOCAL session_replication_role = replica",
        *(f"DELETE FROM {name}" for name in TABLES),  # noqa: S608 (constant names)
    ]
    for _ in range(20):
        with suppress(asyncpg.DeadlockDetectedError):
            async with connection.transaction():
                await connection.execute(";".join(statements))
            return
    raise AssertionError("The registry's tables are never free.")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the run's Valkey; the stream is empty at the test's start."""
    client = Redis.from_url(redis_url, decode_responses=True, protocol=3)
    await client.delete(STREAM)
    yield client
    await leaks.add_entries(client)
    await client.aclose()


_IS_UNPUBLISHED = "SELECT EXISTS (SELECT FROM events WHERE published_at IS NULL)"


@dataclass
class Mesh:
    """The services of one test, and their dependencies."""

    orchestrator: httpx.AsyncClient
    drift_repair_agent: httpx.AsyncClient
    schema_observer: httpx.AsyncClient
    auth_broker: httpx.AsyncClient
    airbyte: AirbyteServer
    sql: Sql
    redis: Redis
    settings: Settings
    order: dict[str, Any] = field(default_factory=dict)
    onboarded: int = 0

    async def onboard(self, **changes: Any) -> dict[str, Any]:
        """Onboard a connection with two streams; a second one has tables of its own."""
        order = {**self.order, **changes}
        if self.onboarded:
            order = {"prefix": f"c{self.onboarded}_", **order}
        answer = await self.orchestrator.post("/connections/onboard", json=order)
        self.onboarded += 1
        assert answer.status_code == 201, answer.text
        connection: dict[str, Any] = answer.json()
        return connection

    async def until_true(self, query: str, *values: object) -> None:
        """Wait until a query of the registry returns something true."""
        await until(lambda: self.sql.fetchval(query, *values))

    async def events(self, count: int) -> list[dict[str, str]]:
        """Wait until all events are published, at least `count`, and return them."""

        async def read() -> list[Any] | None:
            if await self.sql.fetchval(_IS_UNPUBLISHED):
                return None
            entries = await self.redis.xrange(STREAM) or []
            return entries if len(entries) >= count else None

        entries = await until(read)
        return [{str(name): str(value) for name, value in fields.items()} for _, fields in entries]

    async def jobs_until_end(self, connection_id: str) -> list[dict[str, Any]]:
        """Return the connection's jobs once the newest has ended."""

        async def ended() -> list[dict[str, Any]] | None:
            answer = await self.orchestrator.get(f"/connections/{connection_id}/jobs")
            jobs = answer.json()["items"]
            return list(jobs) if jobs and jobs[0]["ended_at"] else None

        found: list[dict[str, Any]] = await until(ended)
        return found


@asynccontextmanager
async def serving(
    app: ASGIApp, *, lifespan: Literal["on", "off"] = "on", port: int | None = None, **more: Any
) -> AsyncIterator[str]:
    """Serve an app on a real socket and yield its base URL; `off` if its lifespan already runs."""
    port = port or servers.free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, lifespan=lifespan, **more
    )
    # Start and stop as uvicorn does, without its sleeps of tenths of a second.
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await server.lifespan.shutdown()


def settings_for(
    airbyte: AirbyteServer, registry_url: str, redis_url: str, **more: Any
) -> Settings:
    """Build settings for the services of a test, with short intervals."""
    values: dict[str, Any] = {
        name.lower(): value for name, value in airbyte.environment.items()
    } | {
        "supabase_db_url": registry_url,
        "redis_url": redis_url,
        "airbyte_destination_id": DESTINATION_ID,
        "airbyte_timeout": "5",
        "discover_timeout": "10",
        "in_flight_window": "0.3",
        "operation_deadline": "60",
        "job_poll_interval": "0.25",
        "event_relay_interval": "0.2",
        "rotation_digest_key": "for the tests of this run and no other",
        "log_level": "DEBUG",
        **access.service_keys(),
        "webhook_networks": "127.0.0.0/8, ::1/128",
        **more,
    }
    return given(Settings, **values)


def as_service(settings: Settings, service: str) -> Settings:
    """Return the same settings with the login of one service."""
    url = settings.supabase_db_url.get_secret_value()
    return settings.model_copy(update={"supabase_db_url": Secret(servers.as_service(url, service))})


@pytest.fixture(autouse=True)
async def brokers_are_closed() -> AsyncIterator[None]:
    """Close the registry connections of the brokers that a test created."""
    with brokers.made_here() as created:
        yield
        for broker in created:
            await brokers.close(broker)


async def close_parts(app: FastAPI) -> None:
    """Close the clients and the registry of an application whose lifespan never ran."""
    waiting: list[object] = [*app.state._state.values()]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, AirbyteClient):
            await part.aclose()
        elif isinstance(part, Peer | Database):
            await part.close()
        elif isinstance(part, Redis):
            await part.aclose()
        elif type(part).__module__.startswith(("services.", "shared.")) and id(part) not in seen:
            seen.add(id(part))
            waiting += getattr(part, "__dict__", {}).values()


def add_destination(airbyte: AirbyteServer) -> None:
    """Add a Postgres destination, as if it were created in Airbyte before."""
    airbyte.destinations[DESTINATION_ID] = {
        "destinationId": DESTINATION_ID,
        "destinationDefinitionId": POSTGRES,
        "workspaceId": WORKSPACE_ID,
        "name": "Warehouse",
        "destinationName": "Postgres",
        "connectionConfiguration": {},
        "createdAt": 1_700_000_000,
    }


@asynccontextmanager
async def running(
    settings: Settings,
    airbyte: AirbyteServer,
    *,
    repairs: bool = True,
    credentials: Mapping[str, str] = CREDENTIALS,
    **parts: Any,
) -> AsyncIterator[Mesh]:
    """Run the services; the broker has a real socket, since the others call it.

    Without `repairs` the drift_repair_agent answers requests but runs no background tasks.
    """
    broker = broker_for(settings.supabase_db_url.get_secret_value(), credentials)
    async with AsyncExitStack() as stack:
        broker_url = await stack.enter_async_context(serving(broker))
        settings = settings.model_copy(update={"auth_broker_url": broker_url})
        orchestrating_app = orchestrator.build(as_service(settings, "orchestrator"))
        observing_app = schema_observer.build(as_service(settings, "schema_observer"))
        suggesting = rag_engine.build(
            given(
                RagEngineSettings,
                supabase_db_url=as_service(settings, "rag_engine").supabase_db_url,
                **access.service_keys(),
            )
        )
        peers = {
            "orchestrator_url": await stack.enter_async_context(
                serving(orchestrating_app, lifespan="off")
            ),
            "rag_engine_url": await stack.enter_async_context(serving(suggesting)),
            "schema_observer_url": await stack.enter_async_context(
                serving(observing_app, lifespan="off")
            ),
        }
        # Addresses that a test sets take precedence: they may be unreachable on purpose.
        urls = {name: url for name, url in peers.items() if name not in settings.model_fields_set}
        settings = settings.model_copy(update=urls)
        repairing_app = drift_repair_agent.build(as_service(settings, "drift_repair_agent"))
        apps = [orchestrating_app, repairing_app, observing_app, broker]
        idle = [broker] if repairs else [broker, repairing_app]
        clients = []
        for app in apps:
            if app not in idle:
                await stack.enter_async_context(app.router.lifespan_context(app))
            elif app is repairing_app:
                stack.push_async_callback(close_parts, app)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = access.client(transport=transport, timeout=30)
            clients.append(await stack.enter_async_context(client))
        orchestrating, repairing, observing, brokering = clients
        yield Mesh(
            orchestrating,
            repairing,
            observing,
            brokering,
            airbyte=airbyte,
            settings=settings,
            **parts,
        )


@pytest.fixture
def repairs() -> bool:
    """Whether the mesh plans and applies repairs; modules that inspect drifts override it."""
    return True


@dataclass
class Meshes:
    """Starts the services over the run's registry and Valkey, with settings of the test's own."""

    registry_url: str
    redis_url: str
    sql: Sql
    redis: Redis

    @asynccontextmanager
    async def start(
        self,
        airbyte: AirbyteServer,
        *,
        repairs: bool = True,
        credentials: Mapping[str, str] = CREDENTIALS,
        **changes: Any,
    ) -> AsyncIterator[Mesh]:
        """Start the services with this Airbyte, which gets a destination."""
        add_destination(airbyte)
        settings = settings_for(airbyte, self.registry_url, self.redis_url, **changes)
        parts: dict[str, Any] = {"sql": self.sql, "redis": self.redis, "order": ORDER}
        async with running(
            settings, airbyte, repairs=repairs, credentials=credentials, **parts
        ) as mesh:
            yield mesh


@pytest.fixture
def meshes(registry_url: str, redis_url: str, sql: Sql, redis: Redis) -> Meshes:
    """What starts the services; `mesh` starts them with the usual settings."""
    return Meshes(registry_url, redis_url, sql, redis)


@pytest.fixture
async def mesh(repairs: bool, airbyte: AirbyteServer, meshes: Meshes) -> AsyncIterator[Mesh]:
    """The services with a current Airbyte."""
    async with meshes.start(airbyte, repairs=repairs) as mesh:
        yield mesh


@pytest.fixture
async def db(registry_url: str, sql: Sql) -> AsyncIterator[Database]:
    """The registry, by an engine of the test's own."""
    db = Database.at(postgres_address(registry_url), application="test")
    yield db
    await db.close()
