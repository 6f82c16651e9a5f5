"""Queries for groups: the same change in the proposals of several connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# A change is the same if its kind, stream, path and types are; its id hashes them.
_WAITING = """
    SELECT c.source_type, r.id AS repair_id, r.connection_id, c.name AS connection_name,
        r.created_at, change, encode(sha256(convert_to(CAST(jsonb_build_array(
            c.source_type, change->'stream', change->'kind', change->'path', change->'before',
            change->'after'
        ) AS text), 'UTF8')), 'hex') AS group_id,
        (
            SELECT renamed->'became' FROM jsonb_array_elements(r.summary->'renames') renamed
            WHERE renamed->'id' = change->'id'
        ) AS became,
        (
            SELECT half FROM jsonb_array_elements(r.changes) half
            WHERE half->'id' = change->'pair'
        ) AS pair
    FROM repairs r JOIN connections c ON c.id = r.connection_id
    CROSS JOIN LATERAL jsonb_array_elements(r.changes) change
    WHERE r.state = 'proposed' AND c.archived_at IS NULL
        -- The other half of a rename is decided with it.
        AND NOT r.summary->'renames' @> jsonb_build_array(jsonb_build_object('pair', change->'id'))
"""
MOST_MEMBERS = 100
"""Most members of a group that a list shows."""


async def page_of_groups(
    session: AsyncSession, *, limit: int, after: tuple[int, str] | None
) -> str:
    """A page of groups as JSON text, those of most connections first.

    `after` is the number of connections and the id of the last group of the previous page.
    """
    count, id_ = after or (None, None)
    parameters = {"limit": limit, "count": count, "id": id_, "members": MOST_MEMBERS}
    found: str = await session.scalar(_PAGE, parameters)
    return found


_PAGE = text(f"""
    WITH waiting AS ({_WAITING}), numbered AS (
        SELECT w.*, row_number() OVER (
            PARTITION BY group_id ORDER BY connection_name, repair_id
        ) AS number FROM waiting w
    ), groups AS (
        SELECT group_id, count(*) AS connections, min(source_type) AS source_type,
            (array_agg(change ORDER BY number))[1] AS change,
            (array_agg(pair ORDER BY number))[1] AS pair,
            -- What it was renamed to, if all repairs propose the same.
            CASE WHEN count(became) = count(*) AND count(DISTINCT became) = 1
                THEN (array_agg(became))[1] END AS became,
            max(CASE change->>'severity' WHEN 'breaking' THEN 2 WHEN 'harmless' THEN 0 ELSE 1 END)
                AS severity,
            json_agg(json_build_object(
                'repair_id', repair_id, 'change_id', change->'id', 'connection_id', connection_id,
                'connection_name', connection_name, 'reaction', change->'reaction',
                'suggested', change->'suggestion'->'became'
            ) ORDER BY number) FILTER (WHERE number <= :members) AS members
        FROM numbered GROUP BY group_id HAVING count(*) > 1
    ), page AS (
        SELECT * FROM groups
        WHERE CAST(:id AS text) IS NULL
            OR connections < CAST(:count AS bigint)
            OR (connections = CAST(:count AS bigint) AND group_id > CAST(:id AS text))
        ORDER BY connections DESC, group_id LIMIT :limit + 1
    ), kept AS (SELECT * FROM page ORDER BY connections DESC, group_id LIMIT :limit)
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(json_build_object(
                'id', group_id, 'source_type', source_type, 'kind', CASE WHEN became IS NULL
                    THEN change->>'kind' ELSE replace(change->>'kind', 'removed', 'renamed') END,
                'became', became, 'change', change,
                'pair', CASE WHEN became IS NOT NULL THEN pair END,
                'stream', change->'stream', 'path', change->'path', 'before', change->'before',
                'after', change->'after',
                'severity', (ARRAY['harmless', 'needs_review', 'breaking'])[severity + 1],
                'connection_count', connections, 'members', members
            ) ORDER BY connections DESC, group_id) FROM kept
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
            SELECT connections || '-' || group_id FROM kept ORDER BY connections, group_id DESC
            LIMIT 1
        ) END
    )::text
""")  # noqa: S608 - constants of ours


class Member(NamedTuple):
    """A proposal to decide."""

    repair_id: UUID
    change_id: str | None = None
    """The group's change in it; None for all of its changes."""


async def members(session: AsyncSession, group_id: str, *, limit: int) -> Sequence[Member]:
    """The proposals with a group's change, the oldest first."""
    rows = await session.execute(_MEMBERS, {"id": group_id, "limit": limit})
    return [Member(*row) for row in rows]


_MEMBERS = text(f"""
    SELECT repair_id, change->>'id' FROM ({_WAITING}) waiting
    WHERE group_id = :id ORDER BY created_at, repair_id LIMIT :limit
""")  # noqa: S608 - constants of ours
