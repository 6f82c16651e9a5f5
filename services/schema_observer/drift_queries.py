"""Queries on drifts and snapshots."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import TextClause, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import NotFound
from shared.models import Connection, Drift, Snapshot
from shared.registry.connectors import MANIFEST, VERSION
from shared.registry.paging import Cursor, after_cursor, next_position, page, stamp
from shared.registry.renames import rename_count_of_drift, renames_of_drift


@dataclass(frozen=True, slots=True)
class DriftFilter:
    """Filters of a drift list."""

    connection_id: UUID | None = None
    severity: str | None = None
    is_open: bool | None = None
    after: Cursor | None = None
    """Where the previous page ended."""


async def insert_drift(session: AsyncSession, drift: Drift) -> bool:
    """Record a drift; False where the connection already has one for this snapshot."""
    inserted = await session.scalar(
        insert(Drift)
        .values(
            id=drift.id,
            connection_id=drift.connection_id,
            before_snapshot_id=drift.before_snapshot_id,
            after_snapshot_id=drift.after_snapshot_id,
            head_version=drift.head_version,
            severity=drift.severity,
            affects_sync=drift.affects_sync,
            changes=drift.changes,
            # Later than the plan that held the lock before: the drift is newer than that plan.
            first_seen_at=func.clock_timestamp(),
            connector_step=drift.connector_step,
        )
        .on_conflict_do_nothing()
        .returning(Drift.id)
    )
    return inserted is not None


# Open: it concerns the connection, and either a repair of this or a later snapshot is in progress,
# or no plan has been made since. A plan without changes, or an ended repair, closes it.
IS_OPEN = """
    d.affects_sync AND EXISTS (
        SELECT FROM connections c WHERE c.id = d.connection_id AND c.archived_at IS NULL
    ) AND (
        EXISTS (
            SELECT FROM repairs r JOIN snapshots s ON s.id = r.snapshot_id
            WHERE r.connection_id = d.connection_id AND r.ended_at IS NULL
                AND s.taken_at >= a.taken_at
        ) OR NOT EXISTS (
            SELECT FROM plans p JOIN snapshots s ON s.id = p.snapshot_id
            WHERE p.connection_id = d.connection_id AND s.taken_at >= a.taken_at
                AND p.planned_at >= d.first_seen_at
        )
    )
"""
_DRIFT_MEMBERS = f"""
    'id', d.id, 'connection_id', d.connection_id,
    'connection_name', (SELECT c.name FROM connections c WHERE c.id = d.connection_id),
    'before_snapshot_id', d.before_snapshot_id,
    'after_snapshot_id', d.after_snapshot_id, 'severity', d.severity,
    'affects_sync', d.affects_sync, 'connector_step', d.connector_step,
    'open', ({IS_OPEN}),
    'change_count', jsonb_array_length(d.changes) - {rename_count_of_drift("d")},
    'first_seen_at', {stamp("d.first_seen_at")}
"""  # noqa: S608 - no input
_DRIFTS = """
    WITH page AS (
        SELECT d.* FROM drifts d JOIN snapshots a ON a.id = d.after_snapshot_id
        WHERE {conditions}
        ORDER BY d.first_seen_at DESC, d.id DESC
        LIMIT :limit + 1
    ), kept AS (
        SELECT d.* FROM page d ORDER BY d.first_seen_at DESC, d.id DESC LIMIT :limit
    )
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(
                json_build_object({members}) ORDER BY d.first_seen_at DESC, d.id DESC
            )
            FROM kept d JOIN snapshots a ON a.id = d.after_snapshot_id
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
            SELECT {position}
            FROM kept d ORDER BY d.first_seen_at, d.id LIMIT 1) END
    )::text
"""


async def page_of_drifts(session: AsyncSession, shown: DriftFilter, *, limit: int) -> str:
    """A page as JSON text, newest first, without the changes: `{"items": […], "next": …}`."""
    conditions = ["true"]
    parameters: dict[str, object] = {"limit": limit}
    if shown.connection_id is not None:
        conditions.append("d.connection_id = :connection")
        parameters["connection"] = shown.connection_id
    if shown.severity is not None:
        conditions.append("d.severity = :severity")
        parameters["severity"] = shown.severity
    if shown.is_open is not None:
        conditions.append(f"({IS_OPEN})" if shown.is_open else f"NOT ({IS_OPEN})")
    if shown.after is not None:
        conditions.append("(d.first_seen_at, d.id) < (:after_at, :after_id)")
        parameters["after_at"], parameters["after_id"] = shown.after
    found: str = (
        await session.execute(_drifts_statement(" AND ".join(conditions)), parameters)
    ).scalar_one()
    return found


@functools.cache
def _drifts_statement(conditions: str) -> TextClause:
    position = next_position("d.first_seen_at", "d.id")
    # nosemgrep: built-sql - conditions of ours, values are parameters
    return text(_DRIFTS.format(conditions=conditions, members=_DRIFT_MEMBERS, position=position))


async def drift_json(session: AsyncSession, drift_id: UUID) -> str:
    """One drift with its changes, as JSON text.

    Raises:
        NotFound: there is no such drift.
    """
    found: str | None = await session.scalar(_DRIFT, {"id": drift_id})
    if found is None:
        raise NotFound(f"No drift {drift_id}.")
    return found


_DRIFT = text(f"""
    SELECT json_build_object(
        {_DRIFT_MEMBERS}, 'changes', d.changes, 'renames', {renames_of_drift("d")}
    )::text
    FROM drifts d JOIN snapshots a ON a.id = d.after_snapshot_id WHERE d.id = :id
""")  # noqa: S608 - no input


async def page_of_snapshots(
    session: AsyncSession, source_id: UUID | None, *, cursor: Cursor | None, limit: int
) -> str:
    """A page of a source's snapshots as JSON text, newest first."""
    conditions, parameters = after_cursor(cursor, "taken_at")
    statement = page(
        "snapshots",
        _SNAPSHOT_JSON,
        " AND ".join(["t.airbyte_source_id = CAST(:source AS uuid)", *conditions]),
        at="taken_at",
    )
    found: str = await session.scalar(statement, parameters | {"source": source_id, "limit": limit})
    return found


_SNAPSHOT_JSON = f"""
    (SELECT json_build_object(
        'snapshot_id', s.id, 'taken_at', {stamp("s.taken_at")}, 'seen_at', {stamp("s.seen_at")},
        'streams', length(s.stream_hashes) / 16,
        'connector_version', {VERSION}, 'manifest_version', {MANIFEST}
    )
    FROM (SELECT t.*) s
    LEFT JOIN source_connectors k ON k.airbyte_source_id = s.airbyte_source_id)
"""  # noqa: S608 - no input


async def snapshot_of(session: AsyncSession, connection: Connection, snapshot_id: UUID) -> Snapshot:
    """A snapshot of a connection's source.

    Raises:
        NotFound: its source has no such snapshot.
    """
    snapshot = await session.get(Snapshot, snapshot_id)
    if snapshot is None or snapshot.airbyte_source_id != connection.airbyte_source_id:
        raise NotFound(f"The source of connection {connection.id} has no snapshot {snapshot_id}.")
    return snapshot
