"""What knowing the caller adds to a request, beside the same request where nobody is asked."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator

import uvloop

from tests import access
from tests.bench.stage import Http, Stage, timed_ms
from tests.bench.table import Line

BATCHES = 20
TURNS = 100
_ROUTE = "/knowledge?limit=1"


def measure(stage: Stage) -> Iterator[Line]:
    """Medians of one request to the registry, in turns, in one process."""
    times = uvloop.run(_times(stage))
    without = statistics.median(times["without"])
    for credentials in ("a key", "a service's token"):
        yield Line(
            job=f"{credentials}: added to a request, p50 of {len(times[credentials])}",
            measured=statistics.median(times[credentials]) - without,
            limit=0.3,
        )
        yield Line(
            job=f"the request with {credentials}; floor: without a gate",
            measured=statistics.median(times[credentials]),
            floor=without,
        )


async def _times(stage: Stage) -> dict[str, list[float]]:
    port = stage.serve("tests.bench.gated:app")
    ms: dict[str, list[float]] = defaultdict(list)
    for batch in range(BATCHES):
        token = access.signer("drift_repair_agent").token("rag_engine", "connections:read")
        asked = {
            "a key": (await Http.to(port), _ROUTE),
            "without": (await Http.to(port), f"/without{_ROUTE}"),
            "a service's token": (await Http.to(port, authorization=f"Bearer {token}"), _ROUTE),
        }
        for turn in range(TURNS):
            first = turn % len(asked)
            for name in [*asked][first:] + [*asked][:first]:
                took = await timed_ms(*asked[name])
                if batch and turn:  # the first ones open connections
                    ms[name].append(took)
        for http, _ in asked.values():
            http.close()
    return ms
