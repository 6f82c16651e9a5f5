"""Invalid bodies, names and headers are rejected within two seconds without side effects."""

from __future__ import annotations

import gzip
import io
import json
import logging
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from shared.http.strict_json import CATALOG, ORDER
from tests.hostile.attempts import APPLY, CANARY, JSON, ONBOARD, Attempt, World

CHARACTER = (422, "forbidden_character")
NOT_FINITE = (422, "non_finite_number")
INTEGER = (422, "integer_out_of_range")
DEEP = (422, "too_deep")
TOO_LARGE = (413, "body_too_large")
NODES = (422, "too_many_nodes")
INVALID = (422, "invalid_request")
NO_CATALOG = (422, "invalid_catalog")
DUPLICATE = (422, "duplicate_key")
NOT_UTF8 = (400, "not_utf8")
MEDIA = (415, "unsupported_media_type")
ENCODED = (415, "unsupported_content_encoding")
KEY = (400, "invalid_idempotency_key")

Attempts = Iterator[Attempt]


def onboard(**changes: Any) -> bytes:
    """Build a valid onboarding request with these members changed."""
    return json.dumps(
        {
            "source_type": "Salesforce",
            "connection_name": "Another",
            "credential_id": "salesforce-prod",
            "streams": ["Account", CANARY],
            **changes,
        }
    ).encode()


def named(name: str) -> bytes:
    """Build an onboarding request with this connection name."""
    return onboard(connection_name=name)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body in chunks, so that it is sent without Content-Length."""
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


def c1(world: World) -> Attempts:
    """NUL characters."""
    yield Attempt("in a value", world.poisoned(rb'"x\u0000y"'), CHARACTER)
    yield Attempt("in a key", world.poisoned(rb'{"x\u0000y":1}'), CHARACTER)
    yield Attempt("after a backslash", world.poisoned(rb'"\\\u0000"'), CHARACTER)
    yield Attempt("in a name", named("x\0y"), CHARACTER, ONBOARD)
    yield Attempt("as a byte", world.poisoned(b'"x\0y"'), NOT_UTF8)


def c2(world: World) -> Attempts:
    """Unpaired surrogates."""
    for half in (rb"\ud800", rb"\uDFFF", rb"\ud83d\\\ude00", rb"\ud83d\ude00\ude00"):
        yield Attempt(f"{half!r} in a value", world.poisoned(b'"' + half + b'"'), CHARACTER)
        yield Attempt(f"{half!r} in a key", world.poisoned(b'{"' + half + b'":1}'), CHARACTER)
    yield Attempt("as bytes", world.poisoned(b'"\xed\xa0\x80"'), NOT_UTF8)


def c3(world: World) -> Attempts:
    """Non-finite numbers."""
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400"):
        yield Attempt(f"{number!r} in the catalog", world.poisoned(number), NOT_FINITE)
        yield Attempt(f"{number!r} as an id", b'{"connection_id":' + number + b"}", NOT_FINITE)


def c4(world: World) -> Attempts:
    """Integers beyond 64 bits."""
    for digits in (str(2**64), str(2**63), str(-(2**63) - 1), "1" * 4_300, "1" * 200_000):
        yield Attempt(f"{len(digits)} digits", world.poisoned(digits.encode()), INTEGER)


def c5(world: World) -> Attempts:
    """Deeply nested JSON."""
    for depth in (65, 1_000, 100_000):
        brackets = b"[" * depth + b"]" * depth
        yield Attempt(f"{depth} levels", world.poisoned(brackets), DEEP)
        objects = b'{"a":' * depth + b"1" + b"}" * depth
        yield Attempt(f"{depth} objects", world.poisoned(objects), DEEP)
    yield Attempt("without an end", b"[" * 1_000_000, DEEP)
    yield Attempt("beside empty ones", b"[[],[]," * 100_000, DEEP)


def c6(world: World) -> Attempts:
    """Oversized bodies with and without Content-Length; test_sockets uses real sockets."""
    for path, limits in ((APPLY, CATALOG), (ONBOARD, ORDER)):
        content = b" " * (limits.body_bytes + 1)
        yield Attempt(f"declared, {path}", content, TOO_LARGE, path)
        yield Attempt(f"undeclared, {path}", pieces(content), TOO_LARGE, path)
        headers = {**JSON, "Content-Length": str(10**12)}
        yield Attempt(f"declared and not sent, {path}", b"{}", TOO_LARGE, path, headers)


def c7(world: World) -> Attempts:
    """Too many items; test_sockets measures the latency of other requests meanwhile."""
    many = world.poisoned(b"[" + b"1," * CATALOG.nodes + b"1]")
    yield Attempt("values", many, NODES)
    yield Attempt("values of an order", b"[" + b"1," * 500_000 + b"1]", NODES, ONBOARD)
    yield Attempt(
        "a long key", world.poisoned(b'{"%b":1}' % (b"a" * 1_000_000)), (422, "name_too_long")
    )
    stream = {"stream": {"name": CANARY, "jsonSchema": {}}, "config": {"selected": True}}
    large_order = {
        "connection_id": world.connection["id"],
        "sync_catalog": {"streams": [stream] * 10_001},
    }
    large = (422, "catalog_too_large")
    yield Attempt("streams", json.dumps(large_order).encode(), large)
    order = json.loads(world.order)
    pair = order["sync_catalog"]["streams"][0]
    pair["stream"]["jsonSchema"]["properties"] |= {
        f"f{n}": {"type": "string"} for n in range(20_001)
    }
    pair["config"] |= {"fieldSelectionEnabled": False, "selectedFields": []}
    yield Attempt("fields", json.dumps(order).encode(), large)
    pair["stream"]["name"] = "a" * 513
    yield Attempt("a long stream", json.dumps(order).encode(), NO_CATALOG)


def c8(world: World) -> Attempts:
    """Invalid catalogs."""
    order = json.loads(world.order)
    first = order["sync_catalog"]["streams"][0]
    nameless = {**first, "stream": {k: v for k, v in first["stream"].items() if k != "name"}}
    for what, catalog, code in (
        ("no streams", {"streams": []}, "empty_catalog"),
        ("no list of streams", {}, "invalid_catalog"),
        ("a stream twice", {"streams": [first, first]}, "duplicate_stream"),
        ("a stream without a name", {"streams": [nameless]}, "invalid_catalog"),
        (
            "a name that is no string",
            {"streams": [{**first, "stream": {"name": 1}}]},
            "invalid_catalog",
        ),
        ("null", None, "invalid_catalog"),
        ("a list", [first], "invalid_catalog"),
        ("streams of null", {"streams": [None]}, "invalid_catalog"),
        ("a stream of a list", {"streams": [[first]]}, "invalid_catalog"),
        ("text", CANARY, "invalid_catalog"),
    ):
        content = json.dumps({**order, "sync_catalog": catalog}).encode()
        yield Attempt(what, content, (422, code))
    del order["sync_catalog"]
    yield Attempt("no catalog", json.dumps(order).encode(), INVALID)


def c9(world: World) -> Attempts:
    """Duplicate members, which parsers interpret differently."""
    other = b'{"connection_id":"%b",' % str(uuid4()).encode()
    yield Attempt("two ids", world.order.replace(b"{", other, 1), DUPLICATE)
    yield Attempt("in the catalog", world.poisoned(b'{"a":1,"a":2}'), DUPLICATE)
    yield Attempt("by an escape", world.poisoned(rb'{"a":1,"\u0061":2}'), DUPLICATE)
    yield Attempt("deep down", world.poisoned(b'[[{"b":{"a":{},"a":[]}}]]'), DUPLICATE)


def c10(world: World) -> Attempts:
    """Text encodings other than UTF-8."""
    text = world.order.decode()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        yield Attempt(encoding, text.encode(encoding), NOT_UTF8)
    yield Attempt("a byte order mark", text.encode("utf-8-sig"), (400, "bom"))
    yield Attempt("Latin-1", world.poisoned('"\xe9"'.encode("latin-1")), NOT_UTF8)
    yield Attempt("overlong", world.poisoned(b'"\xc0\xaf"'), NOT_UTF8)


def c11(world: World) -> Attempts:
    """Content encodings, which are never decoded."""
    bomb = gzip.compress(b" " * 4_000_000)
    for encoding in ("gzip", "br", "gzip, gzip", "deflate", "zstd", "identity", "x"):
        yield Attempt(encoding, bomb, ENCODED, headers={**JSON, "Content-Encoding": encoding})


def c12(world: World) -> Attempts:
    """Media types other than JSON."""
    for media_type in ("text/plain", "application/json; charset=utf-7", "application/xml",
                 "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
                 "application/json, text/html", "application/jsonp", "", "*/*"):  # fmt: skip
        yield Attempt(
            media_type or "nothing", world.order, MEDIA, headers={"Content-Type": media_type}
        )
    yield Attempt("missing", world.order, MEDIA, headers={})
    twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    yield Attempt("two", world.order, MEDIA, headers=twice)
    yield Attempt("to onboard", onboard(), MEDIA, ONBOARD, {"Content-Type": "text/plain"})


def c13(world: World) -> Attempts:
    """Members that callers may not set."""
    for member in ("status", "airbyte_source_id", "tenant_id", "__class__", "__proto__", "id"):
        more = {**json.loads(world.order), member: CANARY}
        yield Attempt(f"{member} of a catalog", json.dumps(more).encode(), INVALID)
        yield Attempt(f"{member} of an order", onboard(**{member: CANARY}), INVALID, ONBOARD)
    policy = f"/connections/{world.connection['id']}/policy"
    own = json.dumps({"own": {}, "updated_by": CANARY}).encode()
    yield Attempt("a policy", own, INVALID, policy, method="PUT", service="drift_repair_agent")
    webhook = json.dumps({"url": "https://a.example", "secret": CANARY}).encode()
    yield Attempt("a webhook", webhook, INVALID, "/webhooks", service="drift_repair_agent")


def c14(world: World) -> Attempts:
    """Misleading names."""
    for what, name in {
        "201 characters": "a" * 201,
        "3,000 characters": "ab" * 1500,
        "empty": "",
        "blanks": " \t ",
        "a marker": f"Sales [aam:{uuid4()}]",
        "a line": 'x\n{"level":"info","event":"forged"}',
        "a carriage return": "x\rforged",
        "an escape": "\x1b[31mred",
        "right to left": "abc\u202ecba",
        "no width": "a\u200bb",
        "a line separator": "a\u2028b",
        "a tag": "a\U000e0041",
        "no character": "a\uffff",
        "private": "a\ue000",
    }.items():
        yield Attempt(what, named(name), INVALID, ONBOARD)
    composed = unicodedata.normalize("NFD", "Caf\xe9")
    assert composed != "Caf\xe9"
    yield Attempt("decomposed", named(composed), (409, "name_taken"), ONBOARD)
    yield Attempt("padded", named(" Caf\xe9 "), (409, "name_taken"), ONBOARD)


def c15(world: World) -> Attempts:
    """Credential ids with path traversal."""
    for one in ("../../sys/policy", "..%2f..", "a/b", "a?x", "a#b", "a" * 1000, "A", "", "a_b",
                "a b", "a\n", "-a", "."):  # fmt: skip
        yield Attempt(repr(one)[:40], onboard(credential_id=one), INVALID, ONBOARD)


def c16(world: World) -> Attempts:
    """Malformed ids, and ids of other objects."""
    order = json.loads(world.order)
    held = world.connection["id"]
    ids: list[Any] = ["x", {}, f"urn:uuid:{held}", f"{{{held}}}", 1, None, [held], f"{held} "]
    for one in ids:
        content = json.dumps({**order, "connection_id": one}).encode()
        yield Attempt(repr(one), content, INVALID)
    unknown = json.dumps({**order, "connection_id": str(uuid4())}).encode()
    yield Attempt("unknown", unknown, (404, "not_found"))
    for path in (f"/connections/{uuid4()}/sync", f"/connections/{uuid4()}/discover"):
        yield Attempt(path, b"", (404, "not_found"), path, {})
    yield Attempt("in a path", b"", INVALID, "/connections/..%2e/sync", {})
    no_route = (404, "no_such_route")
    yield Attempt("a path in a path", b"", no_route, "/connections/..%2f..%2f/sync", {})


def c24(world: World) -> Attempts:
    """Malformed idempotency keys."""
    for key in ("a", "a" * 256, "a" * 15, "a b" * 8, "a/" * 10):
        headers = [*JSON.items(), ("Idempotency-Key", key)]
        yield Attempt(key[:20], onboard(), KEY, ONBOARD, headers)
    twice = [*JSON.items(), ("Idempotency-Key", "a" * 20), ("Idempotency-Key", "b" * 20)]
    yield Attempt("two", onboard(), KEY, ONBOARD, twice)


INPUTS: list[Callable[[World], Attempts]] = [
    c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c15, c16, c24,
]  # fmt: skip


@pytest.mark.parametrize("attempts", INPUTS, ids=lambda one: one.__name__.upper())
async def test_hostile_input_is_refused(
    world: World, attempts: Callable[[World], Attempts]
) -> None:
    """A problem response within two seconds that quotes nothing; no effect; still healthy."""
    tried = [await world.withstands(attempt) for attempt in attempts(world)]
    assert tried


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Captured log output."""
    buffer = io.StringIO()
    (handler,) = (one for one in logging.getLogger().handlers if type(one) is logging.StreamHandler)
    before = handler.setStream(buffer)
    yield buffer
    handler.setStream(before)


async def test_c14_hostile_names(world: World, written: io.StringIO) -> None:
    """Valid unusual names do not break log lines, collide, or act as patterns in searches."""
    await world.mesh.onboard(connection_name="Caf\xe9")
    for attempt in c14(world):
        await world.withstands(attempt)
    for pattern in ("%", "_", "Caf_", "C%"):
        found = await world.mesh.orchestrator.get("/connections", params={"name": pattern})
        assert found.json()["items"] == []
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert lines
    assert not any(line["event"] == "forged" for line in lines)
