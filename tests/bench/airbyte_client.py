"""Throughput of the Airbyte client compared with plain httpx: concurrent requests, small JSON."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import uvloop

from shared.airbyte_client import AirbyteClient
from tests.bench.airbyte_server import ID
from tests.bench.environment import Stage
from tests.bench.results_table import Line

CONCURRENCY = 100
CALLS = 500
ROUNDS = 3


def measure(stage: Stage) -> Iterator[Line]:
    """Measure both rates alternately and compare their medians."""
    plain, ours = uvloop.run(_rates(stage.airbyte_url))
    yield Line(
        job=f"{CONCURRENCY} concurrent requests; baseline: plain httpx",
        measured=ours,
        unit="/s",
        baseline=plain,
        limit=5,
        at_least=True,
    )


async def _rates(base: str) -> tuple[float, float]:
    plain: list[float] = []
    ours: list[float] = []
    async with httpx.AsyncClient() as bare, AirbyteClient(base) as client:

        async def post_with_httpx() -> None:
            response = await bare.post(f"{base}/sources/get", json={"sourceId": str(ID)})
            response.json()

        for _ in range(ROUNDS):
            plain.append(await _rate(post_with_httpx))
            ours.append(await _rate(lambda: client.get_source(ID)))
    return statistics.median(plain), statistics.median(ours)


async def _rate(call: Callable[[], Awaitable[object]]) -> float:
    """Return calls per second, with `CONCURRENCY` calls in flight at any time."""

    async def worker() -> None:
        for _ in range(CALLS // CONCURRENCY):
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return CALLS / (time.perf_counter() - started)
