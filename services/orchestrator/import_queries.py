"""Queries on the items of an import: one row per Airbyte connection that it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CursorResult, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.schemas import ImportedView, ImportOutcome
from shared.airbyte_client import ListedConnection
from shared.errors import NotFound
from shared.models import ImportItem


class PendingItem(NamedTuple):
    """An Airbyte connection that the import has not processed."""

    position: int
    airbyte_connection_id: UUID
    name: str


async def insert_items(
    session: AsyncSession, operation_id: UUID, listed: Sequence[ListedConnection]
) -> None:
    """Record what an import found, once; a repetition adds nothing."""
    rows = [
        {
            "operation_id": operation_id,
            "position": position,
            "airbyte_connection_id": one.connection_id,
            "name": one.name,
        }
        for position, one in enumerate(listed, start=1)
    ]
    if rows:
        await session.execute(insert(ImportItem).on_conflict_do_nothing(), rows)


async def pending_items(
    session: AsyncSession, operation_id: UUID, *, limit: int
) -> Sequence[PendingItem]:
    """The next items to process, in Airbyte's order."""
    rows = await session.execute(
        select(ImportItem.position, ImportItem.airbyte_connection_id, ImportItem.name)
        .where(ImportItem.operation_id == operation_id, ImportItem.outcome.is_(None))
        .order_by(ImportItem.position)
        .limit(limit)
    )
    return [PendingItem(*row) for row in rows]


async def record_outcome(
    session: AsyncSession, operation_id: UUID, position: int, result: ImportedView
) -> bool:
    """Record an item's outcome; False if it has one. The row is locked until the commit."""
    found = result.model_dump_json(include={"never_selected", "shared_tables"})
    written: CursorResult[Any] = await session.execute(  # type: ignore[assignment]
        update(ImportItem)
        .where(
            ImportItem.operation_id == operation_id,
            ImportItem.position == position,
            ImportItem.outcome.is_(None),
        )
        .values(
            outcome=result.outcome,
            code=result.code,
            connection_id=result.connection_id,
            never_selected=text("CAST(:lists AS jsonb) -> 'never_selected'").bindparams(
                lists=found
            ),
            shared_tables=text("CAST(:more AS jsonb) -> 'shared_tables'").bindparams(more=found),
        )
    )
    return written.rowcount == 1


async def report(
    session: AsyncSession,
    operation_id: UUID,
    *,
    outcome: ImportOutcome | None,
    after: int | None,
    limit: int,
) -> str:
    """An import's progress and a page of its items, as JSON text.

    Raises:
        NotFound: there is no such import.
    """
    found: str | None = await session.scalar(
        _REPORT,
        {"id": operation_id, "outcome": outcome, "after": after or 0, "limit": limit},
    )
    if found is None:
        raise NotFound(f"No import {operation_id}.")
    return found


_REPORT = text("""
    WITH page AS (
        SELECT * FROM import_items
        WHERE operation_id = :id AND position > :after
            AND (CAST(:outcome AS text) IS NULL OR coalesce(outcome, 'pending') = :outcome)
        ORDER BY position LIMIT :limit + 1
    ), kept AS (
        SELECT * FROM page ORDER BY position LIMIT :limit
    )
    SELECT json_build_object(
        'operation_id', o.id, 'workspace_id', o.request ->> 'workspace_id',
        'dry_run', CAST(o.request ->> 'dry_run' AS boolean), 'status', o.status,
        'outcomes', (
            SELECT coalesce(json_object_agg(outcome, count), '{}') FROM (
                SELECT coalesce(outcome, 'pending') AS outcome, count(*) FROM import_items
                WHERE operation_id = :id GROUP BY 1 ORDER BY 1
            ) counted
        ),
        'items', coalesce((
            SELECT json_agg(json_strip_nulls(json_build_object(
                'airbyte_connection_id', t.airbyte_connection_id, 'name', t.name,
                'outcome', coalesce(t.outcome, 'pending'), 'connection_id', t.connection_id,
                'code', t.code, 'never_selected', t.never_selected,
                'shared_tables', t.shared_tables
            )) ORDER BY t.position) FROM kept t
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit
            THEN (SELECT max(position) FROM kept) END
    )::text
    FROM operations o WHERE o.id = :id AND o.kind = 'import'
""")
