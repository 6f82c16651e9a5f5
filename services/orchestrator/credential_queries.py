"""Queries on credentials: which connections use one, what each source was given, and versions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.credential_documents import CredentialVersion
from shared.models import Connection, ConnectionStatus, CredentialVersionRow
from shared.registry.connections import LIVE

Reaction = Literal["apply", "propose", "ignore"]
_STRICTNESS: Final[tuple[Reaction, ...]] = ("apply", "propose", "ignore")

_IS_LIVE = Connection.archived_at.is_(None) & (
    (Connection.status != ConnectionStatus.FAILED) | Connection.airbyte_connection_id.is_not(None)
)


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
    uses_it = _IS_LIVE & (Connection.credential_id == credential_id)
    their_sources = select(Connection.airbyte_source_id).where(
        uses_it, Connection.airbyte_source_id.is_not(None)
    )
    rows = await session.scalars(
        select(Connection)
        .where(uses_it | (_IS_LIVE & Connection.airbyte_source_id.in_(their_sources)))
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


async def used_among(session: AsyncSession, references: Collection[str]) -> set[str]:
    """Those of the references that a live connection uses."""
    found = await session.scalars(
        select(Connection.credential_id).where(_IS_LIVE, Connection.credential_id.in_(references))
    )
    return {reference for reference in found if reference is not None}


def digests_given(connection: Connection) -> dict[str, str]:
    """By leaf, of what a connection's source was given last; empty where not known."""
    stored = connection.credential_digests
    return {} if stored is None else msgspec.json.decode(stored, type=dict[str, str])


def save_digests(connection: Connection, digests: Mapping[str, str]) -> None:
    """Record what the locked connection's source was given."""
    connection.credential_digests = msgspec.json.encode(digests).decode()


def accept(connection: Connection) -> None:
    """Record that the locked connection's source has the store's credential, and accepts it."""
    connection.credential_changed_at = None
    connection.credential_rejected_since = None
    connection.credential_rejected_cause = None


class _Policy(msgspec.Struct, frozen=True):
    credentials: Reaction = "apply"


async def reactions(session: AsyncSession, uses: Sequence[CredentialUse]) -> dict[UUID, Reaction]:
    """By source, the strictest reaction in the policies of its connections with the credential."""
    found: dict[UUID, Reaction] = {}
    for use in uses:
        if use.airbyte_source_id is None or use.credential_id is None:
            continue
        stored = await registry.find_policy(session, use.connection_id)
        own = msgspec.convert(stored.settings, type=_Policy)
        before = found.get(use.airbyte_source_id, "apply")
        found[use.airbyte_source_id] = max(before, own.credentials, key=_STRICTNESS.index)
    return found


async def credential_of_source(session: AsyncSession, source_id: UUID) -> str | None:
    """The credential that a source was given: that of the oldest live connection that has one."""
    found: str | None = await session.scalar(_OF_SOURCE, {"source": source_id})
    return found


_OF_SOURCE = text(f"""
    SELECT c.credential_id FROM connections c
    WHERE c.airbyte_source_id = :source AND c.credential_id IS NOT NULL AND {LIVE}
    ORDER BY c.created_at, c.id LIMIT 1
""")  # noqa: S608 - no input


async def was_given_since(session: AsyncSession, source_id: UUID, since: datetime) -> bool:
    """Whether AAM has given the source another credential at `since` or later."""
    return bool(await session.scalar(_GIVEN, {"source": source_id, "since": since}))


_GIVEN = text("""
    SELECT EXISTS (
        SELECT FROM operations o JOIN connections c ON c.id = o.connection_id
        WHERE c.airbyte_source_id = :source AND o.kind IN ('rotate', 'edit')
            AND o.status = 'done' AND o.ended_at >= :since
            AND (o.kind = 'rotate' OR o.request->>'credential' IS NOT NULL)
    )
""")


@dataclass(frozen=True, slots=True)
class FailedDiscovery:
    """A discovery that failed."""

    source_id: UUID
    started_at: datetime
    is_newest: bool
    """Whether the source was not discovered since."""


async def failed_discovery(session: AsyncSession, discovery_id: UUID) -> FailedDiscovery | None:
    """A failed discovery; None if there is no such one."""
    row = (await session.execute(_FAILED_DISCOVERY, {"id": discovery_id})).one_or_none()
    return None if row is None else FailedDiscovery(*row)


_FAILED_DISCOVERY = text("""
    SELECT d.airbyte_source_id, d.started_at, NOT EXISTS (
        SELECT FROM discoveries newer
        WHERE newer.airbyte_source_id = d.airbyte_source_id AND newer.purpose <> 'check'
            AND newer.started_at > d.started_at
    )
    FROM discoveries d WHERE d.id = :id AND d.code IS NOT NULL
""")


# Versions


@dataclass(frozen=True, slots=True)
class Watched:
    """A credential that live connections use, and its version at the last comparison."""

    credential_id: str
    version: str | None
    is_due: bool
    """Whether the sources are to be compared again although the version is the same."""
    announced_expiry: datetime | None


async def watched_credentials(
    session: AsyncSession, *, after: str, limit: int
) -> Sequence[Watched]:
    """The credentials of live connections with a source, in the order of their ids."""
    rows = await session.execute(_WATCHED, {"after": after, "limit": limit})
    return [Watched(*row) for row in rows]


_WATCHED = text(f"""
    SELECT used.id, v.version, coalesce(v.compare_again_at <= now(), false), v.announced_expiry
    FROM (
        SELECT DISTINCT c.credential_id AS id FROM connections c
        WHERE c.credential_id > :after AND c.airbyte_source_id IS NOT NULL AND {LIVE}
        ORDER BY id LIMIT :limit
    ) used LEFT JOIN credential_versions v ON v.credential_id = used.id
    ORDER BY used.id
""")  # noqa: S608 - no input


async def version_not_due(session: AsyncSession, credential_id: str) -> str | None:
    """The version that not every source could be given, unless they are to be compared again now.

    None also if there is no such version.
    """
    found: str | None = await session.scalar(_NOT_DUE, {"id": credential_id})
    return found


_NOT_DUE = text("""
    SELECT version FROM credential_versions WHERE credential_id = :id AND compare_again_at > now()
""")


async def save_version(
    session: AsyncSession, seen: CredentialVersion, *, compare_again_at: datetime | None
) -> None:
    """Record that the sources were compared with this version."""
    values = {"version": seen.version, "compare_again_at": compare_again_at}
    await session.execute(
        insert(CredentialVersionRow)
        .values(credential_id=seen.credential_id, **values)
        .on_conflict_do_update(index_elements=[CredentialVersionRow.credential_id], set_=values)
    )


async def save_announced(session: AsyncSession, seen: CredentialVersion) -> bool:
    """Record that the expiry is announced; False if it was already."""
    values = {"announced_expiry": seen.expires_at}
    written = await session.scalar(
        insert(CredentialVersionRow)
        .values(credential_id=seen.credential_id, **values)
        .on_conflict_do_update(
            index_elements=[CredentialVersionRow.credential_id],
            set_=values,
            where=CredentialVersionRow.announced_expiry.is_distinct_from(seen.expires_at),
        )
        .returning(CredentialVersionRow.credential_id)
    )
    return written is not None


async def forget_unused(session: AsyncSession) -> None:
    """Delete the versions of credentials that no live connection uses."""
    used = select(Connection.id).where(
        Connection.credential_id == CredentialVersionRow.credential_id,
        Connection.archived_at.is_(None),
    )
    await session.execute(delete(CredentialVersionRow).where(~used.exists()))


async def end_rejections(session: AsyncSession) -> Collection[UUID]:
    """End the rejections of sources that were discovered since; the connections."""
    ended = (await session.scalars(_END_REJECTIONS)).all()
    registry.mark_changed(session, ended)
    return ended


_END_REJECTIONS = text("""
    UPDATE connections c
    SET credential_rejected_since = NULL, credential_rejected_cause = NULL, updated_at = now()
    WHERE c.credential_rejected_since IS NOT NULL AND EXISTS (
        SELECT FROM discoveries d
        WHERE d.airbyte_source_id = c.airbyte_source_id AND d.code IS NULL
            AND d.started_at > c.credential_rejected_since AND d.ended_at IS NOT NULL
    )
    RETURNING c.id
""")
