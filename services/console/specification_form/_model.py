"""What a schema becomes in a form: a tree of nodes, each with the kind of its field.

What no field can show, such as an object with members of any name, is edited as JSON.
Source: JSON Schema draft-07 as Airbyte's connector specification reference uses it.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeGuard

import orjson

Json: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]
Kind: TypeAlias = Literal[
    "text",
    "integer",
    "number",
    "boolean",
    "enum",
    "const",
    "object",
    "array",
    "branches",
    "json",
    "secret",
]

MAX_DEPTH: Final = 10
"""Deeper parts are edited as JSON."""
MAX_NODES: Final = 2_000
"""Parts beyond this number are edited as JSON."""
MAX_ROWS: Final = 100
"""Longer arrays are edited as JSON."""
MAX_BRANCHES: Final = 20
MAX_OPTIONS: Final = 500
_TAG: Final = re.compile(r"<[a-zA-Z/!][^<>]{0,2000}>")
_SPACE: Final = re.compile(r"\s+")
_SCALARS: Final[dict[str, Kind]] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


class Unreadable(str):
    """Text of a JSON field that is not JSON; it is shown again as it is."""

    __slots__ = ()


class Blank(str):
    """A row that was added and has yet to be filled in."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a schema."""

    kind: Kind
    key: str
    """The name of the member; empty for the root, items and branches."""
    schema: Json
    is_required: bool = False
    is_hidden: bool = False
    """Not shown to people, by `airbyte_hidden`, though its value is sent back."""
    members: tuple[Node, ...] = ()
    """Of an object, in the order of the form."""
    item: Node | None = None
    """Of an array."""
    branches: tuple[Node, ...] = ()
    """Of `oneOf` or `anyOf`."""
    options: tuple[Any, ...] = field(default=())
    """Of an enum, its values; of a const, its only value."""

    @property
    def title(self) -> str:
        """Its title, or its name as words."""
        given = self.schema.get("title")
        words = self.key.replace("_", " ").replace("-", " ").strip()
        return plain(given) if isinstance(given, str) and given else words[:1].upper() + words[1:]

    @property
    def description(self) -> str:
        """Its description as plain text, without links."""
        given = self.schema.get("description")
        return plain(given) if isinstance(given, str) else ""

    @property
    def has_default(self) -> bool:
        """Whether the schema gives a default."""
        return "default" in self.schema

    def holds_only_secrets(self) -> bool:
        """Whether nothing in it can be a field."""
        if self.kind == "secret":
            return True
        return (
            self.kind == "object"
            and bool(self.members)
            and all(one.holds_only_secrets() or one.kind == "const" for one in self.members)
        )


def node_of(schema: Mapping[str, Any]) -> Node:
    """The tree of a connector's specification; every `$ref` in it is resolved already."""
    return _Builder().node(dict(schema), "", depth=0, is_required=True)


def plain(text: str) -> str:
    """A description without its HTML, on one line, at most 600 characters long."""
    stripped = _SPACE.sub(" ", html.unescape(_TAG.sub("", text))).strip()
    return stripped if len(stripped) <= 600 else f"{stripped[:597]}…"


def member(path: str, key: str) -> str:
    """The name of a member's field, as a JSON pointer."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"


def branch(path: str, index: int) -> str:
    """The path of one branch's fields; no member's path looks like it, since `@` follows a `/`."""
    return f"{path}/~@{index}"


def fits(node: Node, value: Any) -> bool:
    """Whether a node's fields hold a value without loss; if not, it is edited as JSON."""
    found = True
    match node.kind:
        case "text":
            found = isinstance(value, str)
        case "integer":
            found = is_number(value) and float(value).is_integer() and abs(value) < 2**53
        case "number":
            found = is_number(value)
        case "boolean":
            found = isinstance(value, bool)
        case "enum" | "const":
            found = is_among(node.options, value)
        case "object":
            found = isinstance(value, dict) and _members_fit(node, value)
        case "array":
            found = isinstance(value, list) and len(value) <= MAX_ROWS
        case "branches":
            found = chosen_branch(node, value) is not None
    return found


def chosen_branch(node: Node, value: Any) -> int | None:
    """The first branch that holds a value; an object's constants tell the branches apart."""
    for index, one in enumerate(node.branches):
        if fits(one, value) and not (isinstance(value, dict) and _extras(one, value)):
            return index
    for index, one in enumerate(node.branches):
        if fits(one, value):
            return index
    return None


def _members_fit(node: Node, value: Json) -> bool:
    for one in node.members:
        if one.key not in value:
            if one.is_required and one.kind == "const":
                return False
        elif one.kind == "const" and not fits(one, value[one.key]):
            return False
    return True


def _extras(node: Node, value: Json) -> list[str]:
    known = {one.key for one in node.members}
    return [name for name in value if name not in known]


def extras(node: Node, value: Json) -> Json:
    """The members of an object that its schema does not name."""
    return {name: value[name] for name in _extras(node, value)}


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, so that true is not 1."""
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def is_among(options: tuple[Any, ...], value: Any) -> bool:
    """Whether a value is one of the options."""
    return any(is_same(one, value) for one in options)


def as_json(value: Any) -> str:
    """A value as JSON text."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError):
        return ""


class _Builder:
    def __init__(self) -> None:
        self._nodes = 0

    def node(self, schema: Any, key: str, *, depth: int, is_required: bool = False) -> Node:
        given = dict(schema) if isinstance(schema, Mapping) else {}
        self._nodes += 1
        common: dict[str, Any] = {
            "key": key,
            "schema": given,
            "is_required": is_required,
            "is_hidden": given.get("airbyte_hidden") is True,
        }
        if given.get("airbyte_secret") is True:
            return Node(kind="secret", **common)
        found = None
        if depth <= MAX_DEPTH and self._nodes <= MAX_NODES:
            found = self._with_fields(given, depth, common)
        if found is not None:
            return found
        return Node(kind="secret" if _has_secret(given) else "json", **common)

    def _with_fields(self, schema: Json, depth: int, common: Json) -> Node | None:
        """A node with fields; None if it can only be edited as JSON."""
        if "const" in schema:
            return Node(kind="const", options=(schema["const"],), **common)
        enum = schema.get("enum")
        if isinstance(enum, list) and 0 < len(enum) <= MAX_OPTIONS:
            return Node(kind="enum", options=tuple(enum), **common)
        if any(name in schema for name in ("allOf", "oneOf", "anyOf")):
            return self._branches(schema, depth, common)
        kind = _type(schema)
        if kind in _SCALARS:
            return Node(kind=_SCALARS[kind], **common)
        if kind == "array":
            return self._array(schema, depth, common)
        return self._object(schema, depth, common) if kind in ("object", None) else None

    def _array(self, schema: Json, depth: int, common: Json) -> Node | None:
        if not isinstance(schema.get("items"), Mapping):
            return None
        item = self.node(schema["items"], "", depth=depth + 1, is_required=True)
        return None if item.kind == "secret" else Node(kind="array", item=item, **common)

    def _object(self, schema: Json, depth: int, common: Json) -> Node | None:
        if not isinstance(schema.get("properties"), Mapping):
            return None
        required = schema.get("required")
        names = set(map(str, required)) if isinstance(required, list) else set()
        properties: Mapping[str, Any] = schema["properties"]
        members = tuple(
            self.node(properties[name], name, depth=depth + 1, is_required=name in names)
            for name in _ordered(properties)
        )
        return Node(kind="object", members=members, **common)

    def _branches(self, schema: Json, depth: int, common: Json) -> Node | None:
        listed = schema.get("oneOf") or schema.get("anyOf")
        is_plain = "allOf" not in schema and "properties" not in schema
        if not is_plain or not isinstance(listed, list) or len(listed) > MAX_BRANCHES:
            return None
        branches = tuple(self.node(one, "", depth=depth + 1, is_required=True) for one in listed)
        return Node(kind="branches", branches=branches, **common)


def _ordered(properties: Mapping[str, Any]) -> list[str]:
    """The names of members by `order`; those without one follow as they are listed."""

    def place(name: str) -> float:
        given = properties[name].get("order") if isinstance(properties[name], Mapping) else None
        return float(given) if is_number(given) else math.inf

    return sorted(properties, key=place)


def _type(schema: Json) -> str | None:
    given = schema.get("type")
    kinds = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    others = [one for one in kinds if one != "null"]
    return str(others[0]) if len(others) == 1 else None if not kinds else "mixed"


def _has_secret(schema: Any) -> bool:
    return any(one.get("airbyte_secret") is True for one in _inner(schema))


def _inner(value: Any) -> Iterator[Json]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
