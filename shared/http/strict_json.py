"""Input limits, and a check that rejects JSON which parsers could interpret differently.

| limit                           | value                     | where it is enforced         |
| ------------------------------- | ------------------------- | ---------------------------- |
| body                            | 1 MiB                     | `ORDER`                      |
| body of a rename query          | 4 MiB                     | `QUESTION`                   |
| body with a catalog             | 16 MiB                    | `CATALOG`                    |
| time for a body to arrive       | BODY_DEADLINE, 30 s       | `shared.http.bodies`         |
| time for a request's head       | 10 s, 64 KiB, 100 headers | `http.uvicorn_protocol`      |
| depth of JSON                   | 64                        | `DEPTH`                      |
| JSON values in a body           | 500,000; catalogs 1.5 M   | `Limits.nodes`               |
| characters of a member's name   | 2,048                     | `MEMBER_CHARS`               |
| consecutive members of an object| 20,000 not objects        | `MEMBERS`                    |
| integers                        | 64 bits, signed           | `check`                      |
| streams of a catalog            | 10,000                    | `domain.catalog.MAX_STREAMS` |
| selected fields of a catalog    | 20,000                    | `domain.catalog.MAX_FIELDS`  |
| bytes of the selected streams   | 10 MiB                    | `domain.catalog.MAX_BYTES`   |
| characters of a stream's name   | 512                       | `domain.catalog.MAX_NAME`    |
| a name of a thing or person     | 1 to 200 characters       | `Name`                       |
| a reason                        | 1 to 2,000 characters     | `Why`                        |
| an Airbyte response, decoded    | 64 MiB                    | `shared.airbyte_client`      |

Errors name the problem and the limit, never the submitted value.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shared.domain.storable_text import holds_unstorable, without_escaped_backslashes
from shared.errors import AamError, Invalid, NotJson

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest body, in bytes and in JSON values."""

    body_bytes: int = _MIB
    nodes: int = 500_000


ORDER = Limits()
"""The default of a service."""
QUESTION = Limits(body_bytes=4 * _MIB)
CATALOG = Limits(body_bytes=16 * _MIB, nodes=1_500_000)
"""A large catalog has 13 bytes per value, so it reaches the byte limit before the value limit."""

DEPTH = 64
MEMBERS = 20_000
MEMBER_CHARS = 2048

_STRUCTURE = b'{}[]",:'
_REST = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
_TOO_DEEP = b"[" * (DEPTH + 1)
_MANY_MEMBERS = b":," * MEMBERS
_STRING = re.compile(rb'"[^"]*"')
_BATCH_SIZE = 100_000


def check(body: bytes, limits: Limits) -> None:
    """Check that a body is JSON which every parser and Postgres read alike, within the limits.

    Builds no result: each parsed object is counted and discarded, which takes less time than
    a parser that builds one, and lets other threads run (docs/decisions/0088).

    Raises:
        NotJson: it is not UTF-8, or begins with a byte order mark.
        Invalid: it is not valid JSON, or JSON that AAM rejects; the code says why.
    """
    text = _text(body)
    structure = _structure(body, limits)
    if structure.count(b",") + structure.count(b"[") + 1 > limits.nodes:
        raise _too_many(limits)
    # The parser reads members that are not objects without releasing the GIL.
    if _MANY_MEMBERS in structure.replace(b"[]", b""):
        raise Invalid(f"An object has more than {MEMBERS} members.", code="too_many_members")
    _check_depth(structure.translate(None, b",:"))
    members = 0

    def forget(one: dict[str, Any]) -> None:
        nonlocal members
        members += len(one)
        if len("".join(one)) > MEMBER_CHARS:
            _check_names(one)

    try:
        json.loads(
            text,
            object_hook=forget,
            parse_int=_check_integer,
            parse_float=_check_real,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError:
        raise _invalid() from None
    # Each member has one colon, so more colons than members means a duplicate name.
    if members != structure.count(b":"):
        raise Invalid("An object has a member twice.", code="duplicate_key")


def _text(body: bytes) -> str:
    if body.startswith(codecs.BOM_UTF8):
        raise NotJson("The body begins with a byte order mark.", code="bom")
    if b"\0" in body:
        raise NotJson("The body is not UTF-8.", code="not_utf8")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise NotJson("The body is not UTF-8.", code="not_utf8") from None


def _structure(body: bytes, limits: Limits) -> bytes:
    """The brackets, commas and colons outside strings, with braces as square brackets.

    For invalid JSON it is correct only up to the first error.
    """
    plain = body
    if b"\\" in body:
        plain = without_escaped_backslashes(body)
        if holds_unstorable(plain):
            raise Invalid(
                "A string holds a NUL character or half a character, which Postgres cannot keep.",
                code="forbidden_character",
            )
        plain = plain.replace(b'\\"', b"__")
    # Each value has at most two strings, its name and itself.
    if plain.count(b'"') > 4 * limits.nodes:
        raise _too_many(limits)
    bare = plain.translate(_ALL_SQUARE, _REST).replace(b'""', b"")
    # In batches, since the regex engine does not release the GIL while it works.
    while b'"' in bare:
        bare, found = _STRING.subn(b"", bare, _BATCH_SIZE)
        if not found:
            raise _invalid()
    return bare


def _too_many(limits: Limits) -> AamError:
    return Invalid(f"The body holds more than {limits.nodes} values.", code="too_many_nodes")


def _check_depth(brackets: bytes) -> None:
    """Remove the innermost pairs of brackets repeatedly, once per level of nesting."""
    for _ in range(DEPTH + 1):
        if _TOO_DEEP in brackets:
            break
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            if brackets:
                raise _invalid()
            return
        brackets = fewer
    raise Invalid(f"The body is nested more than {DEPTH} deep.", code="too_deep")


def _check_names(one: dict[str, Any]) -> None:
    if any(len(name) > MEMBER_CHARS for name in one):
        raise Invalid(
            f"A member's name has more than {MEMBER_CHARS} characters.", code="name_too_long"
        )


def _check_integer(digits: str) -> None:
    # The length first: parsing a long integer takes quadratic time.
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise Invalid("An integer has more than 64 bits.", code="integer_out_of_range")


def _check_real(digits: str) -> None:
    if math.isinf(float(digits)):
        _refuse_constant(digits)


def _refuse_constant(_name: str) -> NoReturn:
    raise Invalid("A number is infinite, or none.", code="non_finite_number")


def _invalid() -> AamError:
    return Invalid("The body is not valid JSON.", code="invalid_json")


def variant(name: str) -> str:
    """A tag for a member of a discriminated union; `place` omits it from error locations."""
    return f"{_VARIANT}{name}"


def place(location: Sequence[str | int]) -> list[str]:
    """A location in a request as callers see it, without the tags of unions."""
    return [part for part in map(str, location) if not part.startswith(_VARIANT)]


_VARIANT = "variant\0"
"""Contains a character that no member name can contain."""


def plain(text: str) -> str:
    """Normalize a line of text that a person wrote: NFC, without surrounding whitespace.

    Raises:
        PydanticCustomError: it is empty, or holds a control or formatting character.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not text or any(unicodedata.category(char) in _INVISIBLE for char in text):
        raise PydanticCustomError(
            "aam_plain_text", "Input should be text without control or formatting characters"
        )
    return text


_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(plain)]
"""The name of a thing or a person."""


def _is_a_person(name: str) -> str:
    if unicodedata.normalize("NFKC", name).strip().casefold() in ("policy", "aam"):
        raise PydanticCustomError(
            "aam_reserved_name", "“policy” and “AAM” are what AAM calls itself: name a person"
        )
    return name


By = Annotated[Name, AfterValidator(_is_a_person)]
"""The person on whose behalf the caller acts; the caller is recorded as well."""
Why = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(plain)]
"""The reason for an action."""
