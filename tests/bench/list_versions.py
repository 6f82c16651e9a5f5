"""Latency of listing versions and repairs, compared with the same rows without computed counts.

The baselines select the same page without the number of streams or of changes. The lines without a
limit show the earlier implementation, which opened each stored document. The last line compares a
page of connections serialized by Postgres with the same page serialized by its Pydantic model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID, uuid4

import asyncpg
import orjson
from sqlalchemy import text

from services.drift_repair_agent.repairs import queries
from services.orchestrator import connection_queries
from services.orchestrator.schemas import ConnectionPage, ConnectionView
from shared import registry
from shared.database import Database
from shared.postgres_address import postgres_address
from tests.bench.environment import Stage
from tests.bench.results_table import Line

VERSIONS, STREAMS = 40, 1_500
REPAIRS, CHANGES = 100, 200
CONNECTIONS = 500
ROUNDS = 15
_VERSIONS = f"""
    INSERT INTO sync_catalog_versions (
        id, connection_id, version_number, sync_catalog, fingerprint, origin
    )
    SELECT gen_random_uuid(), $1, n, jsonb_build_object('streams', (
        SELECT jsonb_agg(jsonb_build_object('stream', jsonb_build_object(
            'name', 'S' || s, 'jsonSchema', jsonb_build_object('properties', (
                SELECT jsonb_object_agg('field_' || f || '_' || md5(f::text || s), 'string')
                FROM generate_series(1, 40) f
            ))
        ))) FROM generate_series(1, {STREAMS}) s
    )), 'x', 'repair'
    FROM generate_series(1, {VERSIONS}) n
"""  # noqa: S608 - constants
_REPAIRS = f"""
    INSERT INTO repairs (id, connection_id, state, base_version, ended_at, changes)
    SELECT gen_random_uuid(), $1, 'expired', 1, now(), (
        SELECT jsonb_agg(jsonb_build_object(
            'id', 'c' || c, 'kind', 'field_added', 'reaction', 'propose', 'severity', 'harmless',
            'stream', jsonb_build_object('name', 'S' || c), 'path', jsonb_build_array('F' || c),
            'after', jsonb_build_object('type', 'string', 'title', md5(c::text || n)),
            'reason', 'Field ' || c || ' is new in stream ' || c || ', and takes nothing away.'
        )) FROM generate_series(1, {CHANGES}) c
    ) FROM generate_series(1, {REPAIRS}) n
"""  # noqa: S608 - constants
_CONNECTIONS = f"""
    INSERT INTO connections (
        id, name, source_type, airbyte_destination_id, status, failure_code, failure_detail
    )
    SELECT gen_random_uuid(), 'connection ' || n, 'Salesforce', $1, 'FAILED', 'check_failed',
        'The source cannot be reached.'
    FROM generate_series(1, {CONNECTIONS}) n
"""  # noqa: S608 - constants
_COLUMNS = ", ".join(sorted(ConnectionView.model_fields.keys() - {"notes", "health"}))
_ROWS = text(
    f"SELECT {_COLUMNS} FROM connections WHERE archived_at IS NULL"  # noqa: S608 - field names
    " ORDER BY created_at DESC, id DESC LIMIT :limit"
)
_COUNT_FROM_CATALOGS = """
    SELECT version_number, origin, fingerprint, created_at,
        jsonb_array_length(sync_catalog->'streams')
    FROM sync_catalog_versions WHERE connection_id = $1 ORDER BY version_number DESC LIMIT 101
"""
_WITHOUT_A_COUNT = """
    SELECT version_number, origin, fingerprint, created_at
    FROM sync_catalog_versions WHERE connection_id = $1 ORDER BY version_number DESC LIMIT 101
"""
_WITH_EVERY_CHANGE = "SELECT id, changes::text FROM repairs ORDER BY created_at DESC LIMIT 101"
_WITHOUT_CHANGES = "SELECT id, state, created_at FROM repairs ORDER BY created_at DESC LIMIT 101"


def measure(stage: Stage) -> Iterator[Line]:
    """Run the queries alternately and compare the best round of each."""
    took = asyncio.run(_times(stage))
    versions, repairs = f"page of {VERSIONS} versions", f"page of {REPAIRS} repairs"
    yield Line(
        job=f"{versions} of {STREAMS:,} streams",
        measured=took["versions"],
        baseline=took["no count"],
        limit=10,
    )
    yield Line(
        job=f"{versions}, streams counted from catalogs",
        measured=took["opened"],
        baseline=took["no count"],
    )
    yield Line(
        job=f"{repairs} of {CHANGES} changes",
        measured=took["repairs"],
        baseline=took["no changes"],
        limit=20,
    )
    yield Line(
        job=f"{repairs}, with all changes", measured=took["changes"], baseline=took["no changes"]
    )
    yield Line(
        job=f"page of {CONNECTIONS} connections; baseline: Pydantic",
        measured=took["connections"],
        baseline=took["by model"],
    )


async def _times(stage: Stage) -> dict[str, float]:
    """Return the best time of each query in milliseconds."""
    sql = await asyncpg.connect(stage.registry_url)
    db = Database.at(postgres_address(stage.registry_url), application="bench")
    connection = uuid4()
    await sql.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " VALUES ($1, 'lists', 'Salesforce', $1, 'FAILED')",
        connection,
    )
    await sql.execute(_CONNECTIONS, connection)
    await sql.execute(_VERSIONS, connection)
    await sql.execute(_REPAIRS, connection)
    await sql.execute("VACUUM ANALYZE connections, sync_catalog_versions, repairs")
    jobs: dict[str, Callable[[], Awaitable[object]]] = {
        "versions": lambda: _versions(db, connection),
        "no count": lambda: sql.fetch(_WITHOUT_A_COUNT, connection),
        "opened": lambda: sql.fetch(_COUNT_FROM_CATALOGS, connection),
        "repairs": lambda: _repairs(db),
        "no changes": lambda: sql.fetch(_WITHOUT_CHANGES),
        "changes": lambda: sql.fetch(_WITH_EVERY_CHANGE),
        "connections": lambda: _connections(db),
        "by model": lambda: _connections_by_model(db),
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


async def _versions(db: Database, connection_id: UUID) -> str:
    async with db.read() as session:
        return await registry.page_of_versions(session, connection_id, after=None, limit=100)


async def _repairs(db: Database) -> str:
    async with db.read() as session:
        return await queries.page_of_repairs(session, queries.RepairFilter(), limit=100)


async def _connections(db: Database) -> str:
    async with db.read() as session:
        shown = connection_queries.ConnectionFilter()
        return await connection_queries.page_of_connections(session, shown, limit=CONNECTIONS)


async def _connections_by_model(db: Database) -> str:
    async with db.read() as session:
        rows = (await session.execute(_ROWS, {"limit": CONNECTIONS})).mappings().all()
    items = [
        ConnectionView.model_validate({**row, "labels": orjson.loads(row["labels"])})
        for row in rows
    ]
    return ConnectionPage(items=items).model_dump_json()
