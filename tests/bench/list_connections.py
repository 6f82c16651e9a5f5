"""Latency of listing connections, compared with the same query by asyncpg behind Starlette."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import asyncpg
import uvloop

from tests.bench.environment import Http, Stage
from tests.bench.results_table import Line

CONNECTIONS = 100_000
REQUESTS = 200
ROUNDS = 5
_CONNECTIONS = f"""
    INSERT INTO connections (id, name, source_type, credential_id, airbyte_source_id,
        airbyte_connection_id, airbyte_destination_id, status, catalog_version, created_at)
    SELECT gen_random_uuid(), 'Salesforce ' || n, 'Salesforce', 'salesforce-prod',
        gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'ACTIVE', 1,
        now() - n * interval '1 second'
    FROM generate_series(1, {CONNECTIONS}) n
"""  # noqa: S608 - a constant


def measure(stage: Stage) -> Iterator[Line]:
    """Measure alternately with the baseline, sequentially and with ten in flight; best rounds."""
    for concurrency, (ours, baseline) in uvloop.run(_times(stage)).items():
        yield Line(
            job=f"page of 100 out of {CONNECTIONS:,}, concurrency {concurrency}",
            measured=ours,
            unit="µs",
            baseline=baseline,
            limit=3,
        )


async def _times(stage: Stage) -> dict[int, tuple[float, float]]:
    """Return microseconds per request of the service and of the baseline, by concurrency."""
    sql = await asyncpg.connect(stage.registry_url)
    await sql.execute(_CONNECTIONS)
    await sql.execute("VACUUM ANALYZE connections")
    await sql.close()
    service = stage.serve("services.orchestrator.main:app")
    baseline = stage.serve("tests.bench.baseline_servers:app")
    return {n: await _alternate(service, baseline, concurrency=n) for n in (1, 10)}


async def _alternate(service: int, baseline: int, *, concurrency: int) -> tuple[float, float]:
    ours = [await Http.to(service) for _ in range(concurrency)]
    theirs = [await Http.to(baseline) for _ in range(concurrency)]
    took_ours, took_theirs = [], []
    for _ in range(ROUNDS):
        took_theirs.append(await _each_us(theirs, "/page"))
        took_ours.append(await _each_us(ours, "/connections"))
    for http in (*ours, *theirs):
        http.close()
    return min(took_ours), min(took_theirs)


async def _each_us(clients: list[Http], path: str) -> float:
    async def worker(http: Http) -> None:
        for _ in range(REQUESTS // len(clients)):
            await http.request(path)

    start = time.perf_counter()
    await asyncio.gather(*(worker(http) for http in clients))
    return (time.perf_counter() - start) * 1e6 / REQUESTS
