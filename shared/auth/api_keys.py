"""API keys, `aam_<env>_<id>_<secret>`: shown once, stored as a SHA-256 digest.

The secret has 256 random bits, so a fast hash is enough: brute force is infeasible.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.auth.scopes import Caller, Scope
from shared.database import Database
from shared.errors import Invalid, Unavailable, UpstreamUnknown

FORM = re.compile(r"aam_[a-z0-9]{1,16}_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_ALPHABET = string.ascii_lowercase + string.digits
_NO_DIGEST = bytes(32)
"""Compared against if no key has the id, so that the response takes as long."""
_REMEMBERED_S = 4.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class NewKey:
    """A key in plain text: shown once, never stored."""

    id: str
    key: str

    @property
    def digest(self) -> bytes:
        """The SHA-256 that is stored instead of the key."""
        return hashlib.sha256(self.key.encode()).digest()


def new_key(environment: str) -> NewKey:
    """Generate a key; `environment` is a word in it that shows where the key belongs."""
    id_ = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return NewKey(id_, f"aam_{environment}_{id_}_{secrets.token_urlsafe(32)}")


def parse_key(text: str) -> NewKey | None:
    """Parse a key; None if it is malformed."""
    form = FORM.fullmatch(text)
    return None if form is None else NewKey(form[1], text)


async def make_key(
    session: AsyncSession,
    *,
    environment: str,
    owner: str,
    scopes: Sequence[str],
    created_by: str,
    expires_at: datetime | None = None,
    labels: Mapping[str, str] | None = None,
) -> NewKey:
    """Generate a key and record it; with `labels`, it is limited to connections that have them.

    Raises:
        Invalid: it would be limited and have the scope `admin`, which spans the installation.
    """
    if labels and Scope.ADMIN in scopes:
        raise Invalid.of(
            "scopes",
            "A key that is limited by labels cannot have the scope admin.",
            code="admin_not_limited",
        )
    made = new_key(environment)
    await record_key(
        session,
        made,
        owner=owner,
        scopes=scopes,
        created_by=created_by,
        expires_at=expires_at,
        labels=labels,
    )
    return made


async def record_key(
    session: AsyncSession,
    key: NewKey,
    *,
    owner: str,
    scopes: Sequence[str],
    created_by: str,
    expires_at: datetime | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Record a key by its digest."""
    await registry.insert_key(
        session,
        id_=key.id,
        digest=key.digest,
        owner=owner,
        scopes=scopes,
        created_by=created_by,
        expires_at=expires_at,
        labels=labels or {},
    )


class KeyRing:
    """Authenticates callers by API key; registry results are cached for four seconds."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: dict[str, tuple[float, registry.LiveKey]] = {}

    async def caller(self, presented: str) -> Caller | None:
        """The owner of a key; None if it is malformed, unknown, expired or revoked.

        Raises:
            Unavailable: the registry is unavailable, and the key is not cached.
        """
        form = FORM.fullmatch(presented)
        if form is None:
            return None
        digest = hashlib.sha256(presented.encode()).digest()
        known = self._remembered(form[1])
        if known is None or not hmac.compare_digest(digest, known.digest):
            # One query for every wrong key, whether or not its id exists.
            known = await self._live(form[1], digest)
        if known is None:
            return None
        if not known.is_used_lately:
            await self._used(form[1], known)
        name = f"{known.owner} (key {form[1]})"
        return Caller(
            f"key:{form[1]}",
            name,
            known.scopes,
            owner=known.owner,
            expires_at=known.expires_at,
            labels=known.labels,
        )

    async def any(self) -> bool:
        """Whether any valid key exists.

        Raises:
            Unavailable: the registry is unavailable.
        """
        async with self._db.read() as session:
            return await registry.has_valid_key(session)

    def _remembered(self, id_: str) -> registry.LiveKey | None:
        until, known = self._seen.get(id_, (0.0, None))
        return known if monotonic() < until else None

    async def _live(self, id_: str, digest: bytes) -> registry.LiveKey | None:
        """The valid key with this id and digest, read from the registry."""
        asked_at = monotonic()  # the cached entry is as old as the query
        async with self._db.read() as session:
            known = await registry.find_key(session, id_)
        is_right = hmac.compare_digest(digest, _NO_DIGEST if known is None else known.digest)
        if known is None or not is_right:
            return None
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        left_s = _REMEMBERED_S if known.expires_in is None else known.expires_in
        self._seen[id_] = (asked_at + min(_REMEMBERED_S, left_s), known)
        return known

    async def _used(self, id_: str, known: registry.LiveKey) -> None:
        """Record that a key was used, at most once a minute."""
        until, _ = self._seen[id_]
        self._seen[id_] = (until, replace(known, is_used_lately=True))
        with suppress(Unavailable, UpstreamUnknown):  # recorded with the next use
            async with self._db.transaction() as session:
                await registry.use_key(session, id_)
