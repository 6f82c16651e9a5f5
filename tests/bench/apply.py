"""Latency of applying a large org's catalog, and how long a large body blocks the event loop."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import uvloop

from shared import snapshots
from shared.airbyte_client import Discovered
from shared.database import Database
from shared.domain import catalog
from shared.http.strict_json import CATALOG
from shared.postgres_address import postgres_address
from tests.bench import airbyte_server, large_catalog
from tests.bench.environment import Http, Stage, timed_ms
from tests.bench.results_table import Line

ROUNDS = 21
LARGE_ROUNDS = 9
_PATH = "/repair/apply_new_catalog"
_CONNECTION = """
    INSERT INTO connections (id, name, source_type, airbyte_source_id, airbyte_connection_id,
                             airbyte_destination_id, status, catalog_version)
    VALUES ($1::uuid, $1::text, 'Salesforce', $2, $1::uuid, $2, 'ACTIVE', 1)
"""
_VERSION = """
    INSERT INTO sync_catalog_versions (id, connection_id, version_number, sync_catalog, fingerprint,
                                       origin)
    VALUES (gen_random_uuid(), $1, $2, $3, '', 'onboard')
"""


def measure(stage: Stage, document: Path) -> Iterator[Line]:
    """Measure applies alternately with their baseline, then event loop stalls on a 16 MiB body."""
    ms, size = uvloop.run(_times(stage, document.read_bytes()))
    baseline, insert = min(ms["baseline"]), min(ms["insert"])
    changed, unchanged = min(ms["changed"]), min(ms["unchanged"])
    yield Line(
        job=f"apply {size / 1e6:.1f} MB, insert excluded; baseline: receive, check, parse, send",
        measured=changed - insert,
        baseline=baseline,
        # It was 4 before every step was recorded: see docs/decisions/0012.
        limit=6,
    )
    yield Line(
        job="JSONB insert of that catalog, by raw asyncpg", measured=insert, baseline=baseline
    )
    yield Line(job="apply, insert included", measured=changed, baseline=baseline)
    yield Line(job="apply of an unchanged catalog", measured=unchanged, baseline=baseline)
    yield Line(
        job="CPU time of one apply",
        measured=min(ms["changed cpu"]),
        baseline=min(ms["baseline cpu"]),
    )
    yield Line(
        job="16 MiB body: longest event loop stall, CPU time, worst round",
        measured=max(ms["stall run"]),
        limit=50,
    )
    yield Line(job="same, wall-clock time, median round", measured=statistics.median(ms["stall"]))
    yield Line(job="same, wall-clock time, worst round", measured=max(ms["stall"]))
    yield Line(job="apply of the 16 MiB body", measured=min(ms["large"]))


async def _times(stage: Stage, document: bytes) -> tuple[dict[str, list[float]], int]:
    sql = await asyncpg.connect(stage.registry_url)
    service = await Http.to(stage.serve("tests.bench.blocked_loop_app:app"))
    baseline = await Http.to(stage.serve("tests.bench.baseline_servers:app"))
    snapshot_id = await _snapshot(stage, document)
    connection_id, insert_only_id = uuid4(), uuid4()
    for new_id in (connection_id, insert_only_id):
        await sql.execute(_CONNECTION, str(new_id), airbyte_server.ID)
    one = large_catalog.selected(document)
    await sql.execute(_VERSION, connection_id, 1, one.decode())
    ms: dict[str, list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        wanted = large_catalog.drifted(one, number)  # stream schemas that are not stored yet
        body = _order(connection_id, snapshot_id, wanted)
        start = time.perf_counter()
        await sql.execute(_VERSION, insert_only_id, number + 1, wanted.decode())
        ms["insert"].append((time.perf_counter() - start) * 1000)
        for what, http, path in (
            ("baseline", baseline, "/apply"),
            ("changed", service, _PATH),
            ("unchanged", service, _PATH),
        ):
            spent = await _spent_ms(http)
            ms[what].append(await timed_ms(http, path, body))
            ms[f"{what} cpu"].append(await _spent_ms(http) - spent)
    for number in range(LARGE_ROUNDS):
        body = _order(
            connection_id,
            snapshot_id,
            _filled(large_catalog.drifted(one, ROUNDS + number), document),
        )
        await service.request("/bench/watch")
        ms["large"].append(await timed_ms(service, _PATH, body))
        stall, run = (await service.request("/bench/longest")).split()
        ms["stall"].append(float(stall))
        ms["stall run"].append(float(run))
    await sql.close()
    service.close()
    baseline.close()
    return ms, len(one)


async def _snapshot(stage: Stage, document: bytes) -> UUID:
    """Store the discovery that the catalogs come from, as the orchestrator does."""
    db = Database.at(postgres_address(stage.registry_url), application="bench")
    discovered = Discovered(document, catalog_id=airbyte_server.ID, configuration_updated=False)
    snapshot_id = await snapshots.store(db, airbyte_server.ID, discovered)
    await db.close()
    return snapshot_id


async def _spent_ms(http: Http) -> float:
    """Return the CPU time of the server's process so far."""
    return float(await http.request("/bench/cpu"))


def _order(connection_id: UUID, snapshot_id: UUID, sync_catalog: bytes) -> bytes:
    head = f'{{"connection_id":"{connection_id}","snapshot_id":"{snapshot_id}","sync_catalog":'
    return head.encode() + sync_catalog + b"}"


def _filled(chosen: bytes, document: bytes) -> bytes:
    """Add unselected streams to the catalog until it reaches the maximum body size."""
    streams = list(catalog.scan(chosen))
    known = {catalog.identify(raw, 0)[0] for raw in streams}
    left = CATALOG.body_bytes - len(chosen) - 1024
    for raw in catalog.scan(document):
        left -= len(raw) + 1
        if left < 0:
            break
        if catalog.identify(raw, 0)[0] not in known:
            streams.append(raw)
    return catalog.join(streams)
