"""Time of observing a large org without its discovery, and disk usage of a hundred snapshots."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import orjson
import uvloop
from deepdiff import DeepDiff

from services.schema_observer import claim_queries
from services.schema_observer.observer import Observer
from shared import registry, snapshots
from shared.airbyte_client import AirbyteClient, Discovered
from shared.config import Settings
from shared.database import Database
from shared.domain import drift
from shared.job_queue import Jobs
from shared.models import Connection, ConnectionStatus, VersionOrigin
from tests.bench import large_catalog
from tests.bench.airbyte_server import ID
from tests.bench.catalog_functions import scan_and_hash
from tests.bench.environment import Stage
from tests.bench.results_table import Line, best_ms

ROUNDS = 9
SNAPSHOTS = 100
_FIELD = b'"Custom_Field_007__c":'
_LEASE = timedelta(minutes=10)


def measure(stage: Stage, document: Path) -> Iterator[Line]:
    """Measure observations, then alternative comparisons, then disk usage."""
    discovered = document.read_bytes()
    settings = Settings(_env_file=None, supabase_db_url=stage.registry_url)
    times = uvloop.run(_measure_observations(settings, discovered))
    for what, limit in (("nothing changed", 2), ("5 streams changed, one drift recorded", 3)):
        yield Line(
            job=f"observe 30 MB, {what}; baseline: scan and hash",
            measured=times[what],
            baseline=times["baseline"],
            limit=limit,
        )
    yield Line(
        job="orjson.loads of both and ==, 5 streams changed; baseline: scan and hash",
        measured=best_ms(
            lambda: _parse_and_compare(discovered, large_catalog.drifted(discovered)), rounds=1
        ),
        baseline=times["baseline"],
    )
    yield from _compare_small_documents()
    megabytes = uvloop.run(_disk_megabytes(settings, discovered))
    yield Line(
        job=f"{SNAPSHOTS} snapshots, one field changed in each, on disk",
        measured=megabytes,
        unit="MB",
        limit=25,
    )


def _compare_small_documents() -> Iterator[Line]:
    """Compare small documents with deepdiff too, which is too slow for large ones."""
    before = large_catalog.discovered(streams=20, fields=40)
    after = large_catalog.drifted(before)
    ours = best_ms(lambda: drift.diff(before, after))
    slow: dict[str, Callable[[], object]] = {
        "orjson.loads and ==": lambda: _parse_and_compare(before, after),
        "deepdiff": lambda: DeepDiff(orjson.loads(before), orjson.loads(after)),
    }
    for name, compare in slow.items():
        yield Line(
            job=f"20 x 40 fields, 5 changed: {name}; baseline: diff",
            measured=best_ms(compare),
            baseline=ours,
        )


def _parse_and_compare(before: bytes, after: bytes) -> bool:
    equal: bool = orjson.loads(before) == orjson.loads(after)
    return equal


class _FixedSource:
    """An Airbyte client whose discovery returns a fixed document at once."""

    def __init__(self, document: bytes) -> None:
        self.document = document

    async def discover_schema(self, _source_id: UUID) -> Discovered:
        return Discovered(self.document, ID, configuration_updated=False)


async def _measure_observations(settings: Settings, document: bytes) -> dict[str, float]:
    """Return the best time in milliseconds of each kind of observation and of the baseline."""
    db = Database.at(settings.registry_address, application="bench")
    jobs = Jobs(settings.registry_address, application="bench")
    source = _FixedSource(document)
    observer = Observer(settings, db, cast(AirbyteClient, source), jobs)
    source_id = uuid4()
    await _add_connection(db, source_id, document)
    await _observe_once(db, observer, source_id)
    gc.collect()
    gc.freeze()  # as a service does
    times: dict[str, list[float]] = {"baseline": [], "nothing changed": []}
    changed = times.setdefault("5 streams changed, one drift recorded", [])
    for number in range(ROUNDS):
        times["baseline"].append(best_ms(lambda: scan_and_hash(source.document), rounds=1))
        times["nothing changed"].append(await _observe_once(db, observer, source_id))
        source.document = large_catalog.drifted(document, number)
        changed.append(await _observe_once(db, observer, source_id))
    gc.unfreeze()
    await db.close()
    return {what: min(taken) for what, taken in times.items()}


async def _add_connection(db: Database, source_id: UUID, document: bytes) -> None:
    """Add a connection of 50 streams whose source was observed once."""
    snapshot_id = await snapshots.store(db, source_id, Discovered(document, ID, False))
    connection = Connection(
        id=uuid4(), name=f"bench {source_id}", source_type="Bench", airbyte_destination_id=ID
    )
    async with db.transaction() as session:
        await registry.insert_pending(session, connection)
        row = await registry.lock_connection(session, connection.id)
        row.airbyte_source_id, row.airbyte_connection_id = source_id, uuid4()
        registry.append_version(
            session,
            row,
            large_catalog.selected(document),
            expected_version=0,
            fingerprint="bench",
            origin=VersionOrigin.ONBOARD,
            snapshot_id=snapshot_id,
            requested_by=None,
        )
        row.status = ConnectionStatus.ACTIVE
        await session.flush()
        await claim_queries.ask_for_source(session, row, accepts_missing=False, joins_within=_LEASE)


async def _observe_once(db: Database, observer: Observer, source_id: UUID) -> float:
    """Return the milliseconds of one observation, without claiming it."""
    slot = uuid4()
    async with db.transaction() as session:
        (claim,) = await claim_queries.claim_sources(
            session,
            None,
            slot=slot,
            at_once=25,
            lease=_LEASE,
            every=_LEASE,
            limit=1,
            source_id=source_id,
        )
    start = time.perf_counter()
    discovery = await observer.discover(claim, slot)
    assert discovery is not None
    await observer.record([discovery], slot)
    return (time.perf_counter() - start) * 1000


async def _disk_megabytes(settings: Settings, document: bytes) -> float:
    """Return the megabytes that the snapshots of a changing source add."""
    db = Database.at(settings.registry_address, application="bench")
    source_id = uuid4()
    sql = await asyncpg.connect(settings.supabase_db_url.get_secret_value())
    before = await _size(sql)
    for number in range(SNAPSHOTS):
        # Each change is in a different stream, with a schema that no other benchmark has stored.
        document = document.replace(
            _FIELD, b'"Field_%d_of_%s":' % (number, source_id.hex.encode()), 1
        )
        await snapshots.store(db, source_id, Discovered(document, ID, False))
    taken = await sql.fetchval(
        "SELECT count(*) FROM snapshots WHERE airbyte_source_id = $1", source_id
    )
    assert taken == SNAPSHOTS, taken
    after = await _size(sql)
    await sql.close()
    await db.close()
    return (after - before) / 1e6


async def _size(sql: Any) -> int:
    size: int = await sql.fetchval(
        "SELECT pg_total_relation_size('snapshots') + pg_total_relation_size('stream_schemas')"
    )
    return size
