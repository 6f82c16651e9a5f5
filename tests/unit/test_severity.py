"""What a change means is judged by what the connection uses, and never more mildly than Airbyte."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given

from services.drift_repair_agent import healing
from shared.domain import catalog, drift
from shared.domain.catalog import ConfiguredStream, StreamId
from shared.domain.drift import Change, Severity, Verdict, relation
from tests.unit.catalogs import (
    MOMENT,
    SCHEMAS,
    TEXT,
    Json,
    document,
    histories,
    picked,
    stream,
)

ORDERS = StreamId(None, "orders")
PLAIN: Json = {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}
IN_FULL: Json = {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}


def configured(pair: Json) -> ConfiguredStream:
    """How a connection syncs this stream."""
    return catalog.parse(document(pair)).streams[0]


def judged(before: Json, after: Json) -> list[tuple[str, str, str, bool]]:
    """Severity, entity, what and whether it concerns the connection, of each change."""
    plan = healing.plan_changes(catalog.parse(document(before)), document(after))
    return [(v.severity.value, v.entity, v.what, v.affects_sync) for _, v in plan]


def type_of(schema: Any) -> Any:
    """A field's type as a change shows it."""
    offered = document(stream(fields={"x": schema}))
    [change] = drift.diff(document(stream(fields={"x": {"type": "nothing"}})), offered)
    return change.after


# -- types


@pytest.mark.parametrize(
    "before,after",
    [
        ({"type": "integer"}, {"type": "number"}),
        ({"type": "string"}, {"type": ["null", "string"]}),
        ({"type": "null"}, {"type": ["null", "string"]}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}),
        ({"type": "integer"}, {"type": ["null", "number"]}),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        (
            {"type": "string", "format": "date"},
            {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}]},
        ),
        ({"type": "string", "format": "email"}, {"type": "string"}),
        ({"type": "integer", "format": "int32"}, {"type": "integer", "format": "int64"}),
    ],
)
def test_widening_and_narrowing_types(before: Json, after: Json) -> None:
    """Every possible value still fits; backwards it does not."""
    assert relation(type_of(before), type_of(after)) == "widened"
    assert relation(type_of(after), type_of(before)) == "narrowed"


@pytest.mark.parametrize(
    "one,other",
    [
        ({"type": "number"}, {"type": "string"}),
        ({"type": "boolean"}, {"type": "string"}),
        ({"type": "string"}, {"type": "string", "format": "date-time"}),
        ({"type": "string"}, {"type": "string", "format": "date"}),
        (MOMENT, MOMENT | {"airbyte_type": "timestamp_without_timezone"}),
        ({"type": "string", "format": "time"}, MOMENT),
        ({"type": "object"}, {"type": "string"}),
        ({"type": "array"}, {"type": "object"}),
        ({"type": "string"}, {}),
        ({"$ref": "WellKnownTypes.json#/definitions/String"}, {"type": "string"}),
        ({"type": ["null", "integer"]}, {"type": "number"}),
        ({"type": "string", "contentEncoding": "base64"}, {"type": "string"}),
        ({"type": "string", "format": "email"}, {"type": "string", "format": "uuid"}),
    ],
)
def test_clashing_types_clash_both_ways(one: Json, other: Json) -> None:
    """Neither column type has all the values of the other."""
    assert relation(type_of(one), type_of(other)) == "clashing"
    assert relation(type_of(other), type_of(one)) == "clashing"


@pytest.mark.parametrize(
    "one,other",
    [
        (MOMENT, MOMENT | {"airbyte_type": "timestamp_with_timezone"}),
        ({"type": "number", "airbyte_type": "integer"}, {"type": "integer"}),
    ],
)
def test_equivalent_spellings_are_harmless(one: Json, other: Json) -> None:
    """As Airbyte reads them; such a change is reported."""
    assert relation(type_of(one), type_of(other)) == "equal"
    before, after = stream(fields={"id": TEXT, "x": one}), stream(fields={"id": TEXT, "x": other})
    before["config"] |= IN_FULL
    assert judged(before, after) == [("harmless", "type", "widened", True)]


@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_widening_is_a_partial_order(a: Any, b: Any, c: Any) -> None:
    """It is reflexive, transitive, and the reverse of narrowing."""
    one, two, three = type_of(a), type_of(b), type_of(c)
    assert relation(one, one) == "equal"
    assert (relation(one, two) == "widened") == (relation(two, one) == "narrowed")
    assert (relation(one, two) == "clashing") == (relation(two, one) == "clashing")
    grows = {"equal", "widened"}
    if relation(one, two) in grows and relation(two, three) in grows:
        assert relation(one, three) in grows


# -- what a connection uses


GONE: Json = {"id": TEXT, "updated": MOMENT}


@pytest.mark.parametrize(
    "config,verdict",
    [
        ({}, ("needs_review", "field", "removed", True)),
        (picked("id", "updated", "total"), ("needs_review", "field", "removed", True)),
        (picked("id", "updated"), ("harmless", "field", "removed", False)),
        ({"cursorField": ["total"]}, ("breaking", "cursor", "lost", True)),
        ({"primaryKey": [["id"], ["total"]]}, ("breaking", "key", "lost", True)),
        (IN_FULL | {"cursorField": ["total"]}, ("needs_review", "field", "removed", True)),
        (
            {"destinationSyncMode": "append", "primaryKey": [["total"]]},
            ("needs_review", "field", "removed", True),
        ),
    ],
)
def test_removed_field_is_judged_by_its_use(config: Json, verdict: Any) -> None:
    """The same change is breaking for one connection and no concern of another."""
    before = stream(offer=PLAIN, **config)
    assert judged(before, stream(fields=GONE, offer=PLAIN)) == [verdict]


def test_added_field_matters_if_all_fields_are_synced() -> None:
    """It is not added to selected fields, but comes with a selected object."""
    grown = {"id": TEXT, "updated": MOMENT, "total": TEXT, "ssn": TEXT}
    assert judged(stream(), stream(fields=grown)) == [("harmless", "field", "added", True)]
    assert judged(stream(**picked("id", "updated")), stream(fields=grown)) == [
        ("harmless", "field", "added", False)
    ]
    old, new = (
        GONE | {"who": {"type": "object", "properties": inner}}
        for inner in ({"a": TEXT}, {"a": TEXT, "b": TEXT})
    )
    for names, concerns in ((("who",), True), ((), False)):
        before = stream(fields=old, **picked("id", "updated", *names))
        assert judged(before, stream(fields=new)) == [("harmless", "field", "added", concerns)]


@pytest.mark.parametrize(
    "before,after,plain,in_cursor",
    [
        (TEXT, MOMENT, ("needs_review", "clashing"), ("breaking", "clashing")),
        (MOMENT, {"type": "string", "format": "date-time"}, ("needs_review", "narrowed"), None),
        (
            {"type": "integer"},
            {"type": "number"},
            ("harmless", "widened"),
            ("needs_review", "widened"),
        ),
        (TEXT, {"type": ["null", "string", "integer"]}, ("needs_review", "widened"), None),
    ],
)
def test_changed_type_is_judged_by_its_use(
    before: Json, after: Json, plain: Any, in_cursor: Any
) -> None:
    """In the cursor or the key, a clash is breaking: saved state and rows have the old type."""
    for field, expected in (("total", plain), ("updated", in_cursor), ("id", in_cursor)):
        fields = {"id": TEXT, "updated": MOMENT, "total": TEXT}
        grave, what = expected or ("needs_review", plain[1])
        assert judged(
            stream(fields=fields | {field: before}), stream(fields=fields | {field: after})
        ) == [(grave, "type", what, True)]
    unpicked = stream(fields=GONE | {"total": before}, **picked("id", "updated"))
    assert judged(unpicked, stream(fields=GONE | {"total": after})) == [
        ("harmless", "type", plain[1], False)
    ]


@pytest.mark.parametrize(
    "config,offer,verdict",
    [
        ({}, {"sourceDefinedPrimaryKey": [["total"]]}, ("breaking", "key", "changed", True)),
        ({}, {"sourceDefinedPrimaryKey": []}, ("needs_review", "key", "changed", True)),
        ({"primaryKey": []}, {"sourceDefinedPrimaryKey": []}, ("breaking", "key", "lost", True)),
        (
            {"primaryKey": [["total"]]},
            {"sourceDefinedPrimaryKey": [["total"]]},
            ("harmless", "key", "changed", True),
        ),
        (
            {"destinationSyncMode": "append"},
            {"sourceDefinedPrimaryKey": [["total"]]},
            ("harmless", "key", "changed", False),
        ),
        ({}, {"defaultCursorField": ["total"]}, ("needs_review", "cursor", "changed", True)),
        ({}, {"defaultCursorField": []}, ("needs_review", "cursor", "changed", True)),
        ({}, {"sourceDefinedCursor": False}, ("needs_review", "cursor", "changed", True)),
        ({"cursorField": []}, {"sourceDefinedCursor": False}, ("breaking", "cursor", "lost", True)),
        (IN_FULL, {"sourceDefinedCursor": False}, ("harmless", "cursor", "changed", False)),
        (
            {"cursorField": ["total"]},
            {"defaultCursorField": ["total"]},
            ("harmless", "cursor", "changed", True),
        ),
        ({}, {"supportedSyncModes": ["full_refresh"]}, ("breaking", "mode", "lost", True)),
        ({}, {"supportedSyncModes": ["incremental"]}, ("harmless", "mode", "removed", False)),
        (IN_FULL, {"supportedSyncModes": ["incremental"]}, ("breaking", "mode", "lost", True)),
    ],
)
def test_changes_of_key_cursor_and_modes_are_judged(
    config: Json, offer: Json, verdict: Any
) -> None:
    """Airbyte detects only the first of these."""
    assert judged(stream(**config), stream(offer=offer)) == [verdict]


def test_default_cursor_does_not_matter_if_one_is_configured() -> None:
    before = stream(offer=PLAIN, cursorField=["total"])
    assert judged(before, stream(offer=PLAIN | {"defaultCursorField": ["id"]})) == [
        ("harmless", "cursor", "changed", False)
    ]


def test_streams_are_judged_by_whether_they_are_synced() -> None:
    """A removed one breaks the connection; unsynced ones do not matter."""
    before = catalog.parse(document(stream("a"), stream("off", selected=False)))
    plan = healing.plan_changes(before, document(stream("b"), stream("off")))
    assert [(c.kind, c.stream.name, v.severity, v.affects_sync) for c, v in plan] == [
        ("stream_removed", "a", Severity.BREAKING, True),
        ("stream_added", "b", Severity.HARMLESS, False),
        ("stream_added", "off", Severity.HARMLESS, False),
    ]
    assert plan[0][1].loses == ("a",)
    assert "sync state" in plan[0][1].resets[0]
    again = drift.severity(Change("stream_added", ORDERS), configured(stream()))
    assert (again.severity, again.affects_sync) == (Severity.HARMLESS, True)


def test_losses_are_named() -> None:
    """With dots for people, and all of a key that no longer identifies rows."""
    inner = {"type": "object", "properties": {"b": TEXT, "c": TEXT}}
    less = {"type": "object", "properties": {"c": TEXT}}
    before, after = stream(fields=GONE | {"a": inner}), stream(fields=GONE | {"a": less})
    [(change, verdict)] = healing.plan_changes(catalog.parse(document(before)), document(after))
    assert verdict.loses == ("a.b",)
    assert verdict.reason == "'a.b' is gone from 'orders'."

    nested = stream(fields=GONE | {"a": inner}, primaryKey=[["id"], ["a", "b"]])
    assert drift.severity(change, configured(nested)).what == "lost"
    parent = Change("field_removed", ORDERS, ("a",))
    assert drift.severity(parent, configured(nested)).severity is Severity.BREAKING


def test_severities_are_ordered_by_urgency() -> None:
    assert drift.worst([]) is Severity.HARMLESS
    assert drift.worst([Severity.HARMLESS, Severity.BREAKING]) is Severity.BREAKING
    assert drift.worst([Severity.NEEDS_REVIEW, Severity.HARMLESS]) is Severity.NEEDS_REVIEW


# -- laws


def is_breaking_for_airbyte(change: Change, config: Json) -> bool:
    """Airbyte's own rule, from the JSON of the stream's config."""
    deduplicates = config["destinationSyncMode"] in ("append_dedup", "overwrite_dedup")
    path = list(change.path)
    if change.kind == "field_removed":
        is_cursor = config["syncMode"] == "incremental" and config["cursorField"] == path
        return is_cursor or (deduplicates and path in config["primaryKey"])
    if change.kind == "primary_key_changed" and deduplicates and change.after:
        return {tuple(p) for p in change.after} != {tuple(p) for p in config["primaryKey"]}
    return False


@given(histories())
def test_severity_is_never_below_airbytes(history: tuple[list[Json], list[Json]]) -> None:
    """Whatever changes; and every verdict is complete."""
    before, after = history
    configs = {pair["stream"]["name"]: pair["config"] for pair in before}
    plan = healing.plan_changes(catalog.parse(document(*before)), document(*after))
    assert [change for change, _ in plan] == drift.diff(document(*before), document(*after))
    for change, verdict in plan:
        config = configs.get(change.stream.name)
        if config is not None and is_breaking_for_airbyte(change, config):
            assert verdict.severity is Severity.BREAKING
        if not verdict.affects_sync:
            assert verdict.severity is Severity.HARMLESS
        assert verdict.reason.endswith(".")
        assert verdict.reason.isprintable()
        assert all(sentence.endswith(".") for sentence in verdict.resets)
        if verdict.what in ("removed", "lost") and verdict.entity in ("stream", "field", "key"):
            assert bool(verdict.loses) == verdict.affects_sync


@given(histories())
def test_judged_change_round_trips_as_json(history: tuple[list[Json], list[Json]]) -> None:
    """As one JSON object; the change read back is judged the same."""
    before, after = history
    head = catalog.parse(document(*before))
    synced = head.by_id()
    for change, verdict in healing.plan_changes(head, document(*after)):
        decoded = orjson.loads(msgspec.json.encode(drift.written(change, verdict)))
        assert set(decoded) == set(Change.__struct_fields__) | set(Verdict.__struct_fields__)
        assert msgspec.convert(decoded, Verdict) == verdict
        read = msgspec.convert(decoded, Change)
        assert drift.severity(read, synced.get(change.stream)) == verdict
