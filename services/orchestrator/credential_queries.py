"""Queries on which connections use a credential, and on what each source was given of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import Connection, ConnectionStatus


@dataclass(frozen=True, slots=True)
class CredentialUse:
    """A live connection that is affected by a credential's rotation."""

    connection_id: UUID
    name: str
    source_type: str
    credential_id: str | None
    """None, or another one, where it shares the source of a connection that uses the credential."""
    airbyte_source_id: UUID | None
    """None while it is being onboarded."""
    digests: Mapping[str, str]
    """By leaf, of what the source was given last; empty where not known."""
    configuration: Mapping[str, Any]
    """The part of its source's configuration that is not in the credential."""


async def credential_uses(session: AsyncSession, credential_id: str) -> list[CredentialUse]:
    """The live connections that use a credential, or a source that does; oldest first."""
    is_live = Connection.archived_at.is_(None) & (
        (Connection.status != ConnectionStatus.FAILED)
        | Connection.airbyte_connection_id.is_not(None)
    )
    uses_it = is_live & (Connection.credential_id == credential_id)
    their_sources = select(Connection.airbyte_source_id).where(
        uses_it, Connection.airbyte_source_id.is_not(None)
    )
    rows = await session.scalars(
        select(Connection)
        .where(uses_it | (is_live & Connection.airbyte_source_id.in_(their_sources)))
        .order_by(Connection.created_at, Connection.id)
    )
    return [
        CredentialUse(
            connection_id=row.id,
            name=row.name,
            source_type=row.source_type,
            credential_id=row.credential_id,
            airbyte_source_id=row.airbyte_source_id,
            digests=digests_given(row),
            configuration=msgspec.json.decode(row.source_configuration or "{}"),
        )
        for row in rows
    ]


def digests_given(connection: Connection) -> dict[str, str]:
    """By leaf, of what a connection's source was given last; empty where not known."""
    stored = connection.credential_digests
    return {} if stored is None else msgspec.json.decode(stored, type=dict[str, str])


def save_digests(connection: Connection, digests: Mapping[str, str]) -> None:
    """Record what the locked connection's source was given."""
    connection.credential_digests = msgspec.json.encode(digests).decode()
