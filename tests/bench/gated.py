"""One service twice in one process: as it is, and below /without where everybody is let in."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from services.rag_engine.main import build
from shared.access import KEY_SCOPES, Caller
from shared.app import for_server
from shared.config import RagEngineSettings, load
from shared.gate import Gate

_WITHOUT = "/without"
_ANYBODY = Caller("bench", "bench", frozenset(KEY_SCOPES))


class _LetIn:
    """Stands where the gate stands."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["caller"] = _ANYBODY
        await self._app(scope, receive, send)


def _without_gate(app: FastAPI) -> FastAPI:
    gate: object = Gate
    app.user_middleware = [
        Middleware(_LetIn) if layer.cls is gate else layer for layer in app.user_middleware
    ]
    return app


class _Both:
    """Chooses by the path."""

    def __init__(self, gated: FastAPI, open_: FastAPI) -> None:
        self._gated, self._open = gated, open_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_WITHOUT):
            scope["path"] = scope["path"].removeprefix(_WITHOUT)
            await self._open(scope, receive, send)
        else:
            await self._gated(scope, receive, send)


_settings = load(RagEngineSettings)
app = _Both(for_server(build(_settings)), _without_gate(build(_settings)))
