"""Keep the destination's column of a renamed field: a mapper that gives it back its former name.

The `field-renaming` mapper from the new to the former name is the first of the stream's mappers, so
that all others, which name the former field, work on as before.

Source: airbyte-platform 310e6cb6, DestinationCatalogGenerator and SlimStream.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Raw

from services.drift_repair_agent.healing._mappers import follow_output, with_changes
from shared.domain.catalog import ConfiguredStream, StreamId
from shared.domain.catalog._mappers import (
    FIELD_RENAMING,
    PROTECTING,
    effective_mappers,
    hashing,
    read_mapper,
    renamed_in,
    source_fields,
)
from shared.domain.catalog._model import (
    PAIR,
    Config,
    Path,
    Stream,
    encode_pair,
    read_stream,
    reconfigured,
    shown,
)
from shared.domain.destination import field_type

_IDS: Final = UUID("0c0f5d2e-9a52-4a0c-8f0a-5f3f5b7f6a11")
Effects = list[tuple[str, str]]
"""Codes and sentences."""
SCALARS: Final = frozenset(
    {
        "string",
        "boolean",
        "integer",
        "number",
        "date",
        "time",
        "time_tz",
        "timestamp",
        "timestamp_tz",
    }
)
"""Types of which Airbyte still knows the schema once the field has another name."""


def why_not_kept(current: ConfiguredStream, offered: Stream, old: Path, new: Path) -> str | None:
    """Why the column of a renamed field cannot be kept, as half a sentence; None if it can."""
    if len(old) != 1 or len(new) != 1:
        return "a mapper renames top-level fields only"
    before, after = _type(current.stream, old[0]), _type(offered, new[0])
    if before not in SCALARS or after not in SCALARS:
        return "Airbyte keeps the type of scalar fields only"
    return None if before == after else f"its type was {before} and is {after}"


def is_key_or_cursor(current: ConfiguredStream, old: Path) -> bool:
    """Whether a field is the stream's cursor or in its key, so that a person has to ask for it."""
    return any(path[:1] == old[:1] for path in (current.cursor, *current.primary_key))


def keep_columns(
    config: Config, kept: Mapping[str, str], stream: StreamId
) -> tuple[list[Raw], Effects]:
    """A stream's mappers that write renamed fields (old name → new) under their former names.

    A renaming at the front that the field already has gets the new name, and goes if that is the
    column's name; other mappers stay, byte for byte. `hashedFields`, which count only without
    mappers, become the mappers that they mean.
    """
    mappers = list(config.mappers or ())
    if kept and not mappers:
        mappers = [Raw(msgspec.json.encode(hashing(field))) for field in config.hashed_fields or ()]
    effects: Effects = []
    for old, new in kept.items():
        place = _front_entry(mappers, old)
        column = old if place is None else str(read_mapper(mappers[place]).output(old))
        if place is not None and column == new:
            mappers.pop(place)
        elif place is not None:
            mappers[place] = renamed_in(mappers[place], {old: new})
        else:
            mappers.insert(0, _renaming(new, column))
        effects.append(("column_kept", kept_message(stream, new, column)))
    return mappers, effects


def end_renamings(
    config: Config, fields: Collection[str], stream: StreamId
) -> tuple[Config, Effects]:
    """A stream's settings without the renamings at the front of these fields.

    The mappers after one name the field by its own name from then on, so that no hash lapses.
    """
    effects: Effects = []
    for field in sorted(fields):
        mappers = list(config.mappers or ())
        place = _front_entry(mappers, field)
        if place is None:
            continue
        column = str(read_mapper(mappers.pop(place)).output(field))
        moving, followed = {column: field}, False
        for number in range(place, len(mappers)):
            moved = renamed_in(mappers[number], moving)
            followed = followed or moved != mappers[number]
            follow_output(moving, read_mapper(mappers[number]), read_mapper(moved))
            mappers[number] = moved
        config = with_changes(config, {"mappers": mappers})
        effects.append(("name_adopted", _adopted_message(stream, field, column, followed=followed)))
    return config, effects


def with_own_name(stream: ConfiguredStream, field: str) -> ConfiguredStream:
    """The stream without the renaming at the front of a field."""
    pair = PAIR.decode(stream.raw)
    config, _ = end_renamings(stream.config, [field], stream.id)
    mappers = reconfigured(pair.config, mappers=list(config.mappers or ()))
    return read_stream(encode_pair(pair.stream, mappers))


def renamings(config: Config) -> dict[str, str]:
    """The fields of the source that a renaming at the front gives another name, with that name."""
    found: dict[str, str] = {}
    for raw in config.mappers or ():
        mapper = read_mapper(raw)
        if mapper.type != FIELD_RENAMING:
            break
        for name in mapper.names - set(found.values()):
            found[name] = str(mapper.output(name))
    return found


def protects(config: Config, field: str) -> bool:
    """Whether a mapper hashes or encrypts a field of the source, under whatever name."""
    mappers = effective_mappers(config)
    return any(
        mapper.type in PROTECTING and field in fields
        for mapper, fields in zip(mappers, source_fields(mappers), strict=True)
    )


def _front_entry(mappers: Sequence[Raw], field: str) -> int | None:
    """The place of a field's own renaming among those at the front."""
    made: set[str] = set()
    for place, raw in enumerate(mappers):
        mapper = read_mapper(raw)
        if mapper.type != FIELD_RENAMING:
            return None
        if field in mapper.names - made:
            return place
        made |= {str(mapper.output(name)) for name in mapper.names}
    return None


def _renaming(field: str, column: str) -> Raw:
    """The mapper, with an id of its own: Airbyte gives a new one with each update that has none."""
    made = {
        "id": str(uuid5(_IDS, f"{field}\0{column}")),
        "type": FIELD_RENAMING,
        "mapperConfiguration": {"originalFieldName": field, "newFieldName": column},
    }
    return Raw(msgspec.json.encode(made))


def _type(stream: Stream, field: str) -> str:
    schema = (stream.fields() or {}).get(field)
    return field_type(None if schema is None else msgspec.json.decode(schema))


def kept_message(stream: StreamId, field: str, column: str) -> str:
    """The effect of writing a field into the column of this name, as a sentence for people."""
    if field == column:
        return f"{shown(field)} of {stream} is written into its own column again, which is kept."
    return (
        f"{shown(field)} of {stream} is written into the column {shown(column)}, which is kept: a "
        "field-renaming mapper, the first of the stream, gives it that name. Airbyte moves the "
        "records of a connection with mappers through a slower transport."
    )


def _adopted_message(stream: StreamId, field: str, column: str, *, followed: bool) -> str:
    others = (
        f" The other mappers of {shown(column)} name {shown(field)} now, and so do their columns."
        if followed
        else ""
    )
    return (
        f"{shown(field)} of {stream} is written into a new column of its own name: rows synced "
        f"before have no value in it until the stream is refreshed. {shown(column)} gets no new "
        f"values; the destination treats it as the column of a removed field.{others}"
    )
