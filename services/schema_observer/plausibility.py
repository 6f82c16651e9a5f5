"""Plausibility checks: is a discovery believable, or is too much missing? Pure functions.

An object hidden by a lost permission disappears from a discovery exactly as a dropped one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from shared.domain.catalog import StreamId
from shared.domain.catalog._schema import Schema

FEW: Final = 5
"""So many streams may disappear at once from any source, as in a clean-up."""
SHARE: Final = 0.2
"""From a large source, this share may disappear; more suggests a view with fewer permissions."""
_NAMED: Final = 3

Code = Literal[
    "no_streams",
    "streams_missing",
    "synced_stream_missing",
    "stream_without_fields",
    "fields_missing",
]
Field = tuple[str, ...]
"""The path of a field, ending with its own name."""
_DEEPEST: Final = 8
"""Maximum depth of nested fields that are counted."""
_MOST_FIELDS: Final = 10_000
"""Maximum fields of one stream; recursive references could yield any number."""
_MOST_PARTS: Final = 30_000
"""Maximum schemas that are read for them."""


class Suspicion(msgspec.Struct, frozen=True):
    """Why a discovery is suspicious."""

    code: Code
    detail: str


def check_streams(
    *, before: int, now: int, gone: Collection[StreamId], synced: Collection[StreamId]
) -> Suspicion | None:
    """Why a source with `before` streams that now has `now` is suspicious; None if it is not.

    `gone` are the missing streams, `synced` those that connections sync. One missing synced stream
    is enough. Of others, more than both FEW and SHARE, or more than half.
    """
    if now == 0:
        return Suspicion(
            "no_streams", f"The source offers no streams; before, it offered {before}."
        )
    lost = sorted(set(gone) & set(synced), key=lambda stream: stream.order)
    summary = f"{len(gone)} of {before} streams are gone"
    if lost:
        names = ", ".join(str(stream) for stream in lost[:_NAMED])
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        return Suspicion(
            "synced_stream_missing", f"{summary}, and these are synced: {names}{more}."
        )
    if _exceeds_share(len(gone), of=before):
        return Suspicion("streams_missing", f"{summary}.")
    return None


def check_fields(
    before: Mapping[StreamId, Collection[Field]], now: Mapping[StreamId, Collection[Field]]
) -> Suspicion | None:
    """Why the current fields of synced streams are suspicious; None if they are not.

    A lost field permission removes fields from many streams at once. One stream that had fields and
    now has none is enough. Otherwise, for each stream and for all together: more than both FEW and
    SHARE, or more than half. New fields are subtracted: a renamed field is not a lost one.
    """
    lost_of = {stream: _lost(before[stream], now[stream]) for stream in before.keys() & now.keys()}
    emptied = [one for one in lost_of if before[one] and not now[one]]
    if emptied:
        return Suspicion(
            "stream_without_fields",
            (f"The source no longer offers any fields of {_names(emptied)}."),
        )
    too_many = [one for one, lost in lost_of.items() if _exceeds_share(lost, of=len(before[one]))]
    if too_many:
        first = min(too_many, key=lambda stream: stream.order)
        return Suspicion(
            "fields_missing",
            f"{lost_of[first]} of {len(before[first])} fields of a synced stream are gone:"
            f" {_names(too_many)}.",
        )
    lost, had = sum(lost_of.values()), sum(len(fields) for fields in before.values())
    if len(lost_of) > 1 and _exceeds_share(lost, of=had):
        losing = [stream for stream, count in lost_of.items() if count]
        return Suspicion(
            "fields_missing",
            f"{lost} of {had} fields of synced streams are gone: {_names(losing)}.",
        )
    return None


def _lost(before: Collection[Field], now: Collection[Field]) -> int:
    """How many fields are gone and not replaced; one gone with its parent is not counted again."""
    gone, come = set(before) - set(now), set(now) - set(before)
    return max(_topmost(gone) - _topmost(come), 0)


def _topmost(fields: Collection[Field]) -> int:
    return sum(field[:-1] not in fields for field in fields)


def _exceeds_share(lost: int, *, of: int) -> bool:
    return lost > min(of / 2, max(FEW, SHARE * of))


def _names(streams: Collection[StreamId]) -> str:
    ordered = sorted(streams, key=lambda stream: stream.order)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(str(stream) for stream in ordered[:_NAMED]) + more


def fields_of(schema: object) -> set[Field]:
    """The paths of the fields that a jsonSchema declares, including nested ones.

    It searches items, additionalProperties, oneOf, anyOf, allOf and internal references.
    """
    return set(islice(_fields(Schema(schema), schema, (), frozenset(), set()), _MOST_FIELDS))


def _fields(
    schema: Schema,
    value: Any,
    path: Field,
    around: frozenset[int],
    seen: set[tuple[int, Field]],
) -> Iterator[Field]:
    """The fields within a value; `around` holds the enclosing schemas, to stop at recursion.

    `seen` holds the schemas read at each path: branches and items may repeat them exponentially.
    """
    for part in schema.parts(value):
        is_read = (id(part), path) in seen or len(seen) >= _MOST_PARTS
        if is_read or id(part) in around or len(path) > _DEEPEST:
            continue
        seen.add((id(part), path))
        within = around | {id(part)}
        properties = part.get("properties")
        if isinstance(properties, dict):
            for name, inner in properties.items():
                yield (*path, name)
                yield from _fields(schema, inner, (*path, name), within, seen)
        for word in ("items", "prefixItems", "additionalProperties"):
            inner = part.get(word)
            for one in inner if isinstance(inner, list) else [inner]:
                yield from _fields(schema, one, path, within, seen)
