"""API keys: their digests, and how they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.auth import label_limits
from shared.auth.label_limits import Labels
from shared.errors import NotFound
from shared.models import ApiKey
from shared.registry.paging import page, stamp


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key that is neither revoked nor expired."""

    digest: bytes
    owner: str
    scopes: frozenset[str]
    expires_in: float | None
    """Seconds; None for a key that does not expire."""
    expires_at: datetime | None
    is_used_lately: bool
    """Whether a use within the last minute is already recorded."""
    labels: Labels
    """The labels that connections must have for it; empty if it sees all."""


_FIND = text("""
    SELECT digest, owner, scopes, expires_at, CAST(labels AS text) AS labels,
        CAST(extract(epoch FROM expires_at - now()) AS float8) AS left_s,
        coalesce(last_used_at > now() - interval '1 minute', false) AS lately
    FROM api_keys
    WHERE id = :id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
""")
_USE = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")
_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('aam api_keys'))")
_ANY = text("""
    SELECT EXISTS (
        SELECT FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    )
""")
_VIEW = f"""json_build_object(
    'id', t.id, 'owner', t.owner, 'scopes', t.scopes, 'labels', t.labels,
    'created_by', t.created_by,
    'created_at', {stamp("t.created_at")}, 'expires_at', {stamp("t.expires_at")},
    'last_used_at', {stamp("t.last_used_at")}, 'revoked_at', {stamp("t.revoked_at")}
)"""
_READ = text(f"SELECT CAST({_VIEW} AS text) FROM api_keys t WHERE t.id = :id")  # noqa: S608 - no input
_REVOKE = text("""
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id RETURNING id
""")


async def find_key(session: AsyncSession, id_: str) -> LiveKey | None:
    """A valid key by its id; None if there is none."""
    row = (await session.execute(_FIND, {"id": id_})).one_or_none()
    if row is None:
        return None
    return LiveKey(
        row.digest,
        row.owner,
        frozenset(row.scopes),
        row.left_s,
        row.expires_at,
        row.lately,
        label_limits.of_json(row.labels),
    )


async def use_key(session: AsyncSession, id_: str) -> None:
    """Record that a key was used, to the minute."""
    await session.execute(_USE, {"id": id_})


async def lock_key_creation(session: AsyncSession) -> None:
    """Lock until the transaction ends, so that only one caller creates the first key."""
    await session.execute(_ALONE)


async def has_valid_key(session: AsyncSession) -> bool:
    """Whether any valid key exists."""
    return bool(await session.scalar(_ANY))


async def has_key(session: AsyncSession, id_: str) -> bool:
    """Whether a key with this id was ever recorded, whether valid or not."""
    return await session.get(ApiKey, id_) is not None


async def insert_key(
    session: AsyncSession,
    *,
    id_: str,
    digest: bytes,
    owner: str,
    scopes: Sequence[str],
    created_by: str,
    expires_at: datetime | None,
    labels: Mapping[str, str],
) -> None:
    """Record a new key."""
    session.add(
        ApiKey(
            id=id_,
            digest=digest,
            owner=owner,
            scopes=list(scopes),
            created_by=created_by,
            expires_at=expires_at,
            labels=msgspec.json.encode(dict(labels)).decode(),
        )
    )
    await session.flush()


async def page_of_keys(
    session: AsyncSession, *, revoked: bool, after: tuple[datetime, str] | None, limit: int
) -> str:
    """A page of the keys as JSON text, newest first; never a digest."""
    conditions = ["true" if revoked else "t.revoked_at IS NULL"]
    parameters: dict[str, object] = {"limit": limit}
    if after is not None:
        conditions.append("(t.created_at, t.id) < (:after_at, :after_id)")
        parameters["after_at"], parameters["after_id"] = after
    statement = page("api_keys", _VIEW, " AND ".join(conditions))
    found: str = await session.scalar(statement, parameters)
    return found


async def key_json(session: AsyncSession, id_: str) -> str:
    """One key, as JSON.

    Raises:
        NotFound: there is no such key.
    """
    found = await session.scalar(_READ, {"id": id_})
    if found is None:
        raise NotFound("No key has this id.")
    return str(found)


async def revoke_key(session: AsyncSession, id_: str) -> None:
    """Revoke a key permanently; no effect if it is already revoked.

    Raises:
        NotFound: there is no such key.
    """
    if await session.scalar(_REVOKE, {"id": id_}) is None:
        raise NotFound("No key has this id.")
