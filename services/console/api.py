"""Calls to the four services with the person's own credential; the console has no rights itself.

A problem+json becomes one ApiProblem. Several calls for the panels of a page run at once by `load`,
where one that fails leaves the others as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import aiohttp
import httpx
import orjson
from fastapi import Depends, Request
from httpx_aiohttp import AiohttpTransport

from services.console.problems import ApiProblem, PageProblem, SignedOut
from services.console.settings import ConsoleSettings
from shared.auth import forwarded_addresses
from shared.auth.service_tokens import Signer
from shared.observability import logs, tracing
from shared.tls import authorities

ServiceName = Literal["orchestrator", "drift_repair_agent", "schema_observer", "rag_engine"]
SERVICES: Final[tuple[ServiceName, ...]] = (
    "orchestrator",
    "drift_repair_agent",
    "schema_observer",
    "rag_engine",
)
_STANDARD: Final = frozenset({"type", "title", "status", "detail", "code", "request_id"})
_SAFE_RETRY: Final = re.compile(r"\d{1,5}")
_HEALTH_WITHIN_S: Final = 0.8
_LIMITS: Final = httpx.Limits(max_connections=1_000, keepalive_expiry=4.0)
"""Of each client: pages, `/api` and streams share it; idle connections end before uvicorn's 5 s."""
_SILENT_S: Final = 40.0
"""A stream of events without a heartbeat for this long is broken; there is one every 15 s."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """A service's answer: `body` is its JSON, or None without one.

    Status 202 with `operation_id` or `id` in the body means: recorded, and still in progress.
    """

    status: int
    body: Any

    @property
    def is_in_progress(self) -> bool:
        """Whether the work goes on after this answer."""
        return self.status == 202


@dataclass(frozen=True, slots=True)
class Panel(Generic[T]):
    """One part of a page: its value, or the problem because of which it is missing."""

    value: T | None
    problem: PageProblem | None = None


async def load(**parts: Awaitable[Any]) -> dict[str, Panel[Any]]:
    """Wait for several calls at once; one that fails makes only its own panel unavailable.

    Raises:
        SignedOut: the credential is no longer accepted.
    """
    found = await asyncio.gather(*(_panel(part) for part in parts.values()))
    if None in found:
        raise SignedOut
    return {name: panel for name, panel in zip(parts, found, strict=True) if panel is not None}


async def _panel(part: Awaitable[T]) -> Panel[T] | None:
    """A panel; None if the credential is no longer accepted, so that no other call is left."""
    try:
        return Panel(await part)
    except PageProblem as problem:
        return Panel(None, problem)
    except SignedOut:
        return None


class Service:
    """One service, called with one person's credential.

    A path's `{}` are filled in with the arguments that follow it, each as one segment:
    `get("/connections/{}/timeline", connection_id, kinds="sync")`.
    """

    def __init__(
        self,
        name: ServiceName,
        client: httpx.AsyncClient,
        credential: str,
        deadline_s: float,
        *,
        forwarded: Callable[[], Mapping[str, str]],
    ) -> None:
        self.name = name
        self._client = client
        self._credential = credential
        self._deadline_s = deadline_s
        self._forwarded = forwarded

    async def get(self, path: str, *segments: object, **query: object) -> Any:
        """Read JSON; a query parameter that is None is left out, a list is repeated.

        Raises:
            ApiProblem: the service answered with a problem, or not at all.
            SignedOut: it does not accept the credential.
        """
        reply = await self._call("GET", filled(path, *segments), query=query)
        return reply.body

    async def post(
        self,
        path: str,
        *segments: object,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST",
        within_s: float | None = None,
    ) -> Reply:
        """Send an order; with a form's `idempotency_key`, sending it again has no further effect.

        `within_s` is how long to wait for what starts a connector; PEER_TIMEOUT is the default.

        Raises:
            ApiProblem: the service refused, or its answer was lost (`service_timeout`).
            SignedOut: it does not accept the credential.
        """
        return await self._call(
            method,
            filled(path, *segments),
            query=query or {},
            content=None if body is None else orjson.dumps(body),
            idempotency_key=idempotency_key,
            within_s=within_s,
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object],
        content: bytes | None = None,
        idempotency_key: str | None = None,
        within_s: float | None = None,
    ) -> Reply:
        deadline_s = within_s or self._deadline_s
        headers = {"Authorization": f"Bearer {self._credential}"}
        if request_id := logs.request_id():
            headers[logs.REQUEST_ID_HEADER] = request_id
        headers |= self._forwarded()
        if content is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._client.request(
                    method,
                    path,
                    params=_query(query),
                    content=content,
                    headers=headers,
                    timeout=deadline_s,
                )
        except (TimeoutError, httpx.HTTPError, aiohttp.ClientError) as error:
            raise self._lost(method, error, is_keyed=idempotency_key is not None) from None
        return self._reply(answer)

    def _reply(self, answer: httpx.Response) -> Reply:
        try:
            body = orjson.loads(answer.content) if answer.content else None
        except orjson.JSONDecodeError:
            sentence = f"The {self.name} answered {answer.status_code} without JSON."
            raise self._problem(502, "service_invalid_answer", sentence) from None
        if answer.is_success:
            return Reply(answer.status_code, body)
        if answer.status_code == 401:
            raise SignedOut
        problem = body if isinstance(body, dict) else {}
        raise ApiProblem(
            answer.status_code,
            str(problem.get("code") or "http_error"),
            str(problem.get("detail") or f"The {self.name} answered {answer.status_code}."),
            service=self.name,
            request_id=problem.get("request_id"),
            members={name: one for name, one in problem.items() if name not in _STANDARD},
            wait_s=_wait_s(answer),
        )

    def _lost(self, method: str, error: Exception, *, is_keyed: bool) -> ApiProblem:
        # First, since the transport also raises ConnectTimeout for a refused connection.
        if isinstance(error.__cause__, aiohttp.ClientConnectorError):
            sentence = f"The {self.name} cannot be reached. Nothing was changed."
            return self._problem(503, "service_unreachable", sentence)
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            sentence = _late(method, self.name, is_keyed=is_keyed)
            return self._problem(504, "service_timeout", sentence)
        return self._problem(502, "service_no_answer", _late(method, self.name, is_keyed=is_keyed))

    def _problem(self, status: int, code: str, sentence: str) -> ApiProblem:
        return ApiProblem(
            status, code, sentence, service=self.name, request_id=logs.request_id() or None
        )


@dataclass(frozen=True, slots=True)
class Api:
    """The four services for one person."""

    orchestrator: Service
    drift_repair_agent: Service
    schema_observer: Service
    rag_engine: Service


class Clients:
    """The pooled HTTP clients of a process."""

    def __init__(self, settings: ConsoleSettings, signer: Signer | None = None) -> None:
        self._signer = signer
        self._deadline_s = settings.peer_timeout.total_seconds()
        self._clients: dict[ServiceName, httpx.AsyncClient] = {
            name: httpx.AsyncClient(
                base_url=str(getattr(settings, f"{name}_url")),
                transport=tracing.traced_transport(
                    AiohttpTransport(verify=authorities(), limits=_LIMITS)
                ),
                timeout=self._deadline_s,
                follow_redirects=False,
                trust_env=False,
            )
            for name in SERVICES
        }

    async def close(self) -> None:
        """Close the pooled connections."""
        for client in self._clients.values():
            await client.aclose()

    def client(self, name: ServiceName) -> httpx.AsyncClient:
        """The client of one service, without a credential."""
        return self._clients[name]

    def forwarded(self, name: ServiceName, address: str) -> dict[str, str]:
        """The headers that say for whom the console calls a service; none if that is unknown.

        Without a signer, a service believes them only if its FORWARDED_ALLOW_IPS names the console.
        """
        if not address:
            return {}
        headers = {"X-Forwarded-For": address}
        if self._signer is not None:
            headers[forwarded_addresses.HEADER] = forwarded_addresses.signed(
                self._signer, name, address
            )
        return headers

    def acting_with(self, credential: str, *, address: str = "") -> Api:
        """The services as one person may use them.

        `address` is the person's, by which the services count invalid credentials; empty: unknown.
        """
        return Api(
            **{
                name: Service(
                    name,
                    client,
                    credential,
                    self._deadline_s,
                    forwarded=partial(self.forwarded, name, address),
                )
                for name, client in self._clients.items()
            }
        )

    @asynccontextmanager
    async def events(self, token: str, after: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of the orchestrator's stream of events, with the console's service token.

        `after` is the id of the last event that was read, or empty for those from now on.

        Raises:
            PageProblem: it cannot be opened, or breaks off.
        """
        headers = {"Authorization": f"Bearer {token}"}
        if after:
            headers["Last-Event-ID"] = after
        timeout = httpx.Timeout(self._deadline_s, read=_SILENT_S)
        try:
            async with self._clients["orchestrator"].stream(
                "GET", "/events/stream", headers=headers, timeout=timeout
            ) as answer:
                if answer.status_code != 200:
                    code = f"http_{answer.status_code}"
                    raise PageProblem(503, code, "The orchestrator refused the event stream.")
                yield answer.aiter_lines()
        except (TimeoutError, httpx.HTTPError, aiohttp.ClientError):
            sentence = "The orchestrator's event stream was interrupted."
            raise PageProblem(503, "events_broken_off", sentence) from None

    async def is_running(self, name: ServiceName) -> bool:
        """Whether a service answers its health check."""
        try:
            async with asyncio.timeout(_HEALTH_WITHIN_S):
                answer = await self._clients[name].get("/health")
        except (TimeoutError, httpx.HTTPError, aiohttp.ClientError):
            return False
        return answer.is_success


def current_api(request: Request) -> Api:
    """The services with the credential of the request's session."""
    clients: Clients = request.app.state.clients
    return clients.acting_with(request.state.session.credential, address=address_of(request))


def address_of(request: Request) -> str:
    """The caller's address, behind a trusted proxy the one that it forwards; empty if unknown."""
    return request.client.host if request.client else ""


CallerApi = Annotated[Api, Depends(current_api)]


def filled(path: str, *segments: object) -> str:
    """A path with each `{}` replaced by one quoted segment.

    Raises:
        PageProblem: a segment is empty, `.` or `..`, which would lead to another route.
    """
    quoted = [quote(str(one), safe="") for one in segments]
    if any(one in ("", ".", "..") for one in quoted):
        raise PageProblem(404, "not_found", "There is no such page.")
    return path.format(*quoted)


def _query(given: Mapping[str, object]) -> list[tuple[str, str | int | float | bool | None]]:
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, _text(one)) for one in values if one is not None]
    return pairs


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wait_s(answer: httpx.Response) -> float | None:
    given = answer.headers.get("retry-after", "")
    return float(given) if _SAFE_RETRY.fullmatch(given) else None


def _late(method: str, service: str, *, is_keyed: bool) -> str:
    if method == "GET":
        return f"The {service} did not answer in time."
    unknown = f"The {service} did not answer in time, so it is unknown whether this was done."
    if is_keyed:
        return f"{unknown} Sending the same form again has no further effect."
    return f"{unknown} Check whether it was done before you send the form again."
