"""Tokens between services: Ed25519 JWTs for one audience, valid for at most a minute.

Each service signs with its own key and has the others' public keys, so none can impersonate
another. Claims follow SPIFFE's JWT-SVID (one audience, always an expiry) and RFC 9068 (`typ`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.api_jws import PyJWS

from shared.auth import label_limits
from shared.auth.label_limits import Labels

LIFETIME_S = 30
LONGEST_S = 60
_LEEWAY_S = 5
_READ_AGAIN_S = 5.0
_ALGORITHM = "EdDSA"
_JWS = PyJWS(algorithms=[_ALGORITHM])
_TYPE = "at+jwt"
_JTI = re.compile(r"[A-Za-z0-9_-]{16,64}")
_PUBLIC_FILE = re.compile(r"([a-z_]{1,40})\.([A-Za-z0-9_-]{16})\.pem")


class BadToken(Exception):
    """The token is not one of AAM's, not for this service, or not valid now."""


class BadKey(ValueError):
    """A key file cannot be used; the message says why and never quotes the file."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token."""

    service: str
    scopes: frozenset[str]
    token_id: str
    credential_id: str | None
    expires_at: datetime
    labels: Labels = ()
    """The limit of the caller on whose behalf the service calls; empty for none."""
    client: str | None = None
    """The address of that caller, in a token that only says this."""


def key_id(key: Ed25519PublicKey) -> str:
    """A key's id: the first 16 characters of its public key's SHA-256, as base64url."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode()[:16]


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A service's new key pair in PEM format."""

    private: bytes
    public: bytes
    kid: str


def new_pair() -> KeyPair:
    """Generate a key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return KeyPair(private, _public_pem(key.public_key()), key_id(key.public_key()))


def make_pair(service: str, private_file: Path, public_dir: Path) -> None:
    """Create a service's private key if it has none, and publish its public key."""
    private_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not private_file.exists():
        # Readable only by its owner, never half-written; of two concurrent writers the first wins.
        with tempfile.NamedTemporaryFile(dir=private_file.parent) as whole:
            whole.write(new_pair().private)
            whole.flush()
            os.fchmod(whole.fileno(), 0o400)
            with suppress(FileExistsError):
                os.link(whole.name, private_file)
    public = _private_key(private_file).public_key()
    target = public_dir / f"{service}.{key_id(public)}.pem"
    with tempfile.NamedTemporaryFile(dir=public_dir) as whole:
        whole.write(_public_pem(public))
        whole.flush()
        os.fchmod(whole.fileno(), 0o444)
        with suppress(FileExistsError):
            os.link(whole.name, target)


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        is_open_to_all, pem = file.stat().st_mode & 0o007, file.read_bytes()
    except OSError:
        raise BadKey("cannot be read") from None
    if is_open_to_all:
        raise BadKey("is readable by every user of this machine")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("does not contain a private key in PEM format") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey("contains a key that is not Ed25519")
    return key


class Signer:
    """Signs a service's tokens with its private key."""

    def __init__(self, service: str, key_file: Path) -> None:
        """Read the key.

        Raises:
            BadKey: the file holds no Ed25519 key, or is accessible to all users.
        """
        self._service = service
        self._key = _private_key(key_file)
        self._headers = {"typ": _TYPE, "kid": key_id(self._key.public_key())}

    def token(
        self,
        audience: str,
        scope: str,
        *,
        request_id: str = "",
        credential_id: str | None = None,
        client: str | None = None,
    ) -> str:
        """A token for one call; the auth broker accepts it once, for this credential only.

        It carries the label limit of the current caller, so that the called service applies it,
        too; the auth broker knows no connections. `client` is for `forwarded_addresses` alone.
        """
        now = int(time.time())
        claims = {
            "iss": self._service,
            "sub": self._service,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_S,
            "jti": uuid4().hex,
            "scope": scope,
            "rid": request_id,
        }
        if credential_id is not None:
            claims["cid"] = credential_id
        if client is not None:
            claims["client"] = client
        if audience != "auth_broker" and (labels := label_limits.current()):
            claims["labels"] = dict(labels)
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers=self._headers)


class Verifier:
    """Verifies tokens of other services for this one; public keys are re-read every five seconds.

    The folder holds `<service>.<kid>.pem`, two of them while a service's key is being rotated.
    """

    def __init__(self, audience: str, keys_dir: Path) -> None:
        self._audience = audience
        self._dir = keys_dir
        self._keys: dict[str, tuple[str, Ed25519PublicKey]] = {}
        self._read_at = -_READ_AGAIN_S

    def claims(self, token: str) -> Claims:
        """Verify a token and return its claims; none is read before the signature is verified.

        Raises:
            BadToken: the token violates a rule.
        """
        service, key = self._key(_kid(token.partition(".")[0]))
        try:
            payload = _JWS.decode(token, key, algorithms=[_ALGORITHM])
        except jwt.PyJWTError:
            raise BadToken("its signature is invalid") from None
        return _checked(_payload(payload), service, self._audience)

    def _key(self, kid: str) -> tuple[str, Ed25519PublicKey]:
        if time.monotonic() - self._read_at >= _READ_AGAIN_S:
            self._keys, self._read_at = read_public_keys(self._dir), time.monotonic()
        if kid not in self._keys:
            raise BadToken("its key is unknown")
        return self._keys[kid]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


class _Payload(msgspec.Struct, frozen=True):
    iss: str
    sub: str
    aud: str
    iat: int
    nbf: int
    exp: int
    jti: str
    scope: str
    cid: str | None = None
    labels: dict[str, str] = {}
    client: str | None = None


_HEADER = msgspec.json.Decoder(_Header)
_PAYLOAD = msgspec.json.Decoder(_Payload)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _kid(header: str) -> str:
    """The key id in a token's header, which must have exactly three members."""
    try:
        read = _HEADER.decode(base64.urlsafe_b64decode(header + "=="))
    except msgspec.ValidationError:
        raise BadToken("its header is invalid") from None
    except (ValueError, *_UNREADABLE):
        raise BadToken("it cannot be read") from None
    if read.alg != _ALGORITHM or read.typ != _TYPE:
        raise BadToken("its header is invalid")
    return read.kid


def _payload(claims: bytes) -> _Payload:
    try:
        return _PAYLOAD.decode(claims)
    except msgspec.ValidationError:
        raise BadToken("a claim is missing or invalid") from None
    except _UNREADABLE:
        raise BadToken("it cannot be read") from None


def _checked(claims: _Payload, service: str, audience: str) -> Claims:
    now = time.time()
    if claims.iss != service:
        raise BadToken("its key belongs to another issuer")
    if claims.sub != service:
        raise BadToken("its subject is not its issuer")
    if claims.aud != audience:
        raise BadToken("it is for another service")
    if claims.exp <= now - _LEEWAY_S:
        raise BadToken("it has expired")
    if max(claims.iat, claims.nbf) > now + _LEEWAY_S:
        raise BadToken("it is not valid yet")
    if claims.exp - claims.iat > LONGEST_S:
        raise BadToken("it lasts longer than a minute")
    if not _JTI.fullmatch(claims.jti):
        raise BadToken("its id is invalid")
    expires_at = datetime.fromtimestamp(claims.exp, UTC)
    return Claims(
        service,
        frozenset(claims.scope.split()),
        claims.jti,
        claims.cid,
        expires_at,
        label_limits.of(claims.labels),
        claims.client,
    )


def read_public_keys(folder: Path) -> dict[str, tuple[str, Ed25519PublicKey]]:
    """The public keys in a folder by `kid`, each with its service.

    A file whose name does not contain its key's id is ignored.
    """
    found = {}
    for file in sorted(folder.glob("*.pem")):
        named = _PUBLIC_FILE.fullmatch(file.name)
        if named is None:
            continue
        try:
            key = serialization.load_pem_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, Ed25519PublicKey) and key_id(key) == named[2]:
            found[named[2]] = (named[1], key)
    return found
