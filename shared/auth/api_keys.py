"""Keys of callers: `aam_<env>_<id>_<secret>`, told once, kept as a SHA-256 that cannot be undone.

The secret has 256 random bits, so a fast hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.auth.scopes import Caller
from shared.database import Database
from shared.errors import Unavailable, UpstreamUnknown

FORM = re.compile(r"aam_[a-z0-9]{1,16}_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_ALPHABET = string.ascii_lowercase + string.digits
_NO_DIGEST = bytes(32)
"""Compared with where nobody has an id, which takes as long."""
_REMEMBERED_S = 4.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class NewKey:
    """A key in clear: shown once, and nowhere kept."""

    id: str
    key: str

    @property
    def digest(self) -> bytes:
        """What is kept of it."""
        return hashlib.sha256(self.key.encode()).digest()


def new_key(environment: str) -> NewKey:
    """Draw a key; `environment` is a word in it that tells people where it belongs."""
    id_ = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return NewKey(id_, f"aam_{environment}_{id_}_{secrets.token_urlsafe(32)}")


async def make_key(
    session: AsyncSession,
    *,
    environment: str,
    owner: str,
    scopes: Sequence[str],
    created_by: str,
    expires_at: datetime | None = None,
) -> NewKey:
    """Draw a key and record it."""
    made = new_key(environment)
    await registry.insert_key(
        session,
        id_=made.id,
        digest=made.digest,
        owner=owner,
        scopes=scopes,
        created_by=created_by,
        expires_at=expires_at,
    )
    return made


class KeyRing:
    """Who has a key; what the registry said is taken for true for four seconds."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: dict[str, tuple[float, registry.LiveKey]] = {}

    async def caller(self, presented: str) -> Caller | None:
        """Whose key it is; None for one that is no key, unknown, expired or revoked.

        Raises:
            Unavailable: the registry is away, and this key was not seen lately.
        """
        form = FORM.fullmatch(presented)
        if form is None:
            return None
        digest = hashlib.sha256(presented.encode()).digest()
        known = self._remembered(form[1])
        if known is None or not hmac.compare_digest(digest, known.digest):
            # One query for every wrong key, whether or not somebody has its id.
            known = await self._live(form[1], digest)
        if known is None:
            return None
        if not known.is_used_lately:
            await self._used(form[1], known)
        return Caller(f"key:{form[1]}", f"{known.owner} (key {form[1]})", known.scopes)

    async def any(self) -> bool:
        """Whether anybody has a key.

        Raises:
            Unavailable: the registry is away.
        """
        async with self._db.read() as session:
            return await registry.any_key(session)

    def _remembered(self, id_: str) -> registry.LiveKey | None:
        until, known = self._seen.get(id_, (0.0, None))
        return known if monotonic() < until else None

    async def _live(self, id_: str, digest: bytes) -> registry.LiveKey | None:
        """The live key of this id and digest, as the registry has it now."""
        asked_at = monotonic()  # what is remembered is as old as the question
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
        """Record that a key was used, where that is not known to the minute already."""
        until, _ = self._seen[id_]
        self._seen[id_] = (until, replace(known, is_used_lately=True))
        with suppress(Unavailable, UpstreamUnknown):  # the next minute tells it
            async with self._db.transaction() as session:
                await registry.use_key(session, id_)
