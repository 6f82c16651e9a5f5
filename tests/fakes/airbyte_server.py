"""A scriptable Airbyte server: real HTTP on loopback, so that the real client is what is tested.

It plays the Configuration API of 0.63.19 (lists whole, synchronous discover, stack traces in
errors) and of 1.7 and later (commands, pages of 20, `{"errorId"}` errors since 2.0), each with the
authentication that goes with it. State is plain attributes; what went wrong is scripted by verbs.
It runs no connector: a source offers what the test says it offers.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, Self
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import jsonschema
import orjson
from aiohttp import web

Json = dict[str, Any]
Auth = Literal["none", "basic", "token", "bearer"]
Fault = (
    int
    | Literal[
        "html_200",
        "html_502",
        "html_504",
        "empty_200",
        "other_200",
        "truncated",
        "reset",
        "close",
        "hang",
        "garbage",
        "lie",
        "slow",
        "late",
        "trickle",
        "redirect",
        "gzip_bomb",
        "endless",
    ]
)

WORKSPACE_ID = "7c1f0d5e-2a53-4a0e-9b63-0a0a0a0a0a01"
ORGANIZATION_ID = "00000000-0000-0000-0000-000000000000"
SALESFORCE = "b117307c-14b6-41aa-9422-947e34922962"
HARDCODED_RECORDS = "084124ab-22db-4019-b36d-630418541bf7"
POSTGRES = "25c5221d-dce2-4163-ade9-739ef790f503"
MASK = "**********"
MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_FIELDS = 20_000
TERMINAL = frozenset({"failed", "succeeded", "cancelled"})

SUGGESTED = frozenset(
    {"Account", "Contact", "Lead", "Opportunity", "OpportunityStage", "Stage", "Task", "User"}
)
"""What the Salesforce connector suggests; such streams come selected from a discovery."""


def stream(
    name: str,
    fields: Mapping[str, str | Json] | Sequence[str] = ("Id", "Name"),
    *,
    cursor: str | None = "SystemModstamp",
    key: str | None = "Id",
    namespace: str | None = None,
) -> Json:
    """A stream as a connector offers it; a field without a type is a nullable string."""
    typed = fields if isinstance(fields, Mapping) else dict.fromkeys(fields, "string")
    properties: Json = {
        field: of if isinstance(of, dict) else {"type": [of, "null"]} for field, of in typed.items()
    }
    if cursor is not None:
        properties.setdefault(cursor, {"type": ["string", "null"], "format": "date-time"})
    offered: Json = {
        "name": name,
        "jsonSchema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "additionalProperties": True,
            "properties": properties,
        },
        "supportedSyncModes": ["full_refresh", *(["incremental"] if cursor else [])],
        "sourceDefinedCursor": cursor is not None,
        "defaultCursorField": [cursor] if cursor else [],
        "sourceDefinedPrimaryKey": [[key]] if key else [],
        "isResumable": cursor is not None,
    }
    if namespace is not None:
        offered["namespace"] = namespace
    return offered


def catalog(*streams: Json) -> Json:
    """What a source offers, with the configuration Airbyte proposes for each stream."""
    return {
        "streams": [
            {"stream": one, "config": _proposed(one, only=len(streams) == 1)} for one in streams
        ]
    }


def _proposed(offered: Json, *, only: bool) -> Json:
    cursor = offered.get("defaultCursorField") or []
    key = offered.get("sourceDefinedPrimaryKey") or []
    modes = offered.get("supportedSyncModes") or ["full_refresh"]
    sync_mode, destination_mode = "full_refresh", "overwrite"
    if offered.get("sourceDefinedCursor") and key and "incremental" in modes:
        sync_mode, destination_mode = "incremental", "append_dedup"
    elif offered.get("sourceDefinedCursor") and "full_refresh" not in modes:
        sync_mode, destination_mode = "incremental", "append"
    suggested = only or offered["name"] in SUGGESTED
    return {
        "syncMode": sync_mode,
        "cursorField": cursor,
        "destinationSyncMode": destination_mode,
        "primaryKey": key,
        "aliasName": _alias(offered["name"]),
        "selected": suggested,
        "suggested": suggested,
        "fieldSelectionEnabled": False,
        "selectedFields": [],
    }


def _alias(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


DEFAULT_CATALOG = catalog(
    stream("Account", {"Id": "string", "Name": "string", "AnnualRevenue": "number"}),
    stream("Contact", ("Id", "AccountId", "Email", "LastName")),
    stream("Opportunity", {"Id": "string", "Amount": "number", "IsClosed": "boolean"}),
    stream("Case", ("Id", "Subject", "Status")),
    stream("Describe", ("name", "label"), cursor=None, key=None),
)


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `path` is relative to the API, such as `sources/create`."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]
    raw_path: str


@dataclass
class _Fault:
    path: str
    kind: Fault
    times: int | None
    after_effect: bool
    seconds: float
    answer: _Answer | None = None


@dataclass
class _Answer:
    """What a route says; `body` None is an empty body, bytes go out as they are."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Failure:
    """How a connector fails: `job` means that Airbyte could not even run it."""

    failure_type: str
    message: str
    retryable: bool | None
    times: int | None
    job: bool = True


class _Refused(Exception):
    """Airbyte's own no; `known` errors keep their message also in 2.0 and later."""

    def __init__(self, status: int, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.known = status, message, known


class _Forbidden(Exception):
    pass


class AirbyteServer:
    """One Airbyte instance of a test. `async with AirbyteServer(version="0.63.19") as airbyte: …`.

    Attributes to assert on: `sources`, `destinations`, `connections` by id, as Airbyte holds them
    (secrets in clear text, catalogs as `connections/get` answers them); `jobs` by number, and their
    `attempts`; `requests` in order of arrival; `discoveries` counts connector runs by source.
    """

    def __init__(
        self,
        *,
        version: str = "2.0.0",
        auth: Auth = "none",
        error_style: Literal["message", "errorId"] | None = None,
    ) -> None:
        self.version = version
        self._number = (99,) if version == "head" else _numbers(version)
        self.auth = auth
        self.error_style = error_style or ("errorId" if self._number >= (2, 0) else "message")

        self.sources: dict[str, Json] = {}
        self.destinations: dict[str, Json] = {}
        self.connections: dict[str, Json] = {}
        self.jobs: dict[int, Json] = {}
        self.attempts: dict[int, list[Json]] = {}
        self.requests: list[Request] = []
        self.discoveries: Counter[str] = Counter()
        self.commands: dict[str, Json] = {}
        self.source_definitions = [
            _source_definition(SALESFORCE, "Salesforce", "source-salesforce", "2.10.3"),
            _source_definition(
                HARDCODED_RECORDS, "Hardcoded Records", "source-hardcoded-records", "0.0.48"
            ),
        ]
        self.destination_definitions = [
            _destination_definition(POSTGRES, "Postgres", "destination-postgres", "2.4.0"),
        ]

        self.client_id = "aam-client"
        self.client_secret = "AAMCANARY-airbyte-client-secret"
        self.username = "airbyte"
        self.password = "AAMCANARY-airbyte-password"
        self.api_key = "AAMCANARY-airbyte-api-key"
        self.token_seconds = 900.0
        self.unknown_is_forbidden = False
        self.command_statuses: list[str | None] = ["running"]
        self.jobs_finish_after: int | None = None

        self._offered: dict[str | None, Any] = {None: DEFAULT_CATALOG}
        self._cached: dict[str, tuple[str, Any]] = {}
        self._failing_discoveries: dict[str | None, _Failure] = {}
        self._failing_checks: dict[str | None, _Failure] = {}
        self._job_outcome: Json = {"status": "succeeded", "records": 0, "bytes": 0}
        self._polls: Counter[int] = Counter()
        self._faults: list[_Fault] = []
        self._released = asyncio.Event()
        self._late: set[asyncio.Task[None]] = set()
        self._deleted: dict[str, Json] = {}
        self._token_key = uuid4().bytes
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._peak: Counter[tuple[str, str]] = Counter()
        self._listener: asyncio.Server | None = None
        self._web: web.Server | None = None
        self.port = 0

    # Running it

    async def __aenter__(self) -> Self:
        """Listen on a free loopback port, of the running loop."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up on everybody."""
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; with the port of before, it is the same Airbyte come back with all its state."""
        self._released = asyncio.Event()
        self._web = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._listener = await asyncio.get_running_loop().create_server(
            self._web, "127.0.0.1", port, reuse_address=True
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and drop those that are open; state stays."""
        self._released.set()
        for task in self._late:
            task.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._web is not None:
            await self._web.shutdown(timeout=0.1)
        self._listener = self._web = None

    @property
    def url(self) -> str:
        """What `AIRBYTE_API_URL` is to be."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a service that is to use this Airbyte."""
        return {
            "AIRBYTE_API_URL": self.url,
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

    # Scripting it

    def offers(self, offered: Json | bytes, *, source: str | UUID | None = None) -> None:
        """The catalog that discoveries find from now on, of one source or of all.

        Bytes are a catalog as JSON that goes out untouched: for catalogs of many megabytes.
        """
        key = None if source is None else str(source)
        self._offered[key] = orjson.Fragment(offered) if isinstance(offered, bytes) else offered

    def fail_discovery(
        self,
        failure_type: str = "system_error",
        message: str = "Schema could not be extracted.",
        *,
        retryable: bool | None = None,
        source: str | UUID | None = None,
        times: int | None = None,
    ) -> None:
        """Discoveries end without a catalog, by HTTP 200. `times` None: until `heal`."""
        key = None if source is None else str(source)
        self._failing_discoveries[key] = _Failure(failure_type, message, retryable, times)

    def fail_check(
        self,
        message: str = "Authentication failed.",
        *,
        failure_type: str = "config_error",
        job: bool = False,
        source: str | UUID | None = None,
        times: int | None = None,
    ) -> None:
        """Checks answer `failed`; with `job` the check could not even run, and has no status."""
        key = None if source is None else str(source)
        self._failing_checks[key] = _Failure(failure_type, message, None, times, job)

    def finish_job(
        self,
        job_id: int,
        status: Literal["succeeded", "failed", "cancelled", "incomplete"] = "succeeded",
        *,
        records: int = 0,
        bytes: int = 0,
        failure: tuple[str, str] | None = None,
    ) -> None:
        """End a job's running attempt; `failure` is its failure type and message."""
        job, now = self.jobs[job_id], _now()
        stats = {
            "recordsEmitted": records,
            "bytesEmitted": bytes,
            "recordsCommitted": records if status == "succeeded" else 0,
            "bytesCommitted": bytes if status == "succeeded" else 0,
        }
        if self._number >= (2, 0):
            stats["recordsRejected"] = 0
        job.update(status=status, updatedAt=now, aggregatedStats=stats)
        attempt = self.attempts[job_id][-1]
        attempt.update(
            status="succeeded" if status == "succeeded" else "failed",
            updatedAt=now,
            endedAt=now,
            bytesSynced=bytes,
            recordsSynced=records,
            totalStats={
                "recordsEmitted": records,
                "bytesEmitted": bytes,
                "recordsCommitted": stats["recordsCommitted"],
            },
        )
        if failure is not None:
            attempt["failureSummary"] = {
                "failures": [_reason(_Failure(*failure, retryable=None, times=None))],
                "partialSuccess": False,
            }

    def jobs_end_with(
        self,
        status: Literal["succeeded", "failed", "cancelled"] = "succeeded",
        *,
        polls: int = 1,
        records: int = 0,
        bytes: int = 0,
    ) -> None:
        """Every job ends by itself once it was asked about `polls` times."""
        self.jobs_finish_after = polls
        self._job_outcome = {"status": status, "records": records, "bytes": bytes}

    def start_job(self, connection_id: str | UUID, config_type: str = "sync") -> Json:
        """Start a job as Airbyte's own scheduler does."""
        job_id, now = len(self.jobs) + 1, _now()
        held = self.connections[str(connection_id)]
        self.jobs[job_id] = {
            "id": job_id,
            "configType": config_type,
            "configId": held["connectionId"],
            "createdAt": now,
            "updatedAt": now,
            "startedAt": now,
            "status": "running",
            "enabledStreams": [
                _descriptor(pair["stream"]) for pair in held["syncCatalog"]["streams"]
            ],
        }
        self.attempts[job_id] = [{"id": 0, "status": "running", "createdAt": now, "updatedAt": now}]
        return self.jobs[job_id]

    def fault(
        self,
        path: str,
        kind: Fault,
        *,
        times: int | None = 1,
        after_effect: bool = False,
        seconds: float = 1.0,
    ) -> None:
        """Spoil the next `times` answers of a path (`*`: of any); None is until `heal`.

        Without `after_effect` nothing has happened in Airbyte. A number is a status with Airbyte's
        own error body. `lie` answers a changing call well and keeps nothing of it; `hang` answers
        never; `slow` and `trickle` take `seconds`; `late` hangs up, and acts `seconds` later.
        """
        self._faults.append(_Fault(path, kind, times, after_effect, seconds))

    def answer(
        self, path: str, body: Any, *, status: int = 200, times: int | None = 1, effect: bool = True
    ) -> None:
        """Give this body instead of the true one: a dict as JSON, bytes and text as they are."""
        content_type = "text/html" if isinstance(body, str) else "application/json"
        self._faults.append(
            _Fault(path, status, times, effect, 0.0, _Answer(status, body, content_type))
        )

    def heal(self) -> None:
        """Nothing is spoilt any more, and whoever was kept hanging is hung up on."""
        self._faults.clear()
        self._failing_checks.clear()
        self._failing_discoveries.clear()
        self._released.set()
        self._released = asyncio.Event()

    def revoke_tokens(self) -> None:
        """Every token given out so far answers 401 from now on."""
        self._token_key = uuid4().bytes

    def called(self, path: str) -> list[Any]:
        """The bodies of the requests that a path received, in order."""
        return [request.body for request in self.requests if request.path == path]

    def most_at_once(self, path: str) -> int:
        """How many requests of a path were in flight together for one object, at most."""
        return max((peak for (at, _), peak in self._peak.items() if at == path), default=0)

    def add_source(self, name: str, definition_id: str = SALESFORCE, **configuration: Any) -> Json:
        """Somebody made a source by hand."""
        return self._add_actor(_SOURCE, name, definition_id, configuration)

    def add_destination(
        self, name: str = "Warehouse", definition_id: str = POSTGRES, **configuration: Any
    ) -> Json:
        """Somebody made a destination by hand."""
        return self._add_actor(_DESTINATION, name, definition_id, configuration)

    # Answering

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.path_qs
        path = request.path.removeprefix("/api/v1/")
        length = request.content_length or 0
        if length > MAX_BODY_BYTES:
            await _drain(request)
            return self._sent(_too_large(length))
        content = await request.content.read()
        if len(content) > MAX_BODY_BYTES:
            return self._sent(_too_large(len(content)))
        body, broken = _parsed(content)
        self.requests.append(Request(request.method, path, body, dict(request.headers), raw))

        slot = (path, _object_id(body))
        self._in_flight[slot] += 1
        self._peak[slot] = max(self._peak[slot], self._in_flight[slot])
        try:
            fault = self._next_fault(path)
            if fault is None:
                return self._sent(self._act(request, path, body, broken=broken))
            return await self._spoil(fault, request, path, body, broken=broken)
        finally:
            self._in_flight[slot] -= 1

    def _next_fault(self, path: str) -> _Fault | None:
        for fault in self._faults:
            if fault.path in (path, "*"):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None

    async def _spoil(
        self, fault: _Fault, request: web.BaseRequest, path: str, body: Any, *, broken: bool
    ) -> web.StreamResponse:
        true: _Answer | None = None
        if fault.kind == "slow" and not fault.after_effect:
            await asyncio.sleep(fault.seconds)
        if fault.kind == "lie":
            before = self._snapshot()
            true = self._act(request, path, body, broken=broken)
            self._restore(before)
        elif fault.after_effect or fault.kind in ("slow", "trickle"):
            true = self._act(request, path, body, broken=broken)
        if fault.kind == "slow" and fault.after_effect:
            await asyncio.sleep(fault.seconds)

        if fault.answer is not None:
            return self._sent(fault.answer)
        if isinstance(fault.kind, int):
            return self._sent(self._error(_Refused(fault.kind, "a fault was planted")))
        if fault.kind in _CANNED:
            return self._sent(_CANNED[fault.kind]())
        if true is not None and fault.kind in ("lie", "slow"):
            return self._sent(true)
        if fault.kind in ("endless", "trickle"):
            return await _dribble(request, true, seconds=fault.seconds)
        if fault.kind == "late":
            task = asyncio.create_task(self._act_late(fault, request, path, body))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        if fault.kind == "hang":
            await self._released.wait()
        assert request.transport is not None
        _hang_up(request.transport, fault.kind, _bytes(true.body) if true else b"")
        return web.Response()

    async def _act_late(
        self, fault: _Fault, request: web.BaseRequest, path: str, body: Any
    ) -> None:
        await asyncio.sleep(fault.seconds)
        self._act(request, path, body, broken=False)

    def _snapshot(self) -> tuple[Any, ...]:
        return orjson.loads(orjson.dumps([self.sources, self.destinations, self.connections])), {
            number: (dict(job), list(self.attempts[number])) for number, job in self.jobs.items()
        }

    def _restore(self, before: tuple[Any, ...]) -> None:
        (self.sources, self.destinations, self.connections), jobs = before
        self.jobs = {number: job for number, (job, _) in jobs.items()}
        self.attempts = {number: attempts for number, (_, attempts) in jobs.items()}

    def _act(self, request: web.BaseRequest, path: str, body: Any, *, broken: bool) -> _Answer:
        refusal = self._gate(request, path)
        route = self._route(request.method, path)
        if refusal is not None or route is None:
            return refusal or _not_found(request.path)
        if broken:
            return self._error(_Refused(422, "Unable to parse the JSON body."))
        try:
            answer = route(self, body if isinstance(body, dict) else {})
        except _Refused as refused:
            return self._error(refused)
        except _Forbidden:
            return _problem(403, "forbidden", "Access to this resource is forbidden.")
        return answer if isinstance(answer, _Answer) else _Answer(200, answer)

    def _route(self, method: str, path: str) -> Route | None:
        route = _ROUTES.get((method, path))
        if route is None:
            return None
        since, until = _OFFERED_BY.get(path, ((0,), (999,)))
        return route if since <= self._number[:2] <= until else None

    def _gate(self, request: web.BaseRequest, path: str) -> _Answer | None:
        given = request.headers.get("Authorization", "")
        if self.auth == "basic":
            wanted = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return None if given == f"Basic {wanted}" else _html(401, "401 Authorization Required")
        if self.auth == "none" or path in _ANONYMOUS:
            return None
        token = given.removeprefix("Bearer ")
        if token == self.api_key or (self.auth == "token" and self._is_valid(token)):
            return None
        return self._error(_Refused(401, "Unauthorized"))

    def _error(self, refused: _Refused) -> _Answer:
        if self.error_style == "message":
            trace = f"java.lang.RuntimeException: {refused.message}"
            return _Answer(
                refused.status,
                {
                    "message": refused.message,
                    "exceptionClassName": "java.lang.RuntimeException",
                    "exceptionStack": [trace, "\tat io.airbyte.server.Handler(Handler.java:42)"],
                    "validationErrors": [],
                },
            )
        told: Json = {"errorId": str(uuid4())}
        if refused.known:
            told["message"] = refused.message
        return _Answer(refused.status, told)

    def _sent(self, answer: _Answer) -> web.Response:
        return web.Response(
            status=answer.status,
            body=b"" if answer.body is None else _bytes(answer.body),
            headers={"Content-Type": answer.content_type, **answer.headers},
        )

    # The instance

    def _health(self, _: Json) -> Json:
        return {"available": True}

    def _instance_configuration(self, _: Json) -> Json:
        told: Json = {
            "edition": "community",
            "version": "dev" if self.version == "head" else self.version,
            "auth": {"mode": "simple" if self.auth in ("token", "bearer") else "none"},
            "airbyteUrl": f"http://127.0.0.1:{self.port}",
            "initialSetupComplete": True,
            "defaultUserId": ORGANIZATION_ID,
            "defaultOrganizationId": ORGANIZATION_ID,
            "defaultOrganizationEmail": "somebody@example.org",
            "defaultWorkspaceId": WORKSPACE_ID,
            "trackingStrategy": "logging",
        }
        if self._number >= (2, 0):
            told["licenseStatus"] = "pro"
        return told

    def _token(self, body: Json) -> Any:
        if self.auth != "token":
            raise _Refused(404, "Applications are not supported.")
        wanted = (self.client_id, self.client_secret)
        if (_need(body, "client_id"), _need(body, "client_secret")) != wanted:
            return _micronaut(400, "Bad Request", "Invalid client id or token")
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
        said = b".".join(_base64url(orjson.dumps(part)) for part in ({"alg": "HS256"}, claims))
        return (said + b"." + _base64url(self._mac(said))).decode()

    def _mac(self, said: bytes) -> bytes:
        return hmac.new(self._token_key, said, hashlib.sha256).digest()

    def _is_valid(self, token: str) -> bool:
        said, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), _base64url(self._mac(said.encode()))):
            return False
        claims = said.partition(".")[2]
        told = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return bool(told["exp"] > time.time())

    def _workspace(self) -> Json:
        return {
            "workspaceId": WORKSPACE_ID,
            "organizationId": ORGANIZATION_ID,
            "customerId": WORKSPACE_ID,
            "name": "Default Workspace",
            "slug": "default-workspace",
            "initialSetupComplete": True,
        }

    def _workspaces(self, _: Json) -> Json:
        return {"workspaces": [self._workspace()]}

    def _workspaces_of_organization(self, body: Json) -> Json:
        found = [self._workspace()] if _need(body, "organizationId") == ORGANIZATION_ID else []
        return {"workspaces": found}

    def _get_workspace(self, body: Json) -> Json:
        if _need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        return self._workspace()

    def _unknown(self, kind: str, object_id: object) -> Exception:
        if self.unknown_is_forbidden:
            return _Forbidden()
        message = f"Internal Server Error: Could not find configuration for {kind}: {object_id}."
        return _Refused(404, message)

    # Definitions

    def _list_source_definitions(self, _: Json) -> Json:
        return {"sourceDefinitions": [_public(one) for one in self.source_definitions]}

    def _list_destination_definitions(self, _: Json) -> Json:
        return {"destinationDefinitions": [_public(one) for one in self.destination_definitions]}

    def _get_source_definition(self, body: Json) -> Json:
        return _public(self._definition(_SOURCE, _need(body, "sourceDefinitionId")))

    def _get_destination_definition(self, body: Json) -> Json:
        return _public(self._definition(_DESTINATION, _need(body, "destinationDefinitionId")))

    def _source_specification(self, body: Json) -> Json:
        return self._specification(_SOURCE, body)

    def _destination_specification(self, body: Json) -> Json:
        modes = ["overwrite", "append", "append_dedup"]
        return {
            **self._specification(_DESTINATION, body),
            "supportedDestinationSyncModes": modes,
        }

    def _specification(self, kind: _Kind, body: Json) -> Json:
        definition = self._definition(kind, _need(body, f"{kind.word}DefinitionId"))
        _need(body, "workspaceId")
        return {
            f"{kind.word}DefinitionId": definition[f"{kind.word}DefinitionId"],
            "documentationUrl": definition["documentationUrl"],
            "connectionSpecification": definition["_specification"],
            "jobInfo": _job_info("get_spec", succeeded=True),
        }

    def _definition(self, kind: _Kind, definition_id: str) -> Json:
        offered = self.source_definitions if kind.word == "source" else self.destination_definitions
        for definition in offered:
            if definition[f"{kind.word}DefinitionId"] == definition_id:
                return definition
        raise self._unknown(f"STANDARD_{kind.word.upper()}_DEFINITION", definition_id)

    # Sources and destinations

    def _held(self, kind: _Kind) -> dict[str, Json]:
        return self.sources if kind.word == "source" else self.destinations

    def _actor(self, kind: _Kind, body: Json) -> Json:
        actor_id = str(_need(body, f"{kind.word}Id"))
        held = self._held(kind).get(actor_id)
        if held is None:
            raise self._unknown(f"{kind.word.upper()}_CONNECTION", actor_id)
        return held

    def _create_actor(self, kind: _Kind, body: Json) -> Json:
        definition_id = _need(body, f"{kind.word}DefinitionId")
        configuration = _need(body, "connectionConfiguration")
        if _need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        definition = self._definition(kind, definition_id)
        _validate(configuration, definition["_specification"])
        made = self._add_actor(kind, _need(body, "name"), definition_id, configuration)
        return self._read_actor(kind, made)

    def _add_actor(self, kind: _Kind, name: str, definition_id: str, configuration: Json) -> Json:
        definition = self._definition(kind, definition_id)
        made = {
            f"{kind.word}Id": str(uuid4()),
            f"{kind.word}DefinitionId": definition_id,
            "workspaceId": WORKSPACE_ID,
            "connectionConfiguration": configuration,
            "name": name,
            f"{kind.word}Name": definition["name"],
            "status": "active",
        }
        if self._number >= (1, 0):
            made["createdAt"] = _now()
        self._held(kind)[made[f"{kind.word}Id"]] = made
        return made

    def _read_actor(self, kind: _Kind, held: Json) -> Json:
        definition = self._definition(kind, held[f"{kind.word}DefinitionId"])
        configuration = _masked(held["connectionConfiguration"], definition["_specification"])
        return {**held, "connectionConfiguration": configuration}

    def _update_actor(self, kind: _Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        definition = self._definition(kind, held[f"{kind.word}DefinitionId"])
        configuration = _need(body, "connectionConfiguration")
        kept = held["connectionConfiguration"]
        whole = {
            name: kept.get(name, value) if value == MASK else value
            for name, value in configuration.items()
        }
        _validate(whole, definition["_specification"])
        held.update(connectionConfiguration=whole, name=_need(body, "name"))
        return self._read_actor(kind, held)

    def _patch_actor(self, kind: _Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        patch = body.get("connectionConfiguration") or {}
        return self._update_actor(
            kind,
            {
                **body,
                "name": body.get("name") or held["name"],
                "connectionConfiguration": {**held["connectionConfiguration"], **patch},
            },
        )

    def _list_actors(self, kind: _Kind, body: Json) -> Json:
        if _need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        found = list(self._held(kind).values())
        if self._number < (1, 8):
            return {f"{kind.word}s": [self._read_actor(kind, one) for one in found]}
        term = (body.get("filters") or {}).get("searchTerm")
        if term:
            like = re.compile(_ilike(term), re.IGNORECASE | re.DOTALL)
            found = [
                one
                for one in found
                if like.search(one["name"]) or like.search(one[f"{kind.word}Name"])
            ]
        found.sort(key=lambda one: (one["name"].lower(), one[f"{kind.word}Id"]))
        cursor = body.get("cursor")
        if cursor is not None:
            ids = [one[f"{kind.word}Id"] for one in found]
            found = found[ids.index(cursor) + 1 :] if cursor in ids else []
        size = body.get("pageSize") or 20
        total = len(found)
        return {
            f"{kind.word}s": [self._read_actor(kind, one) for one in found[:size]],
            "page_size": size,
            "num_connections": total,
        }

    def _delete_actor(self, kind: _Kind, body: Json) -> _Answer:
        held = self._actor(kind, body)
        actor_id = held[f"{kind.word}Id"]
        for connection in list(self.connections.values()):
            if connection[f"{kind.word}Id"] == actor_id:
                self._tombstone(connection)
        self._deleted[actor_id] = self._held(kind).pop(actor_id)
        return _Answer(204)

    def _check_actor(self, kind: _Kind, body: Json) -> Json:
        held = self._actor(kind, body)
        failure = self._failure(self._failing_checks, held[f"{kind.word}Id"])
        config_type = f"check_connection_{kind.word}"
        if failure is None:
            return {"status": "succeeded", "jobInfo": _job_info(config_type, succeeded=True)}
        if failure.job:
            return {"jobInfo": _job_info(config_type, succeeded=False, failure=failure)}
        return {
            "status": "failed",
            "message": failure.message,
            "jobInfo": _job_info(config_type, succeeded=True),
        }

    def _failure(self, failing: dict[str | None, _Failure], source_id: str) -> _Failure | None:
        key = source_id if source_id in failing else None
        failure = failing.get(key)
        if failure is not None and failure.times is not None:
            failure.times -= 1
            if failure.times <= 0:
                del failing[key]
        return failure

    # Discovering

    def _discover(self, body: Json) -> Json:
        source = self._actor(_SOURCE, body)
        if body.get("connectionId") is not None:
            raise _Refused(501, "A discovery with a connection id changes it, and is not played.")
        source_id = source["sourceId"]
        if not body.get("disable_cache") and source_id in self._cached:
            catalog_id, found = self._cached[source_id]
            info = _job_info("discover_schema", succeeded=True)
            info |= {"createdAt": 0, "endedAt": 0}
            return {"catalog": found, "catalogId": catalog_id, "jobInfo": info}
        outcome = self._run_discovery(source_id)
        if isinstance(outcome, _Failure):
            return {"jobInfo": _job_info("discover_schema", succeeded=False, failure=outcome)}
        catalog_id, found = outcome
        return {
            "catalog": found,
            "catalogId": catalog_id,
            "jobInfo": _job_info("discover_schema", succeeded=True),
        }

    def _run_discovery(self, source_id: str) -> _Failure | tuple[str, Any]:
        self.discoveries[source_id] += 1
        failure = self._failure(self._failing_discoveries, source_id)
        if failure is not None:
            return failure
        offered = self._offered.get(source_id, self._offered[None])
        found = offered
        if isinstance(offered, dict):
            found = {
                "streams": [self._discovered(pair, offered) for pair in offered.get("streams", [])]
            }
        digest = hashlib.sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self._cached[source_id] = (str(uuid5(NAMESPACE_URL, digest)), found)
        return self._cached[source_id]

    def _discovered(self, pair: Json, whole: Json) -> Json:
        config = pair.get("config") or _proposed(pair["stream"], only=len(whole["streams"]) == 1)
        return {"stream": self._played(pair["stream"]), "config": self._configured(config)}

    def _played(self, offered: Json) -> Json:
        told = {name: value for name, value in offered.items() if value is not None}
        told.setdefault("defaultCursorField", [])
        told.setdefault("sourceDefinedPrimaryKey", [])
        if self._number >= (2, 0):
            told.setdefault("isFileBased", False)
        else:
            told.pop("isFileBased", None)
        return told

    def _configured(self, config: Json) -> Json:
        told = {name: value for name, value in config.items() if value is not None}
        if self._number >= (2, 0):
            told.setdefault("hashedFields", [])
            told.setdefault("mappers", [])
            return told
        known = _CONFIG_OF_0_63
        return {name: value for name, value in told.items() if name in known}

    def _most_recent_catalog(self, body: Json) -> Json:
        source = self._actor(_SOURCE, body)
        cached = self._cached.get(source["sourceId"])
        return {"updatedAt": _now()} if cached is not None else {}

    def _run_discover_command(self, body: Json) -> Json:
        return self._run_command("discover", body)

    def _run_check_command(self, body: Json) -> Json:
        return self._run_command("check", body)

    def _run_command(self, kind: str, body: Json) -> Json:
        command_id = _need(body, "id")
        actor_id = str(_need(body, "actor_id"))
        if actor_id not in self.sources and actor_id not in self.destinations:
            raise _Forbidden
        if command_id not in self.commands:
            actor = _SOURCE if actor_id in self.sources else _DESTINATION
            outcome = (
                self._run_discovery(actor_id)
                if kind == "discover"
                else self._check_actor(actor, {f"{actor.word}Id": actor_id})
            )
            self.commands[command_id] = {
                "kind": kind,
                "actor_id": actor_id,
                "statuses": [*self.command_statuses, "completed"],
                "outcome": outcome,
            }
        return {"id": command_id}

    def _command(self, body: Json) -> Json:
        command = self.commands.get(_need(body, "id"))
        if command is None:
            raise _Forbidden
        return command

    def _command_status(self, body: Json) -> Json:
        statuses = self._command(body)["statuses"]
        status = statuses[0]
        if len(statuses) > 1:
            statuses.pop(0)
        return {"id": body["id"]} | ({} if status is None else {"status": status})

    def _discover_output(self, body: Json) -> Json:
        command, told = self._command(body), {"id": body["id"]}
        still = self._still_running(command, body)
        if still is not None:
            return told | still
        if isinstance(command["outcome"], _Failure):
            return told | {"status": "failed", "failureReason": _reason(command["outcome"])}
        catalog_id, found = command["outcome"]
        return told | {"status": "succeeded", "catalog": found, "catalogId": catalog_id}

    def _check_output(self, body: Json) -> Json:
        command, told = self._command(body), {"id": body["id"]}
        still = self._still_running(command, body)
        if still is not None:
            return told | still
        checked = command["outcome"]
        told["status"] = checked.get("status", "failed")
        if "message" in checked:
            told["message"] = checked["message"]
        if "failureReason" in checked["jobInfo"]:
            told["failureReason"] = checked["jobInfo"]["failureReason"]
        return told

    def _still_running(self, command: Json, body: Json) -> Json | None:
        if command["statuses"][0] in ("completed", "cancelled"):
            return None
        message = f"{body['id']} is still running, try again later."
        failure = _Failure("transient_error", message, retryable=True, times=None)
        return {"status": "failed", "failureReason": _reason(failure)}

    def _cancel_command(self, body: Json) -> Json:
        command = self._command(body)
        if command["statuses"][0] != "completed":
            command["statuses"] = ["cancelled"]
            message = "The command was cancelled."
            command["outcome"] = _Failure("manual_cancellation", message, None, None)
        return {"id": body["id"]}

    # Connections

    def _create_connection(self, body: Json) -> Json:
        source_id, destination_id = _need(body, "sourceId"), _need(body, "destinationId")
        _need(body, "status")
        if source_id not in self.sources and source_id not in self._deleted:
            raise self._unknown("SOURCE_CONNECTION", source_id)
        if destination_id not in self.destinations:
            raise self._unknown("DESTINATION_CONNECTION", destination_id)
        if body.get("schedule") and body.get("scheduleType"):
            raise _Refused(422, "Use either schedule or scheduleType, not both.", known=True)
        made: Json = {
            "connectionId": str(uuid4()),
            "name": body.get("name") or "source <> destination",
            "sourceId": source_id,
            "destinationId": destination_id,
            "workspaceId": WORKSPACE_ID,
            "status": str(body["status"]).lower(),
            "syncCatalog": {"streams": []},
            "namespaceDefinition": "source",
            "scheduleType": "manual",
            "breakingChange": False,
            "notifySchemaChanges": False,
            "notifySchemaChangesByEmail": False,
            "nonBreakingChangesPreference": "ignore",
            "backfillPreference": "disabled",
            "operationIds": [],
            "created_at": _now(),
        }
        if self._number >= (1, 0):
            made["tags"] = []
        self._patch(made, body)
        self.connections[made["connectionId"]] = made
        return made

    def _update_connection(self, body: Json) -> Json:
        held = self._connection(body)
        if body.get("schedule") is not None:
            raise _Refused(500, "Internal Server Error: schedule is deprecated.")
        patched = dict(held)
        self._patch(patched, body)
        held.clear()
        held.update(patched)
        return held

    def _patch(self, held: Json, body: Json) -> None:
        for name in _CONNECTION_FIELDS:
            if body.get(name) is not None:
                held[name] = body[name]
        if body.get("syncCatalog") is not None:
            held["syncCatalog"] = self._kept(body["syncCatalog"])

    def _kept(self, given: Json) -> Json:
        """What Airbyte keeps of a catalog: selected streams, cut to their selected fields."""
        pairs, names, fields = [], [], 0
        for pair in given.get("streams", []):
            if "selected" not in pair["config"]:
                raise _Refused(500, "Internal Server Error: getSelected() is null")
            if not pair["config"]["selected"]:
                continue
            kept = self._kept_stream(pair["stream"], pair["config"])
            fields += len(kept["stream"].get("jsonSchema", {}).get("properties", {}))
            names.append((pair["stream"].get("namespace"), pair["stream"]["name"]))
            pairs.append(kept)
        doubled = [name for (_, name), times in Counter(names).items() if times > 1]
        if doubled:
            raise _Refused(
                500, f"Internal Server Error: Catalog contains duplicate stream names: {doubled}"
            )
        if fields > MAX_FIELDS:
            raise _Refused(
                400,
                f"Total number of selected fields ({fields}) is greater than the limit "
                f"({MAX_FIELDS}) configured for this workspace.",
                known=True,
            )
        return {"streams": pairs}

    def _kept_stream(self, offered: Json, config: Json) -> Json:
        offered = self._played(offered)
        kept = self._configured(
            {
                "syncMode": config["syncMode"],
                "destinationSyncMode": config["destinationSyncMode"],
                "cursorField": config.get("cursorField") or [],
                "primaryKey": config.get("primaryKey") or [],
                "aliasName": _alias(offered["name"]),
                "selected": True,
                "suggested": False,
                "fieldSelectionEnabled": bool(config.get("fieldSelectionEnabled")),
                "selectedFields": [],
                **{
                    name: config.get(name)
                    for name in ("mappers", "includeFiles", "destinationObjectName", "namespace")
                },
            }
        )
        if kept["fieldSelectionEnabled"]:
            names = _selected_names(offered, config)
            schema = offered["jsonSchema"]
            properties = {
                name: of for name, of in schema["properties"].items() if name in set(names)
            }
            offered = {**offered, "jsonSchema": {**schema, "properties": properties}}
            kept["selectedFields"] = [{"fieldPath": [name]} for name in names]
        return {"stream": offered, "config": kept}

    def _connection(self, body: Json) -> Json:
        connection_id = str(_need(body, "connectionId"))
        held = self.connections.get(connection_id)
        if held is None:
            raise self._unknown("STANDARD_SYNC", connection_id)
        return held

    def _get_connection(self, body: Json) -> Json:
        connection_id = str(_need(body, "connectionId"))
        if connection_id in self._deleted:
            return self._deleted[connection_id]
        return self._connection(body)

    def _list_connections(self, body: Json) -> Json:
        if _need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        return {"connections": list(self.connections.values())}

    def _delete_connection(self, body: Json) -> _Answer:
        self._tombstone(self._connection(body))
        return _Answer(204)

    def _tombstone(self, connection: Json) -> None:
        connection_id = connection["connectionId"]
        del self.connections[connection_id]
        self._deleted[connection_id] = {**connection, "status": "deprecated"}

    def _search_sources(self, _: Json) -> Json:
        """Always empty: by reading, real Airbyte finds nothing either."""
        return {"sources": []}

    def _search_connections(self, _: Json) -> Json:
        return {"connections": []}

    # Jobs

    def _sync(self, body: Json) -> Json:
        held = self._connection(body)
        if held["status"] != "active":
            raise _Refused(500, "Internal Server Error: Can only sync an active connection")
        if self._running(held["connectionId"]) is not None:
            message = f"A sync is already running for: {held['connectionId']}"
            raise _Refused(409, message, known=True)
        return self._job_info_read(self.start_job(held["connectionId"])["id"])

    def _running(self, connection_id: str) -> Json | None:
        return next((job for job in self._jobs_of(connection_id) if _runs(job)), None)

    def _jobs_of(self, connection_id: str) -> list[Json]:
        newest_first = sorted(self.jobs.values(), key=lambda job: -job["id"])
        return [job for job in newest_first if job["configId"] == connection_id]

    def _poll(self, job: Json) -> None:
        if self.jobs_finish_after is None or not _runs(job):
            return
        self._polls[job["id"]] += 1
        if self._polls[job["id"]] >= self.jobs_finish_after:
            self.finish_job(job["id"], **self._job_outcome)

    def _job(self, body: Json) -> Json:
        job_id = _need(body, "id")
        if job_id not in self.jobs:
            message = f"Internal Server Error: Could not find job with id: {job_id}"
            raise _Refused(500, message)
        return self.jobs[job_id]

    def _get_job(self, body: Json) -> Json:
        job = self._job(body)
        self._poll(job)
        return self._job_info_read(job["id"])

    def _get_job_light(self, body: Json) -> Json:
        job = self._job(body)
        self._poll(job)
        return {"job": job}

    def _job_info_read(self, job_id: int) -> Json:
        logs: Json = {"logs": {"logLines": []}}
        if self._number >= (2, 0):
            logs["logType"] = "formatted"
        attempts = [{"attempt": attempt, **logs} for attempt in self.attempts[job_id]]
        return {"job": self.jobs[job_id], "attempts": attempts}

    def _list_jobs(self, body: Json) -> Json:
        types, config_id = _need(body, "configTypes"), body.get("configId")
        since = body.get("createdAtStart")
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: -job["id"])
            if job["configType"] in types
            and config_id in (None, job["configId"])
            and (not body.get("statuses") or job["status"] in body["statuses"])
            and (since is None or job["createdAt"] >= datetime.fromisoformat(since).timestamp() - 1)
        ]
        for job in found:
            self._poll(job)
        page = body.get("pagination") or {}
        start, size = page.get("rowOffset") or 0, page.get("pageSize") or 200
        listed = [
            {"job": job, "attempts": self.attempts[job["id"]]} for job in found[start:][:size]
        ]
        return {"jobs": listed, "totalJobCount": len(found)}

    def _cancel_job(self, body: Json) -> Json:
        job = self._job(body)
        if not _runs(job):
            raise _Refused(500, "Internal Server Error: Transitioning Job out of a terminal state")
        self.finish_job(job["id"], "cancelled")
        return self._job_info_read(job["id"])

    def _statuses(self, body: Json) -> list[Json]:
        ids = _need(body, "connectionIds")
        return [self._status(self._connection({"connectionId": one})) for one in ids]

    def _status(self, held: Json) -> Json:
        connection_id = held["connectionId"]
        jobs = self._jobs_of(connection_id)
        for job in jobs:
            self._poll(job)
        succeeded = next((job for job in jobs if job["status"] == "succeeded"), None)
        told: Json = {"connectionId": connection_id}
        if jobs:
            told |= {"lastSyncJobId": jobs[0]["id"], "lastSyncAttemptNumber": 0}
        if succeeded is not None:
            told["lastSuccessfulSync"] = succeeded["updatedAt"]
        running = self._running(connection_id)
        if self._number < (1, 0):
            told["isRunning"] = running is not None
            told["isLastCompletedJobReset"] = False
            if jobs:
                told["lastSyncJobStatus"] = jobs[0]["status"]
            return told
        if jobs:
            told["lastSyncJobCreatedAt"] = jobs[0]["createdAt"]
        if running is not None:
            told["activeJob"] = running
        told["connectionSyncStatus"] = _sync_status(held, jobs, running)
        return told


Route = Callable[[AirbyteServer, Json], Any]


@dataclass(frozen=True)
class _Kind:
    word: Literal["source", "destination"]


_SOURCE, _DESTINATION = _Kind("source"), _Kind("destination")


def _need(body: Json, name: str) -> Any:
    if body.get(name) is None:
        raise _Refused(422, f"Internal Server Error: Required field {name} is absent.")
    return body[name]


def _of(kind: _Kind, method: Callable[[AirbyteServer, _Kind, Json], Any]) -> Route:
    return lambda server, body: method(server, kind, body)


def _actor_routes(kind: _Kind) -> dict[tuple[str, str], Route]:
    methods: dict[str, Callable[[AirbyteServer, _Kind, Json], Any]] = {
        "create": AirbyteServer._create_actor,
        "get": lambda server, kind, body: server._read_actor(kind, server._actor(kind, body)),
        "list": AirbyteServer._list_actors,
        "update": AirbyteServer._update_actor,
        "partial_update": AirbyteServer._patch_actor,
        "delete": AirbyteServer._delete_actor,
        "check_connection": AirbyteServer._check_actor,
    }
    return {("POST", f"{kind.word}s/{verb}"): _of(kind, act) for verb, act in methods.items()}


_ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "health"): AirbyteServer._health,
    ("GET", "instance_configuration"): AirbyteServer._instance_configuration,
    ("POST", "applications/token"): AirbyteServer._token,
    ("POST", "workspaces/list"): AirbyteServer._workspaces,
    ("POST", "workspaces/list_by_organization_id"): AirbyteServer._workspaces_of_organization,
    ("POST", "workspaces/get"): AirbyteServer._get_workspace,
    ("POST", "source_definitions/list"): AirbyteServer._list_source_definitions,
    ("POST", "source_definitions/list_for_workspace"): AirbyteServer._list_source_definitions,
    ("POST", "source_definitions/get"): AirbyteServer._get_source_definition,
    ("POST", "source_definition_specifications/get"): AirbyteServer._source_specification,
    ("POST", "destination_definitions/list"): AirbyteServer._list_destination_definitions,
    (
        "POST",
        "destination_definitions/list_for_workspace",
    ): AirbyteServer._list_destination_definitions,
    ("POST", "destination_definitions/get"): AirbyteServer._get_destination_definition,
    ("POST", "destination_definition_specifications/get"): AirbyteServer._destination_specification,
    **_actor_routes(_SOURCE),
    **_actor_routes(_DESTINATION),
    ("POST", "sources/discover_schema"): AirbyteServer._discover,
    ("POST", "sources/most_recent_source_actor_catalog"): AirbyteServer._most_recent_catalog,
    ("POST", "sources/search"): AirbyteServer._search_sources,
    ("POST", "commands/run/discover"): AirbyteServer._run_discover_command,
    ("POST", "commands/run/check"): AirbyteServer._run_check_command,
    ("POST", "commands/status"): AirbyteServer._command_status,
    ("POST", "commands/output/discover"): AirbyteServer._discover_output,
    ("POST", "commands/output/check"): AirbyteServer._check_output,
    ("POST", "commands/cancel"): AirbyteServer._cancel_command,
    ("POST", "connections/create"): AirbyteServer._create_connection,
    ("POST", "connections/update"): AirbyteServer._update_connection,
    ("POST", "connections/get"): AirbyteServer._get_connection,
    ("POST", "connections/list"): AirbyteServer._list_connections,
    ("POST", "connections/search"): AirbyteServer._search_connections,
    ("POST", "connections/delete"): AirbyteServer._delete_connection,
    ("POST", "connections/sync"): AirbyteServer._sync,
    ("POST", "connections/status"): AirbyteServer._statuses,
    ("POST", "jobs/get"): AirbyteServer._get_job,
    ("POST", "jobs/get_light"): AirbyteServer._get_job_light,
    ("POST", "jobs/get_without_logs"): AirbyteServer._get_job,
    ("POST", "jobs/list"): AirbyteServer._list_jobs,
    ("POST", "jobs/cancel"): AirbyteServer._cancel_job,
}

_OFFERED_BY: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "workspaces/list": ((0,), (1, 6)),
    **{path: ((1, 7), (999,)) for _, path in _ROUTES if path.startswith("commands/")},
}
"""First and last version of the paths that not every version has."""

_ANONYMOUS = frozenset({"health", "instance_configuration", "applications/token"})

_CONFIG_OF_0_63 = frozenset(
    {
        "syncMode",
        "cursorField",
        "destinationSyncMode",
        "primaryKey",
        "aliasName",
        "selected",
        "suggested",
        "fieldSelectionEnabled",
        "selectedFields",
    }
)

_CONNECTION_FIELDS = (
    "name",
    "namespaceDefinition",
    "namespaceFormat",
    "prefix",
    "operationIds",
    "scheduleType",
    "scheduleData",
    "status",
    "resourceRequirements",
    "sourceCatalogId",
    "breakingChange",
    "notifySchemaChanges",
    "notifySchemaChangesByEmail",
    "nonBreakingChangesPreference",
    "backfillPreference",
    "tags",
)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _runs(job: Json) -> bool:
    return job["status"] not in TERMINAL


def _sync_status(held: Json, jobs: list[Json], running: Json | None) -> str:
    if running is not None:
        return "running"
    if held["breakingChange"]:
        return "failed"
    if held["status"] != "active":
        return "paused"
    if not jobs:
        return "pending"
    return "synced" if jobs[0]["status"] == "succeeded" else "incomplete"


def _descriptor(offered: Json) -> Json:
    return {name: offered[name] for name in ("name", "namespace") if offered.get(name) is not None}


def _selected_names(offered: Json, config: Json) -> list[str]:
    if config.get("selectedFields") is None:
        raise _Refused(422, "Requested field selection but no selected fields provided", known=True)
    if "properties" not in offered.get("jsonSchema", {}):
        raise _Refused(422, "Requested field selection but no node properties found", known=True)
    names = []
    for selected in config["selectedFields"]:
        path = selected.get("fieldPath") or []
        if not path:
            raise _Refused(422, "Selected field path cannot be empty", known=True)
        if len(path) > 1:
            raise _Refused(500, "Internal Server Error: Nested field selection not supported")
        names.append(path[0])
    cursor = config.get("cursorField") or []
    if config["syncMode"] == "incremental" and cursor and cursor[0] not in names:
        message = "Cursor field cannot be de-selected in INCREMENTAL syncs"
        raise _Refused(422, message, known=True)
    dedup = config["destinationSyncMode"].endswith("_dedup")
    if dedup and any(path[0] not in names for path in config.get("primaryKey") or []):
        message = "Primary key field cannot be de-selected in DEDUP mode"
        raise _Refused(422, message, known=True)
    return names


def _source_definition(definition_id: str, name: str, image: str, tag: str) -> Json:
    specifications: dict[str, Json] = {
        SALESFORCE: _specification(
            required=("client_id", "client_secret", "refresh_token"),
            secret=("client_secret", "refresh_token"),
        ),
        HARDCODED_RECORDS: {
            "type": "object",
            "properties": {"count": {"type": "integer", "minimum": 1}},
            "additionalProperties": True,
        },
    }
    return {
        "sourceDefinitionId": definition_id,
        "name": name,
        "dockerRepository": f"airbyte/{image}",
        "dockerImageTag": tag,
        "documentationUrl": "https://docs.example.org/",
        "supportLevel": "certified",
        "_specification": specifications[definition_id],
    }


def _destination_definition(definition_id: str, name: str, image: str, tag: str) -> Json:
    return {
        "destinationDefinitionId": definition_id,
        "name": name,
        "dockerRepository": f"airbyte/{image}",
        "dockerImageTag": tag,
        "documentationUrl": "https://docs.example.org/",
        "supportLevel": "certified",
        "_specification": _specification(
            required=("host", "port", "username", "database", "schema"),
            secret=("password",),
            other={"port": {"type": "integer"}},
        ),
    }


def _specification(
    *, required: Sequence[str], secret: Sequence[str], other: Json | None = None
) -> Json:
    properties: Json = {name: {"type": "string"} for name in (*required, *secret)}
    for name in secret:
        properties[name]["airbyte_secret"] = True
    return {
        "type": "object",
        "required": list(required),
        "properties": properties | (other or {}),
        "additionalProperties": True,
    }


def _public(definition: Json) -> Json:
    return {name: value for name, value in definition.items() if name != "_specification"}


def _masked(configuration: Json, specification: Json) -> Json:
    secret = {
        name
        for name, of in specification.get("properties", {}).items()
        if of.get("airbyte_secret") is True
    }
    return {name: MASK if name in secret else value for name, value in configuration.items()}


@cache
def _validator(specification: bytes) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(orjson.loads(specification))


def _validate(configuration: Json, specification: Json) -> None:
    found = _validator(orjson.dumps(specification)).iter_errors(configuration)
    errors = sorted(error.message for error in found)
    if errors:
        raise _Refused(
            422,
            "The provided configuration does not fulfill the specification. "
            f"Errors: {', '.join(errors)} in {configuration}",
            known=True,
        )


def _ilike(term: str) -> str:
    """SQL's ILIKE '%term%', whose wildcards Airbyte does not escape."""
    wild = {"%": ".*", "_": "."}
    return "".join(wild.get(char, re.escape(char)) for char in term)


def _job_info(config_type: str, *, succeeded: bool, failure: _Failure | None = None) -> Json:
    now = _now()
    info: Json = {
        "id": str(uuid4()),
        "configType": config_type,
        "configId": "NoConfiguration",
        "createdAt": now,
        "endedAt": now,
        "succeeded": succeeded,
        "connectorConfigurationUpdated": False,
        "logs": {"logLines": []},
    }
    if failure is not None:
        info["failureReason"] = _reason(failure)
    return info


def _reason(failure: _Failure) -> Json:
    told: Json = {
        "timestamp": _now() * 1000,
        "failureOrigin": "source",
        "failureType": failure.failure_type,
        "externalMessage": failure.message,
        "internalMessage": f"Traceback: {failure.message}",
        "stacktrace": "at io.airbyte.workers.Discover(Discover.java:1)",
    }
    if failure.retryable is not None:
        told["retryable"] = failure.retryable
    return told


def _parsed(content: bytes) -> tuple[Any, bool]:
    if not content:
        return None, False
    try:
        return orjson.loads(content), False
    except orjson.JSONDecodeError:
        return content, True


def _object_id(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    return str(body.get("connectionId") or body.get("sourceId") or body.get("id") or "")


async def _drain(request: web.BaseRequest) -> None:
    async for _ in request.content.iter_chunked(1 << 16):
        pass


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _html(status: int, title: str) -> _Answer:
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>nginx/1.25.3</body>\r\n</html>"
    return _Answer(status, page, "text/html")


def _micronaut(status: int, title: str, detail: str) -> _Answer:
    links = {"self": {"href": "/api/v1", "templated": False}}
    embedded = {"errors": [{"message": detail}]}
    return _Answer(status, {"message": title, "_links": links, "_embedded": embedded})


def _not_found(path: str) -> _Answer:
    return _micronaut(404, "Not Found", f"Page Not Found: {path}")


def _too_large(length: int) -> _Answer:
    detail = (
        f"The content length [{length}] exceeds the maximum allowed content length "
        f"[{MAX_BODY_BYTES}]"
    )
    return _micronaut(413, "Request Entity Too Large", detail)


def _problem(status: int, name: str, detail: str) -> _Answer:
    body = {
        "status": status,
        "type": f"https://reference.airbyte.com/reference/errors#{name}",
        "title": name,
        "detail": detail,
    }
    return _Answer(status, body, "application/problem+json")


def _gzip_bomb() -> _Answer:
    content = gzip.compress(b'{"x":"' + b" " * (64 * 1024 * 1024) + b'"}', 9)
    return _Answer(200, content, headers={"Content-Encoding": "gzip"})


_CANNED: dict[Fault, Callable[[], _Answer]] = {
    "html_200": lambda: _html(200, "Welcome"),
    "html_502": lambda: _html(502, "502 Bad Gateway"),
    "html_504": lambda: _html(504, "504 Gateway Time-out"),
    "empty_200": lambda: _Answer(200, b""),
    "other_200": lambda: _Answer(200, {"unexpected": ["answer", 1]}),
    "redirect": lambda: _Answer(302, b"", headers={"Location": "http://169.254.169.254/latest/"}),
    "gzip_bomb": _gzip_bomb,
}


def _hang_up(transport: asyncio.Transport, kind: Fault, true: bytes) -> None:
    """End the connection without an answer, or with a part of one."""
    if kind in ("reset", "late"):
        linger_not = struct.pack("ii", 1, 0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        transport.abort()
        return
    if kind == "garbage":
        transport.write(b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n")
    if kind == "truncated":
        whole = true or b'{"streams": [1, 2, 3], "more": "to come"}'
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(whole)}\r\n\r\n"
        )
        transport.write(head.encode() + whole[: max(1, len(whole) // 2)])
    transport.close()


async def _dribble(
    request: web.BaseRequest, answer: _Answer | None, *, seconds: float
) -> web.StreamResponse:
    """The answer byte by byte over `seconds`; None: up to 4 GB of white space in one JSON text."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    if answer is None:
        await response.prepare(request)
        for _ in range(4096):
            await response.write(b" " * (1 << 20))
        return response
    content = _bytes(answer.body)
    response.set_status(answer.status)
    response.content_length = len(content)
    await response.prepare(request)
    for byte in content:
        await response.write(bytes([byte]))
        await asyncio.sleep(seconds / len(content))
    return response
