"""Overhead of recording every step, compared with the same requests and rows without operations."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import asyncpg
import orjson
import uvloop
from redis.asyncio import Redis

from shared import outbox, registry, snapshots, source_types
from shared.airbyte_client import AirbyteClient, NewConnection
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.connector_versions import ConnectorVersion
from shared.models import Connection, ConnectionStatus, VersionOrigin
from shared.outbox import EventType
from shared.service_clients import AuthBroker
from tests import access
from tests.bench.environment import Stage
from tests.bench.results_table import Line
from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer
from tests.integration.conftest import (
    DESTINATION_ID,
    ORDER,
    Mesh,
    add_destination,
    running,
    settings_for,
)

T = TypeVar("T")

ROUNDS = 40
_CONFIG = ("Salesforce", "salesforce-prod")


def measure(stage: Stage) -> Iterator[Line]:
    """Compare median latencies of onboardings and applies, with a local scripted Airbyte.

    They alternate with the same work without operations, and with only the requests to Airbyte
    and to the auth broker.
    """
    p50 = {name: statistics.median(times) for name, times in uvloop.run(_times(stage)).items()}
    for kind, limit in (("onboard", 60), ("apply", 40)):
        calls = p50[f"{kind} calls"]
        yield Line(
            job=f"{kind}, AAM's own time (without {calls:.1f} ms of requests), p50",
            measured=p50[kind] - calls,
            limit=limit,
        )
        yield Line(
            job=f"{kind}, total time; baseline: without operations",
            measured=p50[kind],
            baseline=p50[f"{kind} plain"],
        )


async def _times(stage: Stage) -> dict[str, list[float]]:
    ms: dict[str, list[float]] = defaultdict(list)
    redis_url = stage.environment["REDIS_URL"]
    async with AirbyteServer(version="2.0.0") as airbyte:
        add_destination(airbyte)
        settings = settings_for(
            airbyte, stage.services_url, redis_url, log_level="ERROR", job_poll_interval="60"
        )
        sql = await asyncpg.connect(stage.registry_url)
        redis = Redis.from_url(redis_url)
        async with running(settings, airbyte, sql=sql, redis=redis) as mesh:
            plain = Plain(mesh.settings)
            for turn in range(ROUNDS):
                await _turn(mesh, plain, f"c{turn}", ms)
            await plain.close()
        await redis.aclose()
        await sql.close()
    return ms


async def _turn(mesh: Mesh, plain: Plain, name: str, ms: dict[str, list[float]]) -> None:
    async def timed(what: str, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = await work
        ms[what].append((time.perf_counter() - began) * 1000)
        return result

    order: dict[str, object] = {**ORDER, "connection_name": name, "prefix": f"{name}_"}
    response = await timed("onboard", mesh.orchestrator.post("/connections/onboard", json=order))
    assert response.status_code == 201, response.text
    await timed("onboard plain", plain.onboard(f"p{uuid4()}"))
    await timed("onboard calls", plain.calls(f"x{uuid4()}"))

    created = response.json()
    connection_id, airbyte_connection_id = (
        UUID(created[key]) for key in ("id", "airbyte_connection_id")
    )
    document, _ = await plain.head(connection_id)
    order = {"connection_id": created["id"], "sync_catalog": _with_new_field(document)}
    agent = mesh.drift_repair_agent
    response = await timed("apply", agent.post("/repair/apply_new_catalog", json=order))
    assert response.status_code == 200, response.text
    document, version = await plain.head(connection_id)
    await timed("apply plain", plain.apply(connection_id, airbyte_connection_id, version))
    await timed("apply calls", plain.update(airbyte_connection_id, document))


def _with_new_field(document: bytes) -> object:
    catalog = orjson.loads(document)
    fields = catalog["streams"][0]["stream"]["jsonSchema"]["properties"]
    fields[f"f_{uuid4().hex}"] = {"type": "string"}
    return catalog


class Plain:
    """The same requests and rows without an operation, so without recovery after a crash."""

    def __init__(self, settings: Settings) -> None:
        self._airbyte = AirbyteClient.from_settings(settings)
        self._auth_broker = AuthBroker.from_settings(settings, access.signer("orchestrator"))
        self._db = Database.at(settings.registry_address, application="bench")

    async def close(self) -> None:
        """Close the clients and the database."""
        await self._airbyte.aclose()
        await self._auth_broker.close()
        await self._db.close()

    async def head(self, connection_id: UUID) -> tuple[bytes, int]:
        """Return a connection's current catalog and its version number."""
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            head = await registry.read_version(session, connection_id, row.catalog_version)
        return head.sync_catalog.encode(), head.version_number

    async def calls(self, name: str) -> tuple[UUID, UUID, bytes, bytes]:
        """Send the requests of an onboarding; return source id, connection id, both catalogs."""
        destination = await self._airbyte.get_destination(UUID(DESTINATION_ID))
        modes = await self._airbyte.destination_sync_modes(destination)
        credential = await self._auth_broker.document(*_CONFIG)
        source = await self._airbyte.create_source(
            UUID(WORKSPACE_ID),
            credential.document,
            name=name,
            source_definition_id=source_types.SOURCE_TYPES["Salesforce"].definition_id,
        )
        discovered = await self._airbyte.discover_schema(source.source_id)
        chosen = catalogs.dump(
            catalogs.choose(
                discovered.catalog, streams=ORDER["streams"], destination_sync_modes=modes
            )
        )
        created = await self._airbyte.create_connection(
            NewConnection(name, source.source_id, UUID(DESTINATION_ID), chosen)
        )
        await self._airbyte.get_connection(created.connection_id)
        self._discovered = discovered
        self._connector = await self._airbyte.connector_version(source.source_id)
        return source.source_id, created.connection_id, discovered.catalog, chosen

    async def onboard(self, name: str) -> None:
        """Onboard a connection without an operation."""
        connection = Connection(
            id=uuid4(),
            name=name,
            source_type="Salesforce",
            credential_id=_CONFIG[1],
            airbyte_destination_id=UUID(DESTINATION_ID),
        )
        async with self._db.transaction() as session:
            await registry.insert_pending(session, connection)
        source_id, connection_id, _, chosen = await self.calls(name)
        snapshot_id = await snapshots.store(
            self._db, source_id, self._discovered, read_connector=self._record_connector
        )
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection.id)
            row.airbyte_source_id, row.airbyte_connection_id = source_id, connection_id
            row.status = ConnectionStatus.ACTIVE
            registry.append_version(
                session,
                row,
                chosen,
                expected_version=0,
                fingerprint=catalogs.document_fingerprint(chosen),
                origin=VersionOrigin.ONBOARD,
                snapshot_id=snapshot_id,
                requested_by=None,
            )
            outbox.record(session, EventType.CONNECTION_ONBOARDED, row)

    async def _record_connector(self, source_id: UUID) -> ConnectorVersion:
        async with self._db.transaction() as session:
            await registry.record_connector(
                session, source_id, self._connector, check_again_after=timedelta(hours=6)
            )
        return self._connector

    async def update(self, connection_id: UUID, document: bytes) -> None:
        """Send the requests of an apply."""
        await self._airbyte.connection_statuses([connection_id])
        await self._airbyte.update_connection(connection_id, document)
        await self._airbyte.get_connection(connection_id)

    async def apply(self, connection_id: UUID, airbyte_connection_id: UUID, version: int) -> None:
        """Apply a catalog without an operation."""
        document, _ = await self.head(connection_id)
        grown = orjson.dumps(_with_new_field(document))
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            registry.begin_heal(row, heal_id := uuid4())
            outbox.record(session, EventType.CATALOG_HEALING, row)
        await self.update(airbyte_connection_id, grown)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            registry.end_heal(row, heal_id, status=ConnectionStatus.ACTIVE)
            registry.append_version(
                session,
                row,
                grown,
                expected_version=version,
                fingerprint=catalogs.document_fingerprint(grown),
                origin=VersionOrigin.REPAIR,
                snapshot_id=None,
                requested_by=None,
            )
            outbox.record(session, EventType.CATALOG_APPLIED, row)
