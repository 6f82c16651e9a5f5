"""The JSON reader: what it accepts is unambiguous, and a refusal has its reason."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AamError
from shared.http.strict_json import CATALOG, DEPTH, MEMBER_CHARS, MEMBERS, ORDER, Limits, check

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


def refusal(body: bytes, limits: Limits = CATALOG) -> tuple[int, str] | None:
    """Status and code of the refusal; None where it is taken."""
    try:
        check(body, limits)
    except AamError as error:
        return error.status, error.code
    return None


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_valid_json_is_accepted(value: Any, ensure_ascii: bool, indent: int | None) -> None:
    """Whatever is in its strings, escaped or not."""
    body = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode()
    assert refusal(body) is None


@given(JSON, st.randoms(), st.integers(1, 4))
def test_accepted_json_is_unambiguous(value: Any, dice: random.Random, changes: int) -> None:
    """A randomly damaged body is refused, or three parsers read the same in it."""
    body = bytearray(json.dumps(value).encode())
    for _ in range(changes):
        place = dice.randrange(len(body) + 1)
        body[place : place + dice.randrange(3)] = dice.choice(PIECES)
    if refusal(bytes(body)) is None:
        read = json.loads(body)
        assert orjson.loads(body) == read
        assert msgspec.json.decode(body) == read
        assert "\0" not in json.dumps(read, ensure_ascii=False)


PIECES = [
    *(bytes([char]) for char in b'{}[]",:\\0e.-ndu \xff\xc3\xa9'),
    *(rb"\u0000", rb"\ud83d", rb"\ude00", rb"\\", b'""', b'"a":1,"a":2', b"NaN", b"1e999", b"\0"),
]


@pytest.mark.parametrize(
    "body, code",
    [
        (b"\xef\xbb\xbf{}", "bom"),
        ("{}".encode("utf-16"), "not_utf8"),
        ("{}".encode("utf-16-le"), "not_utf8"),
        (b'{"a":"\xe9"}', "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        (rb'"\u0000"', "forbidden_character"),
        (rb'{"\u0000":1}', "forbidden_character"),
        (rb'"\\\u0000"', "forbidden_character"),
        (rb'"\ud800"', "forbidden_character"),
        (rb'"\uDC00"', "forbidden_character"),
        (rb'"\ud83d\\\ude00"', "forbidden_character"),
        (rb'"\ud83d\ude00\ude00"', "forbidden_character"),
        (b"[NaN]", "non_finite_number"),
        (b"-Infinity", "non_finite_number"),
        (b"1e400", "non_finite_number"),
        (b"9223372036854775808", "integer_out_of_range"),
        (b"-9223372036854775809", "integer_out_of_range"),
        (b"1" * 5000, "integer_out_of_range"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'[{"b":{"a":1,"\\u0061":[]}}]', "duplicate_key"),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "too_deep"),
        (b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1), "too_deep"),
        (b"[[],[]," * (DEPTH + 1) + b"1" + b"]" * (DEPTH + 1), "too_deep"),
        (b"[" * 400_000, "too_deep"),
        (b"[" + b"1," * ORDER.nodes + b"1]", "too_many_nodes"),
        (b"[" + b'"",' * (4 * ORDER.nodes) + b'""]', "too_many_nodes"),
        (b'{"' + b"a" * (MEMBER_CHARS + 1) + b'":1}', "name_too_long"),
        (json.dumps(dict.fromkeys(map(str, range(MEMBERS + 2)))).encode(), "too_many_members"),
        (b'{"a"', "invalid_json"),
        (b'{"a":"b""c"}', "invalid_json"),
        (b"]][[", "invalid_json"),
        (b"", "invalid_json"),
    ],
)
def test_invalid_json_is_refused(body: bytes, code: str) -> None:
    """With a code for the reason, and a status: 400 for no text, 422 for JSON."""
    assert refusal(body, ORDER) == (400 if code in ("bom", "not_utf8") else 422, code)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEPTH + b"]" * DEPTH,
        b"[" + b"1," * (ORDER.nodes - 3) + b"1]",
        rb'"\\u0000 \\ud800"',
        rb'"\ud83d\ude00"',
        b"[9223372036854775807,-9223372036854775808,-0.0,1e308]",
        b'{"":{"":"[[[[{{{,,,,:::"}}',
        b'{"' + b"a" * MEMBER_CHARS + b'":1}',
    ],
)
def test_json_just_within_the_limits_is_accepted(body: bytes) -> None:
    """And what only looks invalid."""
    assert refusal(body, ORDER) is None
