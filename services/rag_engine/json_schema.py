"""Read from a JSON schema a field's types, members, declared renames, and notes about renames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
Relation: TypeAlias = Literal["equal", "related", "clashing"]

_TIMES = frozenset({"date", "date-time"})
_NUMBERS = frozenset({"integer", "number"})
_DEPTH = 8
_OF_VALUES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}

_EARLIER = ("renamed_from", "x-renamed-from", "aliases", "x-aliases", "x-former-names")
_LATER = ("renamed_to", "x-renamed-to")
_TEXTS = ("description", "title", "deprecated", "deprecationReason", "x-deprecation-reason")
_NAME = r"[:\s]+(?:the\s+)?(?:field\s+|stream\s+)?[`'\"“‘]?([\w$.\-]*[\w$])"  # noqa: RUF001 (quotes)
_SAYS_LATER = re.compile(
    r"\b(?:renamed\s+to|replaced\s+(?:by|with)|superseded\s+by|moved\s+to|in\s+favou?r\s+of"
    r"|deprecated\b.{0,40}?\b(?:use|see))" + _NAME,
    re.IGNORECASE | re.DOTALL,
)
_SAYS_EARLIER = re.compile(
    r"\b(?:renamed\s+from|formerly(?:\s+known\s+as|\s+called)?|previously(?:\s+called)?|replaces"
    r"|was\s+called)" + _NAME,
    re.IGNORECASE,
)


def kinds(schema: Schema, *, depth: int = 0) -> frozenset[str]:
    """The types of a field except null; dates are types of their own. Empty if not stated."""
    found: set[str] = set()
    if depth < _DEPTH:
        for key in ("oneOf", "anyOf", "allOf"):
            for branch in _list(schema.get(key)):
                if isinstance(branch, Mapping):
                    found |= kinds(branch, depth=depth + 1)
    stated = schema.get("type")
    for basic in [stated] if isinstance(stated, str) else _list(stated):
        if basic == "string" and schema.get("format") in ("date", "date-time", "time"):
            found.add(str(schema["format"]))
        elif basic == "number" and schema.get("airbyte_type") in ("integer", "big_integer"):
            found.add("integer")
        else:
            found.add(str(basic))
    if not found:
        found = {"object"} if members(schema) else {"array"} if "items" in schema else set()
    if not found:
        named = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
        found = {_OF_VALUES[type(value)] for value in named if type(value) in _OF_VALUES}
    return frozenset(found - {"null"})


def item_kinds(schema: Schema) -> frozenset[str]:
    """The types of an array's items; empty if it is not an array or does not state them."""
    items = schema.get("items")
    each = [items] if isinstance(items, Mapping) else _list(items)
    return frozenset(kind for one in each if isinstance(one, Mapping) for kind in kinds(one))


def relation(
    before: frozenset[str],
    after: frozenset[str],
    *,
    items: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset()),
) -> Relation:
    """Whether values of one type can be values of the other; unstated types are related to any.

    Also related are integers and numbers, dates and date-times, and sets of types that overlap.
    `items` are the item types of both sides: arrays clash if their item types clash.
    """
    if before & after == {"array"} and relation(*items) == "clashing":
        return "clashing"
    if before == after:
        return "equal"
    if not before or not after or before & after:
        return "related"
    both = before | after
    return "related" if both <= _TIMES or both <= _NUMBERS else "clashing"


def members(schema: Schema) -> frozenset[str]:
    """The names of the fields directly inside an object, a stream, or an array's items."""
    properties = schema.get("properties")
    items = schema.get("items")
    if not isinstance(properties, Mapping) and isinstance(items, Mapping):
        properties = items.get("properties")
    return frozenset(map(str, properties)) if isinstance(properties, Mapping) else frozenset()


def declared_earlier(schema: Schema) -> frozenset[str]:
    """Former names that keywords of the schema declare."""
    return _declared(schema, _EARLIER)


def declared_later(schema: Schema) -> frozenset[str]:
    """New names that keywords of the schema declare."""
    return _declared(schema, _LATER)


def noted_earlier(schema: Schema) -> frozenset[str]:
    """Former names that its description, title or deprecation note mentions."""
    return frozenset(name for text in _texts(schema) for name in _SAYS_EARLIER.findall(text))


def noted_later(schema: Schema) -> frozenset[str]:
    """Names that its description, title or deprecation note says to use instead."""
    is_deprecated = schema.get("deprecated") is True
    texts = (f"deprecated: {text}" if is_deprecated else text for text in _texts(schema))
    return frozenset(name for text in texts for name in _SAYS_LATER.findall(text))


def description(schema: Schema) -> str:
    """The description as one line in lower case; empty if it is too short to identify a field."""
    text = schema.get("description")
    plain = " ".join(text.casefold().split()) if isinstance(text, str) else ""
    return plain if len(plain) >= 20 else ""


def _declared(schema: Schema, keys: tuple[str, ...]) -> frozenset[str]:
    texts = (schema.get(key) for key in keys)
    names = (name for value in texts for name in (value if isinstance(value, list) else [value]))
    return frozenset(name for name in names if isinstance(name, str) and name)


def _texts(schema: Schema) -> Iterator[str]:
    for key in _TEXTS:
        text = schema.get(key)
        if isinstance(text, str):
            # The text comes from the source and may be long; notes are expected near its start.
            yield text[:2000]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
