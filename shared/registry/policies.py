"""Policies of connections, and which fields they never select."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import Exclusions
from shared.models import Policy
from shared.registry.setting_changes import SAME


async def find_policy(session: AsyncSession, connection_id: UUID) -> Policy | None:
    """What a connection's policy says differently; None where it is the default.

    A connection that is imported again has the policy from before it was archived, until its own is
    set: who may archive and import is not who may change a policy.
    """
    found = await session.scalars(_POLICY, {"id": connection_id})
    return found.one_or_none()


_POLICY = select(Policy).from_statement(
    text(f"""
        SELECT p.* FROM policies p JOIN ({SAME}) same ON same.id = p.connection_id
        ORDER BY same.archived_at DESC NULLS FIRST LIMIT 1
    """)  # noqa: S608 (a text of ours)
)


async def exclusions_of(session: AsyncSession, connection_id: UUID) -> Exclusions:
    """What the policy of a connection never selects; the default where it has none."""
    stored = await find_policy(session, connection_id)
    return Exclusions.read(None if stored is None else stored.policy)
