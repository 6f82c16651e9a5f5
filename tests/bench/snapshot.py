"""What keeping a snapshot of a big org costs, beside one scan and hash of the document's streams.

`python -m tests.bench.snapshot DOCUMENT SOURCE_ID`: a process of its own, for its peak
memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import uvloop

from shared import snapshots
from shared.airbyte_client import Discovered
from shared.config import Settings, load
from shared.database import Database
from tests.bench import large_catalog
from tests.bench.airbyte_server import ID
from tests.bench.catalog_functions import scan_and_hash
from tests.bench.environment import REPOSITORY, Stage
from tests.bench.results_table import ROUNDS, Line, best_ms


def measure(stage: Stage, document: Path) -> Iterator[Line]:
    """The same again, then all of it at first, then a few streams that changed."""
    source_id = uuid4()
    megabytes = document.stat().st_size / 1e6
    memory = "its peak memory; floor: the document"
    first, again = _measured(stage, document, source_id), _measured(stage, document, source_id)
    yield Line(
        job=f"{megabytes:.0f} MB, nothing changed; floor: raw scan and hash of each stream",
        measured=again.again_ms,
        floor=again.floor_ms,
        limit=2,
    )
    yield Line(job=memory, measured=again.grown_mb, unit="MB", floor=megabytes, limit=3)
    drifted = document.with_suffix(".drifted")
    drifted.write_bytes(large_catalog.drifted(document.read_bytes()))
    other = _measured(stage, drifted, source_id)
    yield Line(job="5 streams changed", measured=other.first_ms, floor=other.floor_ms)
    yield Line(job="first snapshot", measured=first.first_ms, floor=first.floor_ms)
    yield Line(job=memory, measured=first.grown_mb, unit="MB", floor=megabytes)


class _Kept(msgspec.Struct, frozen=True):
    """What one process found: its first keep, and the best of those after it."""

    first_ms: float
    again_ms: float
    floor_ms: float
    grown_mb: float


def _measured(stage: Stage, document: Path, source_id: UUID) -> _Kept:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.snapshot", str(document), str(source_id)],
        check=True,
        cwd=REPOSITORY,
        env=stage.environment,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=_Kept)


async def _keep(path: Path, source_id: UUID) -> _Kept:
    db = Database.at(load(Settings).registry_address, application="bench")
    await db.ping()
    before = _peak_mb()
    document = path.read_bytes()  # noqa: ASYNC240 - nothing else runs in this loop
    discovered = Discovered(document, catalog_id=ID, configuration_updated=False)
    start = time.perf_counter()
    await snapshots.store(db, source_id, discovered)
    first = time.perf_counter() - start
    grown = _peak_mb() - before
    again, floor = [], []
    for _ in range(ROUNDS):
        floor.append(best_ms(lambda: scan_and_hash(discovered.catalog), rounds=1))
        start = time.perf_counter()
        await snapshots.store(db, source_id, discovered)
        again.append(time.perf_counter() - start)
    await db.close()
    return _Kept(
        first_ms=first * 1000,
        again_ms=min(again) * 1000,
        floor_ms=min(floor),
        grown_mb=grown,
    )


def _peak_mb() -> float:
    """The most memory this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which on Linux starts with the parent's.
        peak = status.read_text().partition("VmHWM:")[2].split()[0]
        return int(peak) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    found = uvloop.run(_keep(Path(sys.argv[1]), UUID(sys.argv[2])))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
