"""Random concurrent histories with faults over two replicas, checked for anomalies.

The seed is printed, to repeat a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from redis.asyncio import Redis

from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from tests import access
from tests.fakes.airbyte_server import AirbyteServer, Fault
from tests.faults import oracles
from tests.faults.histories import Call, Ending, History, anomalies
from tests.integration.conftest import (
    ORDER,
    add_destination,
    as_service,
    broker_for,
    empty,
    serving,
    settings_for,
)

pytestmark = pytest.mark.process

SEED = int(os.environ.get("AAM_SEED", "20261123"))
HISTORIES = 200 if os.environ.get("AAM_FAULTS") else 8
CALLS, CALLERS, CONNECTIONS, FAULTY = 30, 4, 2, 0.05
_TIMES = {
    "airbyte_timeout": "0.5",
    "discover_timeout": "1",
    "peer_timeout": "1",
    "in_flight_window": "0.1",
    "operation_deadline": "30",
    "job_poll_interval": "0.1",
    "event_relay_interval": "0.2",
    "sweep_grace": "0.2",
    "log_level": "ERROR",
}
_PATHS = (
    "connections/update",
    "connections/get",
    "connections/sync",
    "connections/status",
    "jobs/list",
)
_FAULTS: tuple[tuple[Fault, bool], ...] = (
    ("hang", False),
    ("hang", True),
    ("reset", False),
    ("reset", True),
    (500, False),
    (500, True),
    ("html_502", False),
    ("html_502", True),
    (409, False),
    ("empty_200", True),
    ("truncated", True),
    ("close", False),
    (422, False),
)


@dataclass
class Stage:
    """Two replicas of both services in this process, each with its own connection pool."""

    orchestrators: list[httpx.AsyncClient]
    agents: list[httpx.AsyncClient]
    airbyte: AirbyteServer
    sql: Any
    redis: Redis
    counted: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
async def stage(redis_url: str, postgres_url: str, registry_of_faults: str) -> AsyncIterator[Stage]:
    """The stage for all histories; each one starts with an empty registry."""
    broker = broker_for(registry_of_faults, log_level="ERROR")
    async with AsyncExitStack() as stack:
        airbyte = await stack.enter_async_context(AirbyteServer(version="2.0.0"))
        add_destination(airbyte)
        broker_url = await stack.enter_async_context(serving(broker))
        settings = settings_for(airbyte, registry_of_faults, redis_url, **_TIMES)
        settings = settings.model_copy(update={"auth_broker_url": broker_url})

        async def client(app: Any) -> httpx.AsyncClient:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            created = access.client(transport=transport, timeout=30)
            return await stack.enter_async_context(created)

        sql = await asyncpg.connect(postgres_url)
        redis = Redis.from_url(redis_url, decode_responses=True, protocol=3)
        yield Stage(
            [
                await client(orchestrator.build(as_service(settings, "orchestrator")))
                for _ in range(2)
            ],
            [
                await client(drift_repair_agent.build(as_service(settings, "drift_repair_agent")))
                for _ in range(2)
            ],
            airbyte,
            sql,
            redis,
        )
        await redis.aclose()
        await sql.close()


@dataclass(frozen=True)
class Request:
    """A request with an idempotency key, so that sending it again has no further effect."""

    client: httpx.AsyncClient
    path: str
    key: str
    body: Any = None

    async def send(self) -> httpx.Response:
        """Send the request, waiting at most 0.3 s for the operation."""
        return await self.client.post(
            f"{self.path}?wait=0.3", json=self.body, headers={"Idempotency-Key": self.key}
        )


def _with_response(call: Call, answer: httpx.Response) -> Call:
    """Return the call with its response recorded."""
    body = answer.json()
    return replace(
        call,
        ended=time.monotonic(),
        status=answer.status_code,
        version=body.get("version_number") if answer.status_code == 200 else None,
        job=body.get("airbyte_job_id") if answer.status_code == 202 else None,
    )


class Run:
    """One history: 30 calls of 4 callers on 2 connections, 5 % of them with a fault."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        # One per caller, so that its calls depend only on the seed.
        self._randoms = [random.Random(f"{seed}/{n}") for n in range(CALLERS)]  # noqa: S311
        self._connections: list[dict[str, Any]] = []
        self._catalogs: dict[str, Any] = {}
        self._calls: list[tuple[Call, Request]] = []
        self._seed = seed

    async def prepare(self) -> None:
        """Delete the data of the previous history, and onboard the connections."""
        stage = self._stage
        stage.airbyte.heal()
        for held in (stage.airbyte.sources, stage.airbyte.connections):
            held.clear()
        stage.airbyte.jobs.clear()
        stage.airbyte.requests.clear()
        stage.airbyte.forget_peaks()
        await empty(stage.sql)
        for number in range(CONNECTIONS):
            answer = await stage.orchestrators[0].post(
                "/connections/onboard",
                json={**ORDER, "connection_name": f"c{number}", "prefix": f"c{number}_"},
            )
            assert answer.status_code == 201, answer.text
            body = answer.json()
            self._connections.append(body)
            path = f"/connections/{body['id']}/catalog-versions/1"
            self._catalogs[body["id"]] = (await stage.orchestrators[0].get(path)).content

    async def execute(self) -> None:
        """Run all callers concurrently, each with its share of the calls."""
        share = [CALLS // CALLERS + (n < CALLS % CALLERS) for n in range(CALLERS)]
        await asyncio.gather(*(self._caller(n, calls) for n, calls in enumerate(share)))

    async def _caller(self, number: int, calls: int) -> None:
        rng = self._randoms[number]
        for turn in range(calls):
            connection = rng.choice(self._connections)["id"]
            if rng.random() < FAULTY:
                kind, after = rng.choice(_FAULTS)
                path = rng.choice(_PATHS)
                self._stage.airbyte.fault(path, kind, after_effect=after)
                self._stage.counted["faults"] += 1
            if rng.random() < 0.7:
                await self._apply(rng, connection, f"m_{number}_{turn}")
            else:
                await self._sync(rng, connection, f"s_{number}_{turn}")

    async def _apply(self, rng: random.Random, connection: str, mark: str) -> None:
        catalog = orjson.loads(self._catalogs[connection])
        catalog["streams"][0]["stream"]["jsonSchema"]["properties"][mark] = {"type": "string"}
        order: dict[str, Any] = {"connection_id": connection, "sync_catalog": catalog}
        expected = rng.choice([None, None, None, 1, 2])
        if expected is not None:
            order["expected_version"] = expected
        call = Call("apply", connection, time.monotonic(), mark=mark, expected_version=expected)
        agent = rng.choice(self._stage.agents)
        await self._call(call, agent, "/repair/apply_new_catalog", mark, order)

    async def _sync(self, rng: random.Random, connection: str, name: str) -> None:
        call = Call("sync", connection, time.monotonic())
        service = rng.choice(self._stage.orchestrators)
        recorded = await self._call(call, service, f"/connections/{connection}/sync", name)
        if recorded.job is not None:
            await asyncio.sleep(rng.uniform(0, 0.05))
            if recorded.job in self._stage.airbyte.jobs:
                self._stage.airbyte.finish_job(recorded.job)

    async def _call(
        self, call: Call, client: httpx.AsyncClient, path: str, name: str, body: Any = None
    ) -> Call:
        request = Request(client, path, f"history-{self._seed}-{name}", body)
        recorded = _with_response(call, await request.send())
        self._calls.append((recorded, request))
        return recorded

    async def _later(self, call: Call, request: Request) -> Call:
        """Return the call with the final response, if the first one was 202."""
        if call.status != 202 or call.is_done:
            return call
        answer = await request.send()
        assert answer.headers.get("idempotency-replayed") == "true", answer.text
        self._stage.counted["completed later"] += 1
        return _with_response(call, answer)

    async def end(self) -> History:
        """Remove all faults, wait until all operations and jobs have ended, return the history."""
        stage = self._stage
        stage.airbyte.heal()
        async with asyncio.timeout(25):
            while await oracles.nothing_is_stuck(stage.sql):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while any(job["status"] == "running" for job in stage.airbyte.jobs.values()):
                for number, job in list(stage.airbyte.jobs.items()):
                    if job["status"] == "running":
                        stage.airbyte.finish_job(number)
                await asyncio.sleep(0.01)
            # Jobs whose start was not confirmed are found by the next poll of Airbyte's jobs.
            while await self._unrecorded():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        wrong = await oracles.nothing_is_orphaned(stage.sql, stage.airbyte)
        calls = [await self._later(*one) for one in self._calls]
        for call in calls:
            stage.counted[
                "done" if call.is_done else "refused" if call.is_refused else "unknown"
            ] += 1
        return History(
            calls,
            {one["id"]: await self._ending(one) for one in self._connections},
            orphans=wrong,
        )

    async def _unrecorded(self) -> bool:
        recorded = await self._stage.sql.fetchval("SELECT count(*) FROM job_history")
        return bool(recorded < len(self._stage.airbyte.jobs))

    async def _ending(self, connection: dict[str, Any]) -> Ending:
        sql, airbyte = self._stage.sql, self._stage.airbyte
        row = await sql.fetchrow("SELECT * FROM connections WHERE id = $1", connection["id"])
        versions = await sql.fetch(
            "SELECT version_number, sync_catalog::text AS catalog FROM sync_catalog_versions"
            " WHERE connection_id = $1 ORDER BY version_number",
            connection["id"],
        )
        jobs = await sql.fetch(
            "SELECT airbyte_job_id FROM job_history WHERE connection_id = $1", connection["id"]
        )
        held = airbyte.connections.get(connection["airbyte_connection_id"])
        return Ending(
            versions=[
                (one["version_number"], _mark(orjson.loads(one["catalog"]))) for one in versions
            ],
            head=row["catalog_version"],
            status=row["status"],
            held=None if held is None else _mark(held["syncCatalog"]),
            jobs=[
                number
                for number, job in airbyte.jobs.items()
                if job["configId"] == connection["airbyte_connection_id"]
            ],
            recorded_jobs=[job["airbyte_job_id"] for job in jobs],
            updates_at_once=airbyte.most_at_once("connections/update"),
        )


def _mark(catalog: Any) -> str:
    marks = [
        name
        for stream in catalog["streams"]
        for name in stream["stream"]["jsonSchema"].get("properties", {})
        if name.startswith("m_")
    ]
    return ",".join(marks)


@pytest.mark.timeout(900)
@pytest.mark.deep
async def test_random_histories_have_no_anomaly(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[int, list[str]] = {}
    for seed in range(SEED, SEED + HISTORIES):
        run = Run(stage, seed)
        await run.prepare()
        await run.execute()
        found = anomalies(await run.end())
        if found:
            wrong[seed] = found
    counted = ", ".join(f"{count} {what}" for what, count in sorted(stage.counted.items()))
    with capsys.disabled():
        print(f"\n{HISTORIES} histories from seed {SEED}: {HISTORIES * CALLS} calls, {counted}")  # noqa: T201
    assert wrong == {}
    assert stage.counted["done"] > HISTORIES * CALLS / 10, "too few calls succeeded"
