"""Whether a discovery is believed, or so much is missing that it is doubted first. Pure.

An object that a lost permission hides vanishes from a discovery exactly as a dropped one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from shared.domain.catalog import StreamId
from shared.domain.catalog._schema import Schema

FEW: Final = 5
"""So many streams may go at once from any source: somebody tidied up."""
SHARE: Final = 0.2
"""Of a big source, so large a part may go: more looks like another user's view of it."""
_NAMED: Final = 3

Code = Literal[
    "no_streams",
    "streams_missing",
    "synced_stream_missing",
    "stream_without_fields",
    "fields_missing",
]
Field = tuple[str, ...]
"""The path of a field: its own name is the last part."""
_DEEPEST: Final = 8
"""How far fields within fields are counted."""
_MOST_FIELDS: Final = 10_000
"""Of one stream, which by references that are used many times can have any number."""


class Doubt(msgspec.Struct, frozen=True):
    """Why a discovery is not believed at the first sight."""

    code: Code
    detail: str


def doubt(
    *, before: int, now: int, gone: Collection[StreamId], synced: Collection[StreamId]
) -> Doubt | None:
    """Why a source that offered `before` streams and offers `now` is not believed; None if it is.

    `gone` are those it does not offer any more, `synced` those that connections sync. One synced
    stream is enough. Of others, more than FEW and SHARE together, or more than half.
    """
    if now == 0:
        return Doubt("no_streams", f"The source offers no streams; before, it offered {before}.")
    lost = sorted(set(gone) & set(synced), key=lambda stream: stream.order)
    told = f"{len(gone)} of {before} streams are gone"
    if lost:
        names = ", ".join(str(stream) for stream in lost[:_NAMED])
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        return Doubt("synced_stream_missing", f"{told}, and these are synced: {names}{more}.")
    if _is_much(len(gone), of=before):
        return Doubt("streams_missing", f"{told}.")
    return None


def doubt_fields(
    before: Mapping[StreamId, Collection[Field]], now: Mapping[StreamId, Collection[Field]]
) -> Doubt | None:
    """Why the fields that synced streams have now are not believed; None if they are.

    A permission on fields that is lost makes them vanish from every stream at once. A stream that
    had fields and has none is enough. Of others, and of all streams together, more may not go than
    FEW and SHARE, or half. What came instead is subtracted: a renamed field is not a lost one.
    """
    lost_of = {stream: _lost(before[stream], now[stream]) for stream in before.keys() & now.keys()}
    emptied = [one for one in lost_of if before[one] and not now[one]]
    if emptied:
        return Doubt("stream_without_fields", f"{_names(emptied)}: no fields are offered any more.")
    too_many = [one for one, lost in lost_of.items() if _is_much(lost, of=len(before[one]))]
    if too_many:
        first = min(too_many, key=lambda stream: stream.order)
        return Doubt(
            "fields_missing",
            f"{lost_of[first]} of {len(before[first])} fields of a synced stream are gone:"
            f" {_names(too_many)}.",
        )
    lost, had = sum(lost_of.values()), sum(len(fields) for fields in before.values())
    if len(lost_of) > 1 and _is_much(lost, of=had):
        losing = [stream for stream, count in lost_of.items() if count]
        return Doubt(
            "fields_missing",
            f"{lost} of {had} fields of synced streams are gone: {_names(losing)}.",
        )
    return None


def _lost(before: Collection[Field], now: Collection[Field]) -> int:
    """How many fields went and were not replaced; one that went with its parent counts once."""
    gone, come = set(before) - set(now), set(now) - set(before)
    return max(_topmost(gone) - _topmost(come), 0)


def _topmost(fields: Collection[Field]) -> int:
    return sum(field[:-1] not in fields for field in fields)


def _is_much(lost: int, *, of: int) -> bool:
    return lost > min(of / 2, max(FEW, SHARE * of))


def _names(streams: Collection[StreamId]) -> str:
    ordered = sorted(streams, key=lambda stream: stream.order)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(str(stream) for stream in ordered[:_NAMED]) + more


def fields_of(schema: object) -> set[Field]:
    """The paths of the fields that a jsonSchema declares, those within fields too.

    It looks inside items, additionalProperties, oneOf, anyOf, allOf and references into itself.
    """
    return set(islice(_fields(Schema(schema), schema, (), frozenset()), _MOST_FIELDS))


def _fields(schema: Schema, value: Any, path: Field, around: frozenset[int]) -> Iterator[Field]:
    """Those within a value; it stands in the schemas `around`, which may refer to themselves."""
    for part in schema.parts(value):
        if id(part) in around or len(path) > _DEEPEST:
            continue
        within = around | {id(part)}
        properties = part.get("properties")
        if isinstance(properties, dict):
            for name, inner in properties.items():
                yield (*path, name)
                yield from _fields(schema, inner, (*path, name), within)
        for word in ("items", "prefixItems", "additionalProperties"):
            inner = part.get(word)
            for one in inner if isinstance(inner, list) else [inner]:
                yield from _fields(schema, one, path, within)
