"""Authentication by an OpenID Connect issuer over HTTP: valid, forged and hostile cases."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from shared.auth import oidc
from shared.auth.oidc import Issuer
from shared.errors import Unavailable
from tests import access
from tests.fakes.oidc_issuer import AUDIENCE, DISCOVERY, EC, ED, KEYS, RSA, Idp, Json, public_key
from tests.integration.conftest import serving
from tests.security.conftest import ask, bearer, build, close

SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 (must be rejected)
P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    """An issuer that serves its documents."""
    idp = Idp()
    async with serving(idp.app) as url:
        idp.url = url
        yield idp


class Clock:
    """The clock that determines the age of cached keys."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that the test advances."""
    return Clock()


@pytest.fixture
def issuer(idp: Idp, clock: Clock) -> Issuer:
    """The services' client of the issuer."""
    return Issuer(idp.url, audience=AUDIENCE, clock=clock)


@pytest.mark.parametrize(
    "key, alg, kid", [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")]
)
async def test_valid_token_gives_its_scopes(
    idp: Idp, issuer: Issuer, key: Any, alg: str, kid: str
) -> None:
    """Only AAM's scopes of the claim count; the issuer's keys are fetched once."""
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"aud": ["another", AUDIENCE], "scope": ["connections:read", "repairs:decide", 7]},
        {"scope": "connections:read repairs:decide credentials:read root adminx"},
        {"exp": -2, "iat": -60},  # within the leeway of five seconds
    )
    for one in changes:
        caller = await issuer.caller(idp.token(key, alg, kid, idp.claims(**one)))

        assert caller is not None
        assert (caller.id, caller.name) == ("oidc:00u1a", "00u1a")
        assert caller.scopes == {"connections:read", "repairs:decide"}
        assert not caller.is_service
    assert idp.asked == [DISCOVERY, KEYS]


@pytest.mark.parametrize(
    "claims, name",
    [
        ({"email": "ada@example.com"}, "ada@example.com (oidc 00u1a)"),
        ({"preferred_username": "ada"}, "ada (oidc 00u1a)"),
        ({"email": "a@b", "preferred_username": "ada"}, "a@b (oidc 00u1a)"),
        ({"email": "a\nb", "preferred_username": "ada"}, "ada (oidc 00u1a)"),
        ({"email": "a\x00b"}, "00u1a"),
        ({"email": "a" * 201}, "00u1a"),
        ({"email": ["a@b"]}, "00u1a"),
        ({"email": "\u202eada"}, "00u1a"),
        ({"email": ""}, "00u1a"),
    ],
)
async def test_caller_name_comes_from_the_claims(
    idp: Idp, issuer: Issuer, claims: Json, name: str
) -> None:
    """From the claims if they can be stored, and always with the subject."""
    caller = await issuer.caller(idp.token(claims=idp.claims(**claims)))

    assert caller is not None
    assert caller.name == name


@pytest.mark.parametrize("scope", [None, "", 7, {"connections:read": True}, ["*"], "connections"])
async def test_token_without_scopes_allows_nothing(idp: Idp, issuer: Issuer, scope: object) -> None:
    """A scope claim of another type gives no scopes."""
    caller = await issuer.caller(idp.token(claims=idp.claims(scope=scope)))

    assert caller is not None
    assert caller.scopes == frozenset()


def _pem() -> bytes:
    return RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _hs256(idp: Idp) -> str:
    """Sign with HMAC and the public key as secret, which the library refuses to do."""
    head = jwt.encode(idp.claims(), "x" * 32, "HS256", headers={"kid": "rsa"}).rpartition(".")[0]
    mac = hmac.new(_pem(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{jwt.utils.base64url_encode(mac).decode()}"


FORGED: dict[str, Callable[[Idp], str]] = {
    "aud another": lambda idp: idp.token(claims=idp.claims(aud="another")),
    "aud a list of others": lambda idp: idp.token(claims=idp.claims(aud=["a", "b"])),
    "no aud": lambda idp: idp.token(claims=idp.claims(aud=None)),
    "iss another": lambda idp: idp.token(claims=idp.claims(iss="https://elsewhere.example")),
    "iss with a slash": lambda idp: idp.token(claims=idp.claims(iss=f"{idp.url}/")),
    "no iss": lambda idp: idp.token(claims=idp.claims(iss=None)),
    "expired by 6 s": lambda idp: idp.token(claims=idp.claims(exp=-6, iat=-60)),
    "no exp": lambda idp: idp.token(claims=idp.claims(exp=None)),
    "valid in 60 s": lambda idp: idp.token(claims=idp.claims(nbf=60)),
    "no sub": lambda idp: idp.token(claims=idp.claims(sub=None)),
    "sub empty": lambda idp: idp.token(claims=idp.claims(sub="")),
    "sub with a line end": lambda idp: idp.token(claims=idp.claims(sub="a\nINFO root")),
    "sub long": lambda idp: idp.token(claims=idp.claims(sub="a" * 300)),
    "alg none": lambda idp: jwt.encode(idp.claims(), "", "none", headers={"kid": "rsa"}),
    "HS256 by the public key": _hs256,
    "HS256 by the shared key it tells": lambda idp: idp.token(b"k" * 32, "HS256", "oct"),
    "RS512": lambda idp: idp.token(RSA, "RS512", "rsa"),
    "PS256": lambda idp: idp.token(RSA, "PS256", "rsa"),
    "ES256 under the RSA key's name": lambda idp: idp.token(EC, "ES256", "rsa"),
    "another's key": lambda idp: idp.token(rsa.generate_private_key(65537, 2048)),
    "an RSA key that is too short": lambda idp: idp.token(SHORT_RSA, "RS256", "short"),
    "a key to encrypt with": lambda idp: idp.token(RSA, "RS256", "enc"),
    "a key of another algorithm": lambda idp: idp.token(RSA, "RS256", "ps"),
    "another curve": lambda idp: idp.token(P384, "ES384", "p384"),
    "a key that is none": lambda idp: idp.token(RSA, "RS256", "broken"),
    "kid of nobody": lambda idp: idp.token(kid="nobody"),
    "no kid": lambda idp: idp.token(kid=None),
    "crit": lambda idp: idp.token(crit=["exp"]),
    "a key of its own": lambda idp: idp.token(
        ED, "EdDSA", "rsa", jwk=public_key(OKPAlgorithm, ED, "rsa")
    ),
    "no token": lambda _idp: "a.b.c",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("forged", FORGED)
async def test_invalid_tokens_are_refused(idp: Idp, issuer: Issuer, forged: str) -> None:
    """Even with other keys published; nothing except the issuer's documents is fetched."""
    idp.keys += [
        public_key(HMACAlgorithm, b"k" * 32, "oct", alg="HS256"),
        public_key(RSAAlgorithm, SHORT_RSA, "short"),
        public_key(RSAAlgorithm, RSA, "enc", use="enc"),
        public_key(RSAAlgorithm, RSA, "ps", alg="PS256"),
        public_key(ECAlgorithm, P384, "p384"),
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": ["RSA"], "kid": "odd"},
        {"kty": "RSA", "kid": ["odd"]},
        {},
        "no key",
        None,
    ]

    assert await issuer.caller(FORGED[forged](idp)) is None
    assert set(idp.asked) <= {DISCOVERY, KEYS}
    assert await issuer.caller(idp.token()) is not None


async def test_foreign_tokens_cause_no_request_to_the_issuer(idp: Idp, issuer: Issuer) -> None:
    """Otherwise anyone could flood the issuer with requests."""
    for token in ("garbage", idp.token(claims=idp.claims(iss="https://elsewhere.example"))):
        assert await issuer.caller(token) is None

    assert idp.asked == []


async def test_new_issuer_key_is_read_at_its_first_token(
    idp: Idp, issuer: Issuer, clock: Clock
) -> None:
    """Keys are fetched again at most every 30 s."""
    assert await issuer.caller(idp.token()) is not None
    new = rsa.generate_private_key(65537, 2048)
    idp.keys[0] = public_key(RSAAlgorithm, new, "new")
    assert await issuer.caller(idp.token(new, kid="new")) is None
    clock.now += 30
    assert await issuer.caller(idp.token(new, kid="new")) is not None
    assert await issuer.caller(idp.token()) is None
    assert len(idp.asked) == 4

    for number in range(20):
        assert await issuer.caller(idp.token(kid=f"guess {number}")) is None
    await asyncio.gather(*(issuer.caller(idp.token(kid=f"more {n}")) for n in range(20)))
    assert len(idp.asked) == 4
    clock.now += 30
    await asyncio.gather(*(issuer.caller(idp.token(kid=f"more {n}")) for n in range(20)))
    assert len(idp.asked) == 6

    idp.keys = []
    clock.now += 600
    assert await issuer.caller(idp.token(new, kid="new")) is None


async def test_issuer_outage_after_the_keys_were_read(
    idp: Idp, issuer: Issuer, clock: Clock
) -> None:
    """Its keys are used for an hour; then requests get a 503 until it is available again."""
    assert await issuer.caller(idp.token()) is not None

    async def away() -> Response:
        return Response(status_code=503)

    idp.instead[DISCOVERY] = away
    for _ in range(5):
        clock.now += 660
        for _ in range(3):
            assert await issuer.caller(idp.token()) is not None
    assert len(idp.asked) == 2 + 5
    clock.now += 400
    with pytest.raises(Unavailable, match="OIDC_ISSUER"):
        await issuer.caller(idp.token())
    idp.instead.clear()
    clock.now += 30
    assert await issuer.caller(idp.token()) is not None


@pytest.mark.parametrize("lost", [DISCOVERY, KEYS])
async def test_lost_answer_of_the_issuer_is_retried(
    idp: Idp, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    send, left = httpx.AsyncClient.send, [lost]

    async def lossy(self: httpx.AsyncClient, request: httpx.Request, **more: Any) -> httpx.Response:
        if request.url.path in left:
            left.remove(request.url.path)
            raise httpx.ReadError("The connection was lost.")
        return await send(self, request, **more)

    monkeypatch.setattr(httpx.AsyncClient, "send", lossy)
    assert await issuer.caller(idp.token()) is not None
    assert left == []


async def test_issuer_outage_at_the_start(idp: Idp, issuer: Issuer, clock: Clock) -> None:
    """Requests get a 503; the keys are requested again a second later."""

    async def away() -> Response:
        return Response(status_code=500)

    idp.instead[KEYS] = away
    for _ in range(3):
        with pytest.raises(Unavailable, match="OIDC_ISSUER"):
            await issuer.caller(idp.token())
    assert idp.asked == [DISCOVERY, KEYS]
    idp.instead.clear()
    clock.now += 1
    assert await issuer.caller(idp.token()) is not None
    nobody = Issuer("http://127.0.0.1:1", audience=AUDIENCE)
    with pytest.raises(Unavailable, match="OIDC_ISSUER"):
        await nobody.caller(idp.token(claims=idp.claims(iss="http://127.0.0.1:1")))


async def _megabytes() -> AsyncIterator[bytes]:
    for _ in range(256):
        yield b"[" * 65_536
        await asyncio.sleep(0)


async def _huge() -> Response:
    return StreamingResponse(_megabytes(), media_type="application/json")


async def _padded() -> Response:
    return Response('{"keys": []}' + " " * 300_000, media_type="application/json")


async def _elsewhere() -> Response:
    return RedirectResponse("/elsewhere")


async def _no_json() -> Response:
    return Response("<html>", media_type="application/json")


async def _a_list() -> Response:
    return Response("[]", media_type="application/json")


async def _deep() -> Response:
    return Response("[" * 100_000, media_type="application/json")


async def _compressed() -> Response:
    return Response(gzip.compress(b"{}"), headers={"content-encoding": "gzip"})


async def _nothing() -> Response:
    await asyncio.sleep(1)
    return Response("{}")


async def _no_keys() -> Response:
    return Response('{"keys": {"rsa": 1}}')


async def _many_keys() -> Response:
    return Response(json.dumps({"keys": [{}] * 101}))


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
@pytest.mark.parametrize(
    "answer",
    [
        _huge,
        _padded,
        _elsewhere,
        _no_json,
        _a_list,
        _deep,
        _compressed,
        _nothing,
        _no_keys,
        _many_keys,
    ],
)
async def test_hostile_issuer_counts_as_unavailable(
    idp: Idp,
    issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    answer: Callable[[], Awaitable[Response]],
) -> None:
    """For any response: no caller is accepted, and nothing else is fetched."""
    monkeypatch.setattr(oidc, "DEADLINE_S", 0.5)
    idp.instead[path] = answer
    began = time.monotonic()

    with pytest.raises(Unavailable, match="OIDC_ISSUER"):
        await issuer.caller(idp.token())

    assert time.monotonic() - began < 5
    assert set(idp.asked) <= {DISCOVERY, KEYS}


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "http://169.254.169.254/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://"},
        {"jwks_uri": "http://[::1"},
        {"jwks_uri": ["https://keys.example"]},
    ],
)
async def test_foreign_discovery_document_is_not_followed(
    idp: Idp, issuer: Issuer, document: Json
) -> None:
    idp.discovery = document

    with pytest.raises(Unavailable, match="OIDC_ISSUER"):
        await issuer.caller(idp.token())

    assert idp.asked == [DISCOVERY]


async def test_service_accepts_oidc_callers(idp: Idp, registry_url: str, sql: Any) -> None:
    """With the same scopes as API keys; the actor is recorded, and no API key is required."""
    await sql.execute("DELETE FROM api_keys")
    app = build("orchestrator", registry_url, oidc_issuer=idp.url, oidc_audience=AUDIENCE)
    try:
        async with app.router.lifespan_context(app):
            admin = idp.token(
                claims=idp.claims(email="ada@example.com", scope="admin connections:read")
            )
            body = json.dumps({"owner": "Bob", "scopes": ["connections:read"]}).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            created = await ask(app, "POST", "/api-keys", [bearer(admin), *headers], body=body)
            assert created.status == 201
            assert created.json()["key"]
            by = await sql.fetchval("SELECT created_by FROM api_keys")
            assert by == "ada@example.com (oidc 00u1a)"

            for presented, status in (
                (idp.token(), 200),
                (created.json()["key"], 200),
                (idp.token(claims=idp.claims(scope="openid")), 403),
                (idp.token(claims=idp.claims(aud="another")), 401),
                (FORGED["alg none"](idp), 401),
            ):
                answer = await ask(app, "GET", "/connections", [bearer(presented)])
                assert answer.status == status, answer.body
    finally:
        await close(app)
        await sql.execute("DELETE FROM api_keys")
        await access.let_in_now(sql)
