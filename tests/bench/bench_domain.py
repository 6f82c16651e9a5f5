"""How long the domain takes for a big org, as ratios to floors measured in the same run.

`python -m tests.bench.bench_domain [streams] [fields]`
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import orjson
import xxhash

from shared.domain import catalog, drift
from shared.domain.steps import Steps

SELECTED = 50
ROUNDS = 5
EVERY_MODE = ("append", "overwrite", "append_dedup", "overwrite_dedup")


def big(streams: int, fields: int) -> bytes:
    """A discovery as Airbyte answers it for a Salesforce org: nothing selected yet."""
    types: tuple[dict[str, Any], ...] = (
        {"type": ["string", "null"]},
        {"type": ["string", "null"], "format": "date-time"},
        {"type": ["boolean", "null"]},
        {"type": ["number", "null"]},
        {"type": ["integer", "null"]},
        {"type": ["string", "null"], "format": "date"},
    )
    keys = {"Id": types[0], "SystemModstamp": types[1]}

    def pair(number: int) -> dict[str, Any]:
        name = f"Custom_Object_{number:04}__c"
        more = {f"Custom_Field_{n:03}__c": types[n % len(types)] for n in range(fields - 2)}
        return {
            "stream": {
                "name": name,
                "jsonSchema": {
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "type": "object",
                    "additionalProperties": True,
                    "properties": keys | more,
                },
                "supportedSyncModes": ["full_refresh", "incremental"],
                "sourceDefinedCursor": True,
                "defaultCursorField": ["SystemModstamp"],
                "sourceDefinedPrimaryKey": [["Id"]],
                "isResumable": True,
                "isFileBased": False,
            },
            "config": {
                "syncMode": "incremental",
                "cursorField": ["SystemModstamp"],
                "destinationSyncMode": "append_dedup",
                "primaryKey": [["Id"]],
                "aliasName": name,
                "selected": False,
                "suggested": False,
                "fieldSelectionEnabled": False,
                "selectedFields": [],
                "hashedFields": [],
                "mappers": [],
            },
        }

    return orjson.dumps({"streams": [pair(number) for number in range(streams)]})


def best_ms(work: Callable[[], object]) -> float:
    """The best of a few rounds, each from a collected heap."""
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        del result
    return min(times) * 1000


def longest_ms(steps: Callable[[], Steps[Any]]) -> float:
    """The longest single step, which is how long an event loop would stand still."""
    run, took = steps(), [0.0]
    while True:
        start = time.perf_counter()
        try:
            next(run)
        except StopIteration:
            return max(*took, time.perf_counter() - start) * 1000
        took.append(time.perf_counter() - start)


def to_the_end(run: Steps[Any]) -> None:
    """All steps, without a break between them."""
    for _ in run:
        pass


class _Envelope(msgspec.Struct):
    streams: list[msgspec.Raw]


def main() -> None:
    """Print one line per job."""
    asked = [int(number) for number in sys.argv[1:]]
    streams, fields = asked or (1500, 300)
    body = big(streams, fields)
    moved = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    grown = body.replace(b'"Custom_Field_007__c":', b'"Renamed_007__c":', 5)
    names = [s.id.name for s in catalog.parse(body).streams[:: max(1, streams // SELECTED)]]
    configured = catalog.choose(
        body, streams=names[:SELECTED], destination_sync_modes=EVERY_MODE, max_fields=10**6
    )
    posted = catalog.dump(configured)
    part = catalog.dump(catalog.Catalog(catalog.parse(body).streams[: streams * 2 // 5]))
    gc.freeze()

    def floor() -> list[bytes]:
        return [
            xxhash.xxh3_128_digest(raw) for raw in msgspec.json.decode(body, type=_Envelope).streams
        ]

    def small_floor() -> object:
        gc.disable()
        try:
            return orjson.loads(posted)
        finally:
            gc.enable()

    def tell(job: str, ms: float, *, of: float, longest: float | None = None) -> None:
        stall = "" if longest is None else f"   longest step {longest:6.1f} ms"
        sys.stdout.write(f"{job:58} {ms:8.1f} ms {ms / of:7.2f} x{stall}\n")

    def measure(job: str, steps: Callable[[], Steps[Any]], *, of: float) -> None:
        tell(job, best_ms(lambda: to_the_end(steps())), of=of, longest=longest_ms(steps))

    scale = f"{streams} streams of {fields} fields, {len(body) / 1e6:.1f} MB"
    raw_ms = best_ms(floor)
    sys.stdout.write(f"{scale}; {len(configured.streams)} configured, {len(posted) / 1e6:.1f} MB\n")
    tell("floor: msgspec Raw per stream and xxh3 of each", raw_ms, of=raw_ms)
    ms = best_ms(lambda: [catalog.raw_hash(s) for s in catalog.scan(body)])
    tell("scan and raw_hash", ms, of=raw_ms)
    ms = best_ms(lambda: [catalog.canonical_hash(s) for s in catalog.scan(body)])
    tell("scan and canonical_hash of every stream", ms, of=raw_ms)
    for every in (False, True):
        steps = partial(catalog.merge.steps, configured, body, every_stream=every)
        measure(f"merge, every_stream={every}", steps, of=raw_ms)
    for what, other in (("equal", body), ("5 changed", grown), ("all reordered", moved)):
        steps_of_diff = partial(drift.diff.steps, body, other)
        measure(f"diff of two discoveries, {what}", steps_of_diff, of=2 * raw_ms)
    measure(f"parse of {len(part) / 1e6:.1f} MB", partial(catalog.parse.steps, part), of=raw_ms)

    orjson_ms = best_ms(small_floor)
    tell("floor: orjson of the configured streams, collector off", orjson_ms, of=orjson_ms)
    measure("parse", partial(catalog.parse.steps, posted), of=orjson_ms)
    measure("validate", partial(catalog.validate.steps, configured), of=orjson_ms)
    measure("fingerprint_of", partial(catalog.fingerprint_of.steps, configured), of=orjson_ms)
    kept = orjson.loads(posted)
    for pair in kept["streams"]:
        pair["config"] |= {"suggested": False, "mappers": [], "hashedFields": []}
    sorted_ = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    for what, other in (
        ("equal bytes", posted),
        ("defaults filled in", orjson.dumps(kept)),
        ("keys reordered", sorted_),
    ):
        steps_of_same = partial(catalog.same_meaning.steps, configured, catalog.parse(other))
        measure(f"same_meaning, {what}", steps_of_same, of=orjson_ms)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"peak memory of the whole run {peak:.0f} MB\n")


if __name__ == "__main__":
    main()
