"""An OpenID Connect issuer: signs people in, checks what clients send, and issues signed tokens."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests import leaks

AUDIENCE = "aam"
CLIENT_ID = "aam console"
Json = dict[str, Any]
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"
AUTHORIZE, TOKEN = "/authorize", "/token"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = Ed25519PrivateKey.generate()
_COOKIE = "issuer-session"


def public_key(algorithm: Any, key: Any, kid: str, **other: Any) -> Json:
    """Return a public key as a JWK, as an issuer publishes it."""
    public = key if isinstance(key, bytes) else key.public_key()
    jwk: Json = json.loads(algorithm.to_jwk(public))
    jwk.pop("key_ops", None)
    return {**jwk, "kid": kid, "use": "sig", **other}


@dataclass(frozen=True)
class _Granted:
    """What a code is good for, once."""

    nonce: str | None
    challenge: str
    redirect_uri: str
    scope: str


class Idp:
    """An issuer: the documents it serves, its one client, and how often each path was requested."""

    def __init__(self) -> None:
        self.url = ""
        self.app = FastAPI()
        self.app.get("/{path:path}")(self._answer)
        self.app.post(AUTHORIZE)(self._sign_in)
        self.app.post(TOKEN)(self._exchange)
        self.reset()

    def reset(self) -> None:
        """Forget what a test changed."""
        self.keys: list[Any] = [
            public_key(RSAAlgorithm, RSA, "rsa", alg="RS256"),
            public_key(ECAlgorithm, EC, "ec"),
            public_key(OKPAlgorithm, ED, "ed", alg="EdDSA"),
        ]
        self.discovery: Json = {}
        self.instead: dict[str, Callable[[], Awaitable[Response]]] = {}
        self.asked: list[str] = []
        self.client_secret: str | None = None
        self.redirect_uris: set[str] = set()
        self.person: Json = {"sub": "00u1a", "email": "ada@example.com"}
        self.scope = "connections:read repairs:read"
        """What the claim `scope` of people's access tokens has."""
        self.id_token_claims: Json = {}
        self.access_token_claims: Json = {}
        self._codes: dict[str, _Granted] = {}

    async def _answer(self, request: Request) -> Any:
        path = request.url.path
        self.asked.append(path)
        if path in self.instead:
            return await self.instead[path]()
        if path == DISCOVERY:
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}{KEYS}",
                "authorization_endpoint": f"{self.url}{AUTHORIZE}",
                "token_endpoint": f"{self.url}{TOKEN}",
                "authorization_response_iss_parameter_supported": True,
                **self.discovery,
            }
        if path == AUTHORIZE:
            return self._authorize(request)
        return {"keys": self.keys}

    def _authorize(self, request: Request) -> Response:
        """Lead back with a code where somebody is signed in; else show a form."""
        asked = dict(request.query_params)
        if asked.get("client_id") != CLIENT_ID or asked.get("redirect_uri") not in (
            self.redirect_uris
        ):
            return HTMLResponse("Unknown client or redirect_uri.", status_code=400)
        if (
            asked.get("response_type") != "code"
            or "openid" not in asked.get("scope", "").split()
            or asked.get("code_challenge_method") != "S256"
            or len(asked.get("code_challenge", "")) != 43
        ):
            return self._back(asked, error="invalid_request")
        if request.cookies.get(_COOKIE) == "ada":
            code = secrets.token_urlsafe(24)
            self._codes[code] = _Granted(
                asked.get("nonce"), asked["code_challenge"], asked["redirect_uri"], asked["scope"]
            )
            return self._back(asked, code=code)
        if asked.get("prompt") == "none":
            return self._back(asked, error="login_required")
        action = html.escape(f"{AUTHORIZE}?{request.url.query}")
        return HTMLResponse(
            "<!doctype html><html lang='en'><title>Issuer</title><link rel='icon' href='data:,'>"
            f"<main><h1>Issuer</h1><form method='post' action='{action}'>"
            "<button>Continue as Ada</button></form></main></html>"
        )

    def _back(self, asked: Json, **answer: str) -> Response:
        query = {**answer, "iss": self.url, "state": asked.get("state", "")}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(query)}", status_code=302)

    async def _sign_in(self, request: Request) -> Response:
        response = RedirectResponse(f"{AUTHORIZE}?{request.url.query}", status_code=303)
        response.set_cookie(_COOKIE, "ada", httponly=True, samesite="lax")
        return response

    async def _exchange(self, request: Request) -> Response:
        """Exchange a code once, for the client that asked for it."""
        self.asked.append(TOKEN)
        if TOKEN in self.instead:
            return await self.instead[TOKEN]()
        form = dict(parse_qsl((await request.body()).decode("ascii"), strict_parsing=True))
        if not self._is_client(request, form):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        granted = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            granted is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != granted.redirect_uri
            or challenge != granted.challenge
        ):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        id_claims = {"aud": CLIENT_ID, "nonce": granted.nonce, "scope": None}
        tokens = {
            "access_token": self.token(
                claims=self.claims(**{**self.person, "scope": self.scope})
                | self.access_token_claims
            ),
            "id_token": self.token(
                claims=self.claims(**self.person, **id_claims) | self.id_token_claims
            ),
        }
        for kind, token in tokens.items():
            leaks.know(f"an issuer's {kind}", token.rpartition(".")[2][:43])
        return JSONResponse({**tokens, "token_type": "Bearer", "expires_in": 60})

    def _is_client(self, request: Request, form: Json) -> bool:
        """Whether the client proved to be the registered one, by exactly one method."""
        given = request.headers.get("authorization", "")
        if not given:
            return (form.get("client_id"), form.get("client_secret")) == (
                CLIENT_ID,
                self.client_secret,
            )
        if "client_secret" in form or not given.startswith("Basic "):
            return False
        name, _, secret = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        return (unquote(name), unquote(secret)) == (CLIENT_ID, self.client_secret)

    def claims(self, **other: Any) -> Json:
        """Return a valid token's claims, times relative to now; None removes a claim."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "00u1a",
            "exp": 60,
            "iat": 0,
            "scope": "openid connections:read repairs:decide",
            **other,
        }
        for name in ("exp", "iat", "nbf"):
            if isinstance(claims.get(name), int):
                claims[name] += int(time.time())
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        key: Any = RSA,
        alg: str = "RS256",
        kid: str | None = "rsa",
        claims: Json | None = None,
        **headers: Any,
    ) -> str:
        """Return a signed token, by default a valid one."""
        payload = self.claims() if claims is None else claims
        return jwt.encode(payload, key, alg, headers={"kid": kid, **headers} if kid else headers)
