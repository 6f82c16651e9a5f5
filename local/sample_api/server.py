"""The sample API as a server: the shop, the desk, and the control API that changes them.

The shop has an API key in a header, pages by number, and lists the names and types of its fields.
The desk has OAuth client credentials, pages by a cursor, and returns a JSON Schema of each stream.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from local.request_guard import Guard, token_of
from local.sample_api.settings import Settings
from local.sample_api.streams import AnyChange, Stream, apply, born
from shared.errors import AamError, NotFound

Json = dict[str, Any]
DESK_PAGE = 25
SHOP_PAGE = 50
TOKEN_PATH = "/api/desk/token"  # noqa: S105 - a path
_MOST_TOKENS = 100


class Denied(Exception):
    """The caller of one of the APIs has not the credential that it needs."""


class NewKey(BaseModel):
    """An API key for the shop."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=16, max_length=200, pattern=r"^[!-~]+$")]


class SampleApi:
    """The streams of both APIs, and the credentials that they accept."""

    def __init__(self, settings: Settings) -> None:
        self.key = settings.api_key.get_secret_value()
        self.client_id = settings.client_id
        self.client_secret = settings.client_secret.get_secret_value()
        self.streams = born()
        self._tokens: list[str] = []

    def stream(self, api: str, name: str) -> Stream:
        """Return a stream.

        Raises:
            NotFound: the API has no such stream.
        """
        found = self.streams[api].get(name)
        if found is None:
            raise NotFound(f"The {api} has no stream {name}.")
        return found

    def require_key(self, x_api_key: Annotated[str, Header()] = "") -> None:
        """Refuse a call to the shop without its key."""
        if not hmac.compare_digest(x_api_key.encode(), self.key.encode()):
            raise Denied

    def require_token(self, authorization: Annotated[str, Header()] = "") -> None:
        """Refuse a call to the desk without one of its access tokens."""
        if authorization.removeprefix("Bearer ") not in self._tokens:
            raise Denied

    def issue_token(self, client_id: str, client_secret: str) -> str:
        """Return a new access token; the older ones stay valid."""
        is_secret = hmac.compare_digest(client_secret.encode(), self.client_secret.encode())
        if client_id != self.client_id or not is_secret:
            raise Denied
        token = secrets.token_urlsafe(24)
        self._tokens = [*self._tokens[-_MOST_TOKENS:], token]
        return token


@dataclass(frozen=True)
class Running:
    """A running sample API and its addresses."""

    url: str
    control: dict[str, str]
    """The authorization header of `/control`."""
    api: SampleApi
    stopped: asyncio.Task[None]


def application(api: SampleApi, *, token: str) -> FastAPI:
    """Build both APIs and the control API, which requires `token`."""
    app = FastAPI(title="Sample API", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(
        Guard,
        token=token,
        refuse=lambda status, detail, _path: _problem(status, detail),
        open_paths=frozenset({"/health"}),
        own_login="/api/",
        forms=frozenset({TOKEN_PATH}),
    )
    app.add_exception_handler(Denied, _denied)
    app.add_exception_handler(AamError, _refused)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/control")
    async def show() -> Json:
        """Return every stream with the number of its rows and its JSON Schema."""
        return {
            name: {
                stream: {"rows": len(of.updated_at), "schema": of.schema()}
                for stream, of in streams.items()
            }
            for name, streams in api.streams.items()
        }

    @app.post("/control/changes")
    async def change(order: AnyChange) -> dict[str, str]:
        """Change a stream: `{"change": "rename", "api", "stream", "path": [...], "to"}`."""
        return {"changed": apply(api.streams, order, now=datetime.now(UTC))}

    @app.post("/control/key")
    async def change_key(order: NewKey) -> dict[str, str]:
        """Change the shop's API key; the shop then refuses the old one."""
        api.key = order.key
        return {"changed": "The shop has another API key."}

    @app.get("/api/shop/{name}/fields", dependencies=[Depends(api.require_key)])
    async def fields(name: str) -> Json:
        columns = api.stream("shop", name).columns
        return {"fields": [{"name": key, "type": of.type} for key, of in columns.items()]}

    @app.get("/api/shop/{name}", dependencies=[Depends(api.require_key)])
    async def shop_rows(
        name: str,
        page: Annotated[int, Query(ge=1)] = 1,
        limit: Annotated[int, Query(ge=1, le=100)] = SHOP_PAGE,
        updated_since: str | None = None,
    ) -> Json:
        start = (page - 1) * limit
        rows = api.stream("shop", name).page(since=updated_since, start=start, size=limit)
        return {"data": rows, "page": page}

    @app.post(TOKEN_PATH)
    async def access_token(request: Request) -> Json:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        issued = api.issue_token(form.get("client_id", ""), form.get("client_secret", ""))
        return {"access_token": issued, "token_type": "bearer", "expires_in": 3600}

    @app.get("/api/desk/streams", dependencies=[Depends(api.require_token)])
    async def desk_streams() -> Json:
        found = [{"name": name, "schema": of.schema()} for name, of in api.streams["desk"].items()]
        return {"streams": found}

    @app.get("/api/desk/records/{name}", dependencies=[Depends(api.require_token)])
    async def desk_rows(
        name: str,
        cursor: Annotated[int, Query(ge=0)] = 0,
        updated_since: str | None = None,
    ) -> Json:
        stream = api.stream("desk", name)
        rows = stream.page(since=updated_since, start=cursor, size=DESK_PAGE)
        return {"records": rows, "next": cursor + DESK_PAGE if len(rows) == DESK_PAGE else None}

    return app


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run the sample API for the duration of the block.

    Raises:
        OSError: the port is taken.
    """
    api = SampleApi(settings)
    token = token_of(settings.state_dir)
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", settings.port))
        door.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(
                application(api, token=token),
                log_config=None,
                access_log=False,
                ws="none",
                lifespan="off",
                timeout_graceful_shutdown=2,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[door]))
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has a flag, no event
                await asyncio.sleep(0.005)
            yield Running(
                url=f"http://127.0.0.1:{door.getsockname()[1]}",
                control={"Authorization": f"Bearer {token}"},
                api=api,
                stopped=serving,
            )
        finally:
            server.should_exit = True
            await serving


def _problem(status: int, detail: str) -> Response:
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


async def _denied(_request: Request, _error: Exception) -> Response:
    return _problem(401, "The credential is missing or wrong.")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AamError)  # noqa: S101 - registered for this class only
    return _problem(error.status, str(error))
