"""Sessions: a person's credential in an encrypted cookie, so that no replica stores anything.

The credential is the caller's own, and every call is made with it: revoking it ends the session.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

import msgspec
from pydantic import SecretStr

from services.console.sealing import SealingKeys

_PURPOSE: Final = b"aam console sessions"
_CSRF_BYTES: Final = 16
_SEEN_EVERY_S: Final = 60
"""Resolution of `seen_at`: a session is written at most once within this time."""


class Session(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One person's session; without a credential, that of somebody who has yet to sign in."""

    csrf: bytes
    issued_at: int
    seen_at: int
    kind: Literal["anonymous", "key", "oidc"] = "anonymous"
    credential: str = ""
    caller_id: str = ""
    owner: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: int | None = None
    """When the credential itself ends; None if it does not."""

    def __repr__(self) -> str:
        """Whose session it is, never the credential."""
        return f"Session({self.kind}, {self.caller_id!r})"

    @property
    def is_signed_in(self) -> bool:
        """Whether it has a credential."""
        return self.kind != "anonymous"

    def may(self, scope: str) -> bool:
        """Whether its credential has a scope."""
        return scope in self.scopes


class Sessions:
    """Makes, seals and opens sessions."""

    def __init__(
        self,
        keys: SecretStr,
        *,
        idle: timedelta,
        lifetime: timedelta,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = SealingKeys(keys)
        self._idle_s = idle.total_seconds()
        self._lifetime_s = lifetime.total_seconds()
        self._clock = clock

    def anonymous(self) -> Session:
        """A new session for somebody who has yet to sign in."""
        now = int(self._clock())
        return Session(csrf=os.urandom(_CSRF_BYTES), issued_at=now, seen_at=now)

    def signed_in(
        self,
        kind: Literal["key", "oidc"],
        credential: str,
        *,
        caller_id: str,
        owner: str,
        scopes: tuple[str, ...],
        expires_at: int | None,
    ) -> Session:
        """A new session with a credential; its forms are not those of the anonymous one."""
        now = int(self._clock())
        return Session(
            csrf=os.urandom(_CSRF_BYTES),
            issued_at=now,
            seen_at=now,
            kind=kind,
            credential=credential,
            caller_id=caller_id,
            owner=owner,
            scopes=scopes,
            expires_at=expires_at,
        )

    def seal(self, session: Session) -> str:
        """Encrypt a session for a cookie."""
        return self._keys.seal(msgspec.json.encode(session), _PURPOSE)

    def open(self, text: str) -> Session | None:
        """Decrypt a cookie's session; None if it was changed, has ended, or no key fits."""
        session = self._read(text)
        return None if session is None or self._has_ended(session) else session

    def only_token_expired(self, text: str) -> bool:
        """Whether a cookie's session ended only because its issuer's token expired."""
        session = self._read(text)
        return (
            session is not None
            and session.kind == "oidc"
            and self._has_ended(session)
            and not self._has_ended(msgspec.structs.replace(session, expires_at=None))
        )

    def renewed(self, session: Session, text: str) -> Session | None:
        """The session to write again now: it was used, or its key is no longer the first."""
        now = int(self._clock())
        if now - session.seen_at < _SEEN_EVERY_S and self._keys.is_under_first_key(text):
            return None
        return msgspec.structs.replace(session, seen_at=max(now, session.seen_at))

    def _read(self, text: str) -> Session | None:
        plain = self._keys.open(text, _PURPOSE)
        try:
            return None if plain is None else msgspec.json.decode(plain, type=Session)
        except (ValueError, msgspec.MsgspecError):
            return None

    def _has_ended(self, session: Session) -> bool:
        now = self._clock()
        return (
            now - session.seen_at >= self._idle_s
            or now - session.issued_at >= self._lifetime_s
            or (session.expires_at is not None and now >= session.expires_at)
        )
