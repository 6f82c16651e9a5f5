"""The fake Airbyte's HTTP server: authentication, recorded requests, planned faults."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import orjson
from aiohttp import web

from local.airbyte.api import dispatch
from local.airbyte.api.defaults import ORGANIZATION_ID
from local.airbyte.api.dispatch import Answer
from local.airbyte.api.requests import Body
from local.airbyte.errors import MOST_BODY_BYTES, Micronaut, Refusal, no_such_page, too_large
from local.airbyte.releases import MOST_STREAMS
from tests import leaks
from tests.fakes.airbyte_server._backend import Auth, ScriptedBackend
from tests.fakes.airbyte_server._definitions import WORKSPACE_ID
from tests.fakes.airbyte_server._faults import (
    CANNED,
    Fault,
    PlannedFault,
    close_connection,
    html,
    send_slowly,
)
from tests.fakes.airbyte_server._gateways import GATEWAYS

CLIENT_SECRET = leaks.canary("Airbyte's client secret")
PASSWORD = leaks.canary("Airbyte's password")
API_KEY = leaks.canary("Airbyte's API key")

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One recorded request; `path` is relative to the API, such as `sources/create`."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]
    raw_path: str


class AirbyteServer(ScriptedBackend):
    """An Airbyte instance for tests: `async with AirbyteServer(version="0.63.19") as airbyte: …`.

    Attributes to assert on: `sources`, `destinations`, `connections` by id, as Airbyte stores them
    (secrets in clear text, catalogs as `connections/get` returns them); `jobs` by number, and their
    `attempts`; `states` by connection; `requests` in order of arrival; `discoveries` counts
    connector runs by source.
    """

    def __init__(
        self,
        *,
        version: str = "2.0.0",
        auth: Auth = "none",
    ) -> None:
        super().__init__(version)
        self.auth = auth
        self.requests: list[Request] = []
        self.client_id = "aam-client"
        self.client_secret = CLIENT_SECRET
        self.username = "airbyte"
        self.password = PASSWORD
        self.api_key = API_KEY
        self.token_seconds = 900.0
        self.token_port = 0
        self._faults: list[PlannedFault] = []
        self._released = asyncio.Event()
        self._late: set[asyncio.Task[None]] = set()
        self._token_key = uuid4().bytes
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._peak: Counter[tuple[str, str]] = Counter()
        self._listener: asyncio.Server | None = None
        self._token_listener: asyncio.Server | None = None
        self._web: web.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free loopback port, in the running event loop."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; with its previous port it acts as the same Airbyte after a restart."""
        self._released = asyncio.Event()
        self._web = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._listener = await asyncio.get_running_loop().create_server(
            self._web, "127.0.0.1", port, reuse_address=True
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        if self.release.is_cloud:
            self._token_listener = await asyncio.get_running_loop().create_server(
                self._web, "127.0.0.1", self.token_port, reuse_address=True
            )
            self.token_port = self._token_listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and drop the open ones; state is preserved."""
        self._released.set()
        for task in self._late:
            task.cancel()
        for listener in filter(None, (self._listener, self._token_listener)):
            listener.close()
            # A connection accepted just now is registered with the server after at most three turns
            # of the event loop; before that, shutdown would not close it.
            for _ in range(3):
                await asyncio.sleep(0)
        if self._web is not None:
            await self._web.shutdown(timeout=0.1)
        self._listener = self._token_listener = self._web = None

    @property
    def url(self) -> str:
        """The value of `AIRBYTE_API_URL`."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def token_url(self) -> str:
        """The URL of the other server that issues tokens; only as Airbyte Cloud."""
        return f"http://127.0.0.1:{self.token_port}{_CLOUD_TOKEN_PATH}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a service uses this Airbyte."""
        cloud = {
            "AIRBYTE_TOKEN_URL": self.token_url,
            "AIRBYTE_WORKSPACE_ID": WORKSPACE_ID,
            "AIRBYTE_MAX_STREAMS": str(MOST_STREAMS),
        }
        return {
            "AIRBYTE_API_URL": self.url,
            **(cloud if self.release.is_cloud else {}),
            **{
                "none": {},
                "basic": {"AIRBYTE_USERNAME": self.username, "AIRBYTE_PASSWORD": self.password},
                "token": {
                    "AIRBYTE_CLIENT_ID": self.client_id,
                    "AIRBYTE_CLIENT_SECRET": self.client_secret,
                },
                "bearer": {"AIRBYTE_API_KEY": self.api_key},
            }[self.auth],
        }

    def fault(
        self,
        path: str,
        kind: Fault,
        *,
        times: int | None = 1,
        after_effect: bool = False,
        seconds: float = 1.0,
        skip: int = 0,
    ) -> None:
        """Inject a fault into the next `times` responses of a path (`*`: any); None: until `heal`.

        The first `skip` requests are answered as usual. Without `after_effect` the request has no
        effect. A number is a status with Airbyte's own error body. `lie` reports success but
        changes nothing; `hang` never answers; `slow` and `trickle` take `seconds`; `late` closes
        the connection, and takes effect `seconds` later.
        """
        self._faults.append(PlannedFault(path, kind, times, after_effect, seconds, None, skip))

    def answer(
        self,
        path: str,
        body: Any,
        *,
        status: int = 200,
        times: int | None = 1,
        effect: bool = True,
        skip: int = 0,
    ) -> None:
        """Send this body instead of the real one: a dict as JSON, bytes and text unchanged.

        The first `skip` requests still get the real one.
        """
        content_type = "text/html" if isinstance(body, str) else "application/json"
        answer = Answer(status, body, content_type)
        self._faults.append(PlannedFault(path, status, times, effect, 0.0, answer, skip))

    def limit_rate(
        self, retry_after: str | None, *, path: str = "*", status: int = 429, times: int | None = 1
    ) -> None:
        """Answer 429 with this `Retry-After` to the next `times` requests, which have no effect."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        answer = Answer(status, {"message": "Too Many Requests"}, headers=headers)
        self._faults.append(PlannedFault(path, status, times, False, 0.0, answer))

    def lose_route(
        self, gateway: str, *, status: int = 404, path: str = "*", times: int | None = None
    ) -> None:
        """Let a gateway answer in Airbyte's place, until `heal`; no request reaches Airbyte.

        `gateway` is a name of `GATEWAYS`.
        """
        answer = GATEWAYS[gateway](status)
        self._faults.append(PlannedFault(path, status, times, False, 0.0, answer))

    def heal(self) -> None:
        """Remove all faults, and close hanging requests."""
        self._faults.clear()
        self._failing_checks.clear()
        self._failing_discoveries.clear()
        self._released.set()
        self._released = asyncio.Event()

    def revoke_tokens(self) -> None:
        """Make every token issued so far answer 401."""
        self._token_key = uuid4().bytes

    def called(self, path: str) -> list[Any]:
        """Return the bodies of a path's requests, in order."""
        return [request.body for request in self.requests if request.path == path]

    def most_at_once(self, path: str, *, of_one: bool = True) -> int:
        """Return the peak number of concurrent requests of a path, for one object or for any."""
        if not of_one:
            return self._peak[path, _ANY]
        peaks = (peak for (at, name), peak in self._peak.items() if at == path and name != _ANY)
        return max(peaks, default=0)

    @property
    def most_discoveries_at_once(self) -> int:
        """The peak number of concurrent discoveries.

        A command counts until a client has read its final status, a synchronous one until it ends.
        """
        return max(self._most_open, self.most_at_once("sources/discover_schema", of_one=False))

    def forget_peaks(self) -> None:
        """Reset `most_at_once` and `most_discoveries_at_once`."""
        self._peak.clear()
        self._most_open = len(self._open_discoveries)

    # Responses

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.path_qs
        path = request.path.removeprefix("/api/v1/")
        length = request.content_length or 0
        if length > MOST_BODY_BYTES:
            await _drain(request)
            return self._sent(dispatch.refused(self, too_large(length, request.path)))
        content = await request.content.read()
        body = _parsed(content)
        self.requests.append(Request(request.method, path, body, dict(request.headers), raw))

        slots = ((path, _object_id(body)), (path, _ANY))
        for slot in slots:
            self._in_flight[slot] += 1
            self._peak[slot] = max(self._peak[slot], self._in_flight[slot])
        try:
            fault = self._next_fault(path)
            if fault is None:
                return self._sent(await self._act(request, content))
            return await self._fail(fault, request, content)
        finally:
            for slot in slots:
                self._in_flight[slot] -= 1

    def _next_fault(self, path: str) -> PlannedFault | None:
        for fault in self._faults:
            if fault.path in (path, "*"):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None

    async def _fail(
        self, fault: PlannedFault, request: web.BaseRequest, content: bytes
    ) -> web.StreamResponse:
        true: Answer | None = None
        if fault.kind == "slow" and not fault.after_effect:
            await asyncio.sleep(fault.seconds)
        if fault.kind == "lie":
            before = self._snapshot()
            true = await self._act(request, content)
            self._restore(before)
        elif fault.after_effect or fault.kind in ("slow", "trickle"):
            true = await self._act(request, content)
        if fault.kind == "slow" and fault.after_effect:
            await asyncio.sleep(fault.seconds)

        if fault.answer is not None:
            return self._sent(fault.answer)
        if isinstance(fault.kind, int):
            return self._sent(
                dispatch.refused(self, Refusal(fault.kind, "a fault was planted", known=False))
            )
        if fault.kind in CANNED:
            return self._sent(CANNED[fault.kind]())
        if true is not None and fault.kind in ("lie", "slow"):
            return self._sent(true)
        if fault.kind in ("endless", "trickle"):
            return await send_slowly(request, true, seconds=fault.seconds)
        if fault.kind == "late":
            task = asyncio.create_task(self._act_late(fault, request, content))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        if fault.kind == "hang":
            await self._released.wait()
        assert request.transport is not None
        close_connection(request.transport, fault.kind, true.content if true else b"")
        return web.Response()

    async def _act_late(
        self, fault: PlannedFault, request: web.BaseRequest, content: bytes
    ) -> None:
        await asyncio.sleep(fault.seconds)
        await self._act(request, content)

    async def _act(self, request: web.BaseRequest, content: bytes) -> Answer:
        """Answer a request; no other request is handled meanwhile, since nothing here waits."""
        path = request.path.removeprefix(dispatch.BASE)
        if self.release.is_cloud and _TOKEN in path:
            return self._cloud_token(request, content)
        try:
            denied = self._denied(request, path)
            if denied is None and path == _TOKEN:
                return Answer(200, self._token(Body.parsed(content)))
        except Refusal as refusal:
            return dispatch.refused(self, refusal)
        return denied or await dispatch.answer(self, request.method, request.path, content)

    def _snapshot(self) -> tuple[Any, ...]:
        held = [self.sources, self.destinations, self.connections, self.states, self.pins]
        jobs = {
            number: (dict(job), list(self.attempts[number])) for number, job in self.jobs.items()
        }
        refreshes = {of: list(stored) for of, stored in self.refreshes.items()}
        return orjson.loads(orjson.dumps(held)), jobs, refreshes

    def _restore(self, before: tuple[Any, ...]) -> None:
        held, jobs, self.refreshes = before
        self.sources, self.destinations, self.connections, self.states, self.pins = held
        self.jobs = {number: job for number, (job, _) in jobs.items()}
        self.attempts = {number: attempts for number, (_, attempts) in jobs.items()}

    def _denied(self, request: web.BaseRequest, path: str) -> Answer | None:
        given = request.headers.get("Authorization", "")
        if self.auth == "basic":
            wanted = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return None if given == f"Basic {wanted}" else html(401, "401 Authorization Required")
        if self.auth == "none" or path in _ANONYMOUS:
            return None
        token = given.removeprefix("Bearer ")
        if token == self.api_key or (self.auth == "token" and self._is_valid(token)):
            return None
        raise Refusal(401, "Unauthorized", known=False)

    def _sent(self, answer: Answer) -> web.Response:
        return web.Response(
            status=answer.status,
            body=answer.content,
            headers={"Content-Type": answer.content_type, **answer.headers},
        )

    # Authentication

    def _cloud_token(self, request: web.BaseRequest, content: bytes) -> Answer:
        """Answer as the token endpoint of Airbyte Cloud, which is on a host and path of its own."""
        assert request.transport is not None
        is_its_host = request.transport.get_extra_info("sockname")[1] == self.token_port
        if not is_its_host or request.path != _CLOUD_TOKEN_PATH:
            return Answer(404, "Not Found", "text/plain")
        body = Body.parsed(content)
        if (body.get("client_id"), body.get("client_secret")) != (
            self.client_id,
            self.client_secret,
        ):
            return Answer(401, {"error": "invalid_client"})
        token = self._signed(exp=time.time() + self.token_seconds)
        return Answer(
            200,
            {"access_token": token, "token_type": "Bearer", "expires_in": int(self.token_seconds)},
        )

    def _token(self, body: Body) -> Json:
        if self.auth != "token":
            raise no_such_page(dispatch.BASE + _TOKEN)
        wanted = (self.client_id, self.client_secret)
        if (body.text("client_id"), body.text("client_secret")) != wanted:
            raise Micronaut(400, "Invalid client id or token", dispatch.BASE + _TOKEN)
        return {"access_token": self._signed(exp=time.time() + self.token_seconds)}

    def _signed(self, *, exp: float) -> str:
        claims = {
            "iss": "http://localhost",
            "aud": "airbyte-server",
            "sub": ORGANIZATION_ID,
            "roles": ["ADMIN"],
            "exp": int(exp),
            "jti": str(uuid4()),
        }
        signed = b".".join(_base64url(orjson.dumps(part)) for part in ({"alg": "HS256"}, claims))
        signature = _base64url(self._mac(signed)).decode()
        leaks.know("Airbyte's bearer token", signature)
        return f"{signed.decode()}.{signature}"

    def _mac(self, content: bytes) -> bytes:
        return hmac.new(self._token_key, content, hashlib.sha256).digest()

    def _is_valid(self, token: str) -> bool:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), _base64url(self._mac(signed.encode()))):
            return False
        claims = signed.partition(".")[2]
        payload = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return bool(payload["exp"] > time.time())


_ANY = "*"
_TOKEN = "applications/token"
_CLOUD_TOKEN_PATH = "/v1/applications/token"
_ANONYMOUS = frozenset({"health", "instance_configuration", _TOKEN})


def _parsed(content: bytes) -> Any:
    """Return the JSON of a request, or its bytes if it is not JSON."""
    if not content:
        return None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content


def _object_id(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    return str(body.get("connectionId") or body.get("sourceId") or body.get("id") or "")


async def _drain(request: web.BaseRequest) -> None:
    async for _ in request.content.iter_chunked(1 << 16):
        pass


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
