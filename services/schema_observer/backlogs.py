"""Metrics queries on sources that are due and unclaimed, and on open drifts by severity."""

from sqlalchemy import text

from services.schema_observer.drift_queries import IS_OPEN
from shared.backlogs import AGE
from shared.registry import LIVE

_SOURCES = f"""
    SELECT '', count(*), {AGE.format("o.next_at")} FROM observations o
    WHERE o.next_at <= now() AND (o.claimed_until IS NULL OR o.claimed_until <= now())
        AND (
            SELECT true FROM connections c
            WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE} LIMIT 1
        )
"""  # noqa: S608 - no input

# Restricted to connections with an open repair or a recent drift, to avoid reading all of them.
_DRIFTS = f"""
    SELECT d.severity, count(*), {AGE.format("d.first_seen_at")} FROM (
        SELECT connection_id FROM repairs WHERE state = 'proposed'
        UNION
        SELECT connection_id FROM repairs
        WHERE state IN ('approved', 'applying', 'verifying', 'rolling_back')
        UNION
        SELECT connection_id FROM drifts WHERE first_seen_at > now() - interval '1 day'
    ) may_wait
    JOIN connections c ON c.id = may_wait.connection_id
    JOIN LATERAL (
        SELECT * FROM drifts WHERE connection_id = c.id AND affects_sync
        ORDER BY first_seen_at DESC LIMIT 1
    ) d ON true
    JOIN snapshots a ON a.id = d.after_snapshot_id
    WHERE c.archived_at IS NULL AND ({IS_OPEN}) GROUP BY d.severity
"""  # noqa: S608 - no input

BACKLOGS = {
    "sources": text(_SOURCES),
    "drifts": text(_DRIFTS),
}
