"""Maintains the projection `connection_health`: reads the facts, derives the health and stores it.

A transaction that changes a fact refreshes the projection itself, as its last step before the
commit. Changes made through the ORM are noticed at flush; code that writes these tables with SQL
statements calls `mark_changed`. The rows of the projection are locked before the facts are read, so
of two transactions the later one sees the facts of both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state

from shared.database import before_commit
from shared.domain.health import (
    NEWEST_JOBS,
    Derived,
    Facts,
    JobFact,
    ObservationFact,
    OpenRepair,
    derive,
)
from shared.models import Connection, JobHistory, Repair
from shared.registry.job_kinds import is_sync

_CHANGED: Final = "aam.changed_connections"

_FACT_COLUMNS: Final = {
    Connection: (
        "status",
        "archived_at",
        "failure_code",
        "failure_detail",
        "upstream_code",
        "drifted_upstream_at",
        "paused_by",
        "pause_requested_by",
        "healing_since",
        "credential_rejected_since",
        "airbyte_source_id",
    ),
    JobHistory: ("kind", "status", "started_at", "ended_at", "failure_code"),
    Repair: ("state", "changes"),
}
"""The columns that are facts; the others of these tables may change without effect."""


def mark_changed(session: AsyncSession, connection_ids: Iterable[UUID]) -> None:
    """Have this transaction refresh the health of connections before it commits.

    For statements that write connections, repairs, jobs or observations past the ORM.
    """
    _mark(session.sync_session, connection_ids)


def _mark(session: Session, connection_ids: Iterable[UUID]) -> None:
    changed: set[UUID] = session.info.setdefault(_CHANGED, set())
    changed.update(connection_ids)
    before_commit(session, _refresh_changed)


@event.listens_for(Session, "after_flush")
def _note_flushed(session: Session, _context: object) -> None:
    changed = {
        row.id if isinstance(row, Connection) else row.connection_id
        for row in (*session.new, *session.dirty)
        if isinstance(row, Connection | JobHistory | Repair) and _is_fact_changed(row)
    }
    if changed:
        _mark(session, changed)


def _is_fact_changed(row: Connection | JobHistory | Repair) -> bool:
    state = instance_state(row)
    return state.pending or any(
        state.attrs[column].history.has_changes() for column in _FACT_COLUMNS[type(row)]
    )


async def _refresh_changed(session: AsyncSession) -> None:
    changed: set[UUID] = session.info.pop(_CHANGED, set())
    await refresh_health(session, changed)


async def mark_source_changed(session: AsyncSession, source_id: UUID) -> None:
    """The same as `mark_changed`, for the live connections of a source."""
    ids = await session.scalars(
        select(Connection.id).where(
            Connection.airbyte_source_id == source_id, Connection.archived_at.is_(None)
        )
    )
    mark_changed(session, ids)


async def refresh_health(session: AsyncSession, connection_ids: Collection[UUID]) -> int:
    """Derive and store the health of connections; how many rows differed. Needs a transaction."""
    if not connection_ids:
        return 0
    await session.execute(_LOCK, {"ids": list(connection_ids)})
    rows = [
        _row(connection_id, derive(facts), changed_at)
        for connection_id, facts, changed_at in await _read_facts(session, connection_ids)
    ]
    written = await session.execute(_STORE, {"rows": msgspec.json.encode(rows).decode()})
    return len(written.all())


# In the order of ids, so that two transactions never wait for each other.
_LOCK = text("""
    SELECT FROM connection_health WHERE connection_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY connection_id FOR UPDATE
""")

_FACTS = text(f"""
    SELECT c.id, c.updated_at, CAST(c.status AS text) AS status, c.archived_at, c.failure_code,
        c.failure_detail, c.upstream_code, c.drifted_upstream_at, c.paused_by, c.pause_requested_by,
        c.healing_since, c.credential_rejected_since,
        p.id AS proposed_id, p.state AS proposed_state, p.created_at AS proposed_at,
        CAST(p.summary->'by_severity' AS text) AS severities,
        u.id AS under_way_id, u.state AS under_way_state, u.created_at AS under_way_at,
        j.jobs, o.airbyte_source_id AS observed, o.outcome, o.code, o.detail, o.suspicious_since,
        o.overdue_at
    FROM connections c
    LEFT JOIN repairs p ON p.connection_id = c.id AND p.state = 'proposed'
    LEFT JOIN repairs u ON u.connection_id = c.id
        AND u.state IN ('approved', 'applying', 'verifying', 'rolling_back')
    LEFT JOIN LATERAL (
        SELECT CAST(json_agg(json_build_array(
            newest.id, newest.status, newest.started_at, newest.ended_at, newest.failure_code
        ) ORDER BY newest.started_at DESC, newest.id DESC) AS text) AS jobs
        FROM (
            SELECT s.id, s.status, s.started_at, s.ended_at, s.failure_code FROM job_history s
            WHERE s.connection_id = c.id AND {is_sync("s")}
            ORDER BY s.started_at DESC, s.id DESC LIMIT :newest
        ) newest
    ) j ON true
    LEFT JOIN observations o ON o.airbyte_source_id = c.airbyte_source_id
    WHERE c.id = ANY(CAST(:ids AS uuid[]))
    ORDER BY c.id
""")  # noqa: S608 - no input


async def _read_facts(
    session: AsyncSession, connection_ids: Collection[UUID]
) -> list[tuple[UUID, Facts, datetime]]:
    found = await session.execute(_FACTS, {"ids": list(connection_ids), "newest": NEWEST_JOBS})
    return [(row.id, _facts(row), row.updated_at) for row in found]


def _facts(row: Any) -> Facts:
    proposed = under_way = observation = None
    if row.proposed_id is not None:
        severities = msgspec.json.decode(row.severities or "{}", type=dict[str, int])
        proposed = OpenRepair(row.proposed_id, row.proposed_state, row.proposed_at, severities)
    if row.under_way_id is not None:
        under_way = OpenRepair(row.under_way_id, row.under_way_state, row.under_way_at)
    if row.observed is not None:
        observation = ObservationFact(
            row.outcome, row.code, row.detail, row.suspicious_since, row.overdue_at
        )
    return Facts(
        status=row.status,
        archived_at=row.archived_at,
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        upstream_code=row.upstream_code,
        drifted_upstream_at=row.drifted_upstream_at,
        paused_by=row.paused_by,
        pause_requested_by=row.pause_requested_by,
        healing_since=row.healing_since,
        credential_rejected_since=row.credential_rejected_since,
        proposed=proposed,
        under_way=under_way,
        jobs=[JobFact(*one) for one in msgspec.json.decode(row.jobs or "[]", type=list[_Job])],
        observation=observation,
    )


_Job = tuple[UUID, str, datetime, datetime | None, str | None]


def _row(connection_id: UUID, derived: Derived, changed_at: datetime) -> dict[str, Any]:
    verdict, job = derived.verdict, derived.last_job
    return {
        "connection_id": connection_id,
        "health": verdict.health,
        "code": verdict.code,
        "reason": verdict.reason,
        "since": verdict.since,
        "changed_at": changed_at,
        "severity": verdict.severity,
        "repair_id": verdict.repair_id,
        "overdue_at": derived.overdue_at,
        "last_job_id": None if job is None else job.id,
        "last_sync_status": None if job is None else job.status,
        "last_sync_started_at": None if job is None else job.started_at,
        "last_sync_ended_at": None if job is None else job.ended_at,
        "failed_syncs": derived.failed_syncs,
    }


_COMPARED: Final = (
    *("health", "code", "reason", "severity", "repair_id", "overdue_at", "last_job_id"),
    *("last_sync_status", "last_sync_started_at", "last_sync_ended_at", "failed_syncs"),
)
"""The columns that follow from the facts alone, as `since` may not."""

# `since` if no fact says: the stored one while the verdict is the same, else now; in a new
# row the last change of the connection, which is now unless the projection is being rebuilt.
_STORE = text(f"""
    INSERT INTO connection_health AS h (connection_id, since, {", ".join(_COMPARED)})
    SELECT n.connection_id, coalesce(n.since, CASE
            WHEN old.connection_id IS NULL THEN n.changed_at
            WHEN (old.health, old.code) = (n.health, n.code) THEN old.since
            ELSE now()
        END), {", ".join(f"n.{column}" for column in _COMPARED)}
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n (
        connection_id uuid, health public.health_word, code text, reason text, since timestamptz,
        changed_at timestamptz, severity text, repair_id uuid, overdue_at timestamptz,
        last_job_id uuid, last_sync_status text, last_sync_started_at timestamptz,
        last_sync_ended_at timestamptz, failed_syncs integer
    ) LEFT JOIN connection_health old ON old.connection_id = n.connection_id
    ON CONFLICT (connection_id) DO UPDATE SET
        {", ".join(f"{column} = excluded.{column}" for column in ("since", *_COMPARED))},
        updated_at = now()
    WHERE ({", ".join(f"h.{column}" for column in ("since", *_COMPARED))})
        IS DISTINCT FROM ({", ".join(f"excluded.{column}" for column in ("since", *_COMPARED))})
    RETURNING h.connection_id
""")  # noqa: S608 - no input


async def rebuild_health(
    session: AsyncSession, *, after: UUID, limit: int
) -> tuple[UUID | None, int, int]:
    """Refresh the next `limit` connections by id.

    Returns the last of them, or None after the last page; their number; and how many rows differed.
    """
    ids = (
        await session.scalars(
            select(Connection.id).where(Connection.id > after).order_by(Connection.id).limit(limit)
        )
    ).all()
    differed = await refresh_health(session, ids)
    return (ids[-1] if len(ids) == limit else None), len(ids), differed
