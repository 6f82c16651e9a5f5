"""Queries for the deadlines of connectors, and for upgrades."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import ConnectionStatus, SourceConnector
from shared.registry.connections import LIVE


@dataclass(frozen=True, slots=True)
class OfSource:
    """A live connection of a source."""

    id: UUID
    airbyte_connection_id: UUID
    status: ConnectionStatus


async def due_announcements(
    session: AsyncSession, *, notice: timedelta, limit: int, but: Collection[UUID]
) -> Sequence[UUID]:
    """The sources whose connector has a deadline within `notice` that is not announced yet."""
    rows = await session.scalars(_DUE, {"notice": notice, "limit": limit, "but": list(but)})
    return rows.all()


_DUE = text(f"""
    SELECT k.airbyte_source_id FROM source_connectors k
    WHERE k.deadline IS NOT NULL AND k.deadline <= now() + CAST(:notice AS interval)
        AND k.deadline IS DISTINCT FROM k.announced_deadline
        AND k.airbyte_source_id <> ALL(CAST(:but AS uuid[]))
        AND EXISTS (
            SELECT FROM connections c WHERE c.airbyte_source_id = k.airbyte_source_id AND {LIVE}
        )
    ORDER BY k.deadline LIMIT :limit
""")  # noqa: S608 - no input


async def lock_connector(session: AsyncSession, source_id: UUID) -> SourceConnector | None:
    """A source's connector, its row locked until the transaction ends."""
    return await session.get(
        SourceConnector, source_id, with_for_update=True, populate_existing=True
    )


async def connections_of_source(session: AsyncSession, source_id: UUID) -> list[OfSource]:
    """The live connections of a source, by id."""
    rows = await session.execute(_OF_SOURCE, {"source": source_id})
    return [OfSource(id_, airbyte_id, ConnectionStatus(status)) for id_, airbyte_id, status in rows]


_OF_SOURCE = text(f"""
    SELECT c.id, c.airbyte_connection_id, c.status FROM connections c
    WHERE c.airbyte_source_id = :source AND {LIVE} ORDER BY c.id
""")  # noqa: S608 - no input
