"""Describe a state without its values: the types of its parts, and the names of its keys.

States belong to connectors. Some use values as keys (an account's id, a partition), so only names
that look like those of a program, or are fields of the stream, are shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, TypeAlias

import msgspec

Shape: TypeAlias = Any
"""A JSON type; an object with the shape of each key; an array with the shapes of its items."""

OTHER_KEYS: Final = "*"
"""Stands for the keys that are not shown; its value is an array of their shapes."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,63}")
_MOST_KEYS: Final = 50
"""An object with more keys is a map, whose keys are values."""
_DEEPEST: Final = 12
_SCALARS: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}


def shape_of(state: bytes, *, fields: Collection[str] = ()) -> Shape:
    """The shape of a state, which is JSON; `fields` are names that may be shown in any case."""
    try:
        return _shape(msgspec.json.decode(state), frozenset(fields), _DEEPEST)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unreadable"


def _shape(value: Any, fields: frozenset[str], depth: int) -> Shape:
    if isinstance(value, list):
        return _distinct(value, fields, depth) if depth else []
    if not isinstance(value, dict):
        return _SCALARS[type(value)]
    if not depth:
        return {}
    shown = {
        name: _shape(part, fields, depth - 1)
        for name, part in value.items()
        if name in fields or (len(value) <= _MOST_KEYS and _NAME.fullmatch(name))
    }
    rest = [part for name, part in value.items() if name not in shown]
    return shown | ({OTHER_KEYS: _distinct(rest, fields, depth)} if rest else {})


def _distinct(values: Iterable[Any], fields: frozenset[str], depth: int) -> list[Shape]:
    shapes: list[Shape] = []
    for value in values:
        shape = _shape(value, fields, depth - 1)
        if shape not in shapes and len(shapes) < _MOST_KEYS:
            shapes.append(shape)
    return shapes
