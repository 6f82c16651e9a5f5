"""Differences between catalogs as rows for people: a mark, a path, and types in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson

from services.console.text import visible_name

Mark = Literal["added", "removed", "changed"]
Json = Mapping[str, Any]

_MOST_CHARS: Final = 160
"""Of a value that has no words of its own."""
_MARKS: Final[Mapping[str, Mark]] = {
    "stream_added": "added",
    "field_added": "added",
    "stream_selected": "added",
    "field_selected": "added",
    "stream_removed": "removed",
    "field_removed": "removed",
    "stream_deselected": "removed",
    "field_deselected": "removed",
}
_SETTINGS: Final = {
    "primary_key_changed": "Key",
    "cursor_changed": "Cursor",
    "sync_modes_changed": "Modes that the source offers",
    "sync_mode_changed": "Sync mode",
    "destination_sync_mode_changed": "Writing mode",
    "field_selection_changed": "Selection of fields",
    "mappers_changed": "Mappers",
    "alias_changed": "Name in the destination",
    "destination_object_changed": "Object in the destination",
    "include_files_changed": "Files",
    "mapper_lapsed": "Mapper",
    "mapping_conflict": "Mapping",
}
_NOTES: Final = {
    "stream_added": "New stream",
    "stream_removed": "The whole stream",
    "stream_selected": "Synced from now on",
    "stream_deselected": "No longer synced",
    "field_selected": "Synced from now on",
    "field_deselected": "No longer synced",
}
_RENAMED: Final = {
    "keep_column": "Renamed; its column is kept",
    "new_column": "Renamed; a new column starts",
}
_MODES: Final = {
    "append_dedup": "append, deduplicated",
    "overwrite_dedup": "overwrite, deduplicated",
    "full_refresh": "full refresh",
}


_HARMLESS: Final = frozenset(
    {
        *("column_kept", "cursor_kept", "key_kept", "field_renamed", "field_selected"),
        *("fields_hand_picked", "stream_resumed", "state_put_back"),
    }
)
"""Codes of effects that lose nothing and restart nothing."""
_TAKEN_BACK: Final = {
    "stream_added": "stream_removed",
    "stream_removed": "stream_added",
    "field_added": "field_removed",
    "field_removed": "field_added",
}
_ROLLED_BACK: Final[Mapping[Mark, str]] = {
    "added": "Comes back",
    "removed": "No longer synced",
    "changed": "As it was before",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One difference. `setting` names what is not a field; `before` and `after` are words."""

    mark: Mark
    path: str
    setting: str | None
    before: str
    after: str
    note: str
    became: str = ""
    """The new name of a renamed field."""


@dataclass(slots=True)
class StreamRows:
    """The differences of one stream."""

    name: str
    stream: Json
    rows: list[Row] = field(default_factory=list)

    def count(self, mark: Mark) -> int:
        """How many rows have a mark."""
        return sum(row.mark == mark for row in self.rows)


def stream_name(stream: Json) -> str:
    """A stream's name, with its namespace before it if it has one."""
    namespace = stream.get("namespace")
    name = visible_name(stream["name"])
    return f"{visible_name(namespace)}.{name}" if namespace else name


def dotted(path: Iterable[object]) -> str:
    """A path of a field on one line."""
    return ".".join(visible_name(part) for part in path)


def mark_of(kind: str) -> Mark:
    """The sign of a kind of change."""
    return _MARKS.get(kind, "changed")


def setting_of(kind: str) -> str | None:
    """What a kind of change is about, if it is not a field or a stream itself."""
    return _SETTINGS.get(kind)


def by_stream(catalog: Json) -> list[StreamRows]:
    """The differences of `schema_changes` and `config_changes`, in their order, per stream."""
    found: dict[tuple[str | None, str], StreamRows] = {}
    for change in (*catalog.get("schema_changes", ()), *catalog.get("config_changes", ())):
        stream = change["stream"]
        place = (stream.get("namespace") or None, stream["name"])
        rows = found.setdefault(place, StreamRows(stream_name(stream), stream))
        rows.rows.append(row_of(change))
    return list(found.values())


def taken_back(changes: Iterable[Json]) -> list[dict[str, Any]]:
    """The changes in reverse: what was removed is added, and before and after are swapped."""
    return [
        {
            "kind": _TAKEN_BACK.get(one["kind"], one["kind"]),
            "stream": one["stream"],
            "path": one.get("path"),
            "before": one.get("after"),
            "after": one.get("before"),
        }
        for one in changes
    ]


def rolled_back(streams: Iterable[StreamRows]) -> list[StreamRows]:
    """Rows of a rollback, with a note for each stream and field."""
    return [
        StreamRows(
            one.name,
            one.stream,
            [row if row.setting else replace(row, note=_ROLLED_BACK[row.mark]) for row in one.rows],
        )
        for one in streams
    ]


def with_renames_named(
    streams: Iterable[StreamRows], renamed: Iterable[tuple[Json, Sequence[str], Sequence[str], str]]
) -> list[StreamRows]:
    """Rows in which a renamed field is one row with both names.

    `renamed` are these fields, each as its stream, its paths before and after, and what becomes of
    its column: `keep_column`, `new_column` or empty.
    """
    known = {
        (stream_name(stream), dotted(before)): (dotted(after), column)
        for stream, before, after, column in renamed
    }
    return [StreamRows(one.name, one.stream, _merged(one, known)) for one in streams]


def _merged(stream: StreamRows, known: Mapping[tuple[str, str], tuple[str, str]]) -> list[Row]:
    added = {row.path: row for row in stream.rows if row.mark == "added" and not row.setting}
    rows: list[Row] = []
    halves = set()
    for row in stream.rows:
        after, column = known.get((stream.name, row.path), ("", ""))
        if row.mark != "removed" or row.setting or after not in added:
            rows.append(row)
            continue
        halves.add(after)
        new = added[after]
        note = _RENAMED.get(column, "Renamed")
        rows.append(replace(row, mark="changed", became=after, after=new.after, note=note))
    return [row for row in rows if row.setting or row.mark != "added" or row.path not in halves]


def destroys(effects: Iterable[Json]) -> bool:
    """Whether an effect of a catalog may lose values or restart something."""
    return any(one.get("code") not in _HARMLESS for one in effects)


def row_of(change: Json) -> Row:
    """One change of a schema or of a stream's settings."""
    kind = str(change["kind"])
    return Row(
        mark_of(kind),
        dotted(change.get("path") or ()),
        setting_of(kind),
        words(change.get("before")),
        words(change.get("after")),
        _NOTES.get(kind, ""),
    )


def words(value: Any) -> str:
    """A type, key, cursor, mode or other setting in words; empty for nothing."""
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _MODES.get(value, visible_name(value))
    if isinstance(value, Mapping):
        return _of_object(value)
    if isinstance(value, Sequence):
        return _of_list(value)
    return str(value)


def _of_object(value: Json) -> str:
    if "type" in value and isinstance(value["type"], str | list):
        given = value["type"]
        kinds = [given] if isinstance(given, str) else [one for one in given if one != "null"]
        more = value.get("airbyte_type") or value.get("format")
        shown = " or ".join(visible_name(one) for one in kinds) or "null"
        return f"{shown} ({visible_name(more)})" if more else shown
    if "source_defined" in value:
        cursor = dotted(value.get("field") or ()) or "none"
        return f"{cursor}, defined by the source" if value["source_defined"] else cursor
    return _cut(value)


def _of_list(value: Sequence[Any]) -> str:
    if all(isinstance(one, str) for one in value):
        return _short(", ".join(words(one) for one in value))
    if all(isinstance(one, list) and all(isinstance(p, str) for p in one) for one in value):
        return _short(", ".join(dotted(one) for one in value))
    return _cut(value)


def _cut(value: Any) -> str:
    return _short(visible_name(orjson.dumps(value).decode()))


def _short(shown: str) -> str:
    return shown if len(shown) <= _MOST_CHARS else f"{shown[:_MOST_CHARS]}…"
