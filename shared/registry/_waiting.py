"""What waits in the registry, for the metrics: each one statement, by an index over what waits."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.schema_observer.drift_queries import IS_OPEN
from shared.registry._connections import LIVE

Counted = Sequence[tuple[str, int, float]]
"""For each name how many there are, and for how many seconds the first of them has waited."""


async def waiting(session: AsyncSession, backlog: str) -> Counted:
    """What waits of a backlog in `BACKLOGS`; a name that has nothing waiting may have no row."""
    rows = await session.execute(BACKLOGS[backlog])
    return [(name, count, age) for name, count, age in rows]


_AGE = "CAST(coalesce(greatest(extract(epoch FROM now() - min({})), 0), 0) AS float8)"

_OPERATIONS = f"""
    SELECT kind, count(*), {_AGE.format("created_at")} FROM operations
    WHERE status IN ('running', 'undoing') GROUP BY kind
"""  # noqa: S608 - no input
_EVENTS = f"""
    SELECT '', count(*), {_AGE.format("at")} FROM (
        SELECT at FROM events WHERE published_at IS NULL ORDER BY id LIMIT 10000
    ) waiting
"""  # noqa: S608 - no input
_JOBS = f"""
    SELECT entrypoint, count(*), {_AGE.format("execute_after")} FROM pgqueuer
    WHERE status = 'queued' AND execute_after <= now() GROUP BY entrypoint
"""  # noqa: S608 - no input
_SOURCES = f"""
    SELECT '', count(*), {_AGE.format("o.next_at")} FROM observations o
    WHERE o.next_at <= now() AND (o.claimed_until IS NULL OR o.claimed_until <= now())
        AND (
            SELECT true FROM connections c
            WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE} LIMIT 1
        )
"""  # noqa: S608 - no input
# Looked for where a repair is open, or a plan may still be due, and not at every connection.
_DRIFTS = f"""
    SELECT d.severity, count(*), {_AGE.format("d.first_seen_at")} FROM (
        SELECT connection_id FROM repairs WHERE state = 'proposed'
        UNION
        SELECT connection_id FROM repairs
        WHERE state IN ('approved', 'applying', 'verifying', 'rolling_back')
        UNION
        SELECT connection_id FROM drifts WHERE first_seen_at > now() - interval '1 day'
    ) may_wait
    JOIN connections c ON c.id = may_wait.connection_id
    JOIN LATERAL (
        SELECT * FROM drifts WHERE connection_id = c.id AND concerns
        ORDER BY first_seen_at DESC LIMIT 1
    ) d ON true
    JOIN snapshots a ON a.id = d.after_snapshot_id
    WHERE c.archived_at IS NULL AND ({IS_OPEN}) GROUP BY d.severity
"""  # noqa: S608 - no input
_REPAIRS = f"""
    SELECT state, count(*), {_AGE.format("created_at")} FROM (
        SELECT state, created_at FROM repairs WHERE state = 'proposed'
        UNION ALL
        SELECT state, created_at FROM repairs
        WHERE state IN ('approved', 'applying', 'verifying', 'rolling_back')
    ) open GROUP BY state
"""  # noqa: S608 - no input
_MESSAGES = f"""
    SELECT '', count(*), {_AGE.format("created_at")} FROM webhook_deliveries
    WHERE state = 'waiting'
"""  # noqa: S608 - no input

BACKLOGS = {
    "operations": text(_OPERATIONS),
    "events": text(_EVENTS),
    "jobs": text(_JOBS),
    "sources": text(_SOURCES),
    "drifts": text(_DRIFTS),
    "repairs": text(_REPAIRS),
    "messages": text(_MESSAGES),
}
"""Operations by kind, repairs by state, drifts by severity, jobs by entrypoint; else one row.

Of events 10,000 stands for more. Sources are those that are due and that nobody looks at; jobs are
those that are due. Drifts are the newest of each connection that concerns it, while it is open:
while a repair waits or is under way, or, on its first day, no plan has been made.
"""
