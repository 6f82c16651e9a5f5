"""A connector's JSON Schema (draft-07), read within limits, and its secret paths.

Source: Airbyte's connector specification reference; `airbyte_secret` marks what is secret, also
inside `oneOf` and arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1024 * 1024
"""The largest specification, as JSON; Airbyte's own have at most some 100 KB."""
MAX_NODES = 20_000
"""The most schemas in a specification, each counted wherever a `$ref` repeats it."""
MAX_DEPTH = 64
ANY_ITEM = "[]"
"""Stands for each item of an array in a path of a specification."""
ANY_MEMBER = "*"
"""Stands for each member of an object whose members have no names of their own."""
_COMBINATIONS = ("allOf", "oneOf", "anyOf")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
"""A member's name that may be quoted; others could be anything, including a secret."""


class InvalidSpecification(ValueError):
    """A specification that cannot be used; the message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a configuration is not valid, at one path."""

    path: Path
    type: str
    """`missing`, `unknown`, `invalid`, `variant`, `conflict`, `secret_in_order`, `reserved_key`."""
    message: str
    """The rule as a sentence without the path, such as `must be at least 1`."""
    is_secret: bool = False

    @property
    def sentence(self) -> str:
        """The path and the rule."""
        return f"{json_path(self.path)} {self.message}"


@dataclass(frozen=True, slots=True)
class Specification:
    """A specification within the limits; every `$ref` in it is resolved, and none is recursive."""

    schema: Json
    secrets: tuple[Path, ...]
    """The secret paths, in which `[]` stands for any item and `*` for any member."""

    @property
    def needs_secret(self) -> bool:
        """Whether every valid configuration has a secret at the top level."""
        required = self.schema.get("required")
        tops = {path[0] for path in self.secrets if len(path) == 1}
        return isinstance(required, list) and any(name in tops for name in required)


def parse(raw: bytes) -> Specification:
    """Read a connection specification.

    Raises:
        InvalidSpecification: it is not a schema of an object, too large, too deep or recursive, or
            refers to another document.
    """
    if len(raw) > MAX_BYTES:
        raise InvalidSpecification(f"It has more than {MAX_BYTES} bytes.")
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidSpecification("It is not JSON.") from None
    if not isinstance(found, dict):
        raise InvalidSpecification("It is not a JSON object.")
    schema = _Resolver(found).resolved(found, 0)
    secrets = dict.fromkeys(_secret_paths(schema, ()))
    return Specification(schema=schema, secrets=tuple(secrets))


class _Resolver:
    """Copies a schema with each `$ref` replaced by what it refers to, within the limits."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._nodes = 0
        self._open: list[str] = []

    def resolved(self, node: Any, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidSpecification(f"It has more than {MAX_NODES} parts.")
        if depth > MAX_DEPTH:
            raise InvalidSpecification(f"It is nested more than {MAX_DEPTH} deep.")
        if isinstance(node, list):
            return [self.resolved(each, depth + 1) for each in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if isinstance(reference, str):
            return self._referred(reference, depth)
        return {
            name: self.resolved(each, depth + 1)
            for name, each in node.items()
            if depth > 0 or name not in ("definitions", "$defs")
        }

    def _referred(self, reference: str, depth: int) -> Any:
        if reference in self._open:
            raise InvalidSpecification("A part of it refers to itself.")
        if not reference.startswith("#"):
            raise InvalidSpecification("A part of it refers to another document.")
        target: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise InvalidSpecification("A part of it refers to nothing.")
        self._open.append(reference)
        found = self.resolved(target, depth + 1)
        self._open.pop()
        return found


def variants(node: Any) -> Iterator[Json]:
    """A schema and all schemas that may apply to the same value, by `allOf`, `oneOf`, `anyOf`."""
    if not isinstance(node, Mapping):
        return
    yield dict(node)
    for combination in _COMBINATIONS:
        branches = node.get(combination)
        for branch in branches if isinstance(branches, list) else ():
            yield from variants(branch)


def members(nodes: Iterable[Json]) -> dict[str, list[Json]]:
    """The schemas of each named member that schemas of an object have together."""
    found: dict[str, list[Json]] = {}
    for node in nodes:
        properties = node.get("properties")
        for name, each in properties.items() if isinstance(properties, Mapping) else ():
            if isinstance(each, Mapping):
                found.setdefault(name, []).append(dict(each))
    return found


def unnamed_members(nodes: Iterable[Json]) -> list[Json]:
    """The schemas of members without names of their own."""
    found: list[Json] = []
    for node in nodes:
        more = node.get("additionalProperties")
        if isinstance(more, Mapping):
            found.append(dict(more))
        patterns = node.get("patternProperties")
        inner = patterns.values() if isinstance(patterns, Mapping) else ()
        found += [dict(each) for each in inner if isinstance(each, Mapping)]
    return found


def items(nodes: Iterable[Json]) -> list[Json]:
    """The schemas of an array's items."""
    found: list[Json] = []
    for node in nodes:
        inner = node.get("items")
        listed = inner if isinstance(inner, list) else [inner]
        found += [dict(each) for each in listed if isinstance(each, Mapping)]
    return found


def below(nodes: Sequence[Json], step: str | int) -> list[Json]:
    """The schemas, of any variant, that may apply to a member or an item of a value."""
    every = [one for node in nodes for one in variants(node)]
    if isinstance(step, int):
        return items(every)
    return members(every).get(step) or unnamed_members(every)


def is_secret(nodes: Sequence[Json]) -> bool:
    """Whether a variant of one of the schemas is marked as secret."""
    return any(one.get("airbyte_secret") is True for node in nodes for one in variants(node))


def _secret_paths(node: Any, path: Path) -> Iterator[Path]:
    nodes = list(variants(node))
    if any(one.get("airbyte_secret") is True for one in nodes):
        yield path
        return
    for name, each in members(nodes).items():
        for one in each:
            yield from _secret_paths(one, (*path, name))
    for one in unnamed_members(nodes):
        yield from _secret_paths(one, (*path, ANY_MEMBER))
    for one in items(nodes):
        yield from _secret_paths(one, (*path, ANY_ITEM))


def json_path(path: Path) -> str:
    """A path as text, such as `$.credentials.client_secret` or `$.headers[0].value`.

    A name that is not a plain word is shown as `…`: it came from a caller and may be anything.
    """
    shown = "$"
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif step == ANY_ITEM:
            shown += "[*]"
        else:
            shown += f".{step if is_word(step) else '…'}"
    return shown


def is_word(name: str) -> bool:
    """Whether a member's name may be quoted; `*` stands for any."""
    return name == ANY_MEMBER or _WORD.fullmatch(name) is not None
