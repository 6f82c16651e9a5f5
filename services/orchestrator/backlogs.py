"""Metrics queries on waiting operations, events and jobs; events are counted up to 10,000."""

from sqlalchemy import text

from shared.backlogs import AGE

_OPERATIONS = f"""
    SELECT kind, count(*), {AGE.format("created_at")} FROM operations
    WHERE status IN ('running', 'undoing') GROUP BY kind
"""  # noqa: S608 - no input

_EVENTS = f"""
    SELECT '', count(*), {AGE.format("at")} FROM (
        SELECT at FROM events WHERE published_at IS NULL ORDER BY id LIMIT 10000
    ) waiting
"""  # noqa: S608 - no input

_JOBS = f"""
    SELECT entrypoint, count(*), {AGE.format("execute_after")} FROM pgqueuer
    WHERE status = 'queued' AND execute_after <= now() GROUP BY entrypoint
"""  # noqa: S608 - no input

BACKLOGS = {
    "operations": text(_OPERATIONS),
    "events": text(_EVENTS),
    "jobs": text(_JOBS),
}
