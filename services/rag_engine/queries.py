"""Queries for people's decisions about removed fields and streams."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import Conflict
from shared.models import Knowledge
from shared.registry.paging import Cursor, after_cursor, page, stamp


class Decided(NamedTuple):
    """A decision as evidence; paths are JSON text."""

    entity: str
    namespace: str | None
    stream: str
    removed: str
    became: str | None
    verdict: str
    connection_id: UUID | None


async def learn(session: AsyncSession, decision: Knowledge) -> bool:
    """Store a decision; return False if it is stored already.

    Raises:
        Conflict: another decision has this id.
    """
    row = {name: getattr(decision, name) for name in _COLUMNS}
    if decision.created_at is not None:
        row["created_at"] = decision.created_at
    inserted = await session.scalar(
        insert(Knowledge).values(row).on_conflict_do_nothing().returning(Knowledge.id)
    )
    if inserted is not None:
        return True
    if not await session.scalar(_IS_THE_SAME, row):
        raise Conflict(
            f"Decision {decision.id} is already recorded, with different content.",
            code="decision_differs",
        )
    return False


_COLUMNS = (
    "id", "source_type", "entity", "namespace", "stream", "removed", "became", "verdict",
    "removed_schema", "added_schema", "connection_id", "decided_by",
    "requested_by", "reason",
)  # fmt: skip
_IS_THE_SAME = text("""
    SELECT EXISTS (
        SELECT FROM knowledge
        WHERE id = :id AND source_type = :source_type AND entity = :entity AND stream = :stream
            AND namespace IS NOT DISTINCT FROM :namespace AND verdict = :verdict
            AND removed = CAST(:removed AS jsonb)
            AND became IS NOT DISTINCT FROM CAST(:became AS jsonb)
    )
""")


async def decisions_about(
    session: AsyncSession,
    *,
    source_type: str,
    entity: str,
    stream: str,
    connection_id: UUID | None,
    removed: Collection[str],
    names: Sequence[str],
    limit: int,
) -> Sequence[Decided]:
    """The decisions for a source type about these paths, and about similar names; newest first.

    If there are more than `limit`, decisions about these paths in `stream` take precedence, then
    those of the connection or without a connection, then newer ones. `stream` is empty if the
    question is about streams.

    `removed` are paths as JSON text; `names` are the last parts of paths of both sides. Names are
    compared with those of the newest 500 decisions by pg_trgm, or for equality if it is not
    installed.
    """
    parameters = {
        "source_type": source_type,
        "entity": entity,
        "stream": stream,
        "connection": connection_id,
        "removed": list(removed),
        "names": list(names),
        "limit": limit,
    }
    can_compare = await session.scalar(_CAN_COMPARE)
    rows = await session.execute(_SIMILAR if can_compare else _EQUAL, parameters)
    return [Decided(*row) for row in rows]


_CAN_COMPARE = text("SELECT to_regprocedure('word_similarity(text,text)') IS NOT NULL")
_ABOUT = """
    WITH of_type AS NOT MATERIALIZED (
        SELECT id, entity, namespace, stream, removed, became, verdict, connection_id, created_at
        FROM knowledge
        WHERE source_type = :source_type AND entity = :entity
    ), newest AS (SELECT * FROM of_type ORDER BY created_at DESC, id DESC LIMIT 500)
    SELECT entity, namespace, stream, removed::text, became::text, verdict, connection_id FROM (
        SELECT * FROM (
            SELECT * FROM of_type WHERE removed = ANY({removed})
            UNION
            SELECT * FROM newest WHERE {alike}
        ) about
        ORDER BY
            (removed = ANY({removed}) AND CAST(:stream AS text) IN ('', stream)) DESC,
            coalesce(connection_id = CAST(:connection AS uuid), connection_id IS NULL) DESC,
            created_at DESC, id DESC
        LIMIT :limit
    ) kept
    ORDER BY created_at DESC, id DESC
"""
_REMOVED = "CAST(CAST(:removed AS text[]) AS jsonb[])"
_NAMES = "CAST(:names AS text[])"
_EQUAL = text(
    _ABOUT.format(
        removed=_REMOVED,
        alike=f"removed->>-1 = ANY({_NAMES}) OR became->>-1 = ANY({_NAMES})",
    )
)
# The threshold is low, since one common word is enough: `created_on`, `modified_on`.
_JOINED = f"array_to_string({_NAMES}, ' ')"
_SIMILAR = text(
    _ABOUT.format(
        removed=_REMOVED,
        alike=f"word_similarity(removed->>-1, {_JOINED}) >= 0.3"
        f" OR word_similarity(became->>-1, {_JOINED}) >= 0.3",
    )
)


async def page_of_knowledge(
    session: AsyncSession, *, source_type: str | None, cursor: Cursor | None, limit: int
) -> str:
    """A page of decisions as JSON text, newest first; `source_type` None means all types."""
    conditions, parameters = after_cursor(cursor)
    if source_type is not None:
        conditions.append("t.source_type = :source_type")
        parameters["source_type"] = source_type
    statement = page("knowledge", _KNOWLEDGE_JSON, " AND ".join(conditions) or "true")
    found: str = await session.scalar(statement, parameters | {"limit": limit})
    return found


_KNOWLEDGE_JSON = f"""
    json_build_object(
        'decision_id', t.id, 'source_type', t.source_type, 'entity', t.entity,
        'stream', json_build_object('namespace', t.namespace, 'name', t.stream),
        'removed', t.removed, 'became', t.became, 'verdict', t.verdict,
        'decided_by', t.decided_by, 'requested_by', t.requested_by, 'reason', t.reason,
        'connection_id', t.connection_id,
        'connection_name', (SELECT c.name FROM connections c WHERE c.id = t.connection_id),
        'created_at', {stamp("t.created_at")}
    )
"""  # noqa: S608 - no input
