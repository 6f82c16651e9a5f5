"""Time of strict JSON checking compared with parsing, and latency of other requests meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import uvloop

from shared.domain import catalog
from shared.http.strict_json import CATALOG, check
from tests.bench.environment import Http, Stage, timed_ms
from tests.bench.results_table import Line, best_ms

BYTES = 10_000_000
BODIES = 20
_NO_ROUTE = "/bench"


def measure(stage: Stage, document: Path) -> Iterator[Line]:
    """Measure both on one catalog, then /health while a service receives it repeatedly.

    Garbage collection is off, since it slows down `json.loads` several times.
    """
    body = _body(document.read_bytes())
    strict, plain = [], []
    gc.disable()
    for _ in range(5):
        plain.append(best_ms(lambda: json.loads(body), rounds=1))
        strict.append(best_ms(lambda: check(body, CATALOG), rounds=1))
    gc.enable()
    yield Line(
        job=f"strict check of {len(body) / 1e6:.1f} MB; baseline: json.loads",
        measured=min(strict),
        baseline=min(plain),
        limit=2.5,
    )
    times, alone = uvloop.run(_health_ms(stage, body))
    yield Line(
        job=f"/health during such requests, p99 of {len(times)}",
        measured=_p99(times),
        limit=100,
    )
    yield Line(job="same, p50", measured=statistics.median(times))
    yield Line(job="/health of the idle service, p99", measured=_p99(alone))


def _body(document: bytes) -> bytes:
    streams: list[memoryview] = []
    size = 0
    for raw in catalog.scan(document):
        size += len(raw) + 1
        if size > BYTES:
            break
        streams.append(raw)
    return b'{"sync_catalog":' + catalog.join(streams) + b"}"


async def _health_ms(stage: Stage, body: bytes) -> tuple[list[float], list[float]]:
    port = stage.serve("tests.bench.blocked_loop_app:app")
    health, uploads = await Http.to(port), await Http.to(port)
    await health.request("/health")
    alone = [await timed_ms(health, "/health") for _ in range(200)]

    async def send() -> None:
        for _ in range(BODIES):
            await uploads.request(_NO_ROUTE, body, expected=404)  # the body is read before the 404

    under_way = asyncio.create_task(send())
    times = []
    while not under_way.done():
        times.append(await timed_ms(health, "/health"))
        await asyncio.sleep(0.002)
    under_way.result()
    health.close()
    uploads.close()
    return times, alone


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]
