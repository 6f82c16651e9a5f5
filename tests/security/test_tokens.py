"""Service tokens: valid ones are accepted, forged and malformed ones are rejected."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from shared.auth.scopes import SERVICE_CALLS, Scope
from shared.auth.service_tokens import (
    BadKey,
    BadToken,
    Signer,
    Verifier,
    key_id,
    make_pair,
    read_public_keys,
)
from tests import access
from tests.pools import Sql
from tests.security.conftest import ask, bearer, build

CALLER, AUDIENCE = "orchestrator", "auth_broker"
ROUTE = "/credentials/not-there/connector-config"
Json = dict[str, Any]


class Keys:
    """The key folders of an installation, and ways to sign tokens with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = folder / "public"
        for service in {caller for caller, _ in SERVICE_CALLS}:
            make_pair(service, self.private(service), self.public)
        self.own = self.read(CALLER)
        self.kid = key_id(self.own.public_key())

    def private(self, service: str) -> Path:
        """Return the path of a service's private key."""
        return self.folder / f"{service}.pem"

    def read(self, service: str) -> Ed25519PrivateKey:
        """Load a service's private key."""
        key = serialization.load_pem_private_key(self.private(service).read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    def public_pem(self) -> bytes:
        """Return the caller's public key."""
        return (self.public / f"{CALLER}.{self.kid}.pem").read_bytes()

    def headers(self, **other: Any) -> Json:
        """Return a valid token's header; None removes a member."""
        headers = {"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid, **other}
        return {name: value for name, value in headers.items() if value is not None}

    def claims(self, **other: Any) -> Json:
        """Return a valid token's claims, times in seconds from now; None removes a claim."""
        claims = {
            "iss": CALLER,
            "sub": CALLER,
            "aud": AUDIENCE,
            "iat": 0,
            "nbf": 0,
            "exp": 30,
            "jti": uuid4().hex,
            "scope": Scope.CREDENTIALS_READ.value,
            "rid": "",
            "cid": "not-there",
            **other,
        }
        now = int(time.time())
        for name in ("iat", "nbf", "exp"):
            if type(claims[name]) in (int, float):
                claims[name] += now
        return {name: value for name, value in claims.items() if value is not None}

    def signed(
        self, claims: Json, headers: Json | None = None, *, by: Ed25519PrivateKey | None = None
    ) -> str:
        """Return a token of these parts, signed by the caller's key by default."""
        head = _encoded(headers or self.headers()) + b"." + _encoded(claims)
        return (head + b"." + _base64((by or self.own).sign(head))).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _encoded(part: Json) -> bytes:
    return _base64(json.dumps(part).encode())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of the services in this module."""
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def broker(keys: Keys) -> FastAPI:
    """The auth_broker, which accepts only service tokens."""
    nowhere = "postgresql://nobody:x@127.0.0.1:1/aam"
    return build(AUDIENCE, nowhere, service_public_keys_dir=keys.public)


def _hs256(keys: Keys, **headers: Any) -> str:
    """Sign with HMAC and the public key as secret, the algorithm confusion attack."""
    head = _encoded(keys.headers(alg="HS256", **headers)) + b"." + _encoded(keys.claims())
    mac = hmac.new(keys.public_pem(), head, hashlib.sha256).digest()
    return (head + b"." + _base64(mac)).decode()


def _unsigned(keys: Keys, alg: str) -> str:
    head = _encoded(keys.headers(alg=alg)) + b"." + _encoded(keys.claims())
    return head.decode() + "."


def _of_another_kind(keys: Keys) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(keys.claims(), key, "RS256", headers={"kid": keys.kid, "typ": "at+jwt"})


def _own_jwk(keys: Keys) -> str:
    """Sign with an attacker's key that is embedded in the header."""
    forged = Ed25519PrivateKey.generate()
    raw = forged.public_key().public_bytes_raw()
    own = {"kty": "OKP", "crv": "Ed25519", "x": _base64(raw).decode()}
    return keys.signed(keys.claims(), keys.headers(jwk=own), by=forged)


def _spoiled(keys: Keys, part: int) -> str:
    parts = keys.signed(keys.claims()).split(".")
    parts[part] = parts[part][:-2] + ("AA" if parts[part][-2:] != "AA" else "BB")
    return ".".join(parts)


def _by_other_name(keys: Keys) -> str:
    """Sign with a service's own key, but with another service as issuer."""
    own = keys.read("drift_repair_agent")
    kid = key_id(own.public_key())
    return keys.signed(keys.claims(), keys.headers(kid=kid), by=own)


def _in_clear(keys: Keys) -> str:
    """Use an unencoded payload (RFC 7797)."""
    headers = keys.headers(b64=False, crit=["b64"])
    return keys.signed(keys.claims(), headers)


def _with_null(keys: Keys, claim: str) -> str:
    return keys.signed(keys.claims() | {claim: None})


def _spelled(keys: Keys, spell: Callable[[str], str]) -> str:
    """Return a valid token whose signature is encoded differently, with the same bytes."""
    head, _, signature = keys.signed(keys.claims()).rpartition(".")
    spelled = spell(signature)
    raw = base64.urlsafe_b64decode(signature + "==")
    assert spelled != signature
    assert base64.urlsafe_b64decode(spelled + "==") == raw
    return f"{head}.{spelled}"


FORGED: dict[str, Callable[[Keys], str]] = {
    # Signature
    "alg none": lambda keys: _unsigned(keys, "none"),
    "alg None": lambda keys: _unsigned(keys, "None"),
    "alg EdDSA, no signature": lambda keys: _unsigned(keys, "EdDSA"),
    "HS256 by the public PEM": _hs256,
    "RS256": _of_another_kind,
    "alg ES256": lambda keys: keys.signed(keys.claims(), keys.headers(alg="ES256")),
    "alg a list": lambda keys: keys.signed(keys.claims(), keys.headers(alg=["EdDSA"])),
    "no alg": lambda keys: keys.signed(keys.claims(), keys.headers(alg=None)),
    "another's key under our kid": lambda keys: keys.signed(
        keys.claims(), by=keys.read("drift_repair_agent")
    ),
    "a key that nobody has": lambda keys: keys.signed(
        keys.claims(), by=Ed25519PrivateKey.generate()
    ),
    "the signature spoiled": lambda keys: _spoiled(keys, 2),
    "the claims spoiled": lambda keys: _spoiled(keys, 1),
    "unused bits in the signature": lambda keys: _spelled(
        keys, lambda signature: signature[:-1] + chr(ord(signature[-1]) + 1)
    ),
    "a foreign character in the signature": lambda keys: _spelled(
        keys, lambda signature: signature[:40] + "~" + signature[40:]
    ),
    "a longer signature": lambda keys: keys.signed(keys.claims()) + "AAAA",
    "no signature part": lambda keys: keys.signed(keys.claims()).rpartition(".")[0],
    "four parts": lambda keys: keys.signed(keys.claims()) + ".e30",
    # Key
    "kid a path": lambda keys: keys.signed(keys.claims(), keys.headers(kid="../../dev/null")),
    "kid a file": lambda keys: keys.signed(
        keys.claims(), keys.headers(kid=str(keys.private(CALLER)))
    ),
    "kid with the file's ending": lambda keys: keys.signed(
        keys.claims(), keys.headers(kid=f"{CALLER}.{keys.kid}.pem")
    ),
    "kid with NUL": lambda keys: keys.signed(keys.claims(), keys.headers(kid=f"{keys.kid}\x00")),
    "kid SQL": lambda keys: keys.signed(keys.claims(), keys.headers(kid="' OR 1=1 --")),
    "kid a number": lambda keys: keys.signed(keys.claims(), keys.headers(kid=1)),
    "kid a list": lambda keys: keys.signed(keys.claims(), keys.headers(kid=[keys.kid])),
    "no kid": lambda keys: keys.signed(keys.claims(), keys.headers(kid=None)),
    "jku": lambda keys: keys.signed(keys.claims(), keys.headers(jku="http://127.0.0.1:1/")),
    "x5u": lambda keys: keys.signed(keys.claims(), keys.headers(x5u="http://127.0.0.1:1/")),
    "x5c": lambda keys: keys.signed(keys.claims(), keys.headers(x5c=["MIIB"])),
    "jwk": _own_jwk,
    "crit": lambda keys: keys.signed(keys.claims(), keys.headers(crit=["exp"])),
    "b64": _in_clear,
    "typ JWT": lambda keys: keys.signed(keys.claims(), keys.headers(typ="JWT")),
    "no typ": lambda keys: keys.signed(keys.claims(), keys.headers(typ=None)),
    # Audience
    "no aud": lambda keys: keys.signed(keys.claims(aud=None)),
    "aud another": lambda keys: keys.signed(keys.claims(aud="rag_engine")),
    "aud a list with ours": lambda keys: keys.signed(keys.claims(aud=[AUDIENCE])),
    "aud a list with ours and another": lambda keys: keys.signed(
        keys.claims(aud=[AUDIENCE, "rag_engine"])
    ),
    "aud in capitals": lambda keys: keys.signed(keys.claims(aud=AUDIENCE.upper())),
    "aud empty": lambda keys: keys.signed(keys.claims(aud="")),
    "aud an object": lambda keys: keys.signed(keys.claims(aud={AUDIENCE: 1})),
    # Issuer
    "iss another": lambda keys: keys.signed(keys.claims(iss="drift_repair_agent")),
    "iss and sub another": _by_other_name,
    "no iss": lambda keys: keys.signed(keys.claims(iss=None)),
    "iss a list": lambda keys: keys.signed(keys.claims(iss=[CALLER])),
    "sub not iss": lambda keys: keys.signed(keys.claims(sub="drift_repair_agent")),
    "no sub": lambda keys: keys.signed(keys.claims(sub=None)),
    # Validity period
    "expired by 6 s": lambda keys: keys.signed(keys.claims(iat=-36, nbf=-36, exp=-6)),
    "valid in 60 s": lambda keys: keys.signed(keys.claims(nbf=60, exp=60)),
    "issued in 60 s": lambda keys: keys.signed(keys.claims(iat=60, exp=90)),
    "ten years": lambda keys: keys.signed(keys.claims(exp=10 * 365 * 86_400)),
    "61 s": lambda keys: keys.signed(keys.claims(exp=61)),
    "no exp": lambda keys: keys.signed(keys.claims(exp=None)),
    "no iat": lambda keys: keys.signed(keys.claims(iat=None)),
    "no nbf": lambda keys: keys.signed(keys.claims(nbf=None)),
    "exp a text": lambda keys: keys.signed(keys.claims(exp="soon")),
    "exp a number in a text": lambda keys: keys.signed(keys.claims(exp=str(int(time.time()) + 30))),
    "exp a fraction": lambda keys: keys.signed(keys.claims(exp=30.5)),
    "exp endless": lambda keys: keys.signed(keys.claims(exp=float("inf"))),
    "exp NaN": lambda keys: keys.signed(keys.claims(exp=float("nan"))),
    "iat endless": lambda keys: keys.signed(keys.claims(iat=float("-inf"))),
    "exp true": lambda keys: keys.signed(keys.claims(exp=True)),
    # Everything else
    "no jti": lambda keys: keys.signed(keys.claims(jti=None)),
    "jti empty": lambda keys: keys.signed(keys.claims(jti="")),
    "jti long": lambda keys: keys.signed(keys.claims(jti="a" * 65)),
    "jti NUL": lambda keys: keys.signed(keys.claims(jti="\x00" * 32)),
    "jti a number": lambda keys: keys.signed(keys.claims(jti=1)),
    "no scope": lambda keys: keys.signed(keys.claims(scope=None)),
    "scope a list": lambda keys: keys.signed(keys.claims(scope=[Scope.CREDENTIALS_READ.value])),
    "scope null": lambda keys: _with_null(keys, "scope"),
    "jti null": lambda keys: _with_null(keys, "jti"),
    "cid a number": lambda keys: keys.signed(keys.claims(cid=1)),
    "cid a list": lambda keys: keys.signed(keys.claims(cid=["not-there"])),
    "claims a list": lambda keys: keys.signed([keys.claims()]),  # type: ignore[arg-type]
    "claims deep": lambda keys: keys.signed(
        keys.claims(rid=json.loads("[" * 900 + "]" * 900)),
    ),
    "header deep": lambda _keys: (
        _base64(b'{"alg":' + b"[" * 2000 + b"]" * 2000 + b"}").decode() + ".e30.AAAA"
    ),
    "header no JSON": lambda _keys: "AAAA.AAAA.AAAA",
    "dots": lambda _keys: "..",
}


def test_valid_token_is_accepted(keys: Keys) -> None:
    """The control: each case below changes one aspect of this token."""
    ours = keys.signed(keys.claims())
    signed = Signer(CALLER, keys.private(CALLER)).token(
        AUDIENCE, Scope.CREDENTIALS_READ, request_id="r", credential_id="not-there"
    )
    for token in (ours, signed):
        claims = Verifier(AUDIENCE, keys.public).claims(token)

        assert claims.service == CALLER
        assert claims.scopes == {"credentials:read"}
        assert claims.credential_id == "not-there"
        assert len(claims.token_id) == 32
    decoded = jwt.decode(signed, options={"verify_signature": False})
    assert decoded["exp"] - decoded["iat"] <= 60
    assert decoded["rid"] == "r"


@pytest.mark.parametrize("forged", [name for name in FORGED if name != "claims deep"])
async def test_invalid_tokens_are_refused(keys: Keys, broker: FastAPI, forged: str) -> None:
    """By the verifier and by the service: 401, without file or network access."""
    token = FORGED[forged](keys)

    with pytest.raises(BadToken) as refused:
        Verifier(AUDIENCE, keys.public).claims(token)
    assert str(refused.value) in RULES
    answer = await ask(broker, "GET", ROUTE, [bearer(token)])
    assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")


RULES = {
    "it cannot be read",
    "its header is invalid",
    "its key is unknown",
    "its signature is invalid",
    "a claim is missing or invalid",
    "its key belongs to another issuer",
    "its subject is not its issuer",
    "it is for another service",
    "it has expired",
    "it is not valid yet",
    "it lasts longer than a minute",
    "its id is invalid",
}
"""The possible reasons of a rejection; none quotes the token."""


async def test_unusual_valid_tokens_are_accepted(keys: Keys) -> None:
    """Clock skew of five seconds, and unknown claims of any depth."""
    for token in (
        keys.signed(keys.claims(iat=4, nbf=4, exp=34)),
        keys.signed(keys.claims(iat=-32, nbf=-32, exp=-2)),
        FORGED["claims deep"](keys),
        keys.signed(keys.claims(cid=None, rid=None, admin=True)),
    ):
        assert Verifier(AUDIENCE, keys.public).claims(token).service == CALLER


@pytest.mark.parametrize(
    "scope, status",
    [
        ("credentials:read", None),
        ("credentials:read connections:read", None),
        ("connections:read", 403),
        ("admin", 403),
        ("", 403),
        ("credentials:readx", 403),
        ("credentials", 403),
    ],
)
async def test_scope_must_match_exactly(
    keys: Keys, broker: FastAPI, scope: str, status: int | None
) -> None:
    answer = await ask(broker, "GET", ROUTE, [bearer(keys.signed(keys.claims(scope=scope)))])

    assert answer.status not in (401,)
    assert (answer.status == 403) is (status == 403), answer.body


async def test_service_without_a_declared_call_is_403(keys: Keys, broker: FastAPI) -> None:
    """Even with a valid token for the broker."""
    agent = Signer("drift_repair_agent", keys.private("drift_repair_agent"))
    token = agent.token(AUDIENCE, Scope.CREDENTIALS_READ, credential_id="not-there")

    answer = await ask(broker, "GET", ROUTE, [bearer(token)])

    assert (answer.status, answer.json()["code"]) == (403, "forbidden")


async def test_token_is_valid_for_one_credential_once(apps: dict[str, FastAPI], sql: Sql) -> None:
    """Another path is 403, reuse 401, no credential 403; each request is audited."""
    signer = access.signer(CALLER)
    broker = apps[AUDIENCE]

    async def fetch(token: str, path: str = ROUTE) -> tuple[int, str]:
        answer = await ask(broker, "GET", path, [bearer(token)])
        assert ("www-authenticate" in answer.headers) is (answer.status == 401)
        return answer.status, answer.json()["code"]

    token = signer.token(AUDIENCE, "credentials:read", credential_id="not-there")
    assert await fetch(token) == (404, "credential_not_found")
    assert await fetch(token) == (401, "token_replayed")
    other = signer.token(AUDIENCE, "credentials:read", credential_id="another")
    assert await fetch(other) == (403, "wrong_credential")
    assert await fetch(signer.token(AUDIENCE, "credentials:read")) == (403, "wrong_credential")
    stored = await sql.fetch("SELECT caller, jti FROM credential_audit ORDER BY id")
    assert {row["caller"] for row in stored} == {"service orchestrator"}
    assert len({row["jti"] for row in stored}) == len(stored) == 3


class Clock:
    """The verifier's clock, which the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that determines when key folders are read again."""
    clock = Clock()
    monkeypatch.setattr("shared.auth.service_tokens.time.monotonic", clock.monotonic)
    return clock


def test_signing_key_can_be_replaced_without_a_restart(
    keys: Keys, tmp_path: Path, clock: Clock
) -> None:
    """Both keys are valid meanwhile; the old one is rejected within 5 s of its removal."""
    public = tmp_path / "public"
    shutil.copytree(keys.public, public)
    verifier = Verifier(AUDIENCE, public)
    old = keys.signed(keys.claims())
    assert verifier.claims(old).service == CALLER

    make_pair(CALLER, tmp_path / "new" / f"{CALLER}.pem", public)
    new = Signer(CALLER, tmp_path / "new" / f"{CALLER}.pem").token(AUDIENCE, "credentials:read")
    with pytest.raises(BadToken, match="its key is unknown"):
        verifier.claims(new)
    clock.now += 5
    assert verifier.claims(old).service == verifier.claims(new).service == CALLER

    (public / f"{CALLER}.{keys.kid}.pem").unlink()
    clock.now += 5
    assert verifier.claims(new).service == CALLER
    with pytest.raises(BadToken, match="its key is unknown"):
        verifier.claims(old)
    shutil.rmtree(public)
    clock.now += 5
    with pytest.raises(BadToken, match="its key is unknown"):
        verifier.claims(new)


def _pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def test_public_key_is_valid_for_its_file_name_only(keys: Keys, tmp_path: Path) -> None:
    """A misnamed file, or one without a valid key, is ignored."""
    pem = keys.public_pem()
    other = Ed25519PrivateKey.generate()
    for name, content in {
        f"{keys.kid}.pem": pem,
        f"{CALLER}.pem": pem,
        f"{CALLER}.{'A' * 16}.pem": pem,
        f"{CALLER}.{key_id(other.public_key())}.pem": pem,
        f"{CALLER}.{keys.kid}.pem.new": pem,
        f"{CALLER}.{keys.kid}.txt": pem,
        f"{CALLER.upper()}.{keys.kid}.pem": pem,
        f"a.b.{keys.kid}.pem": pem,
        f"{CALLER}.{'B' * 16}.pem": b"",
        f"{CALLER}.{'C' * 16}.pem": b"\xff\xfe" * 100,
        f"{CALLER}.{'D' * 16}.pem": keys.private(CALLER).read_bytes(),
        f"{CALLER}.{'E' * 16}.pem": _pem(rsa.generate_private_key(65537, 2048)),
        f"{CALLER}.{'F' * 16}.pem": _pem(ec.generate_private_key(ec.SECP256R1())),
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"{CALLER}.{'G' * 16}.pem").mkdir()

    assert read_public_keys(tmp_path) == {}
    (tmp_path / f"{CALLER}.{keys.kid}.pem").write_bytes(pem)
    assert [(kid, of[0]) for kid, of in read_public_keys(tmp_path).items()] == [(keys.kid, CALLER)]
    assert read_public_keys(tmp_path / "not there") == {}


def _private(key: Any, password: bytes | None = None) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )
    return pem


@pytest.mark.parametrize(
    "content, mode, explanation",
    [
        (None, 0, "cannot be read"),
        (b"", 0o400, "does not contain a private key in PEM format"),
        (b"AAMCANARY", 0o400, "does not contain a private key in PEM format"),
        ("ours", 0o404, "is readable by every user of this machine"),
        ("ours", 0o604, "is readable by every user of this machine"),
        ("ours", 0o402, "is readable by every user of this machine"),
        ("public", 0o400, "does not contain a private key in PEM format"),
        (
            _private(rsa.generate_private_key(65537, 2048)),
            0o400,
            "contains a key that is not Ed25519",
        ),
        (
            _private(ec.generate_private_key(ec.SECP256R1())),
            0o400,
            "contains a key that is not Ed25519",
        ),
        (
            _private(Ed25519PrivateKey.generate(), b"a password"),
            0o400,
            "does not contain a private key in PEM format",
        ),
    ],
)
def test_unusable_private_key_is_refused(
    keys: Keys, tmp_path: Path, content: bytes | str | None, mode: int, explanation: str
) -> None:
    """The message reveals nothing of the key."""
    file = tmp_path / f"{CALLER}.pem"
    if content is not None:
        file.write_bytes(
            {"ours": keys.private(CALLER).read_bytes(), "public": keys.public_pem()}[content]
            if isinstance(content, str)
            else content
        )
        file.chmod(mode)

    with pytest.raises(BadKey) as refused:
        Signer(CALLER, file)

    assert str(refused.value) == explanation


def test_key_pair_is_created_once(tmp_path: Path) -> None:
    """The private key is readable only by its owner; a second run does not replace it."""
    private, public = tmp_path / "own" / f"{CALLER}.pem", tmp_path / "public"
    make_pair(CALLER, private, public)
    first = private.read_bytes()
    make_pair(CALLER, private, public)

    assert private.read_bytes() == first
    assert private.stat().st_mode & 0o777 == 0o400
    assert private.parent.stat().st_mode & 0o777 == 0o700
    (named,) = public.iterdir()
    assert named.stat().st_mode & 0o777 == 0o444
    assert [one.name for one in private.parent.iterdir()] == [private.name]
