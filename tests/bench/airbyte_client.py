"""What a call through the Airbyte client costs beside plain httpx: many at once, small JSON."""

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

AT_ONCE = 100
CALLS = 500
ROUNDS = 3


def measure(stage: Stage) -> Iterator[Line]:
    """Both rates, in turns, as medians."""
    plain, ours = uvloop.run(_rates(stage.airbyte_url))
    yield Line(
        job=f"{AT_ONCE} requests at once, floor: plain httpx",
        measured=ours,
        unit="/s",
        floor=plain,
        limit=5,
        at_least=True,
    )


async def _rates(base: str) -> tuple[float, float]:
    plain: list[float] = []
    ours: list[float] = []
    async with httpx.AsyncClient() as bare, AirbyteClient(base) as client:

        async def by_httpx() -> None:
            answer = await bare.post(f"{base}/sources/get", json={"sourceId": str(ID)})
            answer.json()

        for _ in range(ROUNDS):
            plain.append(await _rate(by_httpx))
            ours.append(await _rate(lambda: client.get_source(ID)))
    return statistics.median(plain), statistics.median(ours)


async def _rate(call: Callable[[], Awaitable[object]]) -> float:
    """Calls per second, with `AT_ONCE` of them under way all the time."""

    async def one_after_another() -> None:
        for _ in range(CALLS // AT_ONCE):
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return CALLS / (time.perf_counter() - started)
