"""Queries on the schedule of the connectors' version checks, and on one connector."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.registry.connections import LIVE
from shared.registry.connectors import CONNECTOR_JSON


async def enrol_connectors(session: AsyncSession, *, within: timedelta) -> None:
    """Schedule the connector of each source of a live connection, the first time within `within`.

    The connector of a source without any connection is deleted after an hour: one that is being
    onboarded has a source before its connection names it.
    """
    await session.execute(_ENROL, {"within": within.total_seconds()})
    await session.execute(_FORGET)


_ENROL = text(f"""
    INSERT INTO source_connectors (airbyte_source_id, next_at)
    SELECT DISTINCT c.airbyte_source_id, now() + make_interval(secs => random() * :within)
    FROM connections c
    WHERE c.airbyte_source_id IS NOT NULL AND {LIVE} AND NOT EXISTS (
        SELECT FROM source_connectors known WHERE known.airbyte_source_id = c.airbyte_source_id
    )
    ON CONFLICT (airbyte_source_id) DO NOTHING
""")  # noqa: S608 - no input
_FORGET = text("""
    DELETE FROM source_connectors k
    WHERE coalesce(k.checked_at, k.next_at) < now() - interval '1 hour' AND NOT EXISTS (
        SELECT FROM connections c
        WHERE c.airbyte_source_id = k.airbyte_source_id AND c.archived_at IS NULL
    )
""")


async def claim_connectors(
    session: AsyncSession, *, limit: int, again_after: timedelta
) -> Sequence[UUID]:
    """The sources whose connectors are due; they are due again after `again_after`, if not read."""
    rows = await session.scalars(_CLAIM, {"limit": limit, "again_after": again_after})
    return rows.all()


_CLAIM = text(f"""
    UPDATE source_connectors SET next_at = now() + CAST(:again_after AS interval)
    WHERE airbyte_source_id = ANY (ARRAY(
        SELECT k.airbyte_source_id FROM source_connectors k
        WHERE k.next_at <= now() AND EXISTS (
            SELECT FROM connections c WHERE c.airbyte_source_id = k.airbyte_source_id AND {LIVE}
        )
        ORDER BY k.next_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    RETURNING airbyte_source_id
""")  # noqa: S608 - no input


async def connector_json(session: AsyncSession, connection_id: UUID) -> str | None:
    """The connector of a connection's source as JSON text; None if it was never read."""
    found: str | None = await session.scalar(_CONNECTOR, {"id": connection_id})
    return found


_CONNECTOR = text(f"""
    SELECT (jsonb_build_object('connection_id', c.id) || CAST({CONNECTOR_JSON} AS jsonb))::text
    FROM connections c JOIN source_connectors k ON k.airbyte_source_id = c.airbyte_source_id
    WHERE c.id = :id AND k.version IS NOT NULL
""")  # noqa: S608 - no input
