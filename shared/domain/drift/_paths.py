"""Looks up the part of a schema that a change refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from shared.domain.catalog._model import PAIR, STREAM, Path, first_byte, readable
from shared.domain.catalog._schema import OF_ITEMS, OF_VALUES, Schema
from shared.domain.drift._diff import ITEM, VALUE


def names_at(pair: bytes, path: Path) -> frozenset[str]:
    """The names of all fields inside the field at `path` of a stream, at any depth.

    This includes patterns of names, and names that are only required. `pair` is the stream's bytes.

    Raises:
        InvalidCatalog: the stream or its jsonSchema is invalid.
    """
    with readable("jsonSchema"):
        schema = _schema_of(pair)
        return frozenset(name for one in _found(schema, path) for name in schema.names(one))


def schema_at(pair: bytes, path: Path) -> dict[str, Any]:
    """The schema of the field at `path` of a stream, with its references inlined.

    Empty if there is no such field; if several schemas describe it, the first one.

    Raises:
        InvalidCatalog: the stream or its jsonSchema is invalid.
    """
    with readable("jsonSchema"):
        schema = _schema_of(pair)
        found = next(iter(_found(schema, path)), None)
        made = schema.inlined(found) if path else found
        plain: Any = msgspec.json.decode(msgspec.json.encode(made))
        return plain if isinstance(plain, dict) else {}


def _found(schema: Schema, path: Path) -> list[Any]:
    here = [schema.root]
    for step in path:
        here = [inner for one in here for part in schema.parts(one) for inner in _steps(part, step)]
    return here


@lru_cache(maxsize=8)
def _schema_of(pair: bytes) -> Schema:
    text: Raw = STREAM.decode(PAIR.decode(pair).stream).json_schema
    return Schema.read(bytes(memoryview(text)) if first_byte(text) else b"{}")


def _steps(schema: Mapping[str, Any], step: str) -> Iterator[Any]:
    """The schemas that one step of a path leads to."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and step in properties:
        yield properties[step]
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict) and step[1:-1] in patterns and step[:1] + step[-1:] == VALUE:
        yield patterns[step[1:-1]]
    if step == VALUE:
        yield from (schema[keyword] for keyword in OF_VALUES if keyword in schema)
    if step == ITEM:
        for keyword in OF_ITEMS:
            items = schema.get(keyword)
            yield from items if isinstance(items, list) else (items,)
