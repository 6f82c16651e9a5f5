"""Reads a configuration from a form's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.console.specification_form._fields import (
    ABSENT,
    BRANCH,
    EXTRA,
    JSON,
    ROWS,
    VALUE,
    WAS,
    start,
)
from services.console.specification_form._model import (
    MAX_ROWS,
    Blank,
    Json,
    Node,
    Path,
    Unreadable,
    as_json,
    branch,
    member,
)

MAX_ROWS_IN_ALL: Final = 2_000
"""Rows of all arrays of a form together, so that a few fields cannot stand for millions."""
_INTEGER: Final = re.compile(r"[+-]?\d{1,40}")
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a field cannot be read."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class Read:
    """A configuration, and what could not be read; with a fault it must not be sent."""

    configuration: Json
    faults: tuple[Fault, ...]


def configuration_of(node: Node, fields: Mapping[str, str]) -> Read:
    """The configuration that a form's fields make; an empty field of an optional part is left out.

    Text that is not a number stays as it is, so that the service names the fault.
    """
    reading = _Reading(fields)
    value = reading.value(node, "", ())
    return Read(value if isinstance(value, dict) else {}, tuple(reading.faults))


def with_row(node: Node, fields: Mapping[str, str], path: str) -> dict[str, str]:
    """The fields with one more row in the array at a path, for the button that adds it."""
    rows = _rows(fields.get(ROWS + path, ""))
    found = _node_at(node, path)
    if found is None or found.kind != "array" or found.item is None or rows >= MAX_ROWS:
        return dict(fields)
    more = {ROWS + path: str(rows + 1)}
    if found.item.kind == "boolean":
        more[f"{WAS}{member(path, str(rows))}"] = "given"
    return {**fields, **more}


def without_row(fields: Mapping[str, str], path: str) -> dict[str, str]:
    """The fields without one row of an array, whose later rows move up."""
    array, _, last = path.rpartition("/")
    rows = _rows(fields.get(ROWS + array, ""))
    if not last.isdecimal() or int(last) >= rows:
        return dict(fields)
    gone = int(last)
    found: dict[str, str] = {}
    for name, value in fields.items():
        index, rest = _row_of(name, array)
        if index is None or index < gone:
            found[name] = value
        elif index > gone:
            found[f"{name[:1]}{array}/{index - 1}{rest}"] = value
    found[ROWS + array] = str(rows - 1) if rows > 1 else ""
    return found


def _row_of(name: str, array: str) -> tuple[int | None, str]:
    prefix = f"{array}/"
    if not name[1:].startswith(prefix):
        return None, ""
    index, slash, rest = name[1 + len(prefix) :].partition("/")
    return (int(index), slash + rest) if index.isdecimal() else (None, "")


def _rows(text: str) -> int:
    return min(int(text), MAX_ROWS) if text.isdecimal() and len(text) < 6 else 0


def _node_at(node: Node, path: str) -> Node | None:
    found: Node | None = node
    for step in path.split("/")[1:]:
        if found is None:
            return None
        if step.startswith("~@"):
            index = step[2:]
            is_one = index.isdecimal() and int(index) < len(found.branches)
            found = found.branches[int(index)] if is_one else None
        elif found.kind == "array":
            found = found.item
        else:
            key = step.replace("~1", "/").replace("~0", "~")
            found = next((one for one in found.members if one.key == key), None)
    return found


class _Reading:
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self.faults: list[Fault] = []
        self._rows_left = MAX_ROWS_IN_ALL
        self._filled = 0
        """How many fields are filled in: an object without any is left out."""

    def value(self, node: Node, at: str, path: Path) -> Any:
        """The value of a node, or ABSENT."""
        if node.kind == "secret":
            return ABSENT
        if JSON + at in self._fields:
            return self._json(self._fields[JSON + at], path)
        match node.kind:
            case "object":
                found = self._object(node, at, path)
            case "array":
                found = self._array(node, at, path)
            case "branches":
                found = self._branch(node, at, path)
            case "boolean":
                found = self._boolean(node, at)
            case _:
                found = self._scalar(node, at)
                self._filled += found is not ABSENT
        return found

    def _scalar(self, node: Node, at: str) -> Any:
        text = self._fields.get(VALUE + at)
        if text is None:
            return ABSENT
        if node.kind == "const":
            return node.options[0]
        if text == "":
            was_empty = self._fields.get(WAS + at) == "empty"
            return "" if node.kind == "text" and was_empty else ABSENT
        if node.kind == "enum":
            return next((one for one in node.options if as_json(one) == text), ABSENT)
        return text if node.kind == "text" else _number(text)

    def _boolean(self, node: Node, at: str) -> Any:
        was = self._fields.get(WAS + at)
        if was is None:
            return ABSENT
        is_on = VALUE + at in self._fields
        is_default = is_on == (node.schema.get("default") is True)
        is_unchanged = was == "absent" and is_default
        self._filled += not is_unchanged
        return ABSENT if is_unchanged and not node.is_required else is_on

    def _object(self, node: Node, at: str, path: Path) -> Any:
        found: Json = {}
        before = self._filled
        for one in node.members:
            value = self.value(one, member(at, one.key), (*path, one.key))
            if value is not ABSENT:
                found[one.key] = value
        if EXTRA + at in self._fields:
            more = self._json(self._fields[EXTRA + at], path)
            found |= more if isinstance(more, dict) else {}
        was_empty = self._fields.get(WAS + at) == "empty"
        self._filled += was_empty
        return found if node.is_required or self._filled > before else ABSENT

    def _array(self, node: Node, at: str, path: Path) -> Any:
        assert node.item is not None  # noqa: S101 - by the builder
        text = self._fields.get(ROWS + at, "")
        if not text:
            return ABSENT
        self._filled += 1
        count = _rows(text)
        if count > self._rows_left:
            self.faults.append(Fault(path, f"is more than {MAX_ROWS_IN_ALL:,} rows in all."))
            count = self._rows_left
        self._rows_left -= count
        rows = []
        for index in range(count):
            row = self.value(node.item, member(at, str(index)), (*path, index))
            rows.append(self._blank(node.item, (*path, index)) if row is ABSENT else row)
        return rows

    def _blank(self, item: Node, path: Path) -> Any:
        """A row that is not filled in yet."""
        if item.kind == "array":
            return []
        self.faults.append(Fault(path, "is empty: fill it in, or remove it."))
        return Blank()

    def _branch(self, node: Node, at: str, path: Path) -> Any:
        text = self._fields.get(BRANCH + at, "")
        if not text.isdecimal() or int(text[:4]) >= len(node.branches):
            return ABSENT
        index = int(text[:4])
        self._filled += 1
        one = node.branches[index]
        value = self.value(one, branch(at, index), path)
        return start(one) if value is ABSENT else value

    def _json(self, text: str, path: Path) -> Any:
        if not text.strip():
            return ABSENT
        self._filled += 1
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            self.faults.append(Fault(path, "must be JSON."))
            return Unreadable(text)


def _number(text: str) -> Any:
    stripped = text.strip()
    if _INTEGER.fullmatch(stripped):
        return int(stripped)
    if _NUMBER.fullmatch(stripped):
        value = float(stripped)
        if value not in (float("inf"), float("-inf")):
            return value
    return text
