"""Latency of pages of a large catalog, of the difference of two, and of a repair with many changes.

The catalog is that of an org with 1,500 streams of 300 fields. Limits are milliseconds, as a person
waits for these pages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx

from services.drift_repair_agent.repairs import current_state, planned_changes, queries
from services.drift_repair_agent.repairs.planned_changes import PlannedChange
from services.drift_repair_agent.repairs.policy import Reaction
from services.orchestrator.catalog_pages import CatalogPages
from shared import snapshots
from shared.airbyte_client import Discovered
from shared.database import Database
from shared.domain.catalog import StreamId
from shared.postgres_address import postgres_address
from tests import access
from tests.bench.environment import Stage
from tests.bench.large_catalog import SELECTED, drifted, selected
from tests.bench.results_table import Line

CHANGES = 2_000
ROUNDS = 5
_LIMIT_MS = 400
_WAIT_S = 60.0
_VERSION = """
    INSERT INTO sync_catalog_versions (
        id, connection_id, version_number, sync_catalog, fingerprint, origin
    ) VALUES (gen_random_uuid(), $1, $2, $3, 'x', 'repair')
"""
_REPAIR = """
    INSERT INTO repairs (id, connection_id, state, base_version, snapshot_id, expires_at, changes)
    VALUES ($1, $2, 'proposed', 1, $3, now() + interval '7 days', $4)
"""
_RENAMED = range(7, 7 + CHANGES // 2 // SELECTED)
"""The fields that the source renamed in each stream: one is gone and one is new."""


_CONNECTION = """
    INSERT INTO connections (id, name, source_type, airbyte_destination_id, airbyte_source_id,
        status, catalog_version) VALUES ($1, $2, 'Salesforce', $1, $1, 'FAILED', 1)
"""


def measure(stage: Stage, document: Path) -> Iterator[Line]:
    """Compare the best round of each page with the budget."""
    for job, took in asyncio.run(_times(stage, document.read_bytes())).items():
        yield Line(job=job, measured=took, limit=_LIMIT_MS)


async def _times(stage: Stage, document: bytes) -> dict[str, float]:
    """Return the best time of each page in milliseconds."""
    sql = await asyncpg.connect(stage.registry_url)
    db = Database.at(postgres_address(stage.registry_url), application="bench")
    connection = uuid4()
    await sql.execute(_CONNECTION, connection, "catalog pages")
    await sql.execute(_VERSION, connection, 1, document.decode())
    await sql.execute(_VERSION, connection, 2, drifted(document).decode())
    repair = await _repair(sql, db, document)
    pages, versions = CatalogPages(db), (1, 2)
    stream = StreamId(None, "Custom_Object_0700__c")
    agent = stage.serve("services.drift_repair_agent.main:app")

    async def repair_page(http: httpx.AsyncClient) -> None:
        answer = await http.get(f"/repairs/{repair}")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["changes"]) == CHANGES

    async def changes() -> None:
        async with db.read() as session:
            await queries.page_of_repairs(session, queries.RepairFilter(), limit=100)
            await queries.page_of_changes(session, repair, after=1_000, limit=100)

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{agent}", headers=access.HEADERS, timeout=_WAIT_S
    ) as http:
        jobs: dict[str, Callable[[], Awaitable[object]]] = {
            "page of 100 streams": lambda: pages.streams(
                connection, 1, search=None, after=stream, limit=100
            ),
            "page of 200 fields": lambda: pages.fields(
                connection, 1, stream, search=None, after=0, limit=200
            ),
            "summary of a diff": lambda: pages.summary(
                connection, versions, search=None, after=None, limit=100
            ),
            "diff of one stream": lambda: pages.diff(
                connection, versions, only=StreamId(None, "Custom_Object_0000__c")
            ),
            f"list of repairs, page of {CHANGES:,} changes": changes,
            f"repair with {CHANGES:,} changes": lambda: repair_page(http),
        }
        took: dict[str, float] = dict.fromkeys(jobs, float("inf"))
        for _ in range(ROUNDS):
            for name, job in jobs.items():
                start = time.perf_counter()
                await job()
                took[name] = min(took[name], (time.perf_counter() - start) * 1e3)
    await db.close()
    await sql.close()
    return took


async def _repair(sql: asyncpg.Connection[asyncpg.Record], db: Database, document: bytes) -> UUID:
    """Insert a repair of a connection that syncs 50 streams, with every change of its source."""
    connection, repair = uuid4(), uuid4()
    await sql.execute(_CONNECTION, connection, "many changes")
    await sql.execute(_VERSION, connection, 1, selected(document).decode())
    offered = document
    for number in _RENAMED:
        former, new = b'"Custom_Field_%03d__c":' % number, b'"Renamed_%03d__c":' % number
        offered = offered.replace(former, new)
    snapshot = await snapshots.store(
        db, connection, Discovered(offered, None, configuration_updated=False)
    )
    state = await current_state.read(db, connection)
    changes = planned_changes.write(
        PlannedChange(id=f"c{number}", change=change, verdict=verdict, reaction=Reaction.PROPOSE)
        for number, (change, verdict) in enumerate(await state.changes(), start=1)
    )
    await sql.execute(_REPAIR, repair, connection, snapshot, changes)
    return repair
