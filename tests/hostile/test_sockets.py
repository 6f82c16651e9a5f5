"""Malformed, slow and oversized HTTP against a service process configured as in production."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest

from shared.http import uvicorn_protocol
from shared.http.strict_json import CATALOG
from tests.hostile.attempts import CANARY
from tests.hostile.conftest import Process
from tests.hostile.sockets import (
    GET,
    KEY,
    POST,
    answer_of,
    cpu_ms,
    expect_refusal,
    health_cpu_ms,
    rest_of,
)

MIB = 1024 * 1024
_P99_MS = 300
NEXT = f"GET /{CANARY} HTTP/1.1\r\nHost: aam\r\n\r\n"


async def slowest_beside(process: Process, work: Awaitable[object]) -> float:
    """Return the p99 of `health_cpu_ms` during `work`."""
    times: list[float] = []

    async def poll_health() -> None:
        while True:
            times.append(await health_cpu_ms(process))
            await asyncio.sleep(0.005)

    polling = asyncio.create_task(poll_health())
    await asyncio.sleep(0.02)
    await work
    await asyncio.sleep(0.05)
    assert not polling.done(), polling
    polling.cancel()
    assert len(times) > 2
    return sorted(times)[-1 - len(times) // 100]


def memory(process: Process) -> tuple[int, int]:
    """Return the resident bytes of the process: now, and the peak since the last call."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now
    assert most
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets the peak, see proc(5)
    return int(now[1]) * 1024, int(most[1]) * 1024


def chunked(content: bytes) -> Iterator[bytes]:
    """Yield a body in chunked encoding, in chunks of 64 KiB."""
    for start in range(0, len(content), 65536):
        piece = content[start : start + 65536]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("how", ["declared", "undeclared", "declared and not sent"])
async def test_c6_oversized_bodies_are_refused(process: Process, how: str) -> None:
    """Over the limit by a byte or by a terabyte, without buffering them."""
    content = b" " * (CATALOG.body_bytes + 1)
    sent: Iterable[bytes]
    if how == "undeclared":
        sent = [f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode(), *chunked(content)]
    elif how == "declared":
        sent = [f"{POST}Content-Length: {len(content)}\r\n\r\n".encode(), content]
    else:
        sent = [f"{POST}Content-Length: {10**12}\r\n\r\n".encode()]
    before, _ = memory(process)

    began = cpu_ms(process)
    answer = await answer_of(process, *sent)

    assert cpu_ms(process) - began < 2000
    if answer:  # otherwise the connection was reset while the rest of the body arrived
        expect_refusal(answer, 413, "body_too_large")
    else:
        assert how != "declared and not sent"
    assert memory(process)[1] - before < 32 * MIB
    assert await health_cpu_ms(process) < 1000


def stream(name: str, fields: int) -> dict[str, object]:
    """Build a stream with this many fields."""
    properties = {f"f{n}": {"type": "string"} for n in range(fields)}
    return {
        "stream": {"name": name, "jsonSchema": {"type": "object", "properties": properties}},
        "config": {"syncMode": "full_refresh", "destinationSyncMode": "append", "selected": True},
    }


def order(streams: list[dict[str, object]]) -> bytes:
    """Build a request to apply these streams."""
    held = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
    return json.dumps({"connection_id": held, "sync_catalog": {"streams": streams}}).encode()


def strings() -> bytes:
    """Build an array of as many strings as fit into a body, each containing brackets."""
    return b"[" + b",".join([b'"[{,:"'] * 1_400_000) + b"]"


def members() -> bytes:
    """Build an object with as many members as fit into a body."""
    return b"{" + b",".join(b'"%x":""' % n for n in range(1_000_000)) + b"}"


MANY: dict[str, tuple[Callable[[], bytes], str]] = {
    "values": (lambda: b"[" + b"1," * CATALOG.nodes + b"1]", "too_many_nodes"),
    "values that fit": (lambda: b"[" + b"1," * (CATALOG.nodes - 3) + b"1]", "invalid_request"),
    "strings": (strings, "invalid_request"),
    "members": (members, "too_many_members"),
    "escapes": (lambda: b'"' + rb"\u0041" * 2_700_000 + b'"', "invalid_request"),
    "streams": (lambda: order([stream("a", 0)] * 10_001), "catalog_too_large"),
    "fields": (lambda: order([stream("a", 20_001)]), "catalog_too_large"),
    "a long key": (lambda: b'{"%b":1}' % (b"a" * MIB), "name_too_long"),
}


@pytest.mark.parametrize("what", MANY)
async def test_c7_too_many_items_are_refused(process: Process, what: str) -> None:
    """With a problem response, while /health stays fast."""
    make, code = MANY[what]
    content = make()
    head = f"{POST}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"

    async def send() -> None:
        began = cpu_ms(process)
        answer = await answer_of(process, head.encode(), content)
        assert cpu_ms(process) - began < 2000
        expect_refusal(answer, 422, code)

    assert await slowest_beside(process, send()) < _P99_MS


BAD = (400, "invalid_http")
HEAD = (431, "head_too_large")
CHUNKED = "Transfer-Encoding: chunked\r\n"
LAST = "0\r\n\r\n"
NO_HTTP: dict[str, tuple[str, tuple[int, str]]] = {
    "length and chunks": (f"{POST}Content-Length: 4\r\n{CHUNKED}\r\n{LAST}{NEXT}", BAD),
    "chunks and length": (f"{POST}{CHUNKED}Content-Length: 4\r\n\r\n{LAST}{NEXT}", BAD),
    "two lengths": (f"{POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n11{NEXT}", BAD),
    "the same length twice": (f"{POST}Content-Length: 1\r\nContent-Length: 1\r\n\r\n1{NEXT}", BAD),
    "a list of lengths": (f"{POST}Content-Length: 1, 1\r\n\r\n1{NEXT}", BAD),
    "a signed length": (f"{POST}Content-Length: +1\r\n\r\n1{NEXT}", BAD),
    "a negative length": (f"{POST}Content-Length: -1\r\n\r\n1{NEXT}", BAD),
    "a length of 50 digits": (f"{POST}Content-Length: {'9' * 50}\r\n\r\n1{NEXT}", BAD),
    "1e12": (f"{POST}Content-Length: 1e12\r\n\r\n1{NEXT}", BAD),
    "chunks of what is none": (f"{POST}Transfer-Encoding: xchunked\r\n\r\n{LAST}{NEXT}", BAD),
    "chunks, then none": (f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n{LAST}{NEXT}", BAD),
    "chunks twice": (f"{POST}{CHUNKED}{CHUNKED}\r\n{LAST}{NEXT}", BAD),
    "a blank before the colon": (f"{POST}Transfer-Encoding : chunked\r\n\r\n{LAST}{NEXT}", BAD),
    "a folded header": (f"{GET}X: a\r\n b\r\n\r\n{NEXT}", BAD),
    "bare line feeds": ("GET /health HTTP/1.1\nHost: aam\n\n", BAD),
    "one bare line feed": (f"GET /health HTTP/1.1\r\nHost: aam\nX: 1\r\n\r\n{NEXT}", BAD),
    "NUL in a header": (f"{GET}X: a\0b\r\n\r\n{NEXT}", BAD),
    "no host": (f"GET /health HTTP/1.1\r\n\r\n{NEXT}", BAD),
    "two hosts": (f"{GET}Host: other\r\n\r\n{NEXT}", BAD),
    "HTTP/0.9": ("GET /health\r\n\r\n", BAD),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01", BAD),
    "a tunnel": ("CONNECT aam:1 HTTP/1.1\r\nHost: aam\r\n\r\n", BAD),
    "101 headers": (GET + "".join(f"X{n}: 1\r\n" for n in range(101)) + "\r\n", HEAD),
    "a long header": (f"{GET}X: {'a' * 66_000}\r\n\r\n", HEAD),
    "a long target": (f"GET /{'a' * 66_000} HTTP/1.1\r\nHost: aam\r\n\r\n", HEAD),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_HTTP)
async def test_c23_malformed_http_is_refused(process: Process, what: str) -> None:
    """One error response, then a closed connection: no request smuggling."""
    sent, (status, code) = NO_HTTP[what]
    expect_refusal(await answer_of(process, sent.encode("latin-1")), status, code)
    assert await health_cpu_ms(process) < 1000


@pytest.mark.parametrize(
    "head",
    [
        f"{GET}X: {'a' * 1_000_000}",
        f"{GET}X: {'a' * 1_000_000}\r\n\r\n",
        GET + "".join(f"X{n}: 1\r\n" for n in range(20_000)) + "\r\n",
    ],
    ids=["without an end", "a megabyte", "20,000 headers"],
)
async def test_c23_huge_heads_are_refused(process: Process, head: str) -> None:
    """The connection is closed while they arrive; the client may not receive the response."""
    began = cpu_ms(process)
    answer = await answer_of(process, head.encode())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert cpu_ms(process) - began < 1000
    assert await health_cpu_ms(process) < 1000


async def test_c23_slow_requests_are_dropped(process: Process) -> None:
    """Unfinished heads and bodies time out; other requests stay fast (slowloris)."""
    body = f"{POST}Content-Length: 100\r\n\r\n"

    async def trickled(head: str, tail: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(head.encode())

        async def drip() -> None:
            for byte in tail * 100:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        try:
            async with asyncio.timeout(10):
                return await rest_of(reader)
        finally:
            dripping.cancel()
            writer.close()

    async def send_concurrently() -> tuple[bytes, ...]:
        return await asyncio.gather(
            answer_of(process),
            answer_of(process, GET.encode()),
            trickled(f"{GET}X: ", b"a"),
            trickled("\r\n", b"\r\n"),
            answer_of(process, body.encode()),
            trickled(body, b" "),
        )

    slow = asyncio.create_task(send_concurrently())
    assert await slowest_beside(process, slow) < _P99_MS
    nothing, head, head_dripping, lines, body_stalled, body_dripping = slow.result()
    for answer in (nothing, head, head_dripping, lines):
        expect_refusal(answer, 408, "head_timeout")
    for answer in (body_stalled, body_dripping):
        expect_refusal(answer, 408, "body_timeout")
    assert uvicorn_protocol.Http.head_deadline_s <= 15


async def test_c23_idle_connections_block_nobody(process: Process) -> None:
    """Five hundred idle connections do not delay other requests, and are closed."""
    answers: list[bytes] = []

    async def stay_idle() -> None:
        idle = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(500)]
        async with asyncio.timeout(10):
            answers.extend(await asyncio.gather(*(reader.read() for reader, _ in idle)))
        for _, writer in idle:
            writer.close()

    assert await slowest_beside(process, stay_idle()) < _P99_MS
    assert len(answers) == 500
    assert all(one.startswith(b"HTTP/1.1 408 ") for one in answers)


async def test_c23_refused_body_is_not_parsed_as_a_request(process: Process) -> None:
    refused = POST.replace("application/json", "text/plain")
    sent = f"{refused}Content-Length: {len(NEXT)}\r\n\r\n{NEXT}"
    expect_refusal(await answer_of(process, sent.encode()), 415, "unsupported_media_type")
    nobody = POST.replace(KEY, "")
    sent = f"{nobody}Content-Length: {len(NEXT)}\r\n\r\n{NEXT}"
    expect_refusal(await answer_of(process, sent.encode()), 401, "unauthenticated")
    assert CANARY not in process.log.read_text()
