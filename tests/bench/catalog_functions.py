"""Time of the catalog functions on a large org's catalog, compared with minimal baselines."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import orjson
import xxhash
from deepdiff import DeepDiff

from services.drift_repair_agent import healing
from shared.domain import catalog, drift
from shared.domain.cooperative import Steps
from tests.bench import large_catalog
from tests.bench.results_table import Line, best_ms

# deepdiff would take minutes for all 1,500 streams.
_SMALL = 30


class _Envelope(msgspec.Struct):
    streams: list[msgspec.Raw]


def scan_and_hash(document: bytes) -> list[bytes]:
    """Split a document into streams and hash each: the baseline for reading a document once."""
    streams = msgspec.json.decode(document, type=_Envelope).streams
    return [xxhash.xxh3_128_digest(raw) for raw in streams]


def measure(document: bytes) -> Iterator[Line]:
    """Measure each function, and the longest single step, which bounds event loop stalls."""
    moved = orjson.dumps(orjson.loads(document), option=orjson.OPT_SORT_KEYS)
    posted = large_catalog.selected(document)
    configured = catalog.parse(posted)
    gc.freeze()
    longest = [0.0]

    def measure_steps(job: str, steps: Callable[[], Steps[Any]], *, baseline: float) -> Line:
        longest.append(_longest_ms(steps))
        return Line(job=job, measured=best_ms(lambda: _run_all(steps())), baseline=baseline)

    baseline = best_ms(lambda: scan_and_hash(document))
    hashes = best_ms(lambda: [catalog.canonical_hash(raw) for raw in catalog.scan(document)])
    yield Line(job="canonical hash of every stream", measured=hashes, baseline=baseline)
    for every in (False, True):
        steps = partial(catalog.merge.steps, configured, document, every_stream=every)
        yield measure_steps(
            f"merge, {'all' if every else 'selected'} streams", steps, baseline=baseline
        )
    others = (
        ("equal", document),
        ("5 changed", large_catalog.drifted(document)),
        ("reordered", moved),
    )
    for what, other in others:
        compare = partial(drift.diff.steps, document, other)
        yield measure_steps(f"diff of two discoveries, {what}", compare, baseline=2 * baseline)

    changed = large_catalog.drifted(document)
    plan = partial(healing.plan_changes.steps, configured, changed)
    yield measure_steps("plan of a connection, 5 changed", plan, baseline=baseline)
    judged = healing.plan_changes(configured, changed)
    decisions = [healing.Instruction(c, "apply") for c, verdict in judged if verdict.affects_sync]
    heal = partial(healing.heal.steps, configured, changed, decisions)
    yield measure_steps(
        f"heal of a connection, {len(decisions)} decisions", heal, baseline=baseline
    )

    gc.disable()  # garbage collection triples the time of orjson
    yield from _alternatives(document)
    baseline = best_ms(lambda: orjson.loads(posted))
    gc.enable()
    yield measure_steps(
        "parse of the selected streams", partial(catalog.parse.steps, posted), baseline=baseline
    )
    yield measure_steps("validate", partial(catalog.validate.steps, configured), baseline=baseline)
    fingerprint = partial(catalog.fingerprint_of.steps, configured)
    yield measure_steps("fingerprint, every hash cached", fingerprint, baseline=baseline)
    yield Line(job="longest single step of all the above", measured=max(longest))


def _alternatives(document: bytes) -> Iterator[Line]:
    """Time the same comparison with orjson and with deepdiff; our `diff` is the baseline."""
    changed = large_catalog.drifted(document)
    ours = best_ms(lambda: drift.diff(document, changed))
    plain = best_ms(lambda: _parse_and_compare(document, changed), rounds=1)
    yield Line(job="parse both and compare, 5 changed", measured=plain, baseline=ours)

    small = large_catalog.discovered(streams=_SMALL)
    changed = large_catalog.drifted(small)
    ours = best_ms(lambda: drift.diff(small, changed))
    deep = best_ms(
        lambda: DeepDiff(orjson.loads(small), orjson.loads(changed), ignore_order=True), rounds=1
    )
    yield Line(job=f"deepdiff of {_SMALL} streams, 5 changed", measured=deep, baseline=ours)


def _parse_and_compare(before: bytes, after: bytes) -> list[str]:
    """Return the names of the streams that differ, by comparing parsed documents."""
    old, new = (
        {pair["stream"]["name"]: pair["stream"] for pair in orjson.loads(document)["streams"]}
        for document in (before, after)
    )
    return [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]


def _longest_ms(steps: Callable[[], Steps[Any]]) -> float:
    """Return the time of the longest single step, which is how long an event loop is blocked."""
    run, took = steps(), [0.0]
    while True:
        start = time.perf_counter()
        try:
            next(run)
        except StopIteration:
            return max(*took, time.perf_counter() - start) * 1000
        took.append(time.perf_counter() - start)


def _run_all(run: Steps[Any]) -> None:
    for _ in run:
        pass
