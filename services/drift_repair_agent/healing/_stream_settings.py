"""Adapt a stream's settings to its new definition."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from services.drift_repair_agent.healing._continuity import end_renamings, keep_columns
from services.drift_repair_agent.healing._mappers import MovedMappers, with_changes
from services.drift_repair_agent.healing._model import Effect
from shared.domain.catalog import ConfiguredStream, Problem
from shared.domain.catalog._mappers import effective_mappers, source_fields
from shared.domain.catalog._merge import fallback, in_full
from shared.domain.catalog._model import Path, SelectedField, listed, shown
from shared.domain.catalog._validation import DEDUP, declared, mode
from shared.domain.drift import Change
from shared.domain.drift._severity import dotted

T = TypeVar("T")


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions about one stream that do not concern its definition."""

    renamed: Mapping[Path, Path] = MappingProxyType({})
    excluded: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    """The part of `excluded` that the policy never selects; may contain names that only might
    occur, such as names that match a pattern."""
    cursor: Path | None = None
    primary_key: tuple[Path, ...] | None = None
    mapped: Mapping[str, str] = MappingProxyType({})
    """The fields whose mappers follow them to a new name, even if they are not in `renamed`."""
    unmapped: frozenset[str] = frozenset()
    """The fields whose mappers are removed."""
    kept: frozenset[str] = frozenset()
    """The old names of the renamed fields whose columns are kept."""
    adopted: frozenset[str] = frozenset()
    """The fields whose renaming to another column ends."""


class Settings:
    """Adapts the config of `current` to the definition of `renewed`; the result is in `changes`.

    `taken` are the changes that led from one to the other. Unaffected settings are not changed.
    """

    def __init__(
        self,
        current: ConfiguredStream,
        renewed: ConfiguredStream,
        offered: ConfiguredStream,
        *,
        taken: Iterable[Change],
        choices: Choices,
    ) -> None:
        self.changes: dict[str, Any] = {}
        self.effects: list[Effect] = []
        self.problems: list[Problem] = []
        self._current = current
        self._new = renewed.stream
        self._offered = offered
        self._fields = renewed.stream.fields()
        self._before = current.stream.fields()
        self._selectable = renewed.stream.properties()
        self._choices = choices
        self._kinds = {change.kind for change in taken}
        self._id = renewed.id
        self._is_hand_picked = current.config.selected_names() is not None or bool(
            choices.excluded & (self._selectable or {}).keys()
        )

        if renewed.id != current.id and current.config.alias_name == current.id.name:
            self.changes["aliasName"] = renewed.id.name
        if current.config.selected is None:
            self.changes["selected"] = True
        self._reads = current.config.sync_mode
        self._writes = current.config.destination_sync_mode
        self._mode()
        cursor = self._cursor()
        key = self._key()
        needed = {path[0] for path in key if path} if self._writes in DEDUP else set()
        if self._reads == "incremental" and cursor:
            needed.add(cursor[0])
        self._selection(needed)
        self._mappers()
        for old, new in choices.renamed.items():
            if old[0] in choices.kept and len(old) == 1:
                continue
            self._report(
                "field_renamed",
                f"{self._named(old)} of {self._id} is synced as {self._named(new)} into a new "
                "column; the former column keeps its values.",
            )

    def _mode(self) -> None:
        offers = self._new.supported_sync_modes
        if not offers or self._reads is None or self._reads in offers:
            return
        before = self._reads
        keyed = bool(self._current.primary_key)
        self._switch(*fallback(self._offered, destination_sync_mode=self._writes, keyed=keyed))
        self._report(
            "sync_mode_fallback",
            f"{self._id} is no longer offered in the mode {mode(before)}: it is read by"
            f" {mode(self._reads)} and written by {mode(self._writes)}, and Airbyte deletes its"
            " sync state.",
        )

    def _cursor(self) -> Path:
        current, before = self._current.config.cursor_field or (), self._current.cursor
        if self._reads != "incremental":
            return self._set("cursorField", self._column(self._moved(current)), current)
        if self._choices.cursor is not None:
            chosen = self._choices.cursor
            if chosen != before:
                self._read_by(chosen, "was chosen")
            return self._set("cursorField", chosen, current)
        moved = self._moved(before)
        if self._new.source_defined_cursor:
            return self._defined_cursor(before, moved)
        if not moved or not self._has(moved):
            return self._without_cursor(before)
        if moved != before:
            self._read_by(moved, "follows the rename")
        elif not current:
            self._report(
                "cursor_kept",
                f"{self._id} still uses the cursor {self._named(before)}: the source no longer "
                "defines one.",
            )
        return self._set("cursorField", moved, current)

    def _defined_cursor(self, before: Path, moved: Path) -> Path:
        """The cursor of a stream whose source defines one, which overrides the configured cursor.

        It need not be a field of the stream. A hand-picked list must contain the cursor, so in that
        case the stream falls back to being read in full.
        """
        current = self._current.config.cursor_field or ()
        default = self._new.default_cursor_field or ()
        cursor = current
        if moved != before:
            cursor = moved if default in ((), before) else default
        elif default != before and ("cursor_changed" in self._kinds or not self._has(before)):
            cursor = default
        read_by = cursor or default
        if self._is_hand_picked and read_by and read_by[0] not in (self._selectable or ()):
            return self._without_cursor(before)
        cursor = self._column(cursor)
        if cursor not in (current, ()):
            self._read_by(
                cursor, "follows the rename" if cursor == moved else "is defined by the source"
            )
        return self._set("cursorField", cursor, current)

    def _column(self, cursor: Path) -> Path:
        """The configured cursor where it is optional; empty if it is not a synced column.

        The destination rejects the whole catalog if a deduplicated stream's cursor is not a column.
        """
        if not cursor or self._writes not in DEDUP:
            return cursor
        is_left_out = self._reads != "incremental" and cursor[0] in self._choices.excluded
        if self._has(cursor) and not is_left_out:
            return cursor
        self._report(
            "cursor_dropped",
            f"The cursor {self._named(cursor)} of {self._id} is not a synced field, and no cursor "
            "is needed: it is removed from the settings.",
        )
        return ()

    def _without_cursor(self, before: Path) -> Path:
        gone = f"The cursor {self._named(before)} of {self._id} is gone"
        if not before:
            gone = f"The source no longer defines a cursor of {self._id}"
        offers = self._new.supported_sync_modes
        if offers and "full_refresh" not in offers:
            message = f"{gone}, and the source offers it only incrementally: choose another cursor."
            self._refuse("cursor_lost", "cursorField", message)
            return before
        self._switch(*in_full(self._writes))
        how = "appends every row again"
        if self._writes != "append":
            how = "replaces all rows, including those that the source no longer has"
        self._report(
            "cursor_fallback",
            f"{gone}: it is read in full, and each sync {how}. Airbyte deletes its sync state, at "
            "the latest with the first such sync.",
        )
        return self._set("cursorField", (), self._current.config.cursor_field or ())

    def _key(self) -> tuple[Path, ...]:
        configured = self._current.config.primary_key or ()
        if self._writes not in DEDUP:
            return self._set("primaryKey", tuple(map(self._moved, configured)), configured)
        before, defined = self._current.primary_key, self._new.source_defined_primary_key or ()
        moved = tuple(map(self._moved, before))
        if self._choices.primary_key is not None:
            key, how = self._choices.primary_key, "was chosen"
        elif self._has_all(defined) and (
            "primary_key_changed" in self._kinds or not self._has_all(moved)
        ):
            key, how = defined, "is defined by the source"
        elif self._has_all(moved):
            key, how = moved, "follows the rename"
        else:
            return self._without_key(before)
        if self._same_columns(key, before):
            self._report(
                "key_kept",
                f"{self._id} is deduplicated by {self._listed(key)}, whose column is kept: new "
                "rows are matched with those written before.",
            )
        elif set(key) != set(before):
            is_nested = any(len(path) > 1 for path in key)
            refused = " Known destinations refuse a nested key." if is_nested else ""
            self._report(
                "key_followed",
                f"{self._id} is deduplicated by {self._listed(key)}, which {how}: rows written "
                "with the former key remain beside new ones until the stream is refreshed."
                f"{refused}",
            )
        if set(key) != set(configured or defined):
            self.changes["primaryKey"] = key
        return key

    def _same_columns(self, key: Iterable[Path], before: Iterable[Path]) -> bool:
        """Whether another key is written into the same columns as the one before."""
        names = {
            new: old for old, new in self._choices.renamed.items() if old[0] in self._choices.kept
        }
        return set(key) != set(before) == {names.get(path, path) for path in key}

    def _without_key(self, before: tuple[Path, ...]) -> tuple[Path, ...]:
        writes = "append" if self._writes == "append_dedup" else "overwrite"
        gone = f"The key {self._listed(before)} of {self._id} is gone"
        if not before:
            gone = f"{self._id} has no key"
        self._switch(self._reads, writes)
        self._report(
            "key_fallback",
            f"{gone}: it is written by {writes}, no longer deduplicated.",
        )
        return self._set("primaryKey", (), self._current.config.primary_key or ())

    def _selection(self, needed: set[str]) -> None:
        config = self._current.config
        excluded = set(self._choices.excluded)
        for name in sorted(excluded & needed):
            message = (
                f"{shown(name)} of {self._id} cannot be excluded: it is the stream's cursor or in "
                "its key."
            )
            self._refuse("excluded_field_needed", "selectedFields", message)
        chosen = config.selected_names()
        selectable = self._selectable or {}
        if chosen is None:
            fixed = excluded - selectable.keys()
            out_of_reach = fixed & ((self._fields or {}).keys() | self._choices.never)
            left_out = sorted(excluded & selectable.keys())
            if out_of_reach:
                message = (
                    f"{listed(sorted(out_of_reach))} of {self._id} is never selected, but Airbyte "
                    "cannot exclude it: it is not declared under `properties` of the schema."
                )
                self._refuse("never_selected", "selectedFields", message)
            elif left_out:
                selected = [name for name in selectable if name not in excluded]
                self.changes |= {"fieldSelectionEnabled": True, "selectedFields": _fields(selected)}
                self._report(
                    "fields_hand_picked",
                    f"From now on the fields of {self._id} are selected individually, without "
                    f"{listed(left_out)}: new fields are no longer added automatically.",
                )
            return
        if self._selectable is None:
            return
        before = [field.field_path for field in config.selected_fields or ()]
        selected = self._followed([path[0] for path in before if path], needed)
        selected = [name for name in selected if name not in excluded]
        for name in sorted((needed - set(selected)) & selectable.keys()):
            selected.append(name)
            self._report(
                "field_selected",
                f"{shown(name)} of {self._id} is now selected, as its cursor or key must be.",
            )
        if [(name,) for name in selected] != before:
            self.changes["selectedFields"] = _fields(selected)

    def _followed(self, names: Sequence[str], needed: Collection[str]) -> list[str]:
        """The hand-picked fields that still exist, with renamed ones under their new names."""
        fields = self._selectable or {}
        followed: dict[str, None] = {}
        gone: list[str] = []
        for name in names:
            heirs = [new for old, new in self._choices.renamed.items() if old[0] == name]
            if name in fields:
                followed[name] = None
            elif not any(old == (name,) for old in self._choices.renamed):
                gone.append(name)
            for heir in heirs:
                if len(heir) == 1 or heir[0] in needed or heir[0] in names:
                    followed[heir[0]] = None
                else:
                    self._report(
                        "rename_not_selected",
                        f"{self._named(heir)} of {self._id} can only be selected with all of "
                        f"{shown(heir[0])}, which was not selected: it is not synced.",
                    )
        if gone:
            self._report(
                "selected_fields_gone", f"{listed(gone)} of {self._id} can no longer be selected."
            )
        return list(followed)

    def _mappers(self) -> None:
        renamed = dict(self._choices.mapped)
        for old, new in self._choices.renamed.items():
            if len(old) == 1 and len(new) == 1:
                renamed[old[0]] = new[0]
        kept = {old: renamed.pop(old) for old in sorted(self._choices.kept) if old in renamed}
        before_it = self._current.config
        config, ended = end_renamings(before_it, self._choices.adopted, self._id)
        moved = MovedMappers(config, renamed, self._choices.unmapped)
        config = with_changes(config, moved.changes)
        mappers, going_on = keep_columns(config, kept, self._id)
        if mappers != list(before_it.mappers or ()):
            self.changes["mappers"] = mappers
        if "hashedFields" in moved.changes:
            self.changes["hashedFields"] = moved.changes["hashedFields"]
        for code, message in (*ended, *moved.effects(self._id), *going_on):
            self._report(code, message)
        after = effective_mappers(with_changes(config, {"mappers": mappers}))
        named = frozenset[str]().union(*source_fields(after))
        before = self._before or {}
        for name in sorted(named - (self._fields or {}).keys()):
            if name in before and self._fields is not None:
                self._report(
                    "mapper_without_field",
                    f"A mapper of {self._id} still refers to {shown(name)}, which is gone.",
                )

    def _moved(self, path: Path) -> Path:
        """The new path of a field that was renamed or is inside a renamed field."""
        for length in range(len(path), 0, -1):
            new = self._choices.renamed.get(path[:length])
            if new is not None:
                return (*new, *path[length:])
        return path

    def _has(self, path: Path) -> bool:
        return declared(self._fields, path, before=self._before)

    def _has_all(self, key: tuple[Path, ...]) -> bool:
        return all(path and self._has(path) for path in key) and bool(key)

    def _set(self, member: str, value: T, configured: T) -> T:
        if value != configured:
            self.changes[member] = value
        return value

    def _switch(self, reads: str | None, writes: str | None) -> None:
        self._reads, self._writes = reads, writes
        self.changes |= {"syncMode": reads, "destinationSyncMode": writes}

    def _read_by(self, cursor: Path, how: str) -> None:
        self._report(
            "cursor_followed",
            f"{self._id} is read by the cursor {self._named(cursor)}, which {how}: if the saved "
            "state does not fit it, all rows are read again.",
        )

    def _listed(self, key: tuple[Path, ...]) -> str:
        return listed(map(dotted, key))

    @staticmethod
    def _named(path: Path) -> str:
        return shown(dotted(path))

    def _report(self, code: str, message: str) -> None:
        self.effects.append(Effect(self._id, code, message))

    def _refuse(self, code: str, setting: str, message: str) -> None:
        self.problems.append(Problem(self._id, f"config.{setting}", code, message))


def _fields(names: Iterable[str]) -> list[SelectedField]:
    return [SelectedField(field_path=(name,)) for name in names]
