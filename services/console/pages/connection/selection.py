"""A stream's selection in an Airbyte catalog: read it for a form, and change it by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.console.pages.connection.words import type_of

MOST_FIELDS: Final = 500
"""Most fields that a form offers; streams with more are edited over the API."""

Stream = tuple[str, str]
"""A stream's namespace, or empty, and its name."""


@dataclass(frozen=True, slots=True)
class Field:
    """A top-level field as the form offers it."""

    name: str
    type: str
    is_selected: bool
    is_needed: bool
    """Whether it is the cursor, or a part of the primary key."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a stream is synced."""

    is_selected: bool
    fields: Sequence[Field]

    @property
    def names(self) -> list[str]:
        """The names of the selected fields."""
        return [one.name for one in self.fields if one.is_selected]


def key_of(stream: Mapping[str, Any]) -> Stream:
    """The key of a stream as the API or a catalog describes it."""
    return stream.get("namespace") or "", stream["name"]


def find(catalog: Mapping[str, Any], stream: Stream) -> dict[str, Any] | None:
    """A stream of a catalog with its configuration; None if the catalog does not have it."""
    for one in catalog["streams"]:
        if key_of(one["stream"]) == stream:
            found: dict[str, Any] = one
            return found
    return None


def read(entry: Mapping[str, Any]) -> Selection:
    """The selection of a stream, with every field that its source offers."""
    config, described = entry["config"], entry["stream"]
    listed = {
        path[0] for one in config.get("selectedFields") or () if (path := one.get("fieldPath"))
    }
    has_all = not config.get("fieldSelectionEnabled")
    cursor = config.get("cursorField") or described.get("defaultCursorField") or []
    keys = config.get("primaryKey") or described.get("sourceDefinedPrimaryKey") or []
    needed = {path[0] for path in [cursor, *keys] if path}
    properties: Mapping[str, Any] = (described.get("jsonSchema") or {}).get("properties") or {}
    return Selection(
        is_selected=bool(config.get("selected")),
        fields=[
            Field(
                name,
                type_of(properties[name]),
                is_selected=has_all or name in listed,
                is_needed=name in needed,
            )
            for name in sorted(properties)
        ],
    )


def change(entry: dict[str, Any], *, is_selected: bool, names: Sequence[str]) -> None:
    """Select or deselect a stream, and of its fields these; the needed ones stay selected.

    All fields are selected without a list, so that later ones are synced, too, where the policy
    adds them.
    """
    now = read(entry)
    wanted = {*names, *(one.name for one in now.fields if one.is_needed)}
    config = entry["config"]
    config["selected"] = is_selected
    if not is_selected or wanted == set(now.names):
        return
    has_all = all(one.name in wanted for one in now.fields)
    config["fieldSelectionEnabled"] = not has_all
    config["selectedFields"] = (
        [] if has_all else [{"fieldPath": [one.name]} for one in now.fields if one.name in wanted]
    )
