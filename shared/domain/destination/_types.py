"""The type that a field's jsonSchema has for a destination.

Source: CDK data/json/JsonSchemaToAirbyteType@027fa46a; all fields count as nullable there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shared.domain.destination._facts import UNKNOWN, Rules

_KNOWN: Final = frozenset({"string", "boolean", "integer", "number", "object", "array"})
_WITHOUT_ZONE: Final = "without_timezone"
_REFERENCES: Final = {
    "String": "string",
    "BinaryData": "string",
    "Boolean": "boolean",
    "Integer": "integer",
    "Number": "number",
    "Date": "date",
    "TimeWithTimezone": "time_tz",
    "TimeWithoutTimezone": "time",
    "TimestampWithTimezone": "timestamp_tz",
    "TimestampWithoutTimezone": "timestamp",
}
_WELL_KNOWN: Final = "WellKnownTypes.json#/definitions/"
COMPLEX: Final = frozenset({"object", "array", "union", UNKNOWN})
"""Types of fields that no known destination takes as a key or cursor."""


def field_type(schema: Any) -> str:
    """The type of a field: a JSON type, a date or time with or without zone, `union` or `unknown`.

    `time_tz` and `timestamp_tz` have a time zone, `time` and `timestamp` have none.
    """
    if not isinstance(schema, dict):
        return UNKNOWN
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _REFERENCES.get(reference.partition(_WELL_KNOWN)[2], UNKNOWN)
    if "type" in schema:
        basics = _basics(schema)
        return _one_of([_of_basic(basic, schema) for basic in basics], empty=UNKNOWN)
    options = [
        field_type(one)
        for keyword in ("oneOf", "anyOf", "allOf")
        for one in _list(schema.get(keyword))
        if not (isinstance(one, dict) and one.get("type") == "null")
    ]
    return _one_of(options, empty="object")


def column_type(rules: Rules, schema: Any) -> str | None:
    """The type of the column; None if it is not known."""
    return rules.types.get(field_type(schema))


def allows_null(schema: Any) -> bool:
    """Whether null is among the declared values."""
    if not isinstance(schema, dict):
        return True
    stated = schema.get("type")
    if stated is not None:
        return "null" in (stated if isinstance(stated, list) else [stated])
    branches = _list(schema.get("oneOf")) or _list(schema.get("anyOf"))
    return any(allows_null(one) for one in branches or [None])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _one_of(types: Sequence[str], *, empty: str) -> str:
    if len(types) > 1:
        return "union"
    return types[0] if types else empty


def _basics(schema: dict[str, Any]) -> list[str]:
    stated = schema.get("type")
    listed = stated if isinstance(stated, list) else [stated]
    return list(dict.fromkeys(one for one in listed if isinstance(one, str) and one != "null"))


def _of_basic(basic: str, schema: dict[str, Any]) -> str:
    if basic not in _KNOWN:
        return UNKNOWN
    airbyte_type = str(schema.get("airbyte_type") or "")
    if basic == "number" and airbyte_type == "integer":
        return "integer"
    if basic != "string" or airbyte_type.startswith("big_") or "contentEncoding" in schema:
        return basic
    zone = "" if _WITHOUT_ZONE in airbyte_type else "_tz"
    formats = {"date": "date", "time": f"time{zone}", "date-time": f"timestamp{zone}"}
    return formats.get(str(schema.get("format")), "string")
