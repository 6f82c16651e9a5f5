"""Latency of the list of connections in each filter and order, and of its counts, at scale.

The budget is the 95th percentile over the first page and those that follow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from urllib.parse import quote

import asyncpg
import msgspec
import uvloop

from tests.bench.environment import Http, Stage, timed_ms
from tests.bench.results_table import Line

CONNECTIONS = 100_000
REQUESTS = 20
LIST_MS = 200.0
"""The budget of the console's list; the counts are shown beside it."""
_DESTINATION = "00000000-0000-4000-8000-000000000007"
SEED = (
    f"""
    INSERT INTO connections (id, name, source_type, credential_id, airbyte_source_id,
        airbyte_connection_id, airbyte_destination_id, status, catalog_version, created_at,
        labels, upstream_code, airbyte_workspace_id)
    SELECT gen_random_uuid(), (ARRAY['Sales', 'Marketing', 'Billing'])[1 + n % 3] || ' ' || n,
        CASE WHEN n % 50 = 0 THEN 'Postgres' WHEN n % 7 = 0 THEN 'HubSpot' ELSE 'Salesforce' END,
        'credential-' || n % 2000, gen_random_uuid(), gen_random_uuid(),
        CAST('00000000-0000-4000-8000-' || lpad(CAST(n % 30 AS text), 12, '0') AS uuid),
        'ACTIVE', 1, now() - n * interval '1 second',
        jsonb_build_object('team', 'team-' || n % 40, 'tier', CASE n % 10 WHEN 0 THEN 'gold' END),
        CASE WHEN n % 5000 = 0 THEN 'catalog_differs' END, gen_random_uuid()
    FROM generate_series(1, {CONNECTIONS}) n
    """,  # noqa: S608 - a constant
    """
    INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at, observed_at,
        outcome, overdue_at)
    SELECT airbyte_source_id, airbyte_workspace_id, now() + interval '30 minutes',
        now() - interval '30 minutes', 'unchanged', now() + interval '1 hour'
    FROM connections
    """,
    """
    INSERT INTO connection_health (connection_id, health, code, reason, since, overdue_at)
    SELECT id, CAST(CASE
            WHEN upstream_code IS NOT NULL THEN 'differs'
            WHEN n % 900 = 0 THEN 'failed' WHEN n % 700 = 0 THEN 'paused'
            WHEN n % 400 = 0 THEN 'needs_review' WHEN n % 300 = 0 THEN 'sync_failing'
            WHEN n % 20 = 0 THEN 'syncing' ELSE 'healthy'
        END AS health_word), 'code', 'One sentence.', created_at,
        now() + CASE WHEN n % 333 = 0 THEN interval '-1 hour' ELSE interval '1 day' END
    FROM (SELECT *, row_number() OVER (ORDER BY created_at) AS n FROM connections) c
    """,
    "VACUUM ANALYZE connections, observations, connection_health",
)
FILTERS = {
    "no filter": "",
    "health=healthy": "health=healthy",
    "health=failed": "health=failed",
    "health=overdue": "health=overdue",
    "four words": "health=failed&health=needs_review&health=differs&health=sync_failing",
    "source_type": "source_type=Postgres",
    "label": "label=team%3Dteam-7",
    "two labels": "label=team%3Dteam-7&label=tier%3Dgold",
    "credential_id": "credential_id=credential-7",
    "destination_id": f"destination_id={_DESTINATION}",
    "upstream_code": "upstream_code=catalog_differs",
    "q, common": "q=billing",
    "q, rare": "q=sales%2099",
    "q, absent": "q=nowhere",
    "health and label": "health=healthy&label=tier%3Dgold",
}


def measure(stage: Stage) -> Iterator[Line]:
    """Request pages of each filter in each order, with health, and the counts of each filter."""
    for job, times in uvloop.run(_times(stage)).items():
        yield Line(job=f"{job}, p95", measured=statistics.quantiles(times, n=20)[-1], limit=LIST_MS)


async def _times(stage: Stage) -> dict[str, list[float]]:
    """Return the milliseconds of the requests of each variant."""
    sql = await asyncpg.connect(stage.registry_url)
    for statement in SEED:
        await sql.execute(statement, timeout=600)
    some_id = str(await sql.fetchval("SELECT airbyte_connection_id FROM connections LIMIT 1"))
    await sql.close()
    filters = FILTERS | {
        "airbyte_connection_id": f"airbyte_connection_id={some_id}",
        "q, an id": f"q={some_id}",
    }
    http = await Http.to(stage.serve("services.orchestrator.main:app"))
    times: dict[str, list[float]] = {}
    for name, query in filters.items():
        for sort in ("created_at", "name", "health"):
            path = f"/connections?include=health&include=syncs&sort={sort}&{query}"
            times[f"{name}, by {sort}"] = await _pages(http, path)
        path = f"/connections/summary?{query}"
        times[f"counts, {name}"] = [await timed_ms(http, path) for _ in range(REQUESTS)]
    http.close()
    return times


async def _pages(http: Http, path: str) -> list[float]:
    """Time the first page and those that follow, from the start again after the last."""
    took, after = [], None
    for _ in range(REQUESTS):
        started = time.perf_counter()
        page = await http.request(path if after is None else f"{path}&after={quote(after)}")
        took.append((time.perf_counter() - started) * 1000)
        after = msgspec.json.decode(page)["next"]
    return took
