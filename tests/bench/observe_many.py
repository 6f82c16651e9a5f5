"""Throughput of observing 10,000 sources, compared with a loop of the same discoveries.

`python -m tests.bench.observe_many` runs in a separate process, to measure its memory.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import msgspec
import uvloop

from services.schema_observer import main as schema_observer
from shared import registry, snapshots
from shared.airbyte_client import AirbyteClient
from shared.config import Settings, load
from shared.database import Database
from tests.bench.airbyte_server import ID
from tests.bench.environment import REPOSITORY, Stage
from tests.bench.results_table import Line

SOURCES = 10_000
FIRST_MEMORY_SAMPLE = 2_000
BASELINE_DISCOVERIES = 2_000


class _Result(msgspec.Struct, frozen=True):
    """Rates in sources per second; resident memory in MB, early in the run and at its end."""

    baseline: float
    observed: float
    early_mb: float
    late_mb: float


def measure(stage: Stage) -> Iterator[Line]:
    """Measure both rates with four concurrent discoveries, and whether memory grows."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.observe_many"],
        check=True,
        cwd=REPOSITORY,
        env=stage.environment | {"LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        timeout=300,
    )
    result = msgspec.json.decode(run.stdout.splitlines()[-1], type=_Result)
    yield Line(
        job=f"{SOURCES:,} connections observed; baseline: a loop of discoveries",
        measured=result.observed,
        unit="/s",
        baseline=result.baseline,
        limit=0.5,
        at_least=True,
    )
    yield Line(
        job=f"memory after {SOURCES:,}; baseline: after {FIRST_MEMORY_SAMPLE:,}",
        measured=result.late_mb,
        unit="MB",
        baseline=result.early_mb,
        limit=1.1,
    )


async def _observe() -> _Result:
    settings = load(Settings)
    sql = await asyncpg.connect(settings.supabase_db_url.get_secret_value())
    await _fill(sql, settings)
    async with AirbyteClient.from_settings(settings) as airbyte:
        first = await _baseline_s(airbyte, settings.discoveries_at_once)
        observed_s, early_mb, late_mb = await _observed(sql, settings)
        last = await _baseline_s(airbyte, settings.discoveries_at_once)
    await sql.close()
    return _Result(
        2 * BASELINE_DISCOVERIES / (first + last), SOURCES / observed_s, early_mb, late_mb
    )


async def _baseline_s(airbyte: AirbyteClient, at_once: int) -> float:
    """Return the seconds for `BASELINE_DISCOVERIES` with the same client and concurrency."""

    async def worker() -> None:
        for _ in range(BASELINE_DISCOVERIES // at_once):
            await airbyte.discover_schema(ID)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return time.perf_counter() - start


async def _observed(
    sql: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> tuple[float, float, float]:
    """Return the seconds from the first observation to the last, and memory early and late."""
    app = schema_observer.build(settings)
    early_mb = 0.0
    async with app.router.lifespan_context(app), asyncio.timeout(240):
        start = await sql.fetchval(
            "UPDATE observations SET next_at = now() RETURNING clock_timestamp()"
        )
        while (done := await _done(sql, start)) < SOURCES:
            if done >= FIRST_MEMORY_SAMPLE and not early_mb:
                early_mb = _resident_mb()
            await asyncio.sleep(0.2)
        late_mb = _resident_mb()
    taken: timedelta = await sql.fetchval(
        "SELECT max(observed_at) - min(started_at) FROM observations"
    )
    return taken.total_seconds(), early_mb, late_mb


async def _done(sql: asyncpg.Connection[asyncpg.Record], start: object) -> int:
    done: int = await sql.fetchval(
        "SELECT count(*) FROM observations WHERE observed_at >= $1 AND outcome = 'unchanged'", start
    )
    return done


async def _fill(sql: asyncpg.Connection[asyncpg.Record], settings: Settings) -> None:
    """Insert connections that were observed before, each with its own source."""
    db = Database.at(settings.registry_address, application="bench")
    async with AirbyteClient.from_settings(settings) as airbyte:
        offered = await snapshots.offered(await airbyte.discover_schema(ID))
    model = await snapshots.store_offered(db, uuid4(), offered)
    async with db.read() as session:
        snapshot = await registry.find_snapshot(session, model)
    await db.close()
    async with sql.transaction():
        await sql.execute("SET CONSTRAINTS ALL DEFERRED")
        for statement in _FILL:
            await sql.execute(statement)
        await sql.execute(
            "UPDATE snapshots SET raw_hashes = $1, stream_hashes = $2 WHERE raw_hashes = ''",
            snapshot.raw_hashes,
            snapshot.stream_hashes,
        )
    owner = await asyncpg.connect(os.environ["MIGRATION_DB_URL"])
    await owner.execute("ANALYZE")
    await owner.close()


_FILL = (
    "INSERT INTO connections (id, name, source_type, airbyte_source_id, airbyte_connection_id,"
    " airbyte_destination_id, airbyte_workspace_id, status, catalog_version)"
    " SELECT gen_random_uuid(), 'fleet ' || n, 'Bench', gen_random_uuid(), gen_random_uuid(),"
    " gen_random_uuid(), NULL, 'ACTIVE', 1 FROM generate_series(1, 10000) n",
    "INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes)"
    " SELECT gen_random_uuid(), airbyte_source_id, '', ''"
    " FROM connections WHERE name LIKE 'fleet %'",
    "INSERT INTO watches (connection_id, compared_snapshot_id)"
    " SELECT c.id, s.id FROM connections c JOIN snapshots s USING (airbyte_source_id)"
    " WHERE c.name LIKE 'fleet %'",
    "INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at, snapshot_id)"
    " SELECT c.airbyte_source_id, c.airbyte_workspace_id, now() + interval '1 day', s.id"
    " FROM connections c JOIN snapshots s USING (airbyte_source_id) WHERE c.name LIKE 'fleet %'",
)


def _resident_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    found = uvloop.run(_observe())
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
