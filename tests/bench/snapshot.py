"""Time of storing a snapshot of a large org, compared with scanning and hashing its streams.

`python -m tests.bench.snapshot DOCUMENT SOURCE_ID` runs in a separate process, to measure its
peak memory.
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
    """Measure storing an unchanged document, a few changed streams, and a first snapshot."""
    source_id = uuid4()
    megabytes = document.stat().st_size / 1e6
    memory = "peak memory growth; baseline: document size"
    first, again = (
        _run_in_subprocess(stage, document, source_id),
        _run_in_subprocess(stage, document, source_id),
    )
    yield Line(
        job=f"{megabytes:.0f} MB, nothing changed; baseline: scan and hash each stream",
        measured=again.repeated_ms,
        baseline=again.baseline_ms,
        limit=2,
    )
    yield Line(job=memory, measured=again.peak_growth_mb, unit="MB", baseline=megabytes, limit=3)
    drifted = document.with_suffix(".drifted")
    drifted.write_bytes(large_catalog.drifted(document.read_bytes()))
    other = _run_in_subprocess(stage, drifted, source_id)
    yield Line(job="5 streams changed", measured=other.first_ms, baseline=other.baseline_ms)
    yield Line(job="first snapshot", measured=first.first_ms, baseline=first.baseline_ms)
    yield Line(job=memory, measured=first.peak_growth_mb, unit="MB", baseline=megabytes)


class _Result(msgspec.Struct, frozen=True):
    """One process's measurements: its first `store`, and the fastest of the repeated ones."""

    first_ms: float
    repeated_ms: float
    baseline_ms: float
    peak_growth_mb: float


def _run_in_subprocess(stage: Stage, document: Path, source_id: UUID) -> _Result:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.snapshot", str(document), str(source_id)],
        check=True,
        cwd=REPOSITORY,
        env=stage.environment,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=_Result)


async def _measure_in_this_process(path: Path, source_id: UUID) -> _Result:
    db = Database.at(load(Settings).registry_address, application="bench")
    await db.ping()
    before = _peak_mb()
    document = path.read_bytes()  # noqa: ASYNC240 - nothing else runs in this loop
    discovered = Discovered(document, catalog_id=ID, configuration_updated=False)
    start = time.perf_counter()
    await snapshots.store(db, source_id, discovered)
    first = time.perf_counter() - start
    grown = _peak_mb() - before
    again, baseline = [], []
    for _ in range(ROUNDS):
        baseline.append(best_ms(lambda: scan_and_hash(discovered.catalog), rounds=1))
        start = time.perf_counter()
        await snapshots.store(db, source_id, discovered)
        again.append(time.perf_counter() - start)
    await db.close()
    return _Result(
        first_ms=first * 1000,
        repeated_ms=min(again) * 1000,
        baseline_ms=min(baseline),
        peak_growth_mb=grown,
    )


def _peak_mb() -> float:
    """Return the peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss is inherited from the parent process.
        peak = status.read_text().partition("VmHWM:")[2].split()[0]
        return int(peak) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    found = uvloop.run(_measure_in_this_process(Path(sys.argv[1]), UUID(sys.argv[2])))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
