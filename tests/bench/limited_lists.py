"""Lists for a key that is limited by labels, each compared with that for an unlimited one.

Limited once to a fortieth and once to half of the connections. The ratios have no limit yet.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

import asyncpg
import uvloop

from shared.auth.api_keys import new_key
from shared.auth.scopes import Scope
from tests import access
from tests.bench.connection_lists import CONNECTIONS as ALL
from tests.bench.connection_lists import FILTERS, SEED
from tests.bench.environment import Http, Stage, timed_ms
from tests.bench.results_table import Line

REQUESTS = 20
CONNECTIONS = 20_000
_LABELS = {"a fortieth": {"team": "team-7"}, "half": {"region": "eu"}}
_SEED = (
    *(one.replace(str(ALL), str(CONNECTIONS)) for one in SEED),
    "UPDATE connections SET labels = labels || jsonb_build_object('region',"
    " CASE WHEN random() < 0.5 THEN 'eu' ELSE 'us' END)",
    """
    INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version,
        started_at, ended_at)
    SELECT gen_random_uuid(), id, row_number() OVER () * 3 + n, 'succeeded', 1,
        created_at - n * interval '1 day', created_at - n * interval '1 day' + interval '1 minute'
    FROM connections, generate_series(0, 2) n
    """,
    """
    INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until, deadline,
        request_id, created_at, ended_at)
    SELECT gen_random_uuid(), 'sync', id, 'done', '{}', 'start', now(), now(), 'x', created_at,
        created_at
    FROM connections
    """,
    """
    INSERT INTO snapshots (id, airbyte_source_id, raw_hashes, stream_hashes)
    VALUES ('00000000-0000-4000-8000-00000000000a', gen_random_uuid(), '', '')
    """,
    """
    INSERT INTO drifts (id, connection_id, after_snapshot_id, severity, affects_sync, changes,
        first_seen_at)
    SELECT gen_random_uuid(), id, '00000000-0000-4000-8000-00000000000a', 'harmless', false, '[]',
        created_at
    FROM connections
    """,
    """
    INSERT INTO repairs (id, connection_id, state, base_version, changes, created_at)
    SELECT gen_random_uuid(), id, 'proposed', 1, '[]', created_at FROM connections
    """,
    "VACUUM ANALYZE",
)
_PATHS = {
    "services.orchestrator.main:app": {
        **{
            f"connections, {name}, by {sort}": (
                f"/connections?include=health&include=syncs&sort={sort}&{query}"
            )
            for name, query in FILTERS.items()
            for sort in ("created_at", "name", "health")
        },
        **{f"counts, {name}": f"/connections/summary?{query}" for name, query in FILTERS.items()},
        "jobs": "/jobs",
        "failed jobs": "/jobs?status=failed",
        "operations": "/operations",
        "failed operations": "/operations?status=failed",
        "credentials": "/credentials",
    },
    "services.drift_repair_agent.main:app": {
        "repairs": "/repairs",
        "proposed repairs": "/repairs?state=proposed",
        "counts of repairs": "/repairs/summary",
        "groups of repairs": "/repairs/groups",
    },
    "services.schema_observer.main:app": {
        "drifts": "/drifts",
        "observations": "/observations",
        "failed observations": "/observations?outcome=failed",
    },
}


def measure(stage: Stage) -> Iterator[Line]:
    """Time the first page of each list, by both limited keys and without a limit."""
    yield from uvloop.run(_lines(stage))


async def _lines(stage: Stage) -> list[Line]:
    sql = await asyncpg.connect(stage.registry_url)
    for statement in _SEED:
        await sql.execute(statement, timeout=600)
    keys = {}
    for name, labels in _LABELS.items():
        key = new_key("test")
        await sql.execute(
            "INSERT INTO api_keys (id, digest, scopes, owner, created_by, labels)"
            " VALUES ($1, $2, $3, 'bench', 'bench', $4::jsonb)",
            key.id, key.digest, [Scope.CONNECTIONS_READ], json.dumps(labels),
        )  # fmt: skip
        keys[name] = f"Bearer {key.key}"
    await sql.close()
    lines = []
    for app, paths in _PATHS.items():
        port = stage.serve(app)
        unlimited = await Http.to(port, authorization=access.HEADERS["Authorization"])
        limited = {name: await Http.to(port, authorization=key) for name, key in keys.items()}
        for job, path in paths.items():
            baseline = await _median(unlimited, path)
            for name, http in limited.items():
                measured = await _median(http, path)
                lines.append(Line(job=f"{job}: {name}", measured=measured, baseline=baseline))
        for http in (unlimited, *limited.values()):
            http.close()
    return lines


async def _median(http: Http, path: str) -> float:
    return statistics.median([await timed_ms(http, path) for _ in range(REQUESTS)])
