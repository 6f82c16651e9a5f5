"""The form of a specification: what it shows, and that no configuration is changed by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from services.console.specification_form import (
    Control,
    configuration_of,
    controls,
    node_of,
    to_fields,
    with_row,
    without_row,
)

Json = dict[str, Any]
_SORTED = orjson.OPT_SORT_KEYS

POSTGRES: Json = {
    "type": "object",
    "required": ["host", "port", "method"],
    "properties": {
        "ssl": {"type": "boolean", "default": True, "order": 6},
        "host": {"type": "string", "title": "Host", "order": 0},
        "port": {
            "type": "integer",
            "title": "Port",
            "minimum": 0,
            "maximum": 65536,
            "default": 5432,
            "order": 1,
        },
        "password": {"type": "string", "airbyte_secret": True, "order": 4},
        "schemas": {"type": "array", "title": "Schemas", "items": {"type": "string"}, "order": 3},
        "method": {
            "type": "object",
            "title": "Update method",
            "order": 5,
            "oneOf": [
                {
                    "title": "Log (CDC)",
                    "required": ["method", "slot"],
                    "properties": {
                        "method": {"type": "string", "const": "CDC"},
                        "slot": {"type": "string"},
                    },
                },
                {
                    "title": "Cursor",
                    "required": ["method"],
                    "properties": {"method": {"type": "string", "const": "Standard"}},
                },
            ],
        },
        "jdbc": {"type": "string", "default": "", "order": 7},
        "level": {"enum": ["low", "high"], "order": 8},
        "more": {"type": "object", "additionalProperties": {"type": "string"}, "order": 9},
    },
}

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=8)
_KEYS = st.text(st.sampled_from("ab~/@0 é"), min_size=1, max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)
_SCALARS: list[tuple[Json, st.SearchStrategy[Any]]] = [
    ({"type": "string"}, _TEXT),
    ({"type": "integer"}, st.integers(-(2**52), 2**52)),
    ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)),
    ({"type": "boolean"}, st.booleans()),
    ({"type": "boolean", "default": True}, st.booleans()),
    ({"type": ["string", "null"]}, st.none() | _TEXT),
    ({"enum": ["a", 1, True, None]}, st.sampled_from(["a", 1, True, None])),
    ({"const": "only"}, st.just("only")),
    ({}, _JSON),
    ({"type": "object", "additionalProperties": True}, st.dictionaries(_KEYS, _JSON, max_size=2)),
    ({"allOf": [{"type": "string"}]}, _TEXT),
    ({"type": "string", "airbyte_hidden": True}, _TEXT),
]


@st.composite
def specified(draw: st.DrawFn, depth: int = 3) -> tuple[Json, Any]:
    """A schema, and a value that is valid for it."""
    kind = draw(st.sampled_from(["scalar", "object", "array", "branches"])) if depth else "scalar"
    if kind == "object":
        return draw(specified_objects(depth - 1))
    if kind == "array":
        schema, _ = draw(specified(depth - 1))
        return {"type": "array", "items": schema}, draw(st.lists(values(schema), max_size=3))
    if kind == "branches":
        pairs = [draw(specified_objects(depth - 1, constant=name)) for name in ("x", "y")]
        return {"oneOf": [schema for schema, _ in pairs]}, draw(st.sampled_from(pairs))[1]
    schema, strategy = draw(st.sampled_from(_SCALARS))
    return schema, draw(strategy)


@st.composite
def specified_objects(draw: st.DrawFn, depth: int = 2, constant: str = "") -> tuple[Json, Json]:
    """A schema of an object, and an object that is valid for it."""
    names = draw(st.lists(_KEYS, unique=True, max_size=3))
    properties: Json = {}
    value: Json = {}
    required: list[str] = []
    for name in names:
        properties[name], inner = draw(specified(depth))
        is_present = draw(st.booleans())
        if is_present:
            value[name] = inner
        if is_present and draw(st.booleans()):
            required.append(name)
    if draw(st.booleans()):
        value |= {f"other {name}": draw(_JSON) for name in draw(st.lists(_KEYS, max_size=1))}
    if constant:
        properties["kind"], value["kind"] = {"const": constant}, constant
        required.append("kind")
    schema = {"type": "object", "properties": properties, "required": required}
    return schema, value


def values(schema: Json) -> st.SearchStrategy[Any]:
    """Values that are valid for a schema of these tests."""
    for one, strategy in _SCALARS:
        if one == schema:
            return strategy
    if "const" in schema:
        return st.just(schema["const"])
    if "oneOf" in schema:
        return st.one_of([values(one) for one in schema["oneOf"]])
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), max_size=2)
    required = {name: values(schema["properties"][name]) for name in schema["required"]}
    optional = {
        name: values(one) for name, one in schema["properties"].items() if name not in required
    }
    return st.fixed_dictionaries(required, optional=optional)


@settings(max_examples=60, deadline=None)
@given(specified_objects(3))
def test_any_configuration_survives_the_form(pair: tuple[Json, Json]) -> None:
    """What a form shows makes the same configuration again, and so does what its page sends."""
    schema, configuration = pair
    node = node_of(schema)

    read = configuration_of(node, to_fields(node, configuration))
    assert not read.faults
    assert_same(read.configuration, configuration)
    again = configuration_of(node, dict(sent(controls(node, configuration))))
    assert_same(again.configuration, configuration)


def assert_same(one: Any, other: Any) -> None:
    """Equal, where true is not 1."""
    assert one == other
    assert orjson.dumps(one, option=_SORTED) == orjson.dumps(other, option=_SORTED)


def sent(control: Control) -> Iterator[tuple[str, str]]:
    """The fields that a browser sends of a control."""
    yield from control.hidden
    if control.kind in ("text", "lines", "integer", "number", "json"):
        yield control.name, control.text
    elif control.kind == "boolean" and control.is_ticked:
        yield control.name, "on"
    elif control.kind in ("enum", "branches"):
        chosen = [one.value for one in control.options if one.is_chosen]
        yield control.name, chosen[0] if chosen else ""
    for one in control.children:
        yield from sent(one)
    for option in control.options:
        if option.control is not None:
            yield from sent(option.control)


@settings(max_examples=40, deadline=None)
@given(_JSON, st.dictionaries(_TEXT, _TEXT, max_size=5))
def test_nothing_breaks_a_form(schema: Any, fields: dict[str, str]) -> None:
    """Whatever a connector specifies, and whatever is sent."""
    given_schema = {"type": "object", "properties": {"a": schema}}
    node = node_of(given_schema)
    read = configuration_of(node, fields | {"j/a": "{", "n/a": "9999999"})
    controls(node, read.configuration)


def find(control: Control, title: str) -> Control:
    """The control with this title."""
    found = [one for one in walk(control) if one.title == title]
    assert found, title
    return found[0]


def walk(control: Control) -> Iterator[Control]:
    """A control and those within."""
    yield control
    for one in [*control.children, *(o.control for o in control.options if o.control)]:
        yield from walk(one)


def test_form_of_a_specification() -> None:
    """In the connector's order, with limits and defaults as hints, and no field for a secret."""
    form = controls(node_of(POSTGRES), {})

    assert [one.title for one in form.children[:5]] == [
        "Host",
        "Port",
        "Schemas",
        "Password",
        "Update method",
    ]
    port = find(form, "Port")
    assert (port.kind, port.hint) == ("integer", "From 0 to 65536. Default: 5432.")
    assert find(form, "Password").kind == "secret"
    assert find(form, "Ssl").is_ticked
    assert {one.title for one in form.children if one.is_advanced} == {"Ssl", "Jdbc"}
    assert find(form, "More").kind == "json"
    method = find(form, "Update method")
    assert [(one.label, one.is_chosen) for one in method.options] == [
        ("Log (CDC)", True),
        ("Cursor", False),
    ]


def test_only_the_chosen_branch_counts() -> None:
    """The fields of the others are sent, too, and left out."""
    node = node_of(POSTGRES)
    fields = dict(sent(controls(node, {})))
    fields |= {"v/method/~@0/slot": "aam", "v/host": "db", "v/port": "x"}

    read = configuration_of(node, fields)
    assert read.configuration == {
        "host": "db",
        "port": "x",
        "method": {"method": "CDC", "slot": "aam"},
    }
    read = configuration_of(node, fields | {"b/method": "1"})
    assert read.configuration["method"] == {"method": "Standard"}


def test_rows_are_added_and_removed() -> None:
    """A removed row takes its fields along, and the last one the array."""
    node = node_of(POSTGRES)
    fields = with_row(node, {}, "/schemas")
    assert configuration_of(node, fields).faults[0].path == ("schemas", 0)
    fields = with_row(node, fields | {"v/schemas/0": "one"}, "/schemas")
    fields = without_row(fields | {"v/schemas/1": "two"}, "/schemas/0")
    assert configuration_of(node, fields).configuration["schemas"] == ["two"]
    fields = without_row(fields, "/schemas/0")
    assert "schemas" not in configuration_of(node, fields).configuration
    for nonsense in ("", "/", "/nothing", "/schemas/7", "/host", "/method/~@9/x"):
        assert configuration_of(node, without_row(fields, nonsense)).configuration is not None
        assert configuration_of(node, with_row(node, fields, nonsense)).configuration is not None


def test_errors_are_at_their_fields() -> None:
    """By the paths that the services name; what is within a fold opens it."""
    errors = {"$.port": "must be a whole number.", "$.method.slot": "is missing."}
    form = controls(node_of(POSTGRES), {"port": "x"}, errors)

    assert find(form, "Port").error == "must be a whole number."
    assert find(form, "Slot").error == "is missing."
    assert find(form, "Update method").has_error_inside
    assert not find(form, "Host").has_error_inside


def test_a_secret_is_never_a_field() -> None:
    """Neither by itself nor within what is edited as JSON."""
    schema = {
        "type": "object",
        "properties": {
            "token": {"type": "string", "airbyte_secret": True},
            "tokens": {"type": "array", "items": {"type": "string", "airbyte_secret": True}},
            "map": {"type": "object", "additionalProperties": {"airbyte_secret": True}},
            "both": {"allOf": [{"properties": {"key": {"airbyte_secret": True}}}]},
        },
    }
    node = node_of(schema)
    given_values = {"token": "t", "tokens": ["t"], "map": {"a": "t"}, "both": {"key": "t"}}

    assert to_fields(node, given_values) == {}
    form = controls(node, given_values)
    assert {one.kind for one in form.children} == {"secret"}
    assert not list(sent(form))


def test_invalid_json_is_shown_again() -> None:
    """It is not sent, and the person's text is left as it is."""
    node = node_of(POSTGRES)
    read = configuration_of(node, {"j/more": "{'a': 1}"})

    assert [(one.path, one.message) for one in read.faults] == [(("more",), "must be JSON.")]
    assert find(controls(node, read.configuration), "More").text == "{'a': 1}"


def test_rows_of_rows_are_bounded() -> None:
    """A few fields cannot stand for millions of rows."""
    inner = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
    node = node_of({"type": "object", "properties": {"a": inner}})
    fields = {"n/a": "100"} | {f"n/a/{row}": "100" for row in range(100)}

    read = configuration_of(node, fields)
    assert sum(map(len, read.configuration["a"])) <= 2_000
    assert any("2,000 rows in all" in one.message for one in read.faults)
