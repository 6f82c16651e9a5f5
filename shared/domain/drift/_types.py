"""Whether a field's type was widened, narrowed, or replaced."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Relation: TypeAlias = Literal["equal", "widened", "narrowed", "clashing"]

# Formats with their own column types in Airbyte; others only restrict the strings.
_TEMPORAL = {
    "date": "date",
    "date-time": "timestamp_with_timezone",
    "time": "time_with_timezone",
}
_TIMESTAMPS = frozenset({"timestamp_with_timezone", "timestamp_without_timezone"})
_WIDER_FORMATS = frozenset({("int32", "int64"), ("float", "double")})


class _Alternative(NamedTuple):
    """One of the possible types of a field."""

    basic: str | None
    temporal: str | None
    format: str | None
    others: bytes


def relation(before: Any, after: Any) -> Relation:
    """How the new type of a `Change` relates to the old one.

    `widened`: every old value is still valid, in a column of the same kind: integer → number,
    date → date-time, X → X or null, another alternative, a dropped format without its own column
    type (email, uuid). `narrowed` is the reverse. `clashing` is everything else:

    - number → string: the digits remain as text, but no longer work as numbers;
    - a date or time format added or dropped: the column changes between text and timestamp;
    - timestamps with and without time zone: the same text means a different time;
    - a type dropped, or declared for the first time: the resulting column is unknown.

    `equal`: two notations of one type: a `date-time` has a time zone unless `airbyte_type` says
    otherwise, and a number with the `airbyte_type` integer is an integer.
    """
    ours, theirs = _alternatives(before), _alternatives(after)
    grew = all(any(_holds(wide, narrow) for wide in theirs) for narrow in ours)
    shrank = all(any(_holds(wide, narrow) for wide in ours) for narrow in theirs)
    if grew and shrank:
        return "equal"
    if grew:
        return "widened"
    return "narrowed" if shrank else "clashing"


def gained(before: Any, after: Any) -> bool:
    """Whether values of another basic type, except null, are possible now: the column changes."""
    ours = {each.basic for each in _alternatives(before)}
    theirs = {each.basic for each in _alternatives(after)} - {"null"}
    if "integer" in ours:
        ours.add("number")
    return bool(theirs - ours)


def _alternatives(type_: Any) -> list[_Alternative]:
    if not isinstance(type_, dict):
        return [_Alternative(None, None, None, b"")]
    listed = type_.get("anyOf")
    if isinstance(listed, list):
        return [each for form in listed for each in _alternatives(form)]
    stated = type_.get("type")
    basics = stated if isinstance(stated, list) else [stated]
    facets = {name: value for name, value in type_.items() if name != "type"}
    return [_alternative(basic, {} if basic == "null" else facets) for basic in basics]


def _alternative(basic: str | None, facets: dict[str, Any]) -> _Alternative:
    others = dict(facets)
    format_, temporal = others.pop("format", None), None
    if basic == "string" and isinstance(format_, str) and format_ in _TEMPORAL:
        temporal = str(others.pop("airbyte_type", None) or _TEMPORAL[format_])
        format_ = None
    if basic == "number" and others.get("airbyte_type") == "integer":
        basic = others.pop("airbyte_type")
    rest = msgspec.json.encode(others, order="sorted") if others else b""
    return _Alternative(basic, temporal, None if format_ is None else str(format_), rest)


def _holds(wide: _Alternative, narrow: _Alternative) -> bool:
    """Whether every `narrow` value is also a `wide` one, in a column of the same kind."""
    basic = wide.basic == narrow.basic or (wide.basic, narrow.basic) == ("number", "integer")
    temporal = wide.temporal == narrow.temporal or (
        narrow.temporal == "date" and wide.temporal in _TIMESTAMPS
    )
    format_ = (
        wide.format is None
        or wide.format == narrow.format
        or (narrow.format, wide.format) in _WIDER_FORMATS
    )
    return basic and temporal and format_ and wide.others == narrow.others
