"""The policies of connections, resolved from their layers, and the fields they exclude."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import Exclusions
from shared.domain.policy_layers import LayeredPolicy, PolicyLayer


def layers_of(connection: str, *columns: str) -> str:
    """SQL of the layers that apply to the connection with this alias.

    The nearest is first in the order of `distance, name`, of which `name` has the collation "C":
    of two labels, the one whose name sorts first is nearer. `columns` are those that `policies` and
    `policy_layers` have in common. Its own layer may be that from before it was archived and
    imported again: archiving and importing must not change a policy without the scope for it.
    """
    shared = ", ".join(columns)
    return f"""
        SELECT 0 AS distance, 'connection' AS level, '' COLLATE "C" AS name, '' AS value, {shared}
        FROM policies WHERE connection_id = coalesce(
            (SELECT p.connection_id FROM policies p WHERE p.connection_id = {connection}.id),
            (SELECT earlier.id
             FROM connections earlier JOIN policies p ON p.connection_id = earlier.id
             WHERE {connection}.imported AND earlier.archived_at IS NOT NULL
                AND earlier.airbyte_connection_id = {connection}.airbyte_connection_id
             ORDER BY earlier.archived_at DESC LIMIT 1)
        )
        UNION ALL
        SELECT CASE level WHEN 'label' THEN 1 WHEN 'source_type' THEN 2 ELSE 3 END, level,
            name COLLATE "C", value, {shared}
        FROM policy_layers WHERE (level, name, value) IN (
            SELECT 'label', key, value FROM jsonb_each_text({connection}.labels)
            UNION ALL SELECT 'source_type', {connection}.source_type, ''
            UNION ALL SELECT 'installation', '', ''
        )
    """  # noqa: S608 - constants of ours


async def find_policy(session: AsyncSession, connection_id: UUID) -> LayeredPolicy:
    """A connection's policy; without layers if nothing overrides the default."""
    return await _layered(session, _POLICY, {"id": connection_id})


async def _layered(
    session: AsyncSession, statement: TextClause, parameters: dict[str, Any]
) -> LayeredPolicy:
    rows = await session.execute(statement, parameters)
    return LayeredPolicy(
        tuple(
            PolicyLayer(
                level=row.level,
                name=row.name,
                value=row.value,
                settings=_decoded(row.policy),
                authors=_decoded(row.authors),
                updated_by=row.updated_by,
                requested_by=row.requested_by,
                updated_at=row.updated_at,
            )
            for row in rows
        )
    )


_COLUMNS = (
    "CAST(policy AS text) AS policy",
    "CAST(authors AS text) AS authors",
    "updated_by",
    "requested_by",
    "updated_at",
)
_POLICY = text(f"""
    SELECT layer.* FROM connections c CROSS JOIN LATERAL ({layers_of("c", *_COLUMNS)}) layer
    WHERE c.id = :id ORDER BY layer.distance, layer.name
""")  # noqa: S608 - constants of ours
_POLICY_OF_TYPE = text(f"""
    SELECT layer.* FROM (
        SELECT CAST(NULL AS uuid) AS id, CAST(:source_type AS text) AS source_type,
            CAST('{{}}' AS jsonb) AS labels, false AS imported,
            CAST(NULL AS uuid) AS airbyte_connection_id
    ) c CROSS JOIN LATERAL ({layers_of("c", *_COLUMNS)}) layer
    ORDER BY layer.distance, layer.name
""")  # noqa: S608 - constants of ours


async def exclusions_of(session: AsyncSession, connection_id: UUID) -> Exclusions:
    """The fields that a connection's policy excludes."""
    return Exclusions((await find_policy(session, connection_id)).patterns)


async def exclusions_of_type(session: AsyncSession, source_type: str) -> Exclusions:
    """The fields that the policy of a new connection of this source type excludes."""
    stored = await _layered(session, _POLICY_OF_TYPE, {"source_type": source_type})
    return Exclusions(stored.patterns)


async def lock_policy_layers(session: AsyncSession, *, exclusive: bool = False) -> None:
    """Lock the layers above connections until the transaction ends: shared to use them.

    Whoever changes a layer and has connections planned again holds it exclusively, so that no plan
    by the layer before is written afterwards.
    """
    await session.execute(_LOCK if exclusive else _LOCK_SHARED)


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('aam.policy_layers', 0))")
_LOCK_SHARED = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('aam.policy_layers', 0))")


async def labels_with_policies(session: AsyncSession, labels: set[tuple[str, str]]) -> bool:
    """Whether a policy is set for any of these labels, given as name and value."""
    parameters = {"names": [name for name, _ in labels], "values": [value for _, value in labels]}
    return bool(await session.scalar(_LABELS, parameters))


_LABELS = text("""
    SELECT EXISTS (
        SELECT FROM policy_layers l
        JOIN unnest(CAST(:names AS text[]), CAST(:values AS text[])) given (name, value)
            ON given.name = l.name AND given.value = l.value
        WHERE l.level = 'label'
    )
""")


async def former_labels(session: AsyncSession, connection_id: UUID) -> str:
    """The labels that an imported connection had before it was archived, as JSON text.

    They may have policies, which must not change by archiving and importing.
    """
    found: str | None = await session.scalar(_FORMER, {"id": connection_id})
    return found or "{}"


_FORMER = text("""
    SELECT CAST(earlier.labels AS text) FROM connections one
    JOIN connections earlier ON earlier.airbyte_connection_id = one.airbyte_connection_id
    WHERE one.id = :id AND earlier.id <> one.id AND earlier.archived_at IS NOT NULL
    ORDER BY earlier.archived_at DESC LIMIT 1
""")


def _decoded(stored: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(stored)
    return decoded
