"""What the domain's questions cost on a big org, beside the least that would answer them."""

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

# In all 1,500 streams deepdiff takes minutes.
_SMALL = 30


class _Envelope(msgspec.Struct):
    streams: list[msgspec.Raw]


def scan_and_hash(document: bytes) -> list[bytes]:
    """The floor of looking at a document: cut it into streams, hash each."""
    streams = msgspec.json.decode(document, type=_Envelope).streams
    return [xxhash.xxh3_128_digest(raw) for raw in streams]


def measure(document: bytes) -> Iterator[Line]:
    """One line per question, and one for the longest that an event loop would wait for any."""
    moved = orjson.dumps(orjson.loads(document), option=orjson.OPT_SORT_KEYS)
    posted = large_catalog.selected(document)
    configured = catalog.parse(posted)
    gc.freeze()
    longest = [0.0]

    def whole(job: str, steps: Callable[[], Steps[Any]], *, floor: float) -> Line:
        longest.append(_longest_ms(steps))
        return Line(job=job, measured=best_ms(lambda: _to_the_end(steps())), floor=floor)

    floor = best_ms(lambda: scan_and_hash(document))
    hashes = best_ms(lambda: [catalog.canonical_hash(raw) for raw in catalog.scan(document)])
    yield Line(job="canonical hash of every stream", measured=hashes, floor=floor)
    for every in (False, True):
        steps = partial(catalog.merge.steps, configured, document, every_stream=every)
        yield whole(f"merge, {'all' if every else 'selected'} streams", steps, floor=floor)
    others = (
        ("equal", document),
        ("5 changed", large_catalog.drifted(document)),
        ("reordered", moved),
    )
    for what, other in others:
        compare = partial(drift.diff.steps, document, other)
        yield whole(f"diff of two discoveries, {what}", compare, floor=2 * floor)

    changed = large_catalog.drifted(document)
    plan = partial(healing.plan_changes.steps, configured, changed)
    yield whole("plan of a connection, 5 changed", plan, floor=floor)
    judged = healing.plan_changes(configured, changed)
    decisions = [healing.Instruction(c, "apply") for c, verdict in judged if verdict.affects_sync]
    heal = partial(healing.heal.steps, configured, changed, decisions)
    yield whole(f"heal of a connection, {len(decisions)} decisions", heal, floor=floor)

    gc.disable()  # the collector triples what orjson takes
    yield from _others(document)
    floor = best_ms(lambda: orjson.loads(posted))
    gc.enable()
    yield whole("parse of the selected streams", partial(catalog.parse.steps, posted), floor=floor)
    yield whole("validate", partial(catalog.validate.steps, configured), floor=floor)
    prints = partial(catalog.fingerprint_of.steps, configured)
    yield whole("fingerprint, all of it remembered", prints, floor=floor)
    yield Line(job="longest single step of all these", measured=max(longest))


def _others(document: bytes) -> Iterator[Line]:
    """The same answer by parsing and comparing, and by deepdiff; beside them, floors, ours."""
    changed = large_catalog.drifted(document)
    ours = best_ms(lambda: drift.diff(document, changed))
    plain = best_ms(lambda: _parse_and_compare(document, changed), rounds=1)
    yield Line(job="parse both and compare, 5 changed", measured=plain, floor=ours)

    small = large_catalog.discovered(streams=_SMALL)
    changed = large_catalog.drifted(small)
    ours = best_ms(lambda: drift.diff(small, changed))
    deep = best_ms(
        lambda: DeepDiff(orjson.loads(small), orjson.loads(changed), ignore_order=True), rounds=1
    )
    yield Line(job=f"deepdiff of {_SMALL} streams, 5 changed", measured=deep, floor=ours)


def _parse_and_compare(before: bytes, after: bytes) -> list[str]:
    """The names of the streams that differ, by the shortest program that tells them."""
    old, new = (
        {pair["stream"]["name"]: pair["stream"] for pair in orjson.loads(document)["streams"]}
        for document in (before, after)
    )
    return [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]


def _longest_ms(steps: Callable[[], Steps[Any]]) -> float:
    """The longest single step, which is how long an event loop would stand still."""
    run, took = steps(), [0.0]
    while True:
        start = time.perf_counter()
        try:
            next(run)
        except StopIteration:
            return max(*took, time.perf_counter() - start) * 1000
        took.append(time.perf_counter() - start)


def _to_the_end(run: Steps[Any]) -> None:
    for _ in run:
        pass
