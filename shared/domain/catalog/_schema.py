"""Reads the declarations of a jsonSchema, including those in references and branches.

Schemas are untrusted: references may be cyclic, dangling, or expand exponentially, so everything
here is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import unquote, urljoin

import msgspec
from msgspec import Raw

REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
BRANCHES: Final = ("allOf", "anyOf", "oneOf")
"""Each is a list of schemas that describe the same value as the enclosing schema."""
CONDITIONAL: Final = ("then", "else")
"""Each is a schema that may describe the same value."""
OF_VALUES: Final = ("additionalProperties", "unevaluatedProperties")
"""Each is a schema of fields with undeclared names."""
OF_ITEMS: Final = ("items", "prefixItems", "additionalItems", "unevaluatedItems")
"""Each is a schema, or a list of schemas, of an array's items."""
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_LISTED: Final = (*BRANCHES, "prefixItems")
_SINGLE: Final = (*OF_VALUES, *CONDITIONAL, "if", "contains", "additionalItems", "unevaluatedItems")
_DEFINITIONS: Final = frozenset({"definitions", "$defs"})
_SAYS_NOTHING: Final = frozenset(
    {"title", "description", "$comment", "default", "examples", "deprecated", "readOnly"}
)

_DEEPEST: Final = 32
"""The maximal depth of nested references; deeper ones are compared by digest."""
_MOST_OF_A_FIELD: Final = 2_000
_MOST_OF_A_STREAM: Final = 30_000
"""The maximal number of schemas after inlining references; more are compared by digest.

What references repeat besides schemas, such as the values of an `enum`, counts as one schema per
`_BYTES_OF_A_SCHEMA`.
"""
_BYTES_OF_A_SCHEMA: Final = 100
_INDEX: Final = re.compile("[0-9]{1,9}")
"""A position in a list, as a step of a JSON pointer."""

_PLAIN_NUMBERS: Final = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode()))


def may_refer(schema: bytes) -> bool:
    """Whether JSON text may contain a reference; False is certain."""
    return b'Ref"' in schema or b'"$ref"' in schema or b"\\u00" in schema


class Schema:
    """One stream's jsonSchema, with its references resolved.

    References are JSON pointers, anchors, or the `$id` of the schema or of a part of it, optionally
    with one of these. References to other documents are not resolved.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self._targets: dict[str, Any] = {}
        self._anchors: dict[str, Any] = {}
        self._resources: dict[str, Any] | None = None
        self._digests: dict[int, tuple[Any, str]] = {}
        """By `id()`, with the schema itself, whose id would otherwise be used again."""
        self._weights: dict[int, tuple[Any, int]] = {}
        """By `id()`, with the value itself, too."""
        self._budget = _MOST_OF_A_STREAM
        self._left = 0
        self.is_cut = False
        """Whether the last `inlined` schema is incomplete or still contains a reference."""

    @classmethod
    def read(cls, text: bytes) -> Schema:
        """Parse a schema.

        Raises:
            msgspec.DecodeError: it is not JSON.
            RecursionError: it is nested too deeply.
        """
        return cls(_PLAIN_NUMBERS.decode(text))

    def target(self, schema: Mapping[str, Any]) -> tuple[str, Any] | None:
        """A schema's reference and its target; None if there is no reference or no target.

        Chains of references are followed to their end.
        """
        pointer = reference_of(schema)
        seen: set[str] = set()
        found: Any = None
        while pointer is not None and pointer not in seen:
            seen.add(pointer)
            if pointer not in self._targets:
                self._targets[pointer] = self._named(pointer)
            found = self._targets[pointer]
            further = reference_of(found) if isinstance(found, dict) else None
            if further is None or len(found) > 1:
                return None if found is None else (pointer, found)
            pointer = further
        return None

    def _named(self, reference: str) -> Any:
        base, _, fragment = reference.partition("#")
        found = self._resource(base) if base else self.root
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return None if found is None else self._anchored(fragment)
        for escaped in fragment.split("/")[1:]:
            step = escaped.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        return found

    def _resource(self, base: str) -> Any:
        """The schema in this document with this `$id`, or None."""
        if base == _id(self.root):
            return self.root
        resources = self._collect_names()
        return resources.get(base, resources.get(self._absolute(base)))

    def _anchored(self, name: str) -> Any:
        self._collect_names()
        return self._anchors.get(name)

    def _collect_names(self) -> dict[str, Any]:
        """The schemas in this document by their `$id`; also collects their anchors."""
        if self._resources is not None:
            return self._resources
        self._resources = {}
        stack = [self.root]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                for member in ("$anchor", "$dynamicAnchor"):
                    if isinstance(value.get(member), str):
                        self._anchors.setdefault(value[member], value)
                own = _id(value)
                if own is not None and own.startswith("#"):
                    self._anchors.setdefault(own[1:], value)
                elif own and value is not self.root:
                    self._resources.setdefault(own, value)
                    self._resources.setdefault(self._absolute(own), value)
                stack += value.values()
            elif isinstance(value, list):
                stack += value
        return self._resources

    def _absolute(self, reference: str) -> str:
        try:
            return urljoin(_id(self.root) or "", reference)
        except ValueError:
            return reference

    # -- fields

    def fields(self) -> dict[str, list[Any]]:
        """The schemas of each top-level field, in the order of declaration.

        They are in `properties` of the whole schema and of its branches and references.
        """
        found: dict[str, list[Any]] = {}
        for part in self.parts(self.root):
            properties = part.get("properties")
            if isinstance(properties, dict):
                for name, schema in properties.items():
                    found.setdefault(name, []).append(schema)
        return found

    def declared(self) -> dict[str, list[Any]]:
        """The same as `fields`, plus undeclared fields under `{}` and `{pattern}`."""
        found = self.fields()
        for part in self.parts(self.root):
            patterns = part.get("patternProperties")
            if isinstance(patterns, dict):
                for pattern, schema in patterns.items():
                    found.setdefault(f"{{{pattern}}}", []).append(schema)
            for keyword in OF_VALUES:
                if isinstance(part.get(keyword), dict):
                    found.setdefault("{}", []).append(part[keyword])
        return found

    def top_level_names(self) -> Iterator[str]:
        """The names and name patterns of top-level fields in the whole schema.

        This includes names that are only required, allowed or used in a condition.
        """
        for part in self.parts(self.root):
            yield from _names_of(part)
            for condition in self.parts(part.get("if")):
                yield from _names_of(condition)

    def parts(self, schema: Any) -> Iterator[dict[str, Any]]:
        """The schemas that describe one value: this one, its branches, and their references."""
        seen: set[int] = set()
        waiting = [schema]
        while waiting:
            part = waiting.pop()
            if not isinstance(part, dict) or id(part) in seen:
                continue
            seen.add(id(part))
            yield part
            more = []
            named = self.target(part)
            if named is not None:
                more.append(named[1])
            for keyword in BRANCHES:
                branches = part.get(keyword)
                if isinstance(branches, list):
                    more += branches
            more += conditional(part)
            waiting += reversed(more)

    # -- without references

    def inlined(self, schema: Any) -> Any:
        """A schema with its references inlined.

        A reference to an enclosing schema becomes only that schema's type. A dangling one stays.
        One that would exceed the limits becomes its target's type and digest, so that a change of
        the target is still detected. `is_cut` reports that one of these happened.
        """
        self.is_cut = False
        self._left = min(_MOST_OF_A_FIELD, self._budget)
        before = self._left
        try:
            return self._inline(schema, (), 0)
        finally:
            self._budget -= before - max(self._left, 0)

    def _inline(self, schema: Any, around: tuple[int, ...], depth: int) -> Any:
        if not isinstance(schema, dict):
            return schema
        self._left -= 1
        around = (*around, id(schema))
        if reference_of(schema) is None:
            return self._members(schema, around, depth)
        beside = {
            keyword: value
            for keyword, value in schema.items()
            if keyword not in REFERENCES
            and keyword not in _SAYS_NOTHING
            and keyword not in _DEFINITIONS
        }
        named = self.target(schema)
        if named is None:
            self.is_cut = True
            references = {keyword: schema[keyword] for keyword in REFERENCES if keyword in schema}
            return self._members(beside, around, depth) | references
        pointer, target = named
        if id(target) in around:
            self.is_cut = True
            there = self._type_of(target)
        elif depth >= _DEEPEST or self._left <= 0:
            self.is_cut = True
            there = self._type_of(target) | {"$ref": f"{pointer} {self.digest(target)}"}
        else:
            there = self._inline(target, around, depth + 1)
        if not beside:
            return there
        return {"allOf": [there, self._members(beside, around, depth)]}

    def _members(self, schema: dict[str, Any], around: tuple[int, ...], depth: int) -> Any:
        def inline(value: Any) -> Any:
            return self._inline(value, around, depth)

        made: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _DEFINITIONS and isinstance(value, dict):
                continue
            if keyword in _NAMED and isinstance(value, dict):
                made[keyword] = {name: inline(inner) for name, inner in value.items()}
            elif (keyword in _LISTED or keyword == "items") and isinstance(value, list):
                made[keyword] = [inline(inner) for inner in value]
            elif keyword in _SINGLE or keyword in ("items", "not"):
                made[keyword] = inline(value)
            else:
                if depth:
                    self._left -= self._weight(value)
                made[keyword] = value
        return made

    def _weight(self, value: Any) -> int:
        """How many schemas a copy of a value counts as."""
        if isinstance(value, str):
            return len(value) // _BYTES_OF_A_SCHEMA
        if not isinstance(value, dict | list):
            return 0
        if id(value) not in self._weights:
            weight = len(msgspec.json.encode(value)) // _BYTES_OF_A_SCHEMA
            self._weights[id(value)] = (value, weight)
        return self._weights[id(value)][1]

    def _type_of(self, schema: Any) -> dict[str, Any]:
        for part in self.parts(schema):
            if "type" in part:
                return {"type": part["type"]}
            if isinstance(part.get("properties"), dict):
                return {"type": "object"}
        return {}

    def digest(self, schema: Any) -> str:
        """A hash that is equal for textually equal schemas with equal references."""
        if id(schema) not in self._digests:
            digest = blake2b(digest_size=8)
            for one in self._reached(schema):
                digest.update(msgspec.json.encode(one, order="sorted"))
            self._digests[id(schema)] = (schema, digest.hexdigest())
        return self._digests[id(schema)][1]

    def _reached(self, *schemas: Any) -> Iterator[Any]:
        """The schemas and all that they refer to, directly or indirectly, each once."""
        seen: set[int] = set()
        waiting = list(schemas)
        while waiting:
            one = waiting.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield one
            named = (self.target(part) for part in walk(one))
            waiting += [target[1] for target in named if target is not None]

    # -- names

    def marked(
        self, schemas: Iterable[Any], is_marked: Callable[[Iterator[str]], bool]
    ) -> set[int]:
        """The `id()` of the schemas that are marked by their names, or refer to a marked one.

        Each schema is checked once, however many refer to it.
        """
        users: dict[int, list[int]] = {}
        found: list[int] = []
        for one in self._reached(*schemas):
            if is_marked(name for part in walk(one) for name in _names_of(part)):
                found.append(id(one))
            for part in walk(one):
                named = self.target(part)
                if named is not None:
                    users.setdefault(id(named[1]), []).append(id(one))
        marked: set[int] = set()
        while found:
            one_id = found.pop()
            if one_id not in marked:
                marked.add(one_id)
                found += users.get(one_id, ())
        return marked

    def names(self, schema: Any) -> Iterator[str]:
        """The names of all fields in a schema, at any depth, including references.

        This includes patterns of names, and names that are only required or allowed.
        """
        for one in self._reached(schema):
            for part in walk(one):
                yield from _names_of(part)


def conditional(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas that describe the same value if a condition holds."""
    found = [schema[keyword] for keyword in CONDITIONAL if keyword in schema]
    for keyword in ("dependentSchemas", "dependencies"):
        named = schema.get(keyword)
        if isinstance(named, dict):
            found += named.values()
    return [one for one in found if isinstance(one, dict)]


def reference_of(schema: Mapping[str, Any]) -> str | None:
    """A schema's reference; None if it has none."""
    for keyword in REFERENCES:
        reference = schema.get(keyword)
        if isinstance(reference, str):
            return reference
    return None


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas nested in it, except definitions."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, dict):
            continue
        yield one
        inner: list[Any] = []
        for keyword, value in one.items():
            if keyword in _NAMED:
                inner += value.values() if isinstance(value, dict) else ()
            elif keyword in _LISTED or keyword == "items":
                inner += value if isinstance(value, list) else [value]
            elif keyword in _SINGLE or keyword == "contentSchema":
                inner.append(value)
        waiting += reversed(inner)


def _names_of(schema: Mapping[str, Any]) -> Iterator[str]:
    """The field names that occur in one schema, without nested schemas."""
    for keyword in (*_NAMED, "dependentRequired"):
        named = schema.get(keyword)
        if isinstance(named, dict):
            yield from named
    listed = [schema.get("required")]
    for keyword in ("dependentRequired", "dependencies"):
        named = schema.get(keyword)
        listed += named.values() if isinstance(named, dict) else ()
    for rule in walk(schema.get("propertyNames")):
        listed += [rule.get("enum"), [rule.get("const"), rule.get("pattern")]]
    for names in listed:
        if isinstance(names, list):
            yield from (name for name in names if isinstance(name, str))


def _id(schema: Any) -> str | None:
    own = schema.get("$id", schema.get("id")) if isinstance(schema, dict) else None
    return own.rstrip("#") if isinstance(own, str) else None
