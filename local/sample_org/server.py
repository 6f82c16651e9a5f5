"""The sample org as a server: its HTTP application and its two ports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from local.request_guard import Guard, token_of
from local.sample_org import control_api, salesforce_api
from local.sample_org.connect_proxy import SALESFORCE_HOST, Authority, Proxy
from local.sample_org.org import SalesforceError
from local.sample_org.running_org import LiveOrg
from local.sample_org.settings import Settings
from shared.errors import AamError, Invalid
from shared.http import docs_page

OPEN = frozenset({"/health"}) | docs_page.PATHS
"""Paths that need no token, since they reveal nothing about this org."""


@dataclass(frozen=True)
class Running:
    """A running org and its addresses."""

    url: str
    proxy_url: str
    ca_bundle: Path
    control: dict[str, str]
    """The authorization header of the control API."""
    live: LiveOrg
    stopped: asyncio.Task[None]

    @property
    def connector_environment(self) -> dict[str, str]:
        """The additional environment variables with which a connector reaches this org."""
        return {"HTTPS_PROXY": self.proxy_url, "REQUESTS_CA_BUNDLE": str(self.ca_bundle.resolve())}


def application(live: LiveOrg, *, token: str) -> FastAPI:
    """Build Salesforce's API and the control API of one org; the control API requires `token`."""
    app = FastAPI(
        title="Sample org",
        description="A small Salesforce org that can be changed.",
        openapi_url=docs_page.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    docs_page.add_docs(app)
    app.add_middleware(
        Guard,
        token=token,
        refuse=_refused,
        open_paths=OPEN,
        own_login="/services/",
        own_hosts=SALESFORCE_HOST.pattern,
        forms=frozenset({"/services/oauth2/token"}),
    )
    app.add_exception_handler(SalesforceError, _salesforce_refusal)
    app.add_exception_handler(AamError, _problem)
    app.add_exception_handler(RequestValidationError, _unreadable)

    @app.get("/health", tags=["org"])
    async def health() -> dict[str, str]:
        """Answer as soon as the org can be used."""
        return {"status": "ok"}

    app.include_router(control_api.routes(live))
    app.include_router(salesforce_api.routes(live), include_in_schema=False)
    return app


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run a sample org on loopback; it is ready inside the block and ends with it.

    Raises:
        OSError: a port is in use.
        JournalUnreadable: the state directory has a damaged journal.
    """
    live = LiveOrg(settings)
    authority = Authority(settings.state_dir)
    token = token_of(settings.state_dir)
    with _listen(settings.port) as door, _listen(settings.proxy_port) as proxy_door:
        port = door.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(
                application(live, token=token),
                log_config=None,
                access_log=False,
                http="h11",  # httptools would lower-case header names
                ws="none",
                lifespan="off",
                timeout_keep_alive=75,  # a client that polls a job reuses its connection
                timeout_graceful_shutdown=2,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[door]))
        proxy = await asyncio.start_server(Proxy(authority, port=port).accept, sock=proxy_door)
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 -- uvicorn has a flag, no event
                await asyncio.sleep(0.005)
            yield Running(
                url=f"http://127.0.0.1:{port}",
                proxy_url=f"http://127.0.0.1:{proxy_door.getsockname()[1]}",
                ca_bundle=authority.bundle,
                control={"Authorization": f"Bearer {token}"},
                live=live,
                stopped=serving,
            )
        finally:
            proxy.close()
            server.should_exit = True
            await serving


def _listen(port: int) -> socket.socket:
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
        door.listen(128)
    except OSError:
        door.close()
        raise
    return door


async def _salesforce_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SalesforceError)  # noqa: S101 -- registered for this class only
    return salesforce_api.refuse(error)


def _refused(status: int, detail: str, path: str) -> Response:
    if path.startswith("/services/"):
        return salesforce_api.refuse(SalesforceError(status, "INVALID_REQUEST", detail))
    return JSONResponse(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        },
        status,
        media_type="application/problem+json",
    )


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AamError)  # noqa: S101 -- registered for this class only
    return JSONResponse(error.problem(), error.status, media_type="application/problem+json")


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- registered for this class only
    problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    if request.url.path.startswith("/services/"):
        return salesforce_api.refuse(SalesforceError(400, "JSON_PARSER_ERROR", problems))
    return await _problem(request, Invalid(f"{problems}."))
