"""Let a stream's mappers follow renamed fields, or remove the mappers of fields that are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec import Raw

from shared.domain.catalog import StreamId
from shared.domain.catalog._mappers import (
    FIELD_RENAMING,
    PROTECTING,
    Mapper,
    column_after,
    effective_mappers,
    read_mapper,
    renamed_in,
    source_fields,
)
from shared.domain.catalog._model import Config, SelectedField, listed, shown


class MovedMappers:
    """The mappers of a stream with renamed fields under their new names, and some of them removed.

    `changes` are the config's members that change. A mapper that names none of the fields stays,
    byte for byte and with its id, by which Airbyte finds the mapper's encryption key again.
    """

    def __init__(
        self, config: Config, renamed: Mapping[str, str], removed: Collection[str]
    ) -> None:
        self._before = effective_mappers(config)
        needed = source_fields(self._before)
        self._renamed = {
            old: new for old, new in renamed.items() if any(old in fields for fields in needed)
        }
        self._removed = [
            mapper
            for mapper, fields in zip(self._before, needed, strict=True)
            if not fields.isdisjoint(removed)
        ]
        self._without = frozenset(removed) & frozenset().union(*needed)
        self.changes: dict[str, Any] = {}
        if config.mappers:
            mappers = list(config.mappers)
            followed = self._followed(mappers, needed)
            if followed != mappers:
                self.changes["mappers"] = followed
        if config.hashed_fields:
            hashed = [
                _moved_field(field, self._renamed)
                for field in config.hashed_fields
                if not field.field_path or field.field_path[0] not in self._without
            ]
            if hashed != list(config.hashed_fields):
                self.changes["hashedFields"] = hashed
        self._after = effective_mappers(with_changes(config, self.changes))

    @property
    def named(self) -> frozenset[str]:
        """The fields of the source that the resulting mappers work on."""
        return frozenset().union(*source_fields(self._after))

    def effects(self, stream: StreamId) -> Iterator[tuple[str, str]]:
        """What the changes cause, as codes and sentences."""
        if self._removed:
            kinds = listed(sorted({mapper.type for mapper in self._removed}))
            unprotected = any(mapper.protects for mapper in self._removed)
            plainly = (
                " If the field comes back, its values are written in plain." if unprotected else ""
            )
            yield (
                "mapper_dropped",
                f"The mappers ({kinds}) of {listed(sorted(self._without))} in {stream} are "
                f"removed.{plainly}",
            )
        for old, new in sorted(self._renamed.items()):
            if old not in self._without:
                yield "mapper_followed", self._of_rename(stream, old, new)

    def _of_rename(self, stream: StreamId, old: str, new: str) -> str:
        message = f"The mappers of {stream} follow the rename of {shown(old)} to {shown(new)}."
        before, after = column_after(self._before, old), column_after(self._after, new)
        needed = source_fields(self._before)
        protecting = {
            mapper.type
            for mapper, fields in zip(self._before, needed, strict=True)
            if old in fields and mapper.type in PROTECTING
        }
        if not protecting or before is None or after is None:
            return message
        if before == after:
            return f"{message} The column {shown(before)} is kept."
        made = "hashed" if "hashing" in protecting else "encrypted"
        return (
            f"{message} The {made} column is renamed, too: {shown(before)} gets no new values, and "
            f"{shown(after)} begins."
        )

    def _followed(self, mappers: list[Raw], needed: list[frozenset[str]]) -> list[Raw]:
        """The mappers in order; one that uses what an earlier one writes follows that, too."""
        moving = dict(self._renamed)
        followed = []
        for raw, fields in zip(mappers, needed, strict=True):
            if not fields.isdisjoint(self._without):
                continue
            mapper, moved = read_mapper(raw), renamed_in(raw, moving)
            follow_output(moving, mapper, read_mapper(moved))
            if not _is_idle(read_mapper(moved)):
                followed.append(moved)
        return followed


def _is_idle(mapper: Mapper) -> bool:
    """Whether a renaming gives a field its own name, which Airbyte refuses."""
    names = mapper.names
    return mapper.type == FIELD_RENAMING and {mapper.output(name) for name in names} == names


def follow_output(moving: dict[str, str], before: Mapper, after: Mapper) -> None:
    """Rename what a mapper writes in the mappers after it."""
    for name in before.names:
        old = before.output(name)
        if old is None or old == name:
            continue
        new = after.output(moving[name]) if name in moving else old
        moving.pop(old, None)
        if new is not None and new != old:
            moving[old] = new


def _moved_field(field: SelectedField, names: Mapping[str, str]) -> SelectedField:
    path = field.field_path
    if not path or path[0] not in names:
        return field
    return SelectedField(field_path=(names[path[0]], *path[1:]))


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The mappers of a stream's settings once these members are changed."""
    return Config(
        mappers=tuple(changes.get("mappers", config.mappers or ())),
        hashed_fields=tuple(changes.get("hashedFields", config.hashed_fields or ())),
    )
