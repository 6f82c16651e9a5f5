"""What every service answers alike: problems, request ids, limits, health and readiness."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import Body, FastAPI, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.auth.scopes import Scope, may
from shared.errors import AamError, Invalid, NotFound, Unavailable, UpstreamUnknown
from shared.http.app import create_app
from shared.http.authentication import Access
from shared.http.single_flight import SingleFlight
from shared.http.strict_json import Limits
from shared.http.uvicorn_protocol import Http
from shared.observability import logs
from tests import access
from tests.integration.conftest import serving
from tests.waiting import until

CANARY = "AAMCANARY-app"
LIMIT = 1000
JSON = {"content-type": "application/json"}


def _refuse(value: str) -> str:
    raise ValueError(f"no such colour: {value}")


class Inner(BaseModel):
    """A body's inner object."""

    model_config = ConfigDict(extra="forbid")

    count: int
    mode: Literal["one", "two"] = "one"


class Order(BaseModel):
    """A body with one of everything that can be wrong."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    colour: Annotated[str, AfterValidator(_refuse)] | None = None
    name: str = Field(default="x", pattern="^x+$", max_length=20)
    inner: Inner | None = None
    number: float = 0


class Checks:
    """What the service of a test stands on."""

    def __init__(self) -> None:
        self.missing: AamError | None = None
        self.hangs = False
        self.is_airbyte_away = False
        self.airbyte_hangs = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.runs = 0

    async def airbyte(self) -> bool:
        """Whether Airbyte is healthy."""
        if self.airbyte_hangs:
            await asyncio.Event().wait()
        return not self.is_airbyte_away

    async def registry(self) -> None:
        """Say whether it is there."""
        self.runs += 1
        await self.goes_on.wait()
        if self.hangs:
            await asyncio.Event().wait()
        if self.missing is not None:
            raise self.missing


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The log as it is written, at DEBUG; the root logger is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    logs.set_up("test", level="DEBUG")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(buffer := io.StringIO())
    yield buffer
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def checks() -> Checks:
    """All well, unless the test says otherwise."""
    return Checks()


@pytest.fixture
def app(checks: Checks, written: object) -> FastAPI:
    """A service with routes that go wrong in every way."""

    async def fine() -> None:
        return None

    app = create_app(
        service="test",
        description="A test's.",
        access=Access([access.Everybody()]),
        ready={"registry": checks.registry},
        degraded={"airbyte": checks.airbyte},
        limits=Limits(body_bytes=LIMIT),
        body_deadline=timedelta(seconds=0.3),
    )
    raised: dict[str, Exception] = {
        "missing": NotFound("No thing 7."),
        "incomplete": Invalid("X is missing.", code="credential_incomplete", variable="X"),
        "away": Unavailable("It is away."),
        "unknown": UpstreamUnknown("Nobody knows."),
        "bug": ZeroDivisionError("division"),
    }

    @app.post("/orders/{number}", dependencies=[may(Scope.ADMIN)])
    async def order(
        number: int, body: Annotated[Order, Body()], limit: Annotated[int, Query(le=5)] = 1
    ) -> str:
        return f"{number} {limit} {body.name}"

    @app.post("/raw", dependencies=[may(Scope.ADMIN)], openapi_extra={"requestBody": {}})
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.get("/raise/{what}", dependencies=[may(Scope.ADMIN)])
    async def go_wrong(what: str) -> None:
        raise raised[what]

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the service."""
    transport = httpx.ASGITransport(app)
    async with access.client(transport=transport) as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is a complete problem without request data; return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:aam:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.text
    return body


@pytest.mark.parametrize(
    "method, path, status, code",
    [
        ("GET", f"/{CANARY}", 404, "no_such_route"),
        ("DELETE", "/raw", 405, "method_not_allowed"),
        ("GET", "/raise/missing", 404, "not_found"),
        ("GET", "/raise/incomplete", 422, "credential_incomplete"),
        ("GET", "/raise/away", 503, "unavailable"),
        ("GET", "/raise/unknown", 504, "upstream_unknown"),
        ("GET", "/raise/bug", 500, "internal_error"),
    ],
)
async def test_every_error_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """By RFC 9457, with the headers that its status asks for."""
    answer = await client.request(method, path)

    body = problem(answer, status, code)
    assert ("retry-after" in answer.headers) is (status == 503)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert body.get("variable") == ("X" if code == "credential_incomplete" else None)


ID = '"7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"'


@pytest.mark.parametrize(
    "body, field",
    [
        (f'{{"id": "{CANARY}"}}', "body.id"),
        (f'{{"id": ["{CANARY}"]}}', "body.id"),
        (f'{{"id": {ID}, "colour": "{CANARY}"}}', "body.colour"),
        (f'{{"id": {ID}, "name": "{CANARY}"}}', "body.name"),
        (f'{{"id": {ID}, "name": "{CANARY * 3}"}}', "body.name"),
        (f'{{"id": {ID}, "{CANARY}": 1}}', "body"),
        (f'{{"id": {ID}, "inner": {{"count": "{CANARY}"}}}}', "body.inner.count"),
        (f'{{"id": {ID}, "inner": {{"count": 1, "mode": "{CANARY}"}}}}', "body.inner.mode"),
        (f'{{"id": {ID}, "inner": {{"count": 1, "{CANARY}": 1}}}}', "body.inner"),
        (f'{{"name": "{CANARY}"}}', "body.id"),
        (f'{{"id": {ID}, "number": "{CANARY}"}}', "body.number"),
        (f'"{CANARY}"', "body"),
        ("", "body"),
    ],
)
async def test_invalid_body_is_not_echoed(client: httpx.AsyncClient, body: str, field: str) -> None:
    """The field is named as in the schema; neither the value nor the caller's keys are."""
    answer = await client.post(
        "/orders/1", content=body, headers={"content-type": "application/json"}
    )

    refusal = problem(answer, 422, "invalid_request")
    named = [one["field"] for one in refusal["fields"]]
    assert any(name == field or name.startswith(f"{field}.") for name in named), named
    assert all(one["message"] for one in refusal["fields"])


@pytest.mark.parametrize(
    "content, status, code",
    [
        (f'{{"id": NaN, "name": "{CANARY}"}}', 422, "non_finite_number"),
        (f'{{"id": "\\ud800{CANARY}"}}', 422, "forbidden_character"),
        (f'{{"id": {ID}, "\\ud800{CANARY}": 1}}', 422, "forbidden_character"),
        (f'{{"id": {ID}, "{CANARY}": 1, "{CANARY}": 2}}', 422, "duplicate_key"),
        (f'{{"id": "{CANARY}', 422, "invalid_json"),
        (b'{"id": "\xff\xfe' + CANARY.encode(), 400, "not_utf8"),
        (b"\xed\xa0\x80", 400, "not_utf8"),
        (b"[" * 900, 422, "too_deep"),
    ],
)
@pytest.mark.parametrize("path", ["/orders/1", "/raw"])
async def test_ambiguous_json_is_refused(
    client: httpx.AsyncClient, path: str, content: str | bytes, status: int, code: str
) -> None:
    """On every route; the connection is closed, since the body may be half read."""
    answer = await client.post(path, content=content, headers=JSON)

    problem(answer, status, code)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "headers, status",
    [
        ([("Content-Type", "application/json")], 200),
        ([("Content-Type", 'Application/JSON; charset="UTF-8"')], 200),
        ([("Content-Type", "application/json;charset=utf-8")], 200),
        ([("Content-Type", "application/json; charset=utf-7")], 415),
        ([("Content-Type", "application/jsonx")], 415),
        ([("Content-Type", "application/json, text/plain")], 415),
        ([("Content-Type", "application/json"), ("Content-Type", "application/json")], 415),
        ([("Content-Type", "text/plain")], 415),
        ([], 415),
        ([("Content-Type", "application/json"), ("Content-Encoding", "gzip")], 415),
        ([("Content-Type", "application/json"), ("Content-Encoding", "identity")], 415),
    ],
)
async def test_only_utf8_json_bodies_are_accepted(
    client: httpx.AsyncClient, headers: list[tuple[str, str]], status: int
) -> None:
    """By the declared type; nothing is decoded or guessed."""
    answer = await client.post("/raw", content=f'"{CANARY}"', headers=headers)

    assert (answer.status_code, CANARY in answer.text) == (status, False)


async def test_late_body_is_408(app: FastAPI) -> None:
    """The connection is closed."""
    async with serving(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /raw HTTP/1.1\r\nHost: aam\r\nContent-Type: application/json\r\n"
            b"Authorization: %s\r\nContent-Length: 100\r\n\r\n"
            % access.HEADERS["Authorization"].encode()
        )
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in answer
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "url, field",
    [
        (f"/orders/{CANARY}", "path.number"),
        (f"/orders/1?limit={CANARY}", "query.limit"),
        ("/orders/1?limit=99999", "query.limit"),
    ],
)
async def test_invalid_url_is_not_echoed(client: httpx.AsyncClient, url: str, field: str) -> None:
    answer = await client.post(url, json={"id": json.loads(ID)})

    body = problem(answer, 422, "invalid_request")
    assert [one["field"] for one in body["fields"]] == [field]
    assert "99999" not in answer.text


@pytest.mark.parametrize("path", ["/raw", "/orders/1"])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_large_body_is_refused(
    client: httpx.AsyncClient, path: str, is_chunked: bool
) -> None:
    """By the declared length, and without one by what has arrived."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    content = chunks() if is_chunked else b"x" * (LIMIT + 1)
    answer = await client.post(path, content=content, headers=JSON)

    assert str(LIMIT) in problem(answer, 413, "body_too_large")["detail"]
    exact = await client.post("/raw", content=b"1".ljust(LIMIT), headers=JSON)
    assert exact.json() == LIMIT


@pytest.mark.parametrize(
    "given, is_kept",
    [("abc-DEF_123", True), ("a" * 64, True), ("a" * 65, False), ("", False),
     (f"{CANARY} x", False), ("x\xe9", False), (f"{CANARY}\tlog=forged", False)],
)  # fmt: skip
async def test_request_ids(client: httpx.AsyncClient, given: str, is_kept: bool) -> None:
    """A caller's own is kept if it is plain; every other request gets one."""
    answer = await client.get("/health", headers={b"X-Request-ID": given.encode("latin-1")})

    assert (answer.headers["x-request-id"] == given) is is_kept
    assert answer.headers["x-request-id"]
    assert CANARY not in answer.headers["x-request-id"]


async def test_bug_is_logged_once_with_the_request_id(
    client: httpx.AsyncClient, written: io.StringIO
) -> None:
    """With its traceback and no local variables, and nothing of it in the answer."""
    answer = await client.get("/raise/bug", headers={"X-Request-ID": "the-bug"})

    assert "division" not in answer.text
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    (bug,) = [line for line in lines if line["level"] == "error"]
    assert (bug["event"], bug["request_id"]) == ("bug", "the-bug")
    assert "ZeroDivisionError" in json.dumps(bug["exception"])
    assert [line["status"] for line in lines if line["event"] == "request"] == [500]


async def test_disconnected_caller_is_no_bug(app: FastAPI, written: io.StringIO) -> None:
    async with serving(app) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /raw HTTP/1.1\r\nHost: aam\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\nhalf"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    lines = written.getvalue()
    assert '"level": "error"' not in lines
    assert '"request"' in lines


async def test_health_checks_no_dependency(client: httpx.AsyncClient, checks: Checks) -> None:
    checks.missing = Unavailable("It is away.")

    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_readiness_names_what_is_missing(client: httpx.AsyncClient, checks: Checks) -> None:
    """In the words of the error, with 503; 200 as soon as it is there."""
    checks.missing = Unavailable("It is away.")
    away = await client.get("/ready")
    checks.missing = None
    there = await client.get("/ready")

    assert (away.status_code, there.status_code) == (503, 200)
    assert away.json() == {"ready": False, "checks": {"registry": "It is away.", "airbyte": "ok"}}
    assert away.headers["retry-after"] == "1"
    assert there.json() == {"ready": True, "checks": {"registry": "ok", "airbyte": "ok"}}
    assert "retry-after" not in there.headers


async def test_concurrent_probes_share_one_run(
    client: httpx.AsyncClient, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled request does not end the run for the others."""
    run, joined = SingleFlight.run, 0

    async def counted(flight: SingleFlight[Any], call: Any) -> Any:
        nonlocal joined
        joined += 1
        return await run(flight, call)

    monkeypatch.setattr(SingleFlight, "run", counted)
    checks.goes_on.clear()
    asked = [asyncio.create_task(client.get("/ready")) for _ in range(50)]
    await until(lambda: joined == len(asked) and checks.runs)
    left, *others = asked
    left.cancel()
    await asyncio.wait([left])
    checks.missing = Unavailable("It is away.")
    checks.goes_on.set()

    assert {answer.status_code for answer in await asyncio.gather(*others)} == {503}
    assert checks.runs == 1
    checks.missing = None
    assert (await client.get("/ready")).status_code == 200
    assert checks.runs == 2


async def test_hanging_optional_dependency_does_not_delay_the_probe(
    client: httpx.AsyncClient, checks: Checks
) -> None:
    """Probes time out after a second, and the service would be taken out of rotation."""
    checks.airbyte_hangs = True

    degraded = await client.get("/ready", timeout=1.0)

    assert degraded.status_code == 200
    assert degraded.json()["degraded"] == ["airbyte"]
    assert degraded.json()["checks"]["airbyte"].startswith("no response within")


async def test_missing_optional_dependency_means_degraded(
    client: httpx.AsyncClient, checks: Checks
) -> None:
    """It stays ready, so that a load balancer keeps it; without the registry it is not ready."""
    checks.is_airbyte_away = True
    degraded = await client.get("/ready")
    checks.missing = Unavailable("It is away.")
    away = await client.get("/ready")

    assert (degraded.status_code, away.status_code) == (200, 503)
    assert degraded.json() == {
        "ready": True,
        "degraded": ["airbyte"],
        "checks": {"registry": "ok", "airbyte": "it reports that it is unavailable"},
    }
    assert away.json()["ready"] is False
    assert "degraded" not in away.json()


async def test_too_many_connections_is_a_problem(app: FastAPI) -> None:
    """Uvicorn's own answer is plain text."""
    async with serving(app, http=Http, limit_concurrency=1) as url, httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/health")
    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_connections")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.text.endswith("}\n")
