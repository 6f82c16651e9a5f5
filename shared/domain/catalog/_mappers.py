"""Mappers of a stream: the fields that they name, the columns that they write, and their validity.

Airbyte applies a stream's mappers in order to its selected top-level fields; each mapper gets
the fields that the previous one left.

Source: Airbyte 1.2 to 2.0, DestinationCatalogGenerator and SlimStream.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from shared.domain.catalog._model import (
    Config,
    ConfiguredStream,
    Problem,
    SelectedField,
    Stream,
    readable,
    shown,
)

HASHED_SUFFIX: Final = "_hashed"
PROTECTING: Final = frozenset({"hashing", "encryption"})
"""The types of mappers that make a field's values unreadable."""
FIELD_RENAMING: Final = "field-renaming"
ROW_FILTERING: Final = "row-filtering"
"""The type of mapper that Airbyte accepts even if its field does not exist."""

MAPPER_WITHOUT_FIELD: Final = "mapper_without_field"
MAPPER_FIELD_EXISTS: Final = "mapper_field_exists"

_EMPTY: Final = re.compile(rb"\s*:\s*(\[\s*\]|null)")
_WINDOW_BYTES: Final = 64
_DEPTH: Final = 32
"""Deeper conditions of a row filter are not searched."""
_NAMING = ("targetField", "originalFieldName", "fieldName")
"""The members of a mapper's configuration that name a field."""
_NEEDS: Final[Mapping[str, str]] = {
    "hashing": "targetField",
    "encryption": "targetField",
    FIELD_RENAMING: "originalFieldName",
    "field-filtering": "targetField",
}
"""The member that names the field, by type of mapper; other types may be a newer Airbyte's."""

Fault = Literal["FIELD_NOT_FOUND", "FIELD_ALREADY_EXISTS", "INVALID_MAPPER_CONFIG"]
"""Why Airbyte refuses a mapper, in its own words."""


class Mapper(msgspec.Struct, frozen=True):
    """One mapper of a stream. Its configuration may contain an encryption key: never log it."""

    type: str
    id: str | None
    config: dict[str, Any]

    @property
    def names(self) -> frozenset[str]:
        """The fields that it names, as the mappers before it left them."""
        return frozenset(_named(self.config))

    @property
    def protects(self) -> bool:
        """Whether it hashes or encrypts a field."""
        return self.type in PROTECTING

    def output(self, name: str) -> str | None:
        """The field that it makes of `name`; None if it removes it."""
        if name not in self.names:
            return name
        if self.protects:
            return name + self._suffix
        if self.type == FIELD_RENAMING:
            return _text(self.config.get("newFieldName")) or name
        return None if self.type == "field-filtering" else name

    @property
    def _suffix(self) -> str:
        default = HASHED_SUFFIX if self.type == "hashing" else ""
        given = self.config.get("fieldNameSuffix")
        return given if isinstance(given, str) else default


def read_mapper(raw: Raw) -> Mapper:
    """One mapper as configured; one of an unknown shape names no field.

    Raises:
        InvalidCatalog: it is nested too deeply.
    """
    with readable("config.mappers"):
        members = msgspec.json.decode(raw)
    if not isinstance(members, dict):
        return Mapper("", None, {})
    config = members.get("mapperConfiguration")
    return Mapper(
        _text(members.get("type")) or "",
        _text(members.get("id")),
        config if isinstance(config, dict) else {},
    )


def effective_mappers(config: Config) -> list[Mapper]:
    """The mappers that Airbyte applies; `hashedFields` count only if `mappers` is empty."""
    if config.mappers:
        return [read_mapper(raw) for raw in config.mappers]
    return [
        Mapper("hashing", None, hashing(field)["mapperConfiguration"])
        for field in config.hashed_fields or ()
    ]


def hashing(field: SelectedField) -> dict[str, Any]:
    """The mapper that Airbyte makes of an element of `hashedFields`."""
    target = (field.field_path or ("",))[0]
    made = {"targetField": target, "method": "SHA-256", "fieldNameSuffix": HASHED_SUFFIX}
    return {"type": "hashing", "mapperConfiguration": made}


def may_have_mappers(document: bytes) -> bool:
    """Whether a stream of a catalog may have mappers; cheap, since nothing is decoded."""
    return any(_is_filled(document, member) for member in (b'"mappers"', b'"hashedFields"'))


def _is_filled(document: bytes, member: bytes) -> bool:
    """Whether a member of this name has another value than `[]` or null."""
    at = document.find(member)
    while at >= 0:
        at += len(member)
        if not _EMPTY.match(document[at : at + _WINDOW_BYTES]):
            return True
        at = document.find(member, at)
    return False


def column_after(mappers: Iterable[Mapper], field: str) -> str | None:
    """The column in which a field arrives at the destination; None if a mapper removes it."""
    name: str | None = field
    for mapper in mappers:
        if name is not None:
            name = mapper.output(name)
    return name


def source_fields(mappers: Iterable[Mapper]) -> list[frozenset[str]]:
    """The fields of the source that each mapper works on, whatever names the earlier ones gave."""
    origin: dict[str, str] = {}
    found = []
    for mapper in mappers:
        fields = {name: origin.get(name, name) for name in mapper.names}
        found.append(frozenset(fields.values()))
        for name, field in fields.items():
            output = mapper.output(name)
            if output not in (name, None):
                origin.pop(name, None)
                origin[str(output)] = field
    return found


def lapsed(configured: ConfiguredStream, offered: Stream) -> dict[str, list[Mapper]]:
    """The mappers whose field is not among the selected ones that the source offers, by field.

    Empty for a stream whose fields are not declared.
    """
    mappers = effective_mappers(configured.config)
    fields = _selected(configured.config, offered) if mappers else None
    if fields is None:
        return {}
    missing: dict[str, list[Mapper]] = {}
    for mapper, needed in zip(mappers, source_fields(mappers), strict=True):
        for field in sorted(needed - fields):
            missing.setdefault(field, []).append(mapper)
    return missing


def faults(mappers: Iterable[Mapper], fields: Collection[str]) -> Iterator[tuple[int, Fault, str]]:
    """The mappers that Airbyte refuses for a stream with these selected fields.

    Yields the mapper's position, Airbyte's word, and the field that is missing, or that exists
    already. Types of a newer Airbyte are not judged, and neither is a field that one of them may
    have made.
    """
    names, is_certain = set(fields), True
    for position, mapper in enumerate(mappers):
        member = _NEEDS.get(mapper.type)
        if member is None:
            is_certain &= mapper.type == ROW_FILTERING
            continue
        field = _text(mapper.config.get(member))
        output = None if field is None else mapper.output(field)
        if field is None or (mapper.type == FIELD_RENAMING and output == field):
            yield position, "INVALID_MAPPER_CONFIG", field or ""
        elif field not in names:
            if is_certain:
                yield position, "FIELD_NOT_FOUND", field
        elif output in names - {field}:
            yield position, "FIELD_ALREADY_EXISTS", str(output)
        else:
            names.discard(field)
            names |= set() if output is None else {output}


def problems_of_mappers(stream: ConfiguredStream, place: str) -> Iterator[Problem]:
    """Why Airbyte refuses a catalog for a stream's mappers, or AAM for an encryption key in it."""
    mappers = effective_mappers(stream.config)
    if not mappers:
        return
    for position, mapper in enumerate(mappers):
        key = mapper.config.get("key")
        if mapper.type == "encryption" and isinstance(key, str) and key.strip("*"):
            where = f"{place}.config.mappers[{position}].mapperConfiguration.key"
            message = (
                f"{where} of {stream.id} is an encryption key, which AAM does not store: configure "
                "the mapper in Airbyte, and send its id and the masked key."
            )
            yield Problem(stream.id, where, "secret_in_catalog", message)
    fields = _selected(stream.config, stream.stream)
    if fields is None:
        return
    for position, fault, field in faults(mappers, fields):
        where = f"{place}.config.mappers[{position}]"
        which = f"The {mappers[position].type} mapper of {stream.id}"
        if fault == "FIELD_NOT_FOUND":
            message = (
                f"{which} names {shown(field)}, which is not a selected field: remove the mapper, "
                "let it follow the rename, or keep the field."
            )
            yield Problem(stream.id, where, MAPPER_WITHOUT_FIELD, message)
        elif fault == "FIELD_ALREADY_EXISTS":
            message = (
                f"{which} writes {shown(field)}, which is also a selected field: leave that field "
                "out, or change the mapper."
            )
            yield Problem(stream.id, where, MAPPER_FIELD_EXISTS, message)
        else:
            message = f"{which} has an invalid configuration."
            yield Problem(stream.id, where, "invalid_mapper", message)


def renamed_in(raw: Raw, names: Mapping[str, str]) -> Raw:
    """A mapper with the new names of its fields; the same bytes if it names no renamed field."""
    if not read_mapper(raw).names & names.keys():
        return raw
    members: dict[str, Raw] = msgspec.json.decode(raw, type=dict[str, Raw])
    config = _renamed(msgspec.json.decode(members["mapperConfiguration"]), names)
    members["mapperConfiguration"] = Raw(msgspec.json.encode(config))
    return Raw(msgspec.json.encode(members))


def _renamed(value: Any, names: Mapping[str, str], depth: int = 0) -> Any:
    if depth > _DEPTH:
        return value
    if isinstance(value, dict):
        return {
            key: names.get(inner, inner)
            if key in _NAMING and isinstance(inner, str)
            else _renamed(inner, names, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_renamed(inner, names, depth + 1) for inner in value]
    return value


def _selected(config: Config, stream: Stream) -> frozenset[str] | None:
    """The top-level fields that a sync would include; None if the stream declares none."""
    fields = stream.fields()
    if fields is None:
        return None
    chosen = config.selected_names()
    return frozenset(fields) if chosen is None else chosen & fields.keys()


def _named(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > _DEPTH:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _NAMING and isinstance(inner, str):
                yield inner
            else:
                yield from _named(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, depth + 1)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
