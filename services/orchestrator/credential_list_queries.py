"""Queries for lists about credentials: which are used by what, and who read which; no values."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.registry import Position, page, stamp

_MOST_CONNECTIONS: Final = 20
# As `credential_queries.credential_uses`: an onboarding that failed uses nothing any more.
_USED: Final = """
    {0}.credential_id IS NOT NULL AND {0}.archived_at IS NULL
    AND ({0}.status <> 'FAILED' OR {0}.airbyte_connection_id IS NOT NULL)
"""


async def page_of_credentials(
    session: AsyncSession, *, is_rejected: bool | None, after: str | None, limit: int
) -> str:
    """A page of the references of credentials in use as JSON text, in their order.

    `after` is the last reference of the previous page.
    """
    found: str = (
        await session.execute(
            _CREDENTIALS, {"after": after or "", "rejected": is_rejected, "limit": limit}
        )
    ).scalar_one()
    return found


_CREDENTIALS = text(f"""
    WITH page AS (
        SELECT DISTINCT c.credential_id AS id FROM connections c
        WHERE c.credential_id > :after AND {_USED.format("c")}
            AND (CAST(:rejected AS boolean) IS NULL OR CAST(:rejected AS boolean) = EXISTS (
                SELECT FROM connections other
                WHERE other.credential_id = c.credential_id AND {_USED.format("other")}
                    AND other.credential_rejected_since IS NOT NULL
            ))
        ORDER BY id LIMIT :limit + 1
    ), kept AS (
        SELECT id FROM page ORDER BY id LIMIT :limit
    ), credential AS (
        SELECT kept.id, count(*) AS connections,
            array_agg(DISTINCT c.source_type) AS source_types,
            min(c.credential_rejected_since) AS rejected_since,
            max(c.credential_rejected_cause) AS rejected_cause,
            min(c.credential_changed_at) AS changed_at,
            max((
                SELECT e.at FROM timeline_events e
                WHERE e.connection_id = c.id AND e.type = 'credential.rotated'
                ORDER BY e.at DESC LIMIT 1
            )) AS rotated_at
        FROM kept JOIN connections c ON c.credential_id = kept.id
        WHERE {_USED.format("c")}
        GROUP BY kept.id
    )
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(json_build_object(
                'credential_id', t.id,
                'store', CASE WHEN strpos(t.id, ':') > 0 THEN split_part(t.id, ':', 1) END,
                'state', CASE WHEN t.rejected_since IS NOT NULL THEN 'rejected'
                    WHEN t.changed_at IS NOT NULL THEN 'changed' ELSE 'in_step' END,
                'rejected_since', {stamp("t.rejected_since")},
                'rejected_cause', t.rejected_cause,
                'changed_at', {stamp("t.changed_at")}, 'rotated_at', {stamp("t.rotated_at")},
                'expires_at', {stamp("v.announced_expiry")},
                'source_types', t.source_types, 'connection_count', t.connections,
                'connections', (
                    SELECT json_agg(json_build_object(
                        'connection_id', c.id, 'name', c.name, 'source_type', c.source_type,
                        'rejected_since', {stamp("c.credential_rejected_since")},
                        'changed_at', {stamp("c.credential_changed_at")}
                    ) ORDER BY c.name, c.id)
                    FROM (
                        SELECT c.* FROM connections c
                        WHERE c.credential_id = t.id AND {_USED.format("c")}
                        ORDER BY c.name, c.id LIMIT {_MOST_CONNECTIONS}
                    ) c
                )
            ) ORDER BY t.id)
            FROM credential t LEFT JOIN credential_versions v ON v.credential_id = t.id
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit
            THEN (SELECT max(id) FROM kept) END
    )::text
""")  # noqa: S608 - no input

_READ = f"""
    json_build_object(
        'at', {stamp("t.at")}, 'reader', t.caller, 'credential_id', t.credential_id,
        'source_type', t.source_type, 'result', t.result, 'request_id', t.request_id
    )
"""
# The id of the token is left out, and the orchestrator may not read it.
_READS = """(
    SELECT id, at, caller, credential_id, source_type, result, request_id FROM credential_audit
)"""


async def page_of_reads(
    session: AsyncSession,
    *,
    credential_id: str | None,
    reader: str | None,
    after: Position | None,
    limit: int,
) -> str:
    """A page of who requested which credential as JSON text, newest first; never a value.

    The id of `after` is a number.
    """
    conditions = []
    parameters: dict[str, object] = {"limit": limit}
    if credential_id is not None:
        conditions.append("t.credential_id = :credential_id")
        parameters["credential_id"] = credential_id
    if reader is not None:
        conditions.append("t.caller = :reader")
        parameters["reader"] = reader
    if after is not None:
        conditions.append("(t.at, t.id) < (:after_at, :after_id)")
        parameters |= {"after_at": after[0], "after_id": int(after[1])}
    statement = page(_READS, _READ, " AND ".join(conditions) or "true", at="at")
    found: str = await session.scalar(statement, parameters)
    return found
