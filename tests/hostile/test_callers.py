"""Unauthenticated, forged and unauthorized requests are rejected before their body is read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.auth.api_keys import new_key
from tests import access
from tests.hostile.attempts import APPLY, CANARY, JSON, World, expect_problem
from tests.hostile.conftest import Process
from tests.hostile.sockets import POST, answer_of, expect_refusal, health_cpu_ms

NOBODY = (401, "unauthenticated")
SECRET = "/credentials/salesforce-prod/connector-config"


def without_key(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Build a client of the same service without credentials."""
    return httpx.AsyncClient(transport=client._transport, base_url="http://aam")


@pytest.mark.parametrize(
    "content", [b"{" + CANARY.encode(), b"\0" * 9_000_000, b"[" * 900, b""], ids=len
)
async def test_c17_body_of_unauthenticated_caller_is_not_parsed(
    world: World, content: bytes
) -> None:
    before = await world.seen()
    for client in (world.mesh.orchestrator, world.mesh.drift_repair_agent, world.mesh.auth_broker):
        for path in (APPLY, "/connections/onboard", "/no/such/route", "/api-keys"):
            answer = await without_key(client).post(path, content=content)
            expect_problem(answer, NOBODY, path)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert await world.seen() == before


async def test_c17_body_of_unauthenticated_caller_is_not_awaited(process: Process) -> None:
    """A stalled body does not delay the response."""
    head = POST.replace(access.HEADERS["Authorization"], "Bearer x")
    answer = await answer_of(process, f"{head}Content-Length: 9000000\r\n\r\n".encode())
    expect_refusal(answer, *NOBODY)  # 401; waiting for the body would end in a 408


async def test_c18_invalid_credentials_are_refused(world: World) -> None:
    """The header must contain exactly one complete key."""
    mesh = world.mesh
    revoked = new_key("test")
    await mesh.sql.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by, revoked_at)"
        " VALUES ($1, $2, '{admin}', 'tests', 'tests', now())",
        revoked.id,
        revoked.digest,
    )
    right = access.HEADERS["Authorization"]
    headers: list[list[tuple[str, str]]] = [
        [("Authorization", right), ("Authorization", right)],
        [("Authorization", right), ("Authorization", f"Bearer {CANARY}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", access.KEY.key)],
        [("Authorization", f"Basic {base64.b64encode(access.KEY.key.encode()).decode()}")],
        [("Authorization", f"{right}, {right}")],
        [("Authorization", f"{right} {CANARY}")],
        [("Authorization", right[:-1])],
        [("Authorization", right + "A")],
        [("Authorization", right.upper())],
        [("Authorization", f"Bearer {revoked.key}")],
        [("Authorization", f"Bearer {new_key('test').key}")],
        [("Authorization", "Bearer " + "a" * 60_000)],
        [("X-API-Key", access.KEY.key)],
        [("Cookie", f"key={access.KEY.key}")],
    ]
    before = await world.seen()
    for given in headers:
        answer = await without_key(mesh.orchestrator).get("/connections", headers=given)
        expect_problem(answer, NOBODY, given[0][1][:30])
        assert access.KEY.key not in answer.text
    assert await world.seen() == before


async def test_c18_credentials_in_raw_requests(process: Process) -> None:
    """A token in a malformed header, and a key in the URL, which must not be logged."""
    head = POST.replace(access.HEADERS["Authorization"], "Bearer {}") + "\r\n"
    for token, refusal in (
        (f"{CANARY}\0x", (400, "invalid_http")),
        ("a" * 66_000, (431, "head_too_large")),
        ("é", NOBODY),
    ):
        expect_refusal(await answer_of(process, head.format(token).encode()), *refusal)
    target = f"/repairs?api_key={access.KEY.key}&token={access.KEY.key}"
    request_head = f"GET {target} HTTP/1.1\r\nHost: aam\r\n\r\n"
    expect_refusal(await answer_of(process, request_head.encode()), *NOBODY)
    assert access.KEY.key not in process.log.read_text()
    assert await health_cpu_ms(process) < 1000


def signed(changes: Mapping[str, Any], *, key: Any = None, **header: Any) -> str:
    """Return a valid token with these claims changed; None removes a claim."""
    honest = access.signer("orchestrator")
    now = int(time.time())
    claims = {
        "iss": "orchestrator",
        "sub": "orchestrator",
        "aud": "auth_broker",
        "iat": now,
        "nbf": now,
        "exp": now + 30,
        "jti": uuid4().hex,
        "scope": "credentials:read",
        "rid": "",
        "cid": "salesforce-prod",
        **changes,
    }
    payload = {name: value for name, value in claims.items() if value is not None}
    headers = {**honest._headers, **header}
    return jwt.encode(payload, key or honest._key, algorithm="EdDSA", headers=headers)


def forged(header: Mapping[str, Any], signature: bytes = b"") -> str:
    """Return a token with the given header and signature."""
    parts = jwt.decode_complete(signed({}), options={"verify_signature": False})
    forged_header = {**parts["header"], **header}
    raw = [json.dumps(part).encode() for part in (forged_header, parts["payload"])]
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*raw, signature)
    )


def public_pem(service: str = "orchestrator") -> bytes:
    """Return a service's public key as PEM."""
    return (
        access.signer(service)
        ._key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def by_hmac() -> str:
    """Return a token signed by HMAC with the public key as secret."""
    unsigned = forged({"alg": "HS256"}).rpartition(".")[0]
    return f"{unsigned}.{_base64(hmac.digest(public_pem(), unsigned.encode(), hashlib.sha256))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def refused(world: World, token: str, what: str, expected: tuple[int, str] = NOBODY) -> None:
    """Assert that the broker rejects the token, returns no secret and audits the rejection."""
    async with without_key(world.mesh.auth_broker) as client:
        answer = await client.get(SECRET, headers={"Authorization": f"Bearer {token}"})
    expect_problem(answer, expected, what)
    assert "AAMCANARY" not in answer.text


async def test_valid_token_is_accepted(world: World) -> None:
    """The control: each test below changes one aspect of this token."""
    async with without_key(world.mesh.auth_broker) as client:
        headers = {"Authorization": f"Bearer {signed({})}"}
        answer = await client.get(SECRET, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_c19_forged_tokens_are_refused(world: World, tmp_path: Path) -> None:
    """A token's header cannot select the key, the algorithm, a file or a URL."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys.json"
    stranger = Ed25519PrivateKey.generate()
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(stranger.public_key()))
    (tmp_path / "key.pem").write_bytes(public_pem())
    for what, token in {
        "none": forged({"alg": "none"}),
        "None": forged({"alg": "None"}),
        "HS256 by the public key": by_hmac(),
        "no signature": forged({}),
        "another signature": forged({}, b"a" * 64),
        "another's key": signed({}, key=stranger),
        "a path as kid": signed({}, key=stranger, kid="../../dev/null"),
        "a file as kid": signed({}, key=stranger, kid=str(tmp_path / "key.pem")),
        "another service's kid": signed(
            {}, kid=access.signer("drift_repair_agent")._headers["kid"]
        ),
        "jku": signed({}, key=stranger, jku=url),
        "x5u": signed({}, key=stranger, x5u=url),
        "jwk": signed({}, key=stranger, jwk=jwk),
        "crit": signed({}, crit=["exp"]),
        "another type": signed({}, typ="JWT"),
    }.items():
        await refused(world, token, what)
    server.close()
    assert requests == []


async def test_c20_tokens_for_other_audiences_are_refused(world: World) -> None:
    """The audience must be the broker, and the issuer the signing service."""
    for changes in (
        {"aud": None},
        {"aud": "orchestrator"},
        {"aud": ["auth_broker"]},
        {"aud": ["auth_broker", "orchestrator"]},
        {"aud": ""},
        {"iss": "drift_repair_agent"},
        {"iss": None},
        {"sub": "drift_repair_agent"},
        {"sub": None},
        {"iss": "drift_repair_agent", "sub": "drift_repair_agent"},
    ):
        await refused(world, signed(changes), str(changes))


async def test_c21_tokens_outside_their_validity_are_refused(world: World) -> None:
    """A token is valid for a minute at most."""
    now = int(time.time())
    # Explicit times, since a second may pass before the token is signed.
    issued = {"iat": now, "nbf": now, "exp": now + 30}
    for changes in (
        {"iat": now - 66, "nbf": now - 66, "exp": now - 6},
        {"nbf": now + 60},
        {"iat": now + 60},
        {"exp": now + 10 * 365 * 86_400},
        {"exp": now + 61},
        {"exp": None},
        {"iat": None},
        {"nbf": None},
        {"jti": None},
        {"jti": ""},
        {"jti": 1},
        {"exp": str(now + 30)},
        {"exp": 1e300},
    ):
        await refused(world, signed({**issued, **changes}), str(changes))


async def test_c21_replayed_tokens_are_refused(world: World) -> None:
    """Even if the first use was rejected; each use is audited."""
    token = signed({})
    headers = {"Authorization": f"Bearer {token}"}
    async with without_key(world.mesh.auth_broker) as client:
        assert (await client.get(SECRET, headers=headers)).status_code == 200
    await refused(world, token, "replayed", (401, "token_replayed"))


async def test_c22_token_for_another_credential_is_refused(world: World) -> None:
    """A token names one credential; a request for another one is audited."""
    for named in ("other", None, "salesforce-prod-2", "SALESFORCE-PROD", ""):
        token = signed({"cid": named})
        await refused(world, token, str(named), (403, "wrong_credential"))
        jti = jwt.decode(token, options={"verify_signature": False})["jti"]
        row = await world.mesh.sql.fetchrow(
            "SELECT caller, result FROM credential_audit WHERE jti = $1", jti
        )
        assert row is not None
        assert tuple(row) == ("service orchestrator", "wrong_credential")


async def test_c22_service_without_the_scope_is_refused(world: World) -> None:
    forbidden = (403, "forbidden")
    for scope in ("connections:read", "admin", "", "credentials:rea", "credentials:read:all"):
        await refused(world, signed({"scope": scope}), scope, forbidden)
    agent = access.signer("drift_repair_agent").token("auth_broker", "credentials:read")
    await refused(world, agent, "another service", forbidden)


async def test_c22_key_without_the_scope_is_refused(world: World) -> None:
    """An API key allows only its scopes, and never access to a secret."""
    mesh = world.mesh
    reading = new_key("test")
    await mesh.sql.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by)"
        " VALUES ($1, $2, '{connections:read}', 'tests', 'tests')",
        reading.id,
        reading.digest,
    )
    headers = {"Authorization": f"Bearer {reading.key}", **JSON}
    before = await world.seen()
    held = world.connection["id"]
    for client, path in (
        (mesh.drift_repair_agent, APPLY),
        (mesh.orchestrator, "/connections/onboard"),
        (mesh.orchestrator, f"/connections/{held}/sync"),
        (mesh.orchestrator, "/api-keys"),
    ):
        answer = await client.post(path, content=CANARY, headers=headers)
        expect_problem(answer, (403, "forbidden"), path)
    answer = await mesh.auth_broker.get(SECRET, headers=headers)
    expect_problem(answer, NOBODY, "the broker")
    assert await world.seen() == before
