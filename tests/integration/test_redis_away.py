"""The whole mesh without Redis: the same answers, and every event is published once it is back."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from local.processes import servers
from shared import outbox, registry
from shared.database import Database
from shared.postgres_address import postgres_address
from tests import access, factories
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.conftest import (
    DESTINATION_ID,
    ORDER,
    REPOSITORY,
    Mesh,
    add_destination,
    running,
    settings_for,
)
from tests.pools import Sql
from tests.waiting import until_not

ANSWERED_WITHIN_S = 20
PUBLISHED = [
    "connection.onboarded",
    "catalog.healing",
    "catalog.applied",
    "sync.triggered",
    "sync.finished",
]


async def fetch(
    client: httpx.AsyncClient, method: str, path: str, *, body: Any = None, answers: int = 200
) -> Any:
    """Return the answer's body; check its status and that it came in time."""
    begun = time.monotonic()
    answer = await client.request(method, path, json=body)
    assert time.monotonic() - begun < ANSWERED_WITHIN_S, path
    assert answer.status_code == answers, answer.text
    return answer.json()


async def live(mesh: Mesh, name: str) -> str:
    """Do each thing that publishes an event once; return the connection's id."""
    mesh.airbyte.offers(catalog(stream("Account"), stream("Contact")))
    order = {**mesh.order, "connection_name": name, "prefix": f"{name}_"}
    onboarded = await fetch(
        mesh.orchestrator, "POST", "/connections/onboard", body=order, answers=201
    )
    path = f"/connections/{onboarded['id']}"
    mesh.airbyte.offers(catalog(stream("Account", ("Id", "Region__c")), stream("Contact")))
    proposal = await fetch(mesh.orchestrator, "POST", f"{path}/discover")
    applied = await fetch(
        mesh.drift_repair_agent, "POST", "/repair/apply_new_catalog", body=proposal
    )
    assert (applied["version_number"], applied["status"]) == (2, "ACTIVE")
    mesh.airbyte.jobs_end_with("succeeded")
    await fetch(mesh.orchestrator, "POST", f"{path}/sync", answers=202)
    await mesh.jobs_until_end(onboarded["id"])
    return str(onboarded["id"])


@asynccontextmanager
async def silence() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A Redis that takes connections and never says a word: its URL, and when it is called."""
    called, over = asyncio.Event(), asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", called
        over.set()


@pytest.mark.timeout(60)
async def test_without_redis_nothing_is_lost(
    airbyte: AirbyteServer,
    registry_url: str,
    sql: Sql,
    own_valkey: servers.Valkey,
) -> None:
    """Onboard, discover, apply, sync and list answer; the events arrive later, once, in order."""
    add_destination(airbyte)
    settings = settings_for(airbyte, registry_url, own_valkey.url)
    redis = outbox.open_redis(settings)
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        before = await live(mesh, "before")
        assert [one["type"] for one in await mesh.events(len(PUBLISHED))] == PUBLISHED

        own_valkey.stop()
        meanwhile = await live(mesh, "meanwhile")
        page = await fetch(mesh.orchestrator, "GET", "/connections")
        assert [one["id"] for one in page["items"]] == [meanwhile, before]
        for service in (mesh.orchestrator, mesh.drift_repair_agent):
            await fetch(service, "GET", "/ready")
        waiting = "SELECT count(*) FROM events WHERE published_at IS NULL"
        assert await sql.fetchval(waiting) == len(PUBLISHED)

        own_valkey.start()
        await until_not(lambda: sql.fetchval(waiting))
        published = await mesh.events(len(PUBLISHED))
    ours = [one for one in published if one["connection_id"] == meanwhile]
    assert [one["type"] for one in ours] == PUBLISHED
    assert [one["seq"] for one in ours] == [str(number + 1) for number in range(len(PUBLISHED))]
    assert len({one["event_id"] for one in published}) == len(published)
    await redis.aclose()


@pytest.mark.timeout(60)
async def test_hanging_redis_delays_no_answer(
    airbyte: AirbyteServer, registry_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for it, nor do the services when they stop."""
    assert hasattr(outbox, "_TIMEOUT_S")
    monkeypatch.setattr(outbox, "_TIMEOUT_S", 3 * ANSWERED_WITHIN_S)
    add_destination(airbyte)
    async with silence() as (url, called):
        settings = settings_for(airbyte, registry_url, url)
        redis = outbox.open_redis(settings)
        async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
            await live(mesh, "first")
            await live(mesh, "second")
            assert called.is_set()
            begun = time.monotonic()
        assert time.monotonic() - begun < ANSWERED_WITHIN_S
        await redis.aclose()
    waiting = "SELECT count(*) FROM events WHERE published_at IS NULL"
    assert await sql.fetchval(waiting) == 2 * len(PUBLISHED)


@pytest.mark.process
@pytest.mark.timeout(60)
async def test_process_stops_although_redis_hangs(
    airbyte: AirbyteServer, registry_url: str, sql: Sql
) -> None:
    """SIGTERM during a relay run: exit code 0 within ten seconds."""
    connection = factories.connection()
    db = Database.at(postgres_address(registry_url), application="test")
    async with db.transaction() as session:
        session.add(connection)
    async with db.transaction() as session:
        locked = await registry.lock_connection(session, connection.id)
        outbox.record(session, outbox.EventType.SYNC_TRIGGERED, locked)
    await db.close()

    port = servers.free_port()
    async with silence() as (url, called):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "services.orchestrator.main:app"),
            *("--port", str(port)),
            cwd=REPOSITORY,
            env={
                "PATH": os.environ["PATH"],
                **airbyte.environment,
                **access.environment(),
                "SUPABASE_DB_URL": servers.as_service(registry_url, "orchestrator"),
                "REDIS_URL": url,
                "AIRBYTE_DESTINATION_ID": DESTINATION_ID,
            },
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(30):
                await called.wait()
            async with access.client(f"http://127.0.0.1:{port}") as client:
                await answers(client)
            begun = time.monotonic()
            process.terminate()
            async with asyncio.timeout(15):
                assert await process.wait() == 0
            assert time.monotonic() - begun < 10
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def answers(client: httpx.AsyncClient) -> None:
    """Wait until the service takes requests: its looks begin a moment before."""
    async with asyncio.timeout(10):
        while True:
            with suppress(httpx.TransportError):
                await fetch(client, "GET", "/health")
                return
            await asyncio.sleep(0.05)
