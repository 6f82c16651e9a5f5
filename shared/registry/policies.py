"""Policies of connections, and the fields they exclude."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import Exclusions
from shared.models import Policy
from shared.registry.setting_changes import SAME


async def find_policy(session: AsyncSession, connection_id: UUID) -> Policy | None:
    """A connection's policy overrides; None if it has the default policy.

    A connection that is imported again keeps its policy from before it was archived, until a new
    one is set: archiving and importing must not change a policy without the scope for it.
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
    """The fields that a connection's policy excludes; the default if it has no policy."""
    stored = await find_policy(session, connection_id)
    return Exclusions.read(None if stored is None else stored.policy)
