"""What changed between two schemas, counted by a plain walk that shares nothing with the domain."""

from __future__ import annotations

from collections import Counter
from typing import Any

Json = dict[str, Any]
Path = tuple[str, ...]

_FACETS = ("format", "airbyte_type", "$ref", "contentEncoding", "contentMediaType")


def changes(before: dict[str, Json], after: dict[str, Json]) -> Counter[str]:
    """How many streams and fields were added and removed, and how many fields have another type.

    All schemas are flattened to their paths first; what was counted as part of something larger is
    then taken out: fields that came or went with their parent, and fields of one that turned from
    an object or array into something else.
    """
    found = Counter(
        stream_added=len(after.keys() - before.keys()),
        stream_removed=len(before.keys() - after.keys()),
    )
    for stream in before.keys() & after.keys():
        old, new = _flat(before[stream]), _flat(after[stream])
        found["field_retyped"] += sum(old[path] != new[path] for path in old.keys() & new.keys())
        for kind, these, others in (("field_removed", old, new), ("field_added", new, old)):
            for path in these.keys() - others.keys():
                around = path[:-1]
                counts = not around or (
                    around in others and _holds(these[around]) == _holds(others[around])
                )
                found[kind] += counts
    return +found


def _flat(schema: Json) -> dict[Path, frozenset[Any]]:
    """Each field's types by its path; `[]` is the step into an array."""
    flat: dict[Path, frozenset[Any]] = {}
    waiting: list[tuple[Path, list[Any]]] = [
        ((name,), [inner]) for name, inner in (schema.get("properties") or {}).items()
    ]
    while waiting:
        path, schemas = waiting.pop()
        types = frozenset(type_ for each in schemas for type_ in _types(each, (), {}))
        flat[path] = types
        inside: dict[str, list[Any]] = {}
        for each in schemas:
            for part in _parts(each):
                for name, inner in (part.get("properties") or {}).items():
                    inside.setdefault(name, []).append(inner)
                items = part.get("items")
                if items is not None:
                    listed = items if isinstance(items, list) else [items]
                    inside.setdefault("[]", []).extend(listed)
        if any(basic == "array" for basic, _ in types):
            inside.setdefault("[]", [{}])
        waiting += [((*path, name), each) for name, each in inside.items()]
    return flat


def _parts(schema: Any) -> list[Json]:
    """A schema and all the alternatives and additions in it."""
    if not isinstance(schema, dict):
        return []
    more = [part for key in ("allOf", "oneOf", "anyOf") for part in schema.get(key) or ()]
    return [schema, *(inner for part in more for inner in _parts(part))]


def _types(schema: Any, around: tuple[str, ...], facets: Json) -> list[Any]:
    """The types that a schema allows, each with what makes another type of it."""
    if not isinstance(schema, dict):
        return [(None, ())]
    for part in (*(schema.get("allOf") or ()), schema):
        stated = part.get("type")
        if stated is None and isinstance(part.get("properties"), dict):
            stated = "object"
        elif stated is None and part.get("items") is not None:
            stated = "array"
        if stated:
            around = (stated,) if isinstance(stated, str) else tuple(stated)
        facets = facets | {key: part[key] for key in _FACETS if part.get(key) is not None}
    branches = [*(schema.get("oneOf") or ()), *(schema.get("anyOf") or ())]
    if branches:
        return [type_ for branch in branches for type_ in _types(branch, around, facets)]
    types = tuple(sorted((key, str(value)) for key, value in facets.items()))
    return [(basic, () if basic == "null" else types) for basic in around] or [(None, types)]


def _holds(types: frozenset[Any]) -> set[str]:
    return {basic for basic, _ in types} & {"object", "array"}
