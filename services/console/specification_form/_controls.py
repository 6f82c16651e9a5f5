"""What a form shows: each field with its label, hint, value and error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.console.specification_form._fields import (
    ABSENT,
    BRANCH,
    EXTRA,
    JSON,
    ROWS,
    VALUE,
    WAS,
    fields_of,
    is_as_json,
    is_hollow,
    is_ticked,
    json_text,
    scalar_text,
    start,
    was_boolean,
)
from services.console.specification_form._model import (
    MAX_ROWS,
    Blank,
    Json,
    Node,
    Path,
    as_json,
    branch,
    chosen_branch,
    extras,
    member,
)

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
_LONG: Final = 120
"""From this length on, text has a field of several lines."""


@dataclass(slots=True)
class Option:
    """One of several values."""

    value: str
    label: str
    is_chosen: bool
    sub: str = ""
    control: Control | None = None
    """What a chosen branch contains."""


@dataclass(slots=True)
class Control:
    """A field, or a group of fields, as the page shows it."""

    kind: str
    """Like a node's, and `lines` for text of several lines."""
    id: str
    name: str
    at: str
    """Its place as a JSON pointer, for the buttons of rows."""
    json_path: str
    title: str
    description: str = ""
    hint: str = ""
    is_required: bool = True
    is_advanced: bool = False
    text: str = ""
    is_ticked: bool = False
    options: list[Option] = field(default_factory=list)
    children: list[Control] = field(default_factory=list)
    hidden: list[tuple[str, str]] = field(default_factory=list)
    """Fields that are sent back unchanged."""
    error: str = ""
    has_error_inside: bool = False
    may_grow: bool = False
    """Whether an array can have another row."""


def controls(node: Node, configuration: Json, errors: Mapping[str, str] | None = None) -> Control:
    """The form of a configuration; `errors` are sentences by JSON path."""
    return _Showing(errors or {}).control(node, configuration, "", ())


def json_path(path: Path) -> str:
    """A path as the services write it in `fields`: what is no plain word is shown as `…`."""
    shown = "$"
    for step in path:
        is_plain = isinstance(step, str) and (step == "*" or _WORD.fullmatch(step))
        shown += f"[{step}]" if isinstance(step, int) else f".{step if is_plain else '…'}"
    return shown


class _Showing:
    def __init__(self, errors: Mapping[str, str]) -> None:
        self._errors = errors
        self._count = 0
        self._is_expected = True
        """Whether the object that is being shown is a part of every configuration."""

    def control(self, node: Node, value: Any, at: str, path: Path, title: str = "") -> Control:
        self._count += 1
        shown = json_path(path)
        made = Control(
            kind=node.kind,
            id=f"c{self._count}",
            name=VALUE + at,
            at=at,
            json_path=shown,
            title=title or node.title,
            description=node.description,
            hint=_hint(node),
            is_required=node.is_required,
            error=self._errors.get(shown, "") if path else "",
        )
        if node.kind == "secret":
            return made
        if node.is_hidden and not made.error:
            made.kind, made.hidden = "hidden", list(fields_of(node, value, at))
        elif is_as_json(node, value):
            made.kind, made.name = "json", JSON + at
            made.text = "" if value is ABSENT else json_text(value)
        else:
            self._fill(made, node, value, path)
        made.has_error_inside = bool(made.error) or any(
            one.has_error_inside for one in _inside(made)
        )
        return made

    def _fill(self, made: Control, node: Node, value: Any, path: Path) -> None:
        match node.kind:
            case "object":
                self._object(made, node, value, path)
            case "array":
                self._array(made, node, value, path)
            case "branches":
                self._branches(made, node, value, path)
            case "boolean":
                made.is_ticked = is_ticked(node, value)
                made.hidden = [(WAS + made.at, was_boolean(value))]
            case "const":
                made.kind, made.hidden = "hidden", list(fields_of(node, value, made.at))
            case "enum":
                chosen = scalar_text(node, value)
                made.options = [
                    Option(as_json(one), _label(one), as_json(one) == chosen)
                    for one in node.options
                ]
            case _:
                self._text(made, node, value)

    def _text(self, made: Control, node: Node, value: Any) -> None:
        made.text = scalar_text(node, value)
        is_long = "\n" in made.text or len(made.text) > _LONG
        if node.kind == "text" and (node.schema.get("multiline") is True or is_long):
            made.kind = "lines"
        if value == "" and node.kind == "text" and not isinstance(value, Blank):
            made.hidden = [(WAS + made.at, "empty")]

    def _object(self, made: Control, node: Node, value: Any, path: Path) -> None:
        given = {} if value is ABSENT or isinstance(value, Blank) else value
        outer = self._is_expected
        self._is_expected = value is not ABSENT or (outer and node.is_required)
        for one in node.members:
            inner = self.control(
                one, given.get(one.key, ABSENT), member(made.at, one.key), (*path, one.key)
            )
            made.children.append(inner)
        self._is_expected = outer
        _fold(node, made.children)
        if is_hollow(node, value):
            made.hidden.append((WAS + made.at, "empty"))
        if more := extras(node, given):
            made.hidden.append((EXTRA + made.at, as_json(more)))

    def _array(self, made: Control, node: Node, value: Any, path: Path) -> None:
        assert node.item is not None  # noqa: S101 - by the builder
        rows = [] if value is ABSENT or isinstance(value, Blank) else value
        made.hidden = [(ROWS + made.at, "" if value is ABSENT else str(len(rows)))]
        made.may_grow = len(rows) < MAX_ROWS
        for index, row in enumerate(rows):
            title = f"{node.item.title or made.title} {index + 1}"
            inner = self.control(node.item, row, member(made.at, str(index)), (*path, index), title)
            made.children.append(inner)

    def _branches(self, made: Control, node: Node, value: Any, path: Path) -> None:
        made.name = BRANCH + made.at
        chosen = None if value is ABSENT else chosen_branch(node, value)
        if value is ABSENT and node.is_required and self._is_expected:
            chosen = _suggested(node)
        for index, one in enumerate(node.branches):
            inner = value if index == chosen and value is not ABSENT else start(one)
            title = one.title or _constant(one) or f"Option {index + 1}"
            control = self.control(one, inner, branch(made.at, index), path, title)
            control.error = ""
            made.options.append(
                Option(str(index), title, index == chosen, one.description, control)
            )
        if not node.is_required or chosen is None:
            label = "From the credential" if node.is_required else "Not set"
            made.options.append(Option("", label, chosen is None))


def _inside(made: Control) -> Sequence[Control]:
    return [*made.children, *(one.control for one in made.options if one.control is not None)]


def _fold(node: Node, children: list[Control]) -> None:
    """Mark what is rarely needed: optional settings with a default, after the last required one."""
    last = max((at for at, one in enumerate(node.members) if one.is_required), default=-1)
    for at, (one, control) in enumerate(zip(node.members, children, strict=True)):
        control.is_advanced = at > last and not one.is_required and one.has_default


def _suggested(node: Node) -> int | None:
    """The branch that a new form starts with: the default's, or else the first."""
    default = node.schema.get("default")
    found = chosen_branch(node, default) if default is not None else 0
    return 0 if found is None else found


def _constant(node: Node) -> str:
    return next((str(one.options[0]) for one in node.members if one.kind == "const"), "")


def _label(value: Any) -> str:
    return value if isinstance(value, str) and value else as_json(value)


def _hint(node: Node) -> str:
    """What helps to fill it in: limits, the default, or an example."""
    schema, said = node.schema, []
    low, high = schema.get("minimum"), schema.get("maximum")
    if node.kind in ("integer", "number"):
        if low is not None and high is not None:
            said.append(f"From {_label(low)} to {_label(high)}.")
        elif low is not None:
            said.append(f"At least {_label(low)}.")
        elif high is not None:
            said.append(f"At most {_label(high)}.")
    if isinstance(schema.get("pattern_descriptor"), str):
        said.append(f"Format: {schema['pattern_descriptor']}.")
    if node.kind in ("text", "integer", "number", "enum") and schema.get("default") not in (
        None,
        "",
    ):
        said.append(f"Default: {_label(schema['default'])}.")
    examples = schema.get("examples")
    if node.kind == "text" and "default" not in schema and isinstance(examples, list) and examples:
        said.append(f"Example: {_label(examples[0])}.")
    return " ".join(said)
