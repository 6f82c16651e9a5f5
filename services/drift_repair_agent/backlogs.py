"""Queries for the backlog metrics: open repairs by state, and waiting webhook messages."""

from sqlalchemy import text

from shared.backlogs import AGE

_REPAIRS = f"""
    SELECT state, count(*), {AGE.format("created_at")} FROM (
        SELECT state, created_at FROM repairs WHERE state = 'proposed'
        UNION ALL
        SELECT state, created_at FROM repairs
        WHERE state IN ('approved', 'applying', 'verifying', 'rolling_back')
    ) open GROUP BY state
"""  # noqa: S608 - no input

_MESSAGES = f"""
    SELECT '', count(*), {AGE.format("created_at")} FROM webhook_deliveries
    WHERE state = 'waiting'
"""  # noqa: S608 - no input

BACKLOGS = {
    "repairs": text(_REPAIRS),
    "messages": text(_MESSAGES),
}
