"""What a peer's answer becomes on this side: its own error class, or an unknown outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
import respx
import structlog

from local.processes.servers import free_port
from shared.credential_documents import Credential
from shared.errors import (
    AamError,
    Conflict,
    Invalid,
    NameTaken,
    NotFound,
    StaleCatalog,
    SyncRunning,
    TooLarge,
    Unavailable,
    Upstream,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.service_clients import AuthBroker, Orchestrator, RagEngine
from tests import access

URL = "http://auth-broker:8002"
CANARY = "AAMCANARY-peer"
CONFIG: dict[str, Any] = {
    "document": {"client_id": "x"},
    "naming": {"prefix": "CREDENTIAL_ORG__", "separator": "__", "is_upper": True},
}

CREDENTIAL = msgspec.convert(CONFIG, Credential)


@pytest.fixture
async def broker() -> AsyncIterator[AuthBroker]:
    """A client of an auth_broker that the test plays."""
    peer = AuthBroker(URL, signer=access.signer("orchestrator"), deadline=5)
    yield peer
    await peer.close()


@pytest.fixture
def answers() -> Any:
    """The played auth_broker."""
    with respx.mock(base_url=URL, using="httpx") as mock:
        yield mock.get("/credentials/org/document")


async def test_request_has_source_type_and_request_id(
    broker: AuthBroker, answers: respx.Route
) -> None:
    answers.respond(json=CONFIG)

    with structlog.contextvars.bound_contextvars(request_id="the-request"):
        assert await broker.document("Salesforce", "org") == CREDENTIAL

    request = answers.calls.last.request
    assert request.url.params["source_type"] == "Salesforce"
    assert request.headers["x-request-id"] == "the-request"
    await broker.document("Salesforce", "org")
    assert "x-request-id" not in answers.calls.last.request.headers


@pytest.mark.parametrize(
    "raised",
    [
        NotFound("No credential org.", code="credential_not_found"),
        Invalid("X is missing.", code="credential_incomplete", variable="X"),
        Invalid("Not valid: a.", fields=[{"field": "a"}]),
        TooLarge("Over."),
        Conflict("Not now."),
        NameTaken("Taken."),
        StaleCatalog(uuid4(), expected=3, current=4),
        Upstream("No."),
    ],
)
async def test_problem_becomes_the_class_that_was_raised(
    broker: AuthBroker, answers: respx.Route, raised: AamError
) -> None:
    """With its sentence, code and members; it is not retried."""
    answers.respond(raised.status, json={**raised.problem(), "request_id": "theirs"})

    with pytest.raises(AamError) as caught:
        await broker.document("Salesforce", "org")

    assert type(caught.value) is type(raised)
    assert caught.value.problem() == raised.problem()
    assert answers.call_count == 1


@pytest.mark.parametrize(
    "status, content",
    [
        (200, b"<html>"), (200, b""), (200, b'{"client_id": '), (200, b"[]"), (200, b'"x"'),
        (204, b""), (302, b""), (404, b"<html>Not here</html>"), (422, b"[1]"), (500, b"null"),
        (502, b"<html>"), (503, b""), (599, b"{"),
    ],
)  # fmt: skip
async def test_foreign_answer_is_unknown(
    broker: AuthBroker, answers: respx.Route, status: int, content: bytes
) -> None:
    """A proxy's page, half an answer, other JSON; nothing of it is repeated."""
    answers.respond(status, content=content + CANARY.encode() if b"<" in content else content)

    with pytest.raises(UpstreamUnknown) as caught:
        await broker.document("Salesforce", "org")

    assert CANARY not in str(caught.value.problem())


@pytest.mark.parametrize(
    "problem, cls", [({}, Unavailable), ({"code": 7, "detail": None}, Unavailable)]
)
async def test_problem_without_members_is_classified_by_status(
    broker: AuthBroker, answers: respx.Route, problem: dict[str, Any], cls: type[AamError]
) -> None:
    answers.respond(503, json=problem)

    with pytest.raises(cls):
        await broker.document("Salesforce", "org")


async def test_transient_error_is_retried(broker: AuthBroker, answers: respx.Route) -> None:
    away = Unavailable("Away.").problem()
    answers.side_effect = [
        httpx.Response(503, json=away),
        httpx.Response(502, content=b"<html>"),
        httpx.Response(200, json=CONFIG),
    ]

    assert await broker.document("Salesforce", "org") == CREDENTIAL


async def test_suggestion_request_is_retried_like_a_read() -> None:
    peer = RagEngine(
        "http://rag-engine:8005", signer=access.signer("drift_repair_agent"), deadline=2
    )
    with respx.mock(base_url="http://rag-engine:8005", using="httpx") as mock:
        route = mock.post("/suggest")
        route.side_effect = [
            httpx.Response(503, json=Unavailable("Away.").problem()),
            httpx.Response(200, json={"suggestions": [], "unmatched": [["a"]]}),
        ]
        found = await peer.suggest(
            source_type="Salesforce",
            entity="stream",
            stream=None,
            removed=[{"path": ["a"]}],
            added=[{"path": ["b"]}],
        )
    await peer.close()
    assert found == []
    assert route.call_count == 2
    assert route.calls.last.request.headers["content-type"] == "application/json"


async def test_sync_request_has_one_idempotency_key() -> None:
    """The same key on every try; a running job is returned with its id."""
    job_id, running = uuid4(), uuid4()
    peer = Orchestrator(
        "http://orchestrator:8001", signer=access.signer("drift_repair_agent"), deadline=2
    )
    with respx.mock(base_url="http://orchestrator:8001", using="httpx") as mock:
        route = mock.post(url__regex="/connections/.*/sync")
        route.side_effect = [
            httpx.Response(503, json=Unavailable("Away.").problem()),
            httpx.Response(202, json={"job_id": str(job_id), "status": "running"}),
            httpx.Response(202, json={"operation_id": str(uuid4()), "status": "running"}),
            httpx.Response(409, json=SyncRunning("It runs.", job_id=str(running)).problem()),
        ]
        assert await peer.sync(uuid4(), key="verify-1") == job_id
        keys = {call.request.headers["idempotency-key"] for call in route.calls}
        with pytest.raises(UpstreamUnknown):
            await peer.sync(uuid4(), key="verify-2")
        with pytest.raises(SyncRunning) as refused:
            await peer.sync(uuid4(), key="verify-3")
    await peer.close()
    assert keys == {"verify-1"}
    assert refused.value.members["job_id"] == str(running)


async def test_deadline_covers_all_tries(answers: respx.Route) -> None:
    """A refused first try and an endless second one end within one deadline."""

    async def slow(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1.5 if answers.call_count == 0 else 60)
        return httpx.Response(503, json=Unavailable("Away.").problem())

    answers.side_effect = slow
    broker = AuthBroker(URL, signer=access.signer("orchestrator"), deadline=2)
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await broker.document("Salesforce", "org")
    assert time.monotonic() - started < 1.5 + 2
    await broker.close()


async def test_ids_are_escaped_in_the_path(broker: AuthBroker) -> None:
    """No other route of the peer is reached."""
    with respx.mock(base_url=URL, using="httpx") as mock:
        route = mock.get(url__regex=".*").respond(json=CONFIG)
        await broker.document("Salesforce", "../health?x=#y")
    assert route.calls.last.request.url.raw_path.startswith(b"/credentials/..%2Fhealth%3Fx%3D%23y/")


# Real sockets


@pytest.mark.parametrize("is_heard", [False, True])
async def test_refused_connection_means_not_sent(is_heard: bool) -> None:
    """Cut off after the request was read, the outcome is unknown."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    port = free_port()
    server = await asyncio.start_server(cut, "127.0.0.1", port) if is_heard else None
    peer = AuthBroker(f"http://127.0.0.1:{port}", signer=access.signer("orchestrator"), deadline=1)
    with pytest.raises(UpstreamUnknown if is_heard else UpstreamUnreachable):
        await peer.document("Salesforce", "org")
    await peer.close()
    if server is not None:
        server.close()
        await server.wait_closed()


async def test_truncated_answer_is_unknown() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"client_id"')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    peer = AuthBroker(f"http://127.0.0.1:{port}", signer=access.signer("orchestrator"), deadline=1)
    async with server:
        with pytest.raises(UpstreamUnknown):
            await peer.document("Salesforce", "org")
        await peer.close()
