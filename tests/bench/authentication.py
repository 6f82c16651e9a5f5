"""What knowing the caller adds to a request, beside the same request where nobody is asked."""

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
    """Medians of one request to the registry, in turns, in one process.

    In processor time: to know a caller is to reckon, and a busy machine makes nothing of it longer.
    """
    p50 = {
        name: statistics.median(times[_WARM:]) for name, times in uvloop.run(_times(stage)).items()
    }
    added = {name: (ms - p50["without"]) * 1000 for name, ms in p50.items()}
    yield Line(
        job="a key: added to a request, processor time, p50",
        measured=added["key"],
        unit="µs",
        limit=300,
    )
    yield Line(
        job="a service's token: added to a request; floor: the bare check of its signature",
        measured=added["token"],
        unit="µs",
        floor=added["signature"],
        limit=3.5,
    )
    for name, credentials in (("key", "a key"), ("token", "a service's token")):
        yield Line(
            job=f"the whole request with {credentials}; floor: without a gate",
            measured=p50[name],
            floor=p50["without"],
        )


async def _times(stage: Stage) -> dict[str, list[float]]:
    """Each kind's milliseconds in the order of the requests; the first ones open connections."""
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
                await by[name].ask(f"/{name}/knowledge?limit=1")
        times: dict[str, list[float]] = orjson.loads(await by["key"].ask("/bench/times"))
        for http in by.values():
            http.close()
    return times
