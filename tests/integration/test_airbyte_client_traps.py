"""How the client classifies failed calls, on real sockets, after the request was read."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from shared.airbyte_client import AirbyteClient, ClientCredentials, Credentials, Source
from shared.errors import (
    AamError,
    Invalid,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamNotAirbyte,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)

pytestmark = pytest.mark.exact

CANARY = "AAMCANARY-refresh-token"
UPSTREAM_CANARY = "AAMCANARY-in-the-answer"
SOURCE_ID, WORKSPACE_ID, DEFINITION_ID = uuid4(), uuid4(), uuid4()

Move = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Wire:
    """A server that reads each request to its end and then makes the next scripted move.

    The last move is repeated. `requests` are the raw requests in order of arrival.
    """

    moves: list[Move]
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                _, found, rest = head.lower().partition(b"content-length:")
                body = await reader.readexactly(int(rest.split(b"\r\n")[0]) if found else 0)
                self.requests.append(head + body)
                move = self.moves.pop(0) if len(self.moves) > 1 else self.moves[0]
                await move(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wire(*moves: Move) -> AsyncIterator[Wire]:
    """A scripted server on a free loopback port."""
    script = Wire(list(moves))
    open_connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(script.answer(reader, writer))
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()
        for task in list(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


def reply(
    status: int,
    content: bytes | dict[str, Any],
    *,
    content_type: str = "application/json",
    length: int | None = None,
    headers: str = "",
) -> Move:
    """A whole answer; with a `length` larger than its content, a truncated one."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)

    async def move(writer: asyncio.StreamWriter) -> None:
        head = (
            f"HTTP/1.1 {status} Some Reason\r\ncontent-type: {content_type}\r\n{headers}"
            f"content-length: {len(body) if length is None else length}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        if length is not None:
            writer.close()

    return move


def sends(content: bytes) -> Move:
    """These bytes, and the end of the connection."""

    async def move(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.close()

    return move


async def close(writer: asyncio.StreamWriter) -> None:
    """Hang up in good order."""
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up with a RST."""
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()


async def silence(_: asyncio.StreamWriter) -> None:
    """Say nothing for longer than any test waits."""
    await asyncio.sleep(30)


async def trickle(writer: asyncio.StreamWriter) -> None:
    """An answer whose every byte comes in time, and whose last one never does."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(1500):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


SOURCE = {
    "sourceId": str(SOURCE_ID),
    "name": "Salesforce",
    "workspaceId": str(WORKSPACE_ID),
    "sourceDefinitionId": str(DEFINITION_ID),
    "connectionConfiguration": {"refresh_token": "**********"},
    "sourceName": "Salesforce",
}
HTML = f"<html><body><h1>Bad Gateway</h1>{UPSTREAM_CANARY}</body></html>".encode()
HALF = msgspec.json.encode(SOURCE)[:40]
MESSAGE = {
    "message": UPSTREAM_CANARY,
    "exceptionClassName": "io.airbyte.commons.server.errors.KnownException",
    "exceptionStack": [UPSTREAM_CANARY],
}
ERROR_ID = {"errorId": str(uuid4())}
PROBLEM = {
    "status": 400,
    "type": "https://reference.airbyte.com/reference/errors",
    "title": "bad-request",
    "detail": UPSTREAM_CANARY,
}
MICRONAUT = {
    "message": "Bad Request",
    "_links": {"self": {"href": "/api/v1/sources/create", "templated": False}},
    "_embedded": {"errors": [{"message": UPSTREAM_CANARY}]},
}

LOST: list[tuple[str, Move, type[AamError]]] = [
    ("close", close, UpstreamUnknown),
    ("reset", reset, UpstreamUnknown),
    ("truncated by length", reply(200, HALF, length=4000), UpstreamUnknown),
    (
        "truncated chunks",
        sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n" + HALF),
        UpstreamUnknown,
    ),
    ("truncated without a length", sends(b"HTTP/1.1 200 OK\r\n\r\n" + HALF), UpstreamUnknown),
    ("cut inside the head", sends(b"HTTP/1.1 200 OK\r\ncontent-ty"), UpstreamUnknown),
    ("garbage", sends(b"\x16\x03\x01 not HTTP \xff\xfe\r\n\r\n"), UpstreamUnknown),
    (
        "garbage length",
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}"),
        UpstreamUnknown,
    ),
    ("garbage as gzip", reply(200, b"{}", headers="content-encoding: gzip\r\n"), UpstreamUnknown),
    (
        "gzip bomb",
        reply(200, gzip.compress(b" " * 70_000_000), headers="content-encoding: gzip\r\n"),
        UpstreamUnknown,
    ),
    (
        "gzip in gzip",
        reply(200, gzip.compress(gzip.compress(b"{}")), headers="content-encoding: gzip, gzip\r\n"),
        UpstreamUnknown,
    ),
    (
        "an encoding that was not asked for",
        reply(200, b"{}", headers="content-encoding: br\r\n"),
        UpstreamUnknown,
    ),
    ("empty 200", reply(200, b""), UpstreamNotAirbyte),
    ("HTML 200", reply(200, HTML, content_type="text/html"), UpstreamNotAirbyte),
    ("another JSON 200", reply(200, {"sourceId": UPSTREAM_CANARY}), UpstreamNotAirbyte),
    ("bytes 200", reply(200, b'{"sourceId": "\xff\xfe"}'), UpstreamUnknown),
    ("a reason that is no text", sends(b"HTTP/1.1 200 \xff\xfe\r\n\r\n{}"), UpstreamUnknown),
    ("a status of letters", sends(b"HTTP/1.1 2OO OK\r\n\r\n{}"), UpstreamUnknown),
    ("a status of 99", sends(b"HTTP/1.1 99 OK\r\ncontent-length: 0\r\n\r\n"), UpstreamUnknown),
    ("a status of 999", sends(b"HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n"), UpstreamNotAirbyte),
    ("only continue", sends(b"HTTP/1.1 100 Continue\r\n\r\n"), UpstreamUnknown),
    ("another protocol", sends(b"HTTP/1.1 101 Go\r\nupgrade: x\r\n\r\n"), UpstreamNotAirbyte),
    ("a huge header", sends(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99_999), UpstreamUnknown),
    ("endless headers", sends(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 99_999), UpstreamUnknown),
    ("a header without a colon", sends(b"HTTP/1.1 200 OK\r\nxyz\r\n\r\n{}"), UpstreamUnknown),
    (
        "a negative length",
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}"),
        UpstreamUnknown,
    ),
    (
        "two lengths",
        sends(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 9\r\n\r\n{}"),
        UpstreamUnknown,
    ),
    (
        "bad chunks",
        sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}"),
        UpstreamUnknown,
    ),
    ("garbage as zstd", reply(200, b"{}x", headers="content-encoding: zstd\r\n"), UpstreamUnknown),
    ("garbage as br", reply(200, b"{}x", headers="content-encoding: br\r\n"), UpstreamUnknown),
    ("an odd encoding", reply(200, b"{}", headers="content-encoding: \xe9\r\n"), UpstreamUnknown),
    ("deep JSON 200", reply(200, b'{"x":' + b"[" * 200_000), UpstreamUnknown),
    ("deep JSON 500", reply(500, b"[" * 200_000), UpstreamUnknown),
    (
        "redirect",
        reply(302, b"", headers="location: http://169.254.169.254/\r\n"),
        UpstreamNotAirbyte,
    ),
    ("HTML 400", reply(400, HTML, content_type="text/html"), UpstreamNotAirbyte),
    ("HTML 404", reply(404, HTML, content_type="text/html"), UpstreamNotAirbyte),
    ("HTML 502", reply(502, HTML, content_type="text/html"), UpstreamUnknown),
    ("HTML 503", reply(503, HTML, content_type="text/html"), UpstreamUnknown),
    ("HTML 504", reply(504, HTML, content_type="text/html"), UpstreamTimeout),
    ("empty 500", reply(500, b""), UpstreamUnknown),
    ("JSON 500", reply(500, MESSAGE), UpstreamUnknown),
    ("JSON 429", reply(429, MESSAGE), UpstreamRateLimited),
    ("JSON 408", reply(408, PROBLEM), UpstreamTimeout),
    ("silence", silence, UpstreamTimeout),
    ("trickle", trickle, UpstreamTimeout),
]

DEFINITE: list[tuple[str, Move, type[AamError]]] = [
    *(
        (f"{status} {style}", reply(status, body), UpstreamRefused)
        for status in (400, 422)
        for style, body in (
            ("message", MESSAGE),
            ("errorId", ERROR_ID),
            ("problem", PROBLEM),
            ("micronaut", MICRONAUT),
        )
    ),
    ("404 message", reply(404, MESSAGE), UpstreamMissing),
    ("404 errorId", reply(404, ERROR_ID), UpstreamMissing),
    ("405", reply(405, MICRONAUT), UpstreamRefused),
    ("501", reply(501, PROBLEM), UpstreamRefused),
    ("401", reply(401, b""), UpstreamDenied),
    ("401 HTML", reply(401, HTML), UpstreamDenied),
    ("403", reply(403, PROBLEM), UpstreamForbidden),
    ("409", reply(409, MESSAGE), UpstreamConflict),
    ("423", reply(423, MESSAGE), UpstreamConflict),
    ("413 HTML", reply(413, HTML), UpstreamNotAirbyte),
    ("413 micronaut", reply(413, MICRONAUT), Invalid),
]


async def create(client: AirbyteClient) -> Source:
    """A call that must not be made twice, and that holds a secret."""
    return await client.create_source(
        WORKSPACE_ID,
        {"refresh_token": CANARY},
        name="Salesforce",
        source_definition_id=DEFINITION_ID,
    )


@pytest.mark.parametrize(
    "name,move,error", LOST + DEFINITE, ids=[name for name, _, _ in LOST + DEFINITE]
)
async def test_each_failure_has_its_class_and_is_sent_once(
    name: str,
    move: Move,
    error: type[AamError],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A creation is sent once, and nothing of the response is quoted."""
    caplog.set_level("DEBUG")
    started = time.monotonic()
    async with wire(move) as server, AirbyteClient(server.url, timeout=0.7) as client:
        with pytest.raises(AamError) as caught:
            await create(client)
        assert len(server.requests) == 1
        assert CANARY.encode() in server.requests[0]

    assert type(caught.value) is error
    assert time.monotonic() - started < 5
    # Nothing hangs on the error: the contexts of httpx and aiohttp hold the request.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.problem())
    output = shown + caplog.text + "".join(capsys.readouterr())
    assert "AAMCANARY" not in output


async def test_refused_connection_means_not_sent(unused_port: int) -> None:
    """Nothing happened; a creation is not retried either."""
    async with AirbyteClient(f"http://127.0.0.1:{unused_port}/api/v1", timeout=5) as client:
        with pytest.raises(UpstreamUnreachable) as caught:
            await create(client)
    assert caught.value.retryable
    assert caught.value.__context__ is None


async def test_failed_tls_handshake_means_not_sent() -> None:
    received = bytearray()

    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AirbyteClient(f"https://127.0.0.1:{port}/api/v1", timeout=5) as client:
        with pytest.raises(UpstreamUnreachable):
            await create(client)
    assert CANARY.encode() not in received


@pytest.mark.parametrize("move", [close, reset, reply(502, HTML), reply(429, b"")])
async def test_read_is_retried_after_a_transient_error(move: Move) -> None:
    """Four times lost, then answered."""
    async with (
        wire(*[move] * 4, reply(200, SOURCE)) as server,
        AirbyteClient(server.url, timeout=5) as client,
    ):
        assert (await client.get_source(SOURCE_ID)).source_id == SOURCE_ID
        assert len(server.requests) == 5


@pytest.mark.parametrize("move", [reply(200, b""), reply(404, HTML), reply(302, b"")])
async def test_foreign_answer_is_retried_after_airbyte_has_answered_once(move: Move) -> None:
    """Before, the address is wrong and asking again does not help; later it is an interruption."""
    async with (
        wire(move, reply(200, SOURCE), move, reply(200, SOURCE)) as server,
        AirbyteClient(server.url, timeout=5) as client,
    ):
        with pytest.raises(UpstreamNotAirbyte):
            await client.get_source(SOURCE_ID)
        assert len(server.requests) == 1
        await client.get_source(SOURCE_ID)
        assert (await client.get_source(SOURCE_ID)).source_id == SOURCE_ID
        assert len(server.requests) == 4


async def test_read_is_not_retried_after_a_refusal() -> None:
    async with wire(reply(404, ERROR_ID)) as server, AirbyteClient(server.url) as client:
        with pytest.raises(UpstreamMissing):
            await client.get_source(SOURCE_ID)
        assert len(server.requests) == 1


async def test_retries_end_within_the_deadline() -> None:
    """The deadline is for the call and not for each of its attempts."""
    started = time.monotonic()
    async with (
        wire(close, close, silence) as server,
        AirbyteClient(server.url, timeout=1) as client,
    ):
        with pytest.raises(UpstreamTimeout):
            await client.get_source(SOURCE_ID)
        assert len(server.requests) == 3
    assert time.monotonic() - started < 5


async def test_lost_connection_does_not_affect_later_calls() -> None:
    async with (
        wire(reply(200, SOURCE), reset, reply(200, SOURCE)) as server,
        AirbyteClient(server.url) as client,
    ):
        await create(client)
        with pytest.raises(UpstreamUnknown):
            await create(client)
        assert (await create(client)).name == "Salesforce"


async def test_caller_can_cancel_a_call() -> None:
    """The client's deadline does not swallow the caller's."""
    async with wire(silence) as server, AirbyteClient(server.url, timeout=20) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await create(client)


async def test_request_headers() -> None:
    """JSON with its content type, gzip at most, and no cookies."""
    baked = reply(200, SOURCE, headers="set-cookie: session=abc; path=/\r\n")
    async with wire(baked) as server, AirbyteClient(server.url + "/") as client:
        await create(client)
        await create(client)
        first, second = (request.partition(b"\r\n\r\n")[0].lower() for request in server.requests)
    assert first.startswith(b"post /api/v1/sources/create http/1.1\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in first + b"\r\n"
    assert b"\r\naccept-encoding: gzip\r\n" in first + b"\r\n"
    assert b"authorization" not in first
    assert b"cookie" not in second


async def test_credentials_in_the_url_become_basic_authentication() -> None:
    """A given login takes precedence."""
    async with wire(reply(200, SOURCE)) as server:
        url = server.url.replace("127", "user:p%40ss@127", 1)
        async with AirbyteClient(url) as client:
            await create(client)
        async with AirbyteClient(url, Credentials.bearer("key")) as client:
            await create(client)
    assert b"\r\nauthorization: Basic dXNlcjpwQHNz\r\n" in server.requests[0]
    assert b"\r\nauthorization: Bearer key\r\n" in server.requests[1]


async def test_implausible_time_is_rejected() -> None:
    """Milliseconds where seconds belong are not a date in the year 50,000."""
    job = {
        "id": 1,
        "configType": "sync",
        "configId": "not-a-uuid",
        "status": "running",
        "createdAt": 1_760_000_000,
        "updatedAt": 1_760_000_000,
    }
    late = {**job, "createdAt": 1_760_000_000_000}
    async with (
        wire(reply(200, {"job": job}), reply(200, {"job": late})) as server,
        AirbyteClient(server.url, timeout=3) as client,
    ):
        read = await client.get_job(1)
        assert (read.connection_id, read.attempts, read.created_at.year) == (None, 0, 2025)
        with pytest.raises(UpstreamUnknown):
            await client.get_job(1)


async def test_token_with_line_breaks_is_rejected() -> None:
    """It is neither sent nor shown."""
    token = f"{UPSTREAM_CANARY}\r\nx-injected: 1"
    async with (
        wire(reply(200, {"access_token": token})) as server,
        AirbyteClient(server.url, ClientCredentials("id", "secret")) as client,
    ):
        with pytest.raises(UpstreamUnreachable) as caught:
            await create(client)
        assert server.requests
        assert not any(b"sources/create" in request for request in server.requests)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


async def test_key_may_end_in_a_line_break() -> None:
    """A secret that was mounted as a file often does."""
    async with (
        wire(reply(200, SOURCE)) as server,
        AirbyteClient(server.url, Credentials.bearer("key\n")) as client,
    ):
        await create(client)
    assert b"\r\nauthorization: Bearer key\r\n" in server.requests[0]


async def test_gzip_response_is_decompressed() -> None:
    packed = reply(
        200, gzip.compress(msgspec.json.encode(SOURCE)), headers="content-encoding: gzip\r\n"
    )
    async with wire(packed) as server, AirbyteClient(server.url) as client:
        assert (await create(client)).source_id == SOURCE_ID


@pytest.fixture
def unused_port() -> int:
    """A port without a listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


@pytest.mark.parametrize(
    "move,code",
    [
        (reply(503, HTML), "upstream_unknown"),
        (close, "upstream_unknown"),
        (reply(401, b""), "upstream_auth"),
        (reply(200, HTML), "upstream_not_airbyte"),
        (reply(405, HTML), "upstream_not_airbyte"),
    ],
)
async def test_health_raises_the_specific_error(move: Move, code: str) -> None:
    async with wire(move) as server, AirbyteClient(server.url, timeout=2) as client:
        with pytest.raises(Upstream) as caught:
            await client.health()
    assert caught.value.code == code
    assert UPSTREAM_CANARY not in caught.value.detail


@pytest.mark.parametrize("available", [True, False])
async def test_health_is_what_airbyte_reports(available: bool) -> None:
    """A server that runs may still say that it is not available."""
    async with (
        wire(reply(200, {"available": available})) as server,
        AirbyteClient(server.url, timeout=2) as client,
    ):
        assert await client.health() is available


async def test_answers_may_lack_optional_members() -> None:
    """Nulls are omitted and unknown words appear: neither is an error."""
    connection: dict[str, Any] = {
        "connectionId": str(uuid4()),
        "name": "n",
        "sourceId": str(SOURCE_ID),
        "destinationId": str(uuid4()),
        "status": "hibernating",
        "syncCatalog": {"streams": [{"a": 1}]},
    }
    async with wire(reply(200, connection)) as server, AirbyteClient(server.url) as client:
        read = await client.get_connection(UUID(connection["connectionId"]))
    assert read.status == "hibernating"
    assert read.source_catalog_id is None
    assert not read.breaking_change
    assert read.sync_catalog == b'{"streams":[{"a":1}]}'
