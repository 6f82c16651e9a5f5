"""`/api/...`: the services' own routes at the console's address, for scripts and the CLI.

A path is the one of docs/api.md; `api_routes.txt` says which service has it, and nothing else is
passed on. Only the caller's `Authorization` counts: a session's cookie is neither read nor sent, so
a page of another site cannot use it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import aiohttp
import httpx
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from services.console.api import SERVICES, Clients, ServiceName, address_of
from shared.auth.failed_attempts import Guesses
from shared.errors import AamError, NotFound, UpstreamUnknown, UpstreamUnreachable
from shared.http.problems import problem_response
from shared.http.request_log import is_head
from shared.observability import logs

ROUTES_FILE: Final = Path(__file__).with_name("api_routes.txt")
PREFIX: Final = "/api"
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SENT: Final = (
    *("authorization", "accept", "content-type", "content-length", "idempotency-key"),
    *("last-event-id", "if-match", "if-none-match"),
)
"""Headers of a request that are passed on."""
_RETURNED: Final = (
    *("content-type", "cache-control", "retry-after", "www-authenticate", "allow", "etag"),
    *("location", "link", "x-accel-buffering"),
)
"""Headers of a response that are passed back."""
_TIMEOUT: Final = httpx.Timeout(330.0, connect=5.0, pool=5.0)
"""Longer than the longest `wait` of a service, and than the pause between heartbeats of events."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Target:
    """A route of one of the services."""

    service: ServiceName
    method: str
    template: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like, still percent-encoded."""
        parts = re.split(r"\{[^}]+\}", self.template)
        return re.compile("[^/]+".join(re.escape(part) for part in parts))


class RouteTable:
    """Which service has which route."""

    def __init__(self, text: str) -> None:
        """Read lines such as `orchestrator GET /connections/{connection_id}`."""
        self.targets = tuple(_targets(text))
        # A literal segment wins over a parameter, whatever their order in the file.
        ordered = sorted(self.targets, key=lambda one: (one.template.count("{"), one.template))
        self._patterns = [(one.pattern, one) for one in ordered]

    @classmethod
    def installed(cls) -> RouteTable:
        """The table that `make docs` writes from the services' OpenAPI descriptions."""
        return cls(ROUTES_FILE.read_text())

    def find(self, method: str, raw_path: str) -> ServiceName:
        """The service that has a route.

        Raises:
            NoSuchRoute: no service has it.
            WrongMethod: it has other methods.
        """
        if any(unquote(part) in (".", "..") for part in raw_path.split("/")):
            raise NoSuchRoute("There is no such route.")
        found = [one for pattern, one in self._patterns if pattern.fullmatch(raw_path)]
        for one in found:
            if one.method == method:
                return one.service
        if not found:
            raise NoSuchRoute("There is no such route.")
        raise WrongMethod(f"This route accepts {', '.join(sorted({one.method for one in found}))}.")


class NoSuchRoute(NotFound):
    """No service has the route."""

    title = "No such route"
    code = "no_such_route"


class WrongMethod(AamError):
    """The route exists, with other methods."""

    status = 405
    title = "Method not allowed"
    code = "method_not_allowed"


def _targets(text: str) -> Iterator[Target]:
    for line in text.splitlines():
        service, method, template = line.split()
        if service not in SERVICES or method not in _METHODS:
            raise ValueError(line)
        yield Target(service, method, template)


@router.api_route(PREFIX + "/{path:path}", methods=list(_METHODS))
async def forward(request: Request) -> Response:
    """Pass a request to the service that has its route, and its answer back as it arrives."""
    table: RouteTable = request.app.state.api_routes
    clients: Clients = request.app.state.clients
    guesses: Guesses = request.app.state.guesses
    address = address_of(request)
    presented = request.headers.get("authorization", "")
    try:
        guesses.expect_few(address, presented)
        raw_path = request.scope["raw_path"].decode("latin-1").removeprefix(PREFIX)
        service = table.find(request.method, raw_path)
        answer = await _sent(request, clients, raw_path, service)
    except AamError as error:
        wait_s = error.members.get("wait_s")
        headers = {} if wait_s is None else {"Retry-After": f"{int(wait_s) + 1}"}
        return problem_response(error.problem(), headers=headers)
    if presented and answer.status_code == 401:
        guesses.fail(address)
    elif presented and answer.is_success:
        guesses.prove(presented)
    return StreamingResponse(
        _passed_back(answer),
        status_code=answer.status_code,
        headers=_chosen(answer.headers, _RETURNED),
    )


async def _sent(
    request: Request, clients: Clients, raw_path: str, service: ServiceName
) -> httpx.Response:
    client = clients.client(service)
    query = request.scope["query_string"]
    base = client.base_url.raw_path.rstrip(b"/")
    target = base + raw_path.encode("latin-1") + (b"?" + query if query else b"")
    headers = (
        _chosen(request.headers, _SENT)
        | {logs.REQUEST_ID_HEADER: logs.request_id(), "Accept-Encoding": "identity"}
        | clients.forwarded(service, address_of(request))
    )
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    outgoing = client.build_request(
        "HEAD" if is_head(request) else request.method,
        client.base_url.copy_with(raw_path=target),
        headers=headers,
        content=request.stream() if has_body else None,
        timeout=_TIMEOUT,
    )
    try:
        return await client.send(outgoing, stream=True)
    except (httpx.HTTPError, aiohttp.ClientError) as error:
        if isinstance(error.__cause__, aiohttp.ClientConnectorError):
            raise UpstreamUnreachable(f"The {service} cannot be reached.") from None
        raise UpstreamUnknown(f"The {service} did not complete its response.") from None


async def _passed_back(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it arrives; JSON without its last newline, which the request log adds again.

    Raises:
        ClientDisconnect: the service broke off; the connection is closed, so the caller sees it.
    """
    is_json = "json" in answer.headers.get("content-type", "")
    held = b""
    try:
        async for part in answer.aiter_raw():
            whole = held + part
            held = b"\n" if is_json and whole.endswith(b"\n") else b""
            yield whole[: len(whole) - len(held)]
    except (httpx.HTTPError, aiohttp.ClientError):
        raise ClientDisconnect from None
    finally:
        await answer.aclose()


def _chosen(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
