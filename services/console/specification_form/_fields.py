"""The fields of a form that holds a configuration: names and values, as a browser sends them.

A field's name is the JSON pointer of its value, after a letter that says what it holds:
`v` a value, `b` the chosen branch, `n` the rows of an array, `j` JSON, and `w` what an empty
control stands for, so that a member that is absent stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from services.console.specification_form._model import (
    Blank,
    Json,
    Node,
    Unreadable,
    as_json,
    branch,
    chosen_branch,
    extras,
    fits,
    is_number,
    member,
)

ABSENT: Final = object()
"""The value of a member that a configuration does not have."""
VALUE, BRANCH, ROWS, JSON, WAS, EXTRA = "v", "b", "n", "j", "w", "x"


def to_fields(node: Node, configuration: Json) -> dict[str, str]:
    """The fields with which a form shows a configuration."""
    return dict(fields_of(node, configuration, ""))


def fields_of(node: Node, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The fields of one node."""
    if node.kind == "secret":
        return
    if is_as_json(node, value):
        yield JSON + path, "" if value is ABSENT else json_text(value)
        return
    match node.kind:
        case "object":
            yield from _of_object(node, {} if value is ABSENT else value, path)
            if is_hollow(node, value):
                yield WAS + path, "empty"
        case "array":
            yield from _of_array(node, value, path)
        case "branches":
            yield from _of_branches(node, value, path)
        case "boolean":
            yield WAS + path, was_boolean(value)
            if is_ticked(node, value):
                yield VALUE + path, "on"
        case "const":
            if value is not ABSENT:
                yield VALUE + path, as_json(node.options[0])
        case _:
            yield VALUE + path, scalar_text(node, value)
            if value == "" and node.kind == "text" and not isinstance(value, Blank):
                yield WAS + path, "empty"


def is_hollow(node: Node, value: Any) -> bool:
    """Whether an optional object is given, although every field within is empty."""
    return not node.is_required and isinstance(value, dict) and _is_empty(value)


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_empty, value.values()))


def is_as_json(node: Node, value: Any) -> bool:
    """Whether a value is edited as JSON, because no field holds it without loss."""
    if node.kind == "json" or isinstance(value, Unreadable):
        return True
    if value is ABSENT or isinstance(value, Blank):
        return False
    is_text = node.kind in ("integer", "number") and isinstance(value, str)
    return not is_text and not fits(node, value)


def json_text(value: Any) -> str:
    """A value as the text of a JSON field."""
    return str(value) if isinstance(value, Unreadable) else as_json(value)


def scalar_text(node: Node, value: Any) -> str:
    """The text of a text field or the value of an option."""
    if value is ABSENT or isinstance(value, Blank):
        return ""
    if node.kind == "enum":
        return as_json(value)
    return as_json(value) if is_number(value) else str(value)


def is_ticked(node: Node, value: Any) -> bool:
    """Whether a boolean's box is ticked: its value, or else its default."""
    return node.schema.get("default") is True if value is ABSENT else value is True


def was_boolean(value: Any) -> str:
    """What an unchanged box stands for."""
    return "absent" if value is ABSENT else "given"


def _of_object(node: Node, value: Json, path: str) -> Iterator[tuple[str, str]]:
    for one in node.members:
        yield from fields_of(one, value.get(one.key, ABSENT), member(path, one.key))
    if more := extras(node, value):
        yield EXTRA + path, as_json(more)


def _of_array(node: Node, value: Any, path: str) -> Iterator[tuple[str, str]]:
    assert node.item is not None  # noqa: S101 - by the builder
    rows = [] if value is ABSENT else value
    yield ROWS + path, "" if value is ABSENT else str(len(rows))
    for index, row in enumerate(rows):
        yield from fields_of(node.item, row, member(path, str(index)))


def _of_branches(node: Node, value: Any, path: str) -> Iterator[tuple[str, str]]:
    chosen = None if value is ABSENT else chosen_branch(node, value)
    yield BRANCH + path, "" if chosen is None else str(chosen)
    for index, one in enumerate(node.branches):
        inner = value if index == chosen else start(one)
        yield from fields_of(one, inner, branch(path, index))


def start(node: Node) -> Any:
    """What a branch holds before anything is filled in: its constants."""
    if node.kind == "object":
        return {one.key: one.options[0] for one in node.members if one.kind == "const"}
    return node.options[0] if node.kind == "const" else ABSENT
