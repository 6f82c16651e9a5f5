"""Queries about connections whose settings are edited."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import exists, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import NameTaken
from shared.models import Connection, ConnectionStatus


async def expect_free(session: AsyncSession, connection_id: UUID, name: str) -> None:
    """Check that no other live connection has a name.

    Raises:
        NameTaken: another one has it.
    """
    other = exists().where(
        Connection.id != connection_id,
        Connection.name == name,
        Connection.archived_at.is_(None),
        (Connection.status != ConnectionStatus.FAILED)
        | Connection.airbyte_connection_id.is_not(None),
    )
    if await session.scalar(select(other)):
        raise NameTaken("Another connection already has this name.")


async def rename(session: AsyncSession, connection: Connection, name: str) -> None:
    """Rename the locked connection; an onboarding may have taken the name in the meantime.

    Raises:
        NameTaken: another live connection has it; the rest of the transaction is unaffected.
    """
    try:
        async with session.begin_nested():
            connection.name = name
            await session.flush()
    except IntegrityError:
        raise NameTaken("Another connection already has this name.") from None


async def pausing_repair(session: AsyncSession, connection_id: UUID) -> UUID | None:
    """The open repair with a change that pauses the connection until a decision; None without."""
    found: UUID | None = await session.scalar(_PAUSING, {"connection_id": connection_id})
    return found


_PAUSING = text("""
    SELECT id FROM repairs
    WHERE connection_id = :connection_id AND state = 'proposed'
        AND summary->'by_reaction'->'pause' IS NOT NULL
""")


async def others_of_source(
    session: AsyncSession, connection_id: UUID, airbyte_source_id: UUID
) -> Sequence[UUID]:
    """The other live connections that use a source, oldest first."""
    found = await session.scalars(
        select(Connection.id)
        .where(
            Connection.id != connection_id,
            Connection.airbyte_source_id == airbyte_source_id,
            Connection.archived_at.is_(None),
        )
        .order_by(Connection.created_at, Connection.id)
    )
    return found.all()
