"""Configurations merged, completed and validated by a connector's specification."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import specification as specifications
from shared.domain.specification import Specification

Json = dict[str, Any]
SECRET: Json = {"type": "string", "airbyte_secret": True}
MASK = "**********"


def specified(schema: Json) -> Specification:
    """A specification."""
    return specifications.parse(json.dumps(schema).encode())


def an_object(*required: str, **properties: Json) -> Json:
    """A schema of an object."""
    return {"type": "object", "required": list(required), "properties": properties}


def variant(name: str, *required: str, **properties: Json) -> Json:
    """A schema that a constant tells apart."""
    return an_object(*required, auth_type={"type": "string", "const": name}, **properties)


BASIC = variant("basic", "user", "password", user={"type": "string"}, password=SECRET)
TOKEN = variant("token", "token", token=SECRET)
EITHER = specified(an_object("auth", auth={"type": "object", "oneOf": [BASIC, TOKEN]}))


def sentences(specification: Specification, order: Json, document: Json | None = None) -> list[str]:
    """The faults of a configuration."""
    made = specifications.complete(specification, order, document or {})
    return [fault.sentence for fault in made.faults]


# What is secret


@pytest.mark.parametrize(
    "schema, paths",
    [
        (an_object(a=SECRET, b={"type": "string"}), ["$.a"]),
        ({"oneOf": [an_object(a=SECRET), an_object(b=SECRET)]}, ["$.a", "$.b"]),
        (an_object(a={"type": "array", "items": SECRET}), ["$.a[*]"]),
        (an_object(a={"type": "array", "airbyte_secret": True}), ["$.a"]),
        (an_object(a={"type": "array", "items": {"anyOf": [an_object(b=SECRET)]}}), ["$.a[*].b"]),
        (an_object(a={"type": "object", "additionalProperties": SECRET}), ["$.a.*"]),
        (an_object(a={"patternProperties": {"^x": SECRET}}), ["$.a.*"]),
        (an_object(a={"allOf": [{"oneOf": [an_object(b=an_object(c=SECRET))]}]}), ["$.a.b.c"]),
        (
            {"definitions": {"k": SECRET}, **an_object(a={"$ref": "#/definitions/k"})},
            ["$.a"],
        ),
        (an_object(a=SECRET | {"airbyte_secret": False}), []),
    ],
)
def test_secret_paths(schema: Json, paths: list[str]) -> None:
    """In variants, arrays, members without names, and behind references."""
    found = specified(schema)

    assert [specifications.json_path(path) for path in found.secrets] == paths


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_at_a_secret_path_is_refused(value: Any) -> None:
    """Whatever it is, and in the variant that is not chosen, too."""
    order = {"auth": {"auth_type": "basic", "token": value}}

    (fault,) = specifications.faults_of_order(EITHER, order)

    assert (fault.type, fault.path) == ("secret_in_order", ("auth", "token"))
    assert fault.sentence.startswith("$.auth.token is a secret")


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.dictionaries(st.text(), st.text()))
)
def test_faults_quote_no_value(configuration: Json) -> None:
    """And of the names only plain words."""
    for text in sentences(EITHER, configuration):
        for name in configuration:
            assert re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII) or f".{name} " not in text


# Merging and converting


@pytest.mark.parametrize(
    "schema, text, value",
    [
        ({"type": "integer"}, "5432", 5432),
        ({"type": "integer"}, "-1", -1),
        ({"type": ["integer", "null"]}, "7", 7),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "number"}, "3", 3),
        ({"type": "boolean"}, "TRUE", True),
        ({"type": "boolean"}, "0", False),
        ({"type": "array"}, '["a"]', ["a"]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": ["string", "integer"]}, "5432", "5432"),
        ({"type": "string"}, "true", "true"),
        ({}, "5", "5"),
    ],
)
def test_text_is_converted_as_the_specification_wants(schema: Json, text: str, value: Any) -> None:
    """Only where text is not allowed."""
    made = specifications.complete(specified(an_object(a=schema)), {}, {"a": text})

    assert (made.faults, made.configuration) == ((), {"a": value})


@pytest.mark.parametrize(
    "text", ["5.0", "0x5", "1e3", "\N{ARABIC-INDIC DIGIT FIVE}", "5 ", "9" * 400, "nan"]
)
def test_text_that_is_no_integer_is_refused(text: str) -> None:
    """By the type, without the text."""
    assert sentences(specified(an_object(a={"type": "integer"})), {}, {"a": text}) == [
        "$.a must be of the type integer."
    ]


def test_names_match_without_regard_to_case() -> None:
    """In a document; an exact name wins, and two of one name are refused."""
    specification = specified(an_object(apiKey=SECRET, apikey={"type": "string"}, inTo=an_object()))
    made = specifications.complete(specification, {}, {"apikey": "a", "INTO": {}})
    assert made.configuration == {"apikey": "a", "inTo": {}}
    (fault,) = specifications.complete(specification, {}, {"into": {}, "INTO": {}}).faults
    assert (fault.type, fault.path) == ("conflict", ("inTo",))
    assert sentences(specification, {"INTO": {}}) == [
        "$.INTO is not in the connector's specification; did you mean 'inTo'?"
    ]


def test_orders_value_counts_where_both_have_one() -> None:
    """Objects are merged, and arrays item by item."""
    schema = an_object(
        a=an_object(b={"type": "integer"}, c=SECRET),
        l={"type": "array", "items": an_object(n={"type": "string"}, v=SECRET)},
    )
    order: Json = {"a": {"b": 1}, "l": [{"n": "x"}, {"n": "y"}]}
    document = {"a": {"b": "2", "c": "s"}, "l": {"0": {"v": "s0"}, "1": {"v": "s1"}}}

    made = specifications.complete(specified(schema), order, document)

    assert made.faults == ()
    assert made.configuration == {
        "a": {"b": 1, "c": "s"},
        "l": [{"n": "x", "v": "s0"}, {"n": "y", "v": "s1"}],
    }
    assert order == {"a": {"b": 1}, "l": [{"n": "x"}, {"n": "y"}]}


# Variants, constants and defaults


@pytest.mark.parametrize(
    "auth, complete",
    [
        ({"auth_type": "token", "token": "t"}, {"auth_type": "token", "token": "t"}),
        ({"token": "t"}, {"auth_type": "token", "token": "t"}),
        (
            {"user": "u", "password": "p"},
            {"auth_type": "basic", "user": "u", "password": "p"},
        ),
    ],
)
def test_variant_is_told_apart(auth: Json, complete: Json) -> None:
    """By its constant, or else by the only one that the members fit."""
    made = specifications.complete(EITHER, {}, {"auth": auth})

    assert (made.faults, made.configuration) == ((), {"auth": complete})


@pytest.mark.parametrize(
    "auth, fault",
    [
        ({"auth_type": "tokn"}, "$.auth.auth_type must be 'basic' or 'token'."),
        (
            {},
            "$.auth.auth_type is missing: it says which variant this is, 'basic' or 'token'.",
        ),
        ({"auth_type": "token"}, "$.auth.token is missing."),
        ("text", "$.auth must be of the type object."),
        (
            {"auth_type": "token", "token": "t", "usr": "u"},
            "$.auth.usr is not in the connector's specification.",
        ),
    ],
)
def test_unclear_variant_is_named(auth: Any, fault: str) -> None:
    assert sentences(EITHER, {}, {"auth": auth})[0] == fault


def test_constants_and_defaults_of_required_members_are_filled_in() -> None:
    """Hidden ones too; a secret never, and an optional default is left to the connector."""
    schema = an_object(
        "hidden",
        "key",
        hidden={"type": "string", "default": "h", "airbyte_hidden": True},
        key=SECRET | {"default": "k"},
        kind={"const": "c"},
        optional={"type": "integer", "default": 5},
    )

    made = specifications.complete(specified(schema), {}, {})

    assert made.configuration == {"hidden": "h", "kind": "c"}
    assert [fault.sentence for fault in made.faults] == ["$.key is missing."]


def test_rules_that_only_the_whole_has_are_checked() -> None:
    """Such as dependencies between members."""
    schema = an_object(a={"type": "string"}, b={"type": "string"})
    schema["dependencies"] = {"a": ["b"]}

    assert sentences(specified(schema), {"a": "x"}) == [
        "$ breaks the specification's rule `required`."
    ]


def test_object_without_names_takes_any() -> None:
    """A manifest has such members."""
    free = specified(an_object(any={"type": "object"}, of={"additionalProperties": SECRET}))

    assert sentences(free, {"any": {"x": [1]}}, {"of": {"x": "s"}}) == []
    assert sentences(free, {}, {"any": {"_secret": 1}}) == [
        "$.any._secret is a name that Airbyte uses for its own members."
    ]


# Bounds


def test_pattern_cannot_block_the_process() -> None:
    """One that backtracks without end breaks off."""
    schema = an_object(a={"type": "string", "pattern": r"^(?=a)(a|aa)+$\1"})
    started = time.monotonic()

    assert sentences(specified(schema), {"a": "a" * 5000 + "!"})

    assert time.monotonic() - started < 20


def test_large_configuration_takes_no_long_time() -> None:
    """As large as an order may be, by a specification with many parts."""
    branches = [an_object(**{f"m{one}_{two}": SECRET for two in range(20)}) for one in range(90)]
    schema = an_object(
        numbers={"type": "array", "items": {"type": "integer", "minimum": 0}},
        free={"type": "object", "additionalProperties": {"anyOf": [{"type": "integer"}]}},
    )
    schema["anyOf"] = branches
    order: Json = {"numbers": [1] * 15_000, "free": {f"n{number}": 1 for number in range(4_000)}}
    started = time.process_time()

    specification = specified(schema)
    assert specifications.faults_of_order(specification, order) == ()
    assert sentences(specification, order) == []

    assert time.process_time() - started < 5


def test_rule_that_is_invalid_is_left_to_airbyte() -> None:
    """The others still count."""
    schema = an_object(a={"type": "string", "pattern": "(", "minLength": 3})

    assert sentences(specified(schema), {"a": "x"}) == ["$.a must have at least 3 characters."]
    assert sentences(specified(schema), {"a": "xyz"}) == []


@pytest.mark.parametrize("raw", [b"", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_schema_is_refused(raw: bytes) -> None:
    with pytest.raises(specifications.InvalidSpecification):
        specifications.parse(raw)


# Leaves


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_overlay_of_all_leaves_is_what_is_given(held: Json, offered: Json) -> None:
    """With every other leaf dropped; and a configuration over itself is unchanged."""
    before = json.dumps([held, offered])
    dropped = set(specifications.leaves(held)) - set(specifications.leaves(offered))

    whole = specifications.overlaid(held, offered, lambda _at, _old, new: new, dropped=dropped)
    same = specifications.overlaid(held, held, lambda _at, old, _new: old)

    assert specifications.leaves(whole).items() >= specifications.leaves(offered).items()
    assert same == held
    assert json.dumps([held, offered]) == before


@pytest.mark.parametrize(
    "schema, pointer, is_restored",
    [
        (an_object(a=SECRET), "a", True),
        (an_object(a=an_object(b=SECRET)), "a/b", True),
        (an_object(a={"oneOf": [an_object(b=SECRET)]}), "a/b", True),
        (an_object(a={"oneOf": [an_object(b=SECRET | {"pattern": "^k"})]}), "a/b", False),
        (an_object(a={"type": "array", "items": an_object(b=SECRET)}), "a/0/b", False),
        (an_object(a=SECRET) | {"oneOf": [an_object(c=SECRET)]}, "a", False),
        (an_object(a={"type": "string"}), "a", False),
    ],
)
def test_masks_that_airbyte_restores(schema: Json, pointer: str, is_restored: bool) -> None:
    """In objects and fitting variants, and not in arrays or beside variants."""
    assert specifications.is_restorable(specified(schema), pointer, MASK) is is_restored
