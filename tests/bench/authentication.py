"""Overhead of authentication: a request with it compared with the same request without it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import orjson
import uvloop

from tests import access
from tests.bench.environment import Http, Stage
from tests.bench.results_table import Line

BATCHES = 8
TURNS = 100
_WARM = 30


def measure(stage: Stage) -> Iterator[Line]:
    """Compare the median CPU time of a registry request per kind of credential.

    The kinds alternate in one process. CPU time, since authentication is CPU-bound and a busy
    machine does not distort it.
    """
    p50 = {
        name: statistics.median(times[_WARM:]) for name, times in uvloop.run(_times(stage)).items()
    }
    added = {name: (ms - p50["without"]) * 1000 for name, ms in p50.items()}
    yield Line(
        job="API key: CPU time added to a request, p50",
        measured=added["key"],
        unit="µs",
        limit=300,
    )
    yield Line(
        job="service token: CPU time added to a request; baseline: signature verification alone",
        measured=added["token"],
        unit="µs",
        baseline=added["signature"],
        limit=3.5,
    )
    for name, credentials in (("key", "an API key"), ("token", "a service token")):
        yield Line(
            job=f"request with {credentials}, CPU time; baseline: without authentication",
            measured=p50[name],
            baseline=p50["without"],
        )


async def _times(stage: Stage) -> dict[str, list[float]]:
    """Return milliseconds per kind, in request order; the first requests open connections."""
    port = stage.serve("tests.bench.authentication_app:app")
    for _ in range(BATCHES):
        token = access.signer("drift_repair_agent").token("rag_engine", "connections:read")
        by = {
            "key": await Http.to(port),
            "without": await Http.to(port),
            "signature": await Http.to(port),
            "token": await Http.to(port, authorization=f"Bearer {token}"),
        }
        for turn in range(TURNS):
            first = turn % len(by)
            for name in [*by][first:] + [*by][:first]:
                await by[name].request(f"/{name}/knowledge?limit=1")
        times: dict[str, list[float]] = orjson.loads(await by["key"].request("/bench/times"))
        for http in by.values():
            http.close()
    return times
