"""Queries for the Airbyte workspaces that AAM uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.registry.connections import LIVE


class Load(NamedTuple):
    """The connections of a workspace, and the observations of their sources."""

    workspace_id: UUID
    connections: int
    """Connections that are not archived."""
    running: int
    """Slots of the workspace's limit of concurrent discoveries that are in use."""
    due: int
    """Sources whose observation is due and has not begun."""


async def loads(session: AsyncSession, default: UUID) -> Sequence[Load]:
    """The load of the default workspace, and of each that a connection uses."""
    return [Load(*row) for row in await session.execute(_LOADS, {"default": default})]


# Due and claimed as the schema_observer counts them when it claims sources.
_LOADS = text(f"""
    WITH used AS (
        SELECT airbyte_workspace_id AS id, count(*) AS connections FROM connections
        WHERE archived_at IS NULL AND airbyte_workspace_id IS NOT NULL
        GROUP BY airbyte_workspace_id
    ), listed AS (
        SELECT id FROM used UNION SELECT CAST(:default AS uuid)
    ), load AS (
        SELECT o.airbyte_workspace_id AS id,
            count(DISTINCT o.claimed_by) FILTER (WHERE o.claimed_until > now()) AS running,
            count(*) FILTER (
                WHERE o.next_at <= now() AND (o.claimed_until IS NULL OR o.claimed_until <= now())
            ) AS due
        FROM observations o
        WHERE EXISTS (
            SELECT FROM connections c WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE}
        )
        GROUP BY o.airbyte_workspace_id
    )
    SELECT listed.id, coalesce(used.connections, 0), coalesce(load.running, 0),
        coalesce(load.due, 0)
    FROM listed LEFT JOIN used USING (id) LEFT JOIN load USING (id)
""")  # noqa: S608 - no input


async def used_workspaces(session: AsyncSession) -> set[UUID]:
    """The workspaces in which AAM has created something.

    A connection has its workspace from the moment its onboarding is recorded, and even after it
    failed or was archived; so has a preview whose source may still be in Airbyte.
    """
    return set(await session.scalars(_USED))


_USED = text("""
    SELECT airbyte_workspace_id FROM connections WHERE airbyte_workspace_id IS NOT NULL
    UNION
    SELECT airbyte_workspace_id FROM source_trials
    WHERE is_left AND airbyte_workspace_id IS NOT NULL
""")


async def live_workspaces(session: AsyncSession) -> Sequence[UUID]:
    """The workspaces of connections that are not archived; one index lookup for each."""
    return list(await session.scalars(_LIVE_WORKSPACES))


_LIVE_WORKSPACES = text("""
    WITH RECURSIVE found AS (
        (
            SELECT airbyte_workspace_id AS id FROM connections
            WHERE airbyte_workspace_id IS NOT NULL AND archived_at IS NULL
            ORDER BY airbyte_workspace_id LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT c.airbyte_workspace_id FROM connections c
            WHERE c.airbyte_workspace_id > found.id AND c.archived_at IS NULL
            ORDER BY c.airbyte_workspace_id LIMIT 1
        ) FROM found WHERE found.id IS NOT NULL
    )
    SELECT id FROM found WHERE id IS NOT NULL
""")
