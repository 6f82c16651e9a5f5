"""Queries for policies: those of connections, source types, labels and the installation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.auth import scopes
from shared.domain.policy_layers import PolicyLayer
from shared.models import Policy, PolicyLayerRow
from shared.registry.paging import Cursor, after_cursor, page, stamp


class Place(NamedTuple):
    """Which layer: the installation's, that of a source type, or that of a label."""

    level: Literal["installation", "source_type", "label"]
    name: str = ""
    """The source type, or the name of the label."""
    value: str = ""
    """The value of the label."""


async def find_layer(session: AsyncSession, place: Place) -> PolicyLayer:
    """A layer; without settings if it is not set."""
    row = await session.scalar(select(PolicyLayerRow).where(*_at(place)))
    if row is None:
        return PolicyLayer(place.level, {}, place.name, place.value)
    return PolicyLayer(
        place.level,
        msgspec.json.decode(row.policy),
        place.name,
        place.value,
        msgspec.json.decode(row.authors),
        row.updated_by,
        row.requested_by,
        row.updated_at,
    )


async def put_policy(
    session: AsyncSession, connection_id: UUID, policy: str, *, authors: str, by: str | None
) -> None:
    """Replace a connection's policy, and record who set each of its entries.

    `policy` and `authors` are JSON text; `by` is the person that the caller named, or None.
    """
    written = _written(policy, authors, by)
    await session.execute(
        insert(Policy)
        .values(connection_id=connection_id, **written)
        .on_conflict_do_update(index_elements=[Policy.connection_id], set_=written)
    )


def _written(policy: str, authors: str, by: str | None) -> dict[str, Any]:
    return {
        "policy": policy,
        "authors": authors,
        "updated_by": scopes.named(by),
        "requested_by": scopes.requested_by(),
        "updated_at": func.now(),
    }


async def put_layer(
    session: AsyncSession, place: Place, policy: str, *, authors: str, by: str | None
) -> None:
    """Replace a layer, and record who set each of its entries.

    `policy` and `authors` are JSON text; `by` is the person that the caller named, or None.
    """
    written = _written(policy, authors, by)
    await session.execute(
        insert(PolicyLayerRow)
        .values(**place._asdict(), **written)
        .on_conflict_do_update(
            index_elements=[PolicyLayerRow.level, PolicyLayerRow.name, PolicyLayerRow.value],
            set_=written,
        )
    )


async def delete_layer(session: AsyncSession, place: Place) -> bool:
    """Delete a layer; whether it was set."""
    deleted = delete(PolicyLayerRow).where(*_at(place)).returning(PolicyLayerRow.id)
    return await session.scalar(deleted) is not None


async def page_of_layers(session: AsyncSession, *, limit: int, after: Cursor | None) -> str:
    """A page of the layers that are set as JSON text, newest first."""
    conditions, parameters = after_cursor(after)
    statement = page("policy_layers", _LAYER, " AND ".join(conditions) or "true")
    found: str = await session.scalar(statement, parameters | {"limit": limit})
    return found


_LAYER = f"""
    json_build_object(
        'level', t.level, 'name', nullif(t.name, ''), 'value', nullif(t.value, ''),
        'policy', t.policy, 'updated_by', t.updated_by, 'requested_by', t.requested_by,
        'updated_at', {stamp("t.updated_at")}
    )
"""


async def forget_plans(session: AsyncSession, place: Place) -> Sequence[UUID]:
    """Have the connections that a layer applies to planned again by the next periodic run.

    Returns those with a proposal, which is worth planning again at once.
    """
    rows = await session.scalars(_FORGET, place._asdict())
    return rows.all()


_FORGET = text("""
    WITH affected AS (
        SELECT c.id FROM connections c
        WHERE c.archived_at IS NULL AND CASE CAST(:level AS text)
            WHEN 'label' THEN c.labels->>CAST(:name AS text) = CAST(:value AS text)
            WHEN 'source_type' THEN c.source_type = CAST(:name AS text)
            ELSE true
        END
    ), forgotten AS (
        DELETE FROM plans WHERE connection_id IN (SELECT id FROM affected)
    )
    SELECT connection_id FROM repairs
    WHERE state = 'proposed' AND connection_id IN (SELECT id FROM affected)
""")


def _at(place: Place) -> tuple[ColumnElement[bool], ...]:
    return (
        PolicyLayerRow.level == place.level,
        PolicyLayerRow.name == place.name,
        PolicyLayerRow.value == place.value,
    )
