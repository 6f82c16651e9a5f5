"""A field is seen wherever its schema declares it: behind references, and in branches."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Instruction
from shared.domain import catalog, drift
from shared.domain.catalog import InvalidCatalog
from tests.unit.catalogs import (
    MOMENT,
    TEXT,
    Json,
    document,
    evolutions,
    histories,
    stream,
    with_references,
)

INT: Json = {"type": ["null", "integer"]}
FIELDS: Json = {"id": TEXT, "updated": MOMENT}


def record(**fields: Any) -> Json:
    """An object with these fields."""
    return {"type": ["null", "object"], "properties": fields}


def places(address: Any, *, field: Any = None, **members: Any) -> Json:
    """A stream whose `address` refers to a definition."""
    made = stream("places", FIELDS | {"address": field or {"$ref": "#/definitions/address"}})
    made["stream"]["jsonSchema"] |= {"definitions": {"address": address}} | members
    return made


def changes(before: Json, after: Json) -> list[tuple[str, tuple[str, ...]]]:
    """Kind and path of each difference."""
    found = drift.diff(document(before), document(after))
    return [(change.kind, change.path) for change in found]


def fields_of(pair: Json) -> dict[str, Any]:
    """The top-level fields, each with its schema."""
    fields = catalog.parse(document(pair)).streams[0].stream.fields()
    return {name: orjson.loads(bytes(memoryview(raw))) for name, raw in (fields or {}).items()}


# -- a reference means what it names


@given(evolutions(name="a"), st.integers(0, 9999), st.integers(0, 9999))
def test_reference_equals_the_inlined_schema(pair: tuple[Json, Json], one: int, other: int) -> None:
    """On either side and in any form: the same fields, the same changes."""
    before, after = pair
    expected = drift.diff(document(before), document(after))
    for old in (before, with_references(before, one)):
        for new in (after, with_references(after, other)):
            assert drift.diff(document(old), document(new)) == expected
    assert drift.diff(document(before), document(with_references(before, one))) == []
    assert fields_of(with_references(before, one)).keys() == fields_of(before).keys()


@given(histories(), st.integers(0, 9999), st.integers(0, 9999), st.data())
def test_heal_with_references_equals_heal_inlined(
    history: tuple[list[Json], list[Json]], one: int, other: int, data: st.DataObject
) -> None:
    """Change by change; referenced definitions are copied along."""
    before = [with_references(pair, one) for pair in history[0]]
    after = [with_references(pair, other) for pair in history[1]]
    head, offered = catalog.parse(document(*before)), document(*after)
    every = [change for change, _ in healing.plan_changes(head, offered)]
    chosen = [change for change in every if data.draw(st.booleans())]
    try:
        result = healing.heal(head, offered, [Instruction(change, "apply") for change in chosen])
    except healing.HealImpossible:
        return
    left = {
        (c.stream, c.kind, c.path)
        for c, _ in healing.plan_changes(catalog.parse(result.catalog), offered)
    }
    open_ = {(c.stream, c.kind, c.path) for c in every if c not in chosen}
    if any(effect.code == "field_kept_whole" for effect in result.effects):
        assert left >= open_
    else:
        assert left == open_


@pytest.mark.parametrize(
    "pointer, members",
    [
        ("#/definitions/address", {}),
        ("#/$defs/a~1b~0c", {"$defs": {"a/b~c": record(city=TEXT)}}),
        ("#/$defs/50%25%20off", {"$defs": {"50% off": record(city=TEXT)}}),
        ("#/$defs/list/1", {"$defs": {"list": [{}, record(city=TEXT)]}}),
        (
            "#/$defs/twice",
            {"$defs": {"twice": {"$ref": "#/$defs/once"}, "once": record(city=TEXT)}},
        ),
        ("#there", {"$defs": {"x": record(city=TEXT) | {"$anchor": "there"}}}),
        ("places.json#/definitions/address", {"$id": "places.json"}),
        ("#/properties/other", {}),
    ],
)
def test_every_kind_of_reference_is_followed(pointer: str, members: Json) -> None:
    """JSON pointers with escapes, through lists, to references; anchors; the schema's own id."""
    old = places(record(city=TEXT), field={"$ref": pointer}, **members)
    new = places(record(city=TEXT), field=record(city=INT), **members)
    if pointer == "#/properties/other":
        for one in (old, new):
            one["stream"]["jsonSchema"]["properties"]["other"] = record(city=TEXT)
    assert changes(old, new) == [("field_retyped", ("address", "city"))]


def test_keywords_beside_a_reference_count() -> None:
    """A description changes nothing, properties add fields."""
    plain = places(record(city=TEXT))
    described = places(
        record(city=TEXT), field={"$ref": "#/definitions/address", "description": "Where."}
    )
    assert changes(plain, described) == []
    more = places(record(city=TEXT), field={"$ref": "#/definitions/address"} | record(zip=TEXT))
    assert changes(plain, more) == [("field_added", ("address", "zip"))]


@pytest.mark.parametrize(
    "reference", ["#/definitions/gone", "https://example.com/x.json", "#/a/b/c"]
)
def test_dangling_reference_is_its_own_type(reference: str) -> None:
    """It is compared by its text."""
    old, new = (places({}, field={"$ref": one}) for one in (reference, reference + "x"))
    assert changes(old, old) == []
    assert changes(old, new) == [("field_retyped", ("address",))]


def test_recursive_schema_ends() -> None:
    """Its content is listed once, however deep the records may be."""

    def tree(**more: Any) -> Json:
        node = record(
            name=TEXT, parts={"type": "array", "items": {"$ref": "#/definitions/address"}}
        )
        node["properties"] |= more
        return places(node)

    assert changes(tree(), tree()) == []
    assert changes(tree(), tree(label=TEXT)) == [("field_added", ("address", "label"))]
    loop = places({"$ref": "#/definitions/address"})
    assert changes(loop, loop) == []
    root = places(record(city=TEXT), field={"$ref": "#"})
    assert "address" in fields_of(root)


def test_exponential_references_are_bounded() -> None:
    """Each definition uses the next one four times: a change at the end is still found."""

    def doubling(end: Json) -> Json:
        made = places({})
        definitions = {
            f"d{level}": record(
                **{name: {"$ref": f"#/definitions/d{level + 1}"} for name in "abcd"}
            )
            for level in range(40)
        }
        made["stream"]["jsonSchema"]["definitions"] = definitions | {"d40": end}
        made["stream"]["jsonSchema"]["properties"] |= {
            f"f{number}": {"$ref": "#/definitions/d0"} for number in range(50)
        }
        return made

    began = time.process_time()
    old, new = doubling(TEXT), doubling(INT)
    assert changes(old, old) == []
    assert {kind for kind, _ in changes(old, new)} == {"field_retyped"}
    assert time.process_time() - began < 5


def test_referenced_values_do_not_multiply() -> None:
    """An enum of 20 KB in thousands of fields: sizes stay bounded, and its type is still read."""

    def listed(basic: str) -> Json:
        made = places({})
        values = [f"value-{number:04}" for number in range(1_500)]
        made["stream"]["jsonSchema"]["definitions"]["code"] = {"type": basic, "enum": values}
        made["stream"]["jsonSchema"]["properties"] |= {
            f"f{number}": {"$ref": "#/definitions/code"} for number in range(5_000)
        }
        return made

    assert len(orjson.dumps(fields_of(listed("string")))) < 5_000_000
    found = changes(listed("string"), listed("integer"))
    assert {kind for kind, _ in found} == {"field_retyped"}
    assert len(found) == 5_000


# -- wherever fields are declared


@pytest.mark.parametrize(
    "form",
    [
        lambda inner: {"type": "array", "items": inner},
        lambda inner: {"type": "array", "items": [inner]},
        lambda inner: {"type": "array", "prefixItems": [inner]},
        lambda inner: {"type": "object", "additionalProperties": inner},
        lambda inner: {"type": "object", "patternProperties": {"^c_": inner}},
        lambda inner: {"oneOf": [inner, {"type": "null"}]},
        lambda inner: {"anyOf": [{"type": "array", "items": inner}, {"type": "null"}]},
        lambda inner: {"allOf": [{"type": "object"}, inner]},
        lambda inner: {"allOf": [{"allOf": [{"oneOf": [inner]}]}]},
        lambda inner: {"type": "object", "if": {}, "then": inner},
        lambda inner: {"type": "object", "if": {}, "then": {}, "else": inner},
    ],
)
@pytest.mark.parametrize("by_reference", [False, True])
def test_nested_change_is_a_change_of_the_field(form: Any, by_reference: bool) -> None:
    """Whether the changed schema is in place or referenced."""

    def holding(inner: Json) -> Json:
        if by_reference:
            return places(inner, field=form({"$ref": "#/definitions/address"}))
        return places({}, field=form(inner))

    old = holding(record(city=TEXT, age=INT))
    for inner, kind, name in (
        (record(age=INT), "field_removed", "city"),
        (record(city=TEXT, age=TEXT), "field_retyped", "age"),
        (record(city=TEXT, age=INT, zip=TEXT), "field_added", "zip"),
    ):
        [(found, path)] = changes(old, holding(inner))
        assert (found, path[0], path[-1]) == (kind, "address", name)
        head = catalog.parse(document(old))
        [(change, _)] = healing.plan_changes(head, document(holding(inner)))
        result = healing.heal(head, document(holding(inner)), [Instruction(change, "apply")])
        assert orjson.loads(result.catalog)["streams"][0] == holding(inner)


def rooted(schema: Json, **config: Any) -> Json:
    """A stream with this schema."""
    made = stream(
        "events", **({"syncMode": "full_refresh", "destinationSyncMode": "overwrite"} | config)
    )
    made["stream"] |= {"sourceDefinedCursor": False, "defaultCursorField": []}
    made["config"]["cursorField"] = []
    made["stream"]["jsonSchema"] = schema
    return made


BRANCHED = [
    lambda fields: {
        "type": "object",
        "oneOf": [{"properties": fields}, {"properties": {"id": TEXT}}],
    },
    lambda fields: {"type": "object", "allOf": [{"properties": fields}]},
    lambda fields: {"$ref": "#/definitions/row", "definitions": {"row": record(**fields)}},
    lambda fields: {
        "anyOf": [{"$ref": "#/$defs/row"}],
        "$defs": {"row": {"allOf": [record(**fields)]}},
    },
    lambda fields: {"type": "object", "properties": {"id": TEXT}, "then": {"properties": fields}},
]


@pytest.mark.parametrize("form", BRANCHED)
def test_stream_without_properties_is_handled_like_any_other(form: Any) -> None:
    """Changes, severities, incompatibilities, validation and heals agree on its fields."""
    key: Json = {"destinationSyncMode": "overwrite_dedup", "primaryKey": [["id"]]}
    old = rooted(form({"id": TEXT, "a": TEXT, "b": TEXT}), **key)
    new = rooted(form({"id": TEXT, "a": INT}), **key)
    head = catalog.parse(document(old))
    catalog.validate(head)
    assert changes(old, new) == [("field_retyped", ("a",)), ("field_removed", ("b",))]
    assert [p.code for p in healing.incompatibilities(head, document(new))] == ["field_gone"]
    planned = healing.plan_changes(head, document(new))
    assert {verdict.severity.value for _, verdict in planned} == {"needs_review"}
    healed = healing.heal(
        head, document(new), [Instruction(change, "apply") for change, _ in planned]
    )
    assert orjson.loads(healed.catalog)["streams"][0]["stream"] == new["stream"]

    partly = healing.heal(head, document(new), [Instruction(planned[0][0], "apply")])
    assert partly.catalog == document(old)
    assert [effect.code for effect in partly.effects] == ["field_kept_whole"]

    keyless = rooted(form({"id": TEXT}), **(key | {"primaryKey": [["gone"]]}))
    keyless["stream"]["sourceDefinedPrimaryKey"] = []
    with pytest.raises(InvalidCatalog) as invalid:
        catalog.validate(catalog.parse(document(keyless)))
    assert invalid.value.code == "unknown_field"


@pytest.mark.parametrize("form", BRANCHED[:4])
def test_field_selection_needs_properties(form: Any) -> None:
    """Airbyte cannot select fields without them."""
    picked = rooted(form({"id": TEXT}), fieldSelectionEnabled=True)
    picked["config"]["selectedFields"] = [{"fieldPath": ["id"]}]
    with pytest.raises(InvalidCatalog) as invalid:
        catalog.validate(catalog.parse(document(picked)))
    assert invalid.value.code == "invalid_catalog"


def test_applied_field_brings_its_definitions() -> None:
    """Even if the source changed one, and another field keeps the old one."""
    old = places(record(city=TEXT))
    new = deepcopy(places(record(city=INT, zip=TEXT)))
    new["stream"]["jsonSchema"]["properties"]["billing"] = {"$ref": "#/definitions/address"}
    head = catalog.parse(document(old))
    planned = [change for change, _ in healing.plan_changes(head, document(new))]
    [billing] = [change for change in planned if change.path == ("billing",)]
    result = healing.heal(head, document(new), [Instruction(billing, "apply")])
    left = healing.plan_changes(catalog.parse(result.catalog), document(new))
    assert [change for change, _ in left] == [c for c in planned if c is not billing]
    definition = orjson.loads(result.catalog)["streams"][0]["stream"]["jsonSchema"]
    assert definition["properties"]["billing"] == record(city=INT, zip=TEXT)
    assert definition["properties"]["address"] == {"$ref": "#/definitions/address"}
    assert definition["definitions"] == {"address": record(city=TEXT)}


def test_applied_fields_with_references_do_not_affect_each_other() -> None:
    """`alike` becomes a reference to a definition of both sides; the others' definitions differ."""
    names = [f"f{number}" for number in range(20)]

    def referring(alike: Json, target: Json) -> Json:
        fields = {name: {"$ref": f"#/definitions/{name}"} for name in names}
        made = stream("places", FIELDS | {"alike": alike} | fields)
        made["stream"]["jsonSchema"]["definitions"] = dict.fromkeys(names, target) | {"same": TEXT}
        return made

    old, new = referring(INT, TEXT), referring({"$ref": "#/definitions/same"}, INT)
    head = catalog.parse(document(old))
    planned = [change for change, _ in healing.plan_changes(head, document(new))]
    assert [change.path for change in planned] == sorted((name,) for name in ["alike", *names])
    result = healing.heal(head, document(new), [Instruction(c, "apply") for c in planned[:-1]])
    left = healing.plan_changes(catalog.parse(result.catalog), document(new))
    assert [change for change, _ in left] == planned[-1:]


def test_field_schema_can_be_read_by_path() -> None:
    """With references resolved, and the names of all nested fields."""
    made = places(record(city=TEXT, tags={"type": "array", "items": {"$ref": "#/definitions/tag"}}))
    made["stream"]["jsonSchema"]["definitions"]["tag"] = record(label={"multipleOf": 0.01})
    [pair] = catalog.scan(document(made))
    whole = record(city=TEXT, tags={"type": "array", "items": record(label={"multipleOf": 0.01})})
    assert drift.schema_at(bytes(pair), ("address",)) == whole
    assert drift.schema_at(bytes(pair), ("address", "tags", "[]", "label")) == {"multipleOf": 0.01}
    assert drift.schema_at(bytes(pair), ("address", "gone")) == {}
    assert drift.names_at(bytes(pair), ("address",)) == {"city", "tags", "label"}
    assert drift.names_at(bytes(pair), ("address", "tags", drift.ITEM)) == {"label"}

    values = {"type": "object", "additionalProperties": record(a=TEXT)}
    values["patternProperties"] = {"^x": record(b=TEXT)}
    [pair] = catalog.scan(document(places({}, field=values)))
    assert drift.names_at(bytes(pair), ("address", drift.VALUE)) == {"a"}
    assert drift.names_at(bytes(pair), ("address", "{^x}")) == {"b"}


def test_change_of_an_unused_definition_is_no_change() -> None:
    unused = places(record(city=TEXT))
    unused["stream"]["jsonSchema"]["definitions"]["unused"] = record(ssn=TEXT)
    assert changes(places(record(city=TEXT)), unused) == []
    twice = places(record(city=TEXT))
    twice["stream"]["jsonSchema"]["properties"]["billing"] = {"$ref": "#/definitions/address"}
    grown = deepcopy(twice)
    grown["stream"]["jsonSchema"]["definitions"]["address"] = record(city=INT)
    assert changes(twice, grown) == [
        ("field_retyped", ("address", "city")),
        ("field_retyped", ("billing", "city")),
    ]
