"""Sessions: a person's credential in an encrypted cookie, so that no replica stores anything.

AES-256-GCM under the keys of CONSOLE_SESSION_KEYS; the first encrypts, all decrypt. The credential
is the caller's own, and every call is made with it: revoking it ends the session.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

_FORMAT: Final = b"\x01"
_KEY_BYTES, _ID_BYTES, _NONCE_BYTES = 32, 4, 12
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
        derived = [_derived(key.strip()) for key in keys.get_secret_value().split(",")]
        self._first = derived[0][0]
        self._by_id = {key_id: AESGCM(key) for key_id, key in derived}
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
        nonce = os.urandom(_NONCE_BYTES)
        plain = msgspec.json.encode(session)
        sealed = self._by_id[self._first].encrypt(nonce, plain, _PURPOSE)
        whole = _FORMAT + self._first + nonce + sealed
        return base64.urlsafe_b64encode(whole).rstrip(b"=").decode("ascii")

    def open(self, text: str) -> Session | None:
        """Decrypt a cookie's session; None if it was changed, has ended, or no key fits."""
        try:
            whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        key = self._by_id.get(whole[1 : 1 + _ID_BYTES])
        if key is None or whole[:1] != _FORMAT:
            return None
        rest = whole[1 + _ID_BYTES :]
        try:
            plain = key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _PURPOSE)
            session = msgspec.json.decode(plain, type=Session)
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            return None
        return None if self._has_ended(session) else session

    def renewed(self, session: Session, text: str) -> Session | None:
        """The session to write again now: it was used, or its key is no longer the first."""
        now = int(self._clock())
        if now - session.seen_at < _SEEN_EVERY_S and self._is_under_first_key(text):
            return None
        return msgspec.structs.replace(session, seen_at=max(now, session.seen_at))

    def _has_ended(self, session: Session) -> bool:
        now = self._clock()
        return (
            now - session.seen_at >= self._idle_s
            or now - session.issued_at >= self._lifetime_s
            or (session.expires_at is not None and now >= session.expires_at)
        )

    def _is_under_first_key(self, text: str) -> bool:
        head = base64.urlsafe_b64decode(text[:8])
        return head[1 : 1 + _ID_BYTES] == self._first


def _derived(key: str) -> tuple[bytes, bytes]:
    """The id and the encryption key that follow from a key of the settings."""
    derivation = HKDF(SHA256(), length=_KEY_BYTES + _ID_BYTES, salt=None, info=_PURPOSE)
    derived = derivation.derive(key.encode())
    return derived[_KEY_BYTES:], derived[:_KEY_BYTES]
