"""One service with and without authentication, in one process.

Requests below /key and /token are authenticated; those below /without are not. Below /signature,
one Ed25519 signature is verified and nothing else is checked.

The first path segment is the name under which the request's CPU time is recorded;
`GET /bench/times` returns the times in milliseconds by name.
"""

from __future__ import annotations

import time
from collections import defaultdict

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.rag_engine.main import build
from shared.auth.scopes import KEY_SCOPES, Caller
from shared.config import RagEngineSettings, load
from shared.http.authentication import Gate
from shared.http.shutdown import for_server

_CALLER = Caller("bench", "bench", frozenset(KEY_SCOPES))


class _NoAuthentication:
    """Middleware that replaces the gate and accepts every request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["caller"] = _CALLER
        await self._app(scope, receive, send)


def _without_gate(app: FastAPI) -> FastAPI:
    gate: object = Gate
    app.user_middleware = [
        Middleware(_NoAuthentication) if layer.cls is gate else layer
        for layer in app.user_middleware
    ]
    return app


class _PathRouter:
    """Selects the application by the first path segment; handles one request at a time."""

    def __init__(self, gated: FastAPI, open_: FastAPI) -> None:
        self._gated, self._open = gated, open_
        self._ms: dict[str, list[float]] = defaultdict(list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._gated(scope, receive, send)
            return
        _, name, rest = scope["path"].split("/", 2)
        if name == "bench":
            await Response(orjson.dumps(self._ms))(scope, receive, send)
            return
        scope["path"] = f"/{rest}"
        began = time.thread_time()
        if name == "signature":
            _KEY.verify(_SIGNATURE, _MESSAGE)
        await (self._gated if name in ("key", "token") else self._open)(scope, receive, send)
        self._ms[name].append((time.thread_time() - began) * 1000)


_signer = Ed25519PrivateKey.generate()
_MESSAGE = b"." * 300
_SIGNATURE = _signer.sign(_MESSAGE)
_KEY = _signer.public_key()
_settings = load(RagEngineSettings)
app = _PathRouter(for_server(build(_settings)), _without_gate(build(_settings)))
