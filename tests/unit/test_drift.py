"""Changes of a source's meaning: each once, in a stable order, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import catalog, drift
from shared.domain.catalog import InvalidCatalog, StreamId
from tests.unit.catalogs import (
    CATALOGS,
    MOMENT,
    SCHEMAS,
    TEXT,
    Json,
    document,
    picked,
    shuffled,
    stream,
)

Path = tuple[str, ...]
ORDERS = StreamId(None, "orders")


def diffs(before: Json, after: Json) -> list[tuple[str, Path]]:
    """Kind and path of what changed in one stream."""
    return [(c.kind, c.path) for c in drift.diff(document(before), document(after))]


def fields(before: Json, after: Json) -> list[tuple[str, Path]]:
    """Kind and path of what changed between two sets of fields."""
    return diffs(stream(fields=before), stream(fields=after))


def retyped(before: Any, after: Any) -> tuple[Any, Any] | None:
    """The types before and after of one field, or None where its type is the same."""
    changes = drift.diff(
        document(stream(fields={"x": before})), document(stream(fields={"x": after}))
    )
    if not changes:
        return None
    assert [(c.kind, c.path) for c in changes] == [("field_retyped", ("x",))]
    return changes[0].before, changes[0].after


# -- laws


@given(CATALOGS, st.integers(0, 99))
def test_equal_sources_have_no_changes(pairs: list[Json], seed: int) -> None:
    """The order of streams, keys and types does not count; nor does any configuration."""
    other = shuffled({"streams": pairs}, seed)["streams"]
    for pair in other:
        pair["config"] = {"selected": False}
    assert drift.diff(document(*pairs), document(*other)) == []


@given(CATALOGS, CATALOGS, st.integers(0, 99))
def test_changes_are_stable_and_reversible(
    before: list[Json], after: list[Json], seed: int
) -> None:
    """The same list whatever the order of the documents; backwards it is the opposite."""
    changes = drift.diff(document(*before), document(*after))
    again = drift.diff(
        document(*shuffled({"s": before}, seed)["s"]), document(*shuffled({"s": after}, seed)["s"])
    )
    back = drift.diff(document(*after), document(*before))

    assert again == changes
    opposite = {"added": "removed", "removed": "added"}
    turned = [
        (c.stream, c.path, "_".join(opposite.get(word, word) for word in c.kind.split("_")))
        for c in back
    ]
    assert sorted(turned, key=repr) == sorted(
        ((c.stream, c.path, c.kind) for c in changes), key=repr
    )
    for c, b in zip(
        sorted(changes, key=lambda c: repr((c.stream, c.path, c.before, c.after))),
        sorted(back, key=lambda c: repr((c.stream, c.path, c.after, c.before))),
        strict=True,
    ):
        assert (c.before, c.after) == (b.after, b.before)


@given(CATALOGS, CATALOGS)
def test_changes_round_trip_as_json(before: list[Json], after: list[Json]) -> None:
    changes = drift.diff(document(*before), document(*after))
    body = msgspec.json.encode(changes)
    assert [set(c) for c in orjson.loads(body)] == [
        {"kind", "stream", "path", "before", "after"} for _ in changes
    ]


@given(SCHEMAS, SCHEMAS)
def test_changes_exist_only_with_different_hashes(one: Any, other: Any) -> None:
    before, after = stream(fields={"x": one}), stream(fields={"x": other})
    hashes = {catalog.canonical_hash(s) for s in catalog.scan(document(before, after))}
    if diffs(before, after):
        assert len(hashes) == 2


def test_snapshots_and_catalogs_can_be_compared() -> None:
    """A snapshot is compared with a catalog without writing either as a document."""
    before, after = document(stream("a"), stream("b")), document(stream("b"), stream("c"))
    expected = [
        drift.Change("stream_removed", StreamId(None, "a")),
        drift.Change("stream_added", StreamId(None, "c")),
    ]
    assert drift.diff(before, after) == expected
    assert drift.diff(catalog.scan(before), catalog.parse(after)) == expected


# -- streams


def test_stream_in_another_namespace_is_another_stream() -> None:
    before, after = document(stream(namespace="a")), document(stream(namespace="b"))
    assert [(c.kind, c.stream.namespace) for c in drift.diff(before, after)] == [
        ("stream_removed", "a"),
        ("stream_added", "b"),
    ]


def test_changes_of_key_cursor_and_modes() -> None:
    """Airbyte's own diff ignores them; the order of a key's fields does not count."""
    offer = {
        "sourceDefinedPrimaryKey": [["total"], ["id"]],
        "defaultCursorField": ["id"],
        "supportedSyncModes": ["full_refresh"],
    }
    changes = drift.diff(document(stream()), document(stream(offer=offer)))
    assert [(c.kind, c.before, c.after) for c in changes] == [
        ("primary_key_changed", [("id",)], [("id",), ("total",)]),
        (
            "cursor_changed",
            {"field": ("updated",), "source_defined": True},
            {"field": ("id",), "source_defined": True},
        ),
        ("sync_modes_changed", ["full_refresh", "incremental"], ["full_refresh"]),
    ]
    turned = {"sourceDefinedPrimaryKey": [["id"], ["total"]]}
    assert diffs(stream(offer=offer | turned), stream(offer=offer)) == []


# -- fields


def test_nested_fields_have_paths() -> None:
    """A name with a dot is one step; a field called like a keyword is a field."""

    def inside(**inner: Any) -> Json:
        return {"story": {"type": ["null", "object"], "properties": inner}, "a.b": TEXT}

    assert fields(inside(instagram_actor_id=TEXT), inside(instagram_user_id=TEXT)) == [
        ("field_removed", ("story", "instagram_actor_id")),
        ("field_added", ("story", "instagram_user_id")),
    ]
    assert fields(inside(type=TEXT, properties=TEXT), inside(type=MOMENT, items=TEXT)) == [
        ("field_added", ("story", "items")),
        ("field_removed", ("story", "properties")),
        ("field_retyped", ("story", "type")),
    ]


def test_renamed_parent_is_one_change() -> None:
    """`form-submission` became `form-submissions`, with all that is in it."""
    inner = {"type": "object", "properties": {"a": TEXT, "b": {"properties": {"c": TEXT}}}}
    assert fields({"form-submission": inner}, {"form-submissions": inner}) == [
        ("field_removed", ("form-submission",)),
        ("field_added", ("form-submissions",)),
    ]
    up = {"engagement": {"type": "object", "properties": {"engagement_id": TEXT}}}
    down = {"engagement": {"type": "object"}, "engagement_id": TEXT}
    assert fields(up, down) == [
        ("field_removed", ("engagement", "engagement_id")),
        ("field_added", ("engagement_id",)),
    ]


def test_object_that_becomes_a_scalar_is_retyped() -> None:
    """Its former fields are no changes of their own."""
    assert fields({"x": {"type": "object", "properties": {"a": TEXT}}}, {"x": TEXT}) == [
        ("field_retyped", ("x",))
    ]


def test_items_of_arrays_are_compared() -> None:
    """Also their fields, and also where the items were not described before."""

    def items(inner: Any) -> Json:
        return {"x": {"type": "array", "items": inner}}

    assert fields(items({"type": "string"}), items({"type": "integer"})) == [
        ("field_retyped", ("x", "[]"))
    ]
    assert fields(
        items({"type": "object", "properties": {"a": TEXT}}),
        items({"type": "object", "properties": {"b": TEXT}}),
    ) == [("field_removed", ("x", "[]", "a")), ("field_added", ("x", "[]", "b"))]
    assert fields({"x": {"type": "array"}}, items(TEXT)) == [("field_retyped", ("x", "[]"))]


@pytest.mark.parametrize(
    "one,other",
    [
        ({"type": ["null", "string"]}, {"type": ["string", "null"]}),
        ({"type": "string"}, {"type": ["string"]}),
        ({"type": "string", "description": "a"}, {"type": "string", "title": "b"}),
        ({"type": "string", "enum": ["a"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": ["null", "string"]}),
        (
            {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        ),
        ({"allOf": [{"type": "string"}, {"format": "date"}]}, {"type": "string", "format": "date"}),
        ({"type": "object", "properties": {"a": TEXT}}, {"properties": {"a": TEXT}}),
        ({}, True),
        ({"type": "object", "oneOf": [{"required": ["a"]}]}, {"type": "object"}),
    ],
)
def test_equivalent_types(one: Any, other: Any) -> None:
    """However a connector writes it."""
    assert retyped(one, other) is None


@pytest.mark.parametrize(
    "one,other",
    [
        ({"type": "string"}, {"type": ["null", "string"]}),
        ({"type": "integer"}, {"type": "number"}),
        ({"type": "string"}, {"type": "string", "format": "date-time"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}),
        (MOMENT, MOMENT | {"airbyte_type": "timestamp_without_timezone"}),
        (
            MOMENT | {"airbyte_type": "timestamp_with_timezone"},
            MOMENT | {"airbyte_type": "timestamp_without_timezone"},
        ),
        ({"$ref": "WellKnownTypes.json#/definitions/String"}, {"type": "string"}),
        ({"type": "string"}, {}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string"}),
    ],
)
def test_different_types(one: Any, other: Any) -> None:
    """A format is part of the type: adding one took production down."""
    there = retyped(one, other)
    assert there is not None
    assert there[0] != there[1]
    assert retyped(other, one) == there[::-1]


def test_unreadable_schema_is_one_change() -> None:
    """Rather than every field removed."""
    before = document(stream(fields={"xx": TEXT}))
    with pytest.raises(InvalidCatalog, match="UTF-8"):
        drift.diff(before, before.replace(b"xx", b"x\xff"))
    assert diffs(stream(), stream(offer={"jsonSchema": None}))[0] == ("field_removed", ("id",))


def test_types_are_shown_as_json_schema() -> None:
    assert retyped({"type": ["string", "null"]}, MOMENT) == (
        {"type": ["null", "string"]},
        {"type": ["null", "string"], "format": "date-time"},
    )
    assert retyped({"oneOf": [MOMENT, {"type": "integer"}]}, {}) == (
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer"},
                {"type": "null"},
            ]
        },
        {},
    )


def test_union_does_not_hide_fields_with_a_similar_name() -> None:
    """A union `foo` does not affect its sibling `foobar`, and its branches' fields are compared."""

    def union(*names: str) -> Json:
        return {"oneOf": [{"type": "object", "properties": {name: TEXT}} for name in names]}

    assert fields(
        {"foo": union("a", "b"), "foobar": TEXT, "food": {"properties": {"x": TEXT}}},
        {"foo": union("a", "c"), "food": {"properties": {"y": TEXT}}},
    ) == [
        ("field_removed", ("foo", "b")),
        ("field_added", ("foo", "c")),
        ("field_removed", ("foobar",)),
        ("field_removed", ("food", "x")),
        ("field_added", ("food", "y")),
    ]


def test_deep_schemas_are_compared_as_types() -> None:
    """Below the depth that is compared field by field, a difference is a changed type."""

    def deep(inner: Any, levels: int = 100) -> Json:
        for _ in range(levels):
            inner = {"type": "object", "properties": {"x": inner}}
        return {"x": inner}

    changes = fields(deep({"type": "string"}), deep({"type": "integer"}))
    assert [kind for kind, _ in changes] == ["field_retyped"]
    assert fields(deep({"type": "string"}, 5), deep({"type": "integer"}, 5)) == [
        ("field_retyped", ("x",) * 6)
    ]


# -- configuration


def config_diffs(before: Json, after: Json) -> list[tuple[str, Path, Any, Any]]:
    """What changed in the configuration of one stream."""
    changes = drift.diff_config(catalog.parse(document(before)), catalog.parse(document(after)))
    assert all(c.stream == ORDERS for c in changes)
    assert msgspec.json.encode(changes)
    return [(c.kind, c.path, c.before, c.after) for c in changes]


@given(CATALOGS, st.integers(0, 99))
def test_equal_configurations_have_no_changes(pairs: list[Json], seed: int) -> None:
    """In whatever order it is written."""
    other = shuffled({"streams": pairs}, seed)["streams"]
    assert drift.diff_config(catalog.parse(document(*pairs)), catalog.parse(document(*other))) == []


def test_changes_of_selection_and_settings() -> None:
    """As they take effect: naming the source-defined cursor is no change."""
    assert config_diffs(stream(), stream(selected=False)) == [("stream_deselected", (), None, None)]
    assert config_diffs(stream(selected=False), stream()) == [("stream_selected", (), None, None)]
    assert config_diffs(stream(cursorField=[], primaryKey=None, aliasName=None), stream()) == []
    changed = stream(
        syncMode="full_refresh",
        destinationSyncMode="overwrite",
        cursorField=["id"],
        primaryKey=[["id"], ["total"]],
    )
    assert config_diffs(stream(), changed) == [
        ("sync_mode_changed", (), "incremental", "full_refresh"),
        ("destination_sync_mode_changed", (), "append_dedup", "overwrite"),
        ("cursor_changed", (), ("updated",), ("id",)),
        ("primary_key_changed", (), [("id",)], [("id",), ("total",)]),
    ]


def test_changes_of_selected_fields() -> None:
    """One by one, also where the selection is switched on or off."""
    assert config_diffs(stream(**picked("id", "updated")), stream(**picked("id", "total"))) == [
        ("field_selected", ("total",), None, None),
        ("field_deselected", ("updated",), None, None),
    ]
    assert config_diffs(stream(), stream(**picked("id", "updated"))) == [
        ("field_selection_changed", (), False, True),
        ("field_deselected", ("total",), None, None),
    ]


def test_mapper_change_hides_its_configuration() -> None:
    """An encryption mapper's key is a secret."""
    mapper = {"type": "encryption", "mapperConfiguration": {"key": "canary", "targetField": "id"}}
    changes = config_diffs(stream(), stream(mappers=[mapper]))
    assert changes == [("mappers_changed", (), [], ["encryption"])]
    assert "canary" not in repr(changes)
