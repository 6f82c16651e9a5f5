"""A heal follows what was decided, leaves the rest alone, and says what comes with it."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog
from shared.domain.catalog import InvalidCatalog, StreamId
from shared.domain.drift import Change
from tests.unit.catalogs import (
    MOMENT,
    TEXT,
    Json,
    document,
    picked,
    stream,
)
from tests.unit.healing import FIELDS, ORDERS, PLAIN, Path, decided, heal, healed, refused


def test_fields_are_decided_one_by_one() -> None:
    """One is added, another is not; a removed one stays where that was decided."""
    grown = {"id": TEXT, "updated": MOMENT, "a": TEXT, "b": TEXT}
    decisions = [d for d in decided([stream()], [stream(fields=grown)]) if d.change.path != ("b",)]
    decisions = [
        msgspec.structs.replace(d, action="keep") if d.change.path == ("total",) else d
        for d in decisions
    ]
    result = heal([stream()], [stream(fields=grown)], decisions)
    [pair] = orjson.loads(result.catalog)["streams"]
    assert list(pair["stream"]["jsonSchema"]["properties"]) == ["id", "updated", "total", "a"]
    assert pair["config"] == stream()["config"]


def test_nested_fields_are_decided_one_by_one() -> None:
    """Through objects and arrays; a union stays as it was until all of it is applied."""

    def saga(**inner: Any) -> Json:
        items = {"type": "array", "items": {"type": "object", "properties": inner}}
        return stream(fields=FIELDS | {"story": {"type": "object", "properties": {"all": items}}})

    before, after = saga(a=TEXT, b=TEXT), saga(b=MOMENT, c=TEXT)
    [gone, retyped, new] = decided([before], [after])
    assert (gone.change.path, new.change.path) == (
        ("story", "all", "[]", "a"),
        ("story", "all", "[]", "c"),
    )
    [pair] = orjson.loads(heal([before], [after], [retyped, new]).catalog)["streams"]
    assert pair == saga(a=TEXT, b=MOMENT, c=TEXT)

    def union(*names: str) -> Json:
        parts = [{"type": "object", "properties": {name: TEXT}} for name in names]
        return stream(fields=FIELDS | {"foo": {"oneOf": parts}})

    before, after = union("a", "b"), union("a", "c")
    gone, _ = decided([before], [after])
    result = heal([before], [after], [gone])
    assert result.catalog == document(before)
    assert [effect.code for effect in result.effects] == ["field_kept_whole"]


def test_new_type_brings_its_fields() -> None:
    """Text that became an object brings the object's fields, which are no changes of their own."""
    inner = {"type": "object", "properties": {"a": TEXT}}
    before, after = stream(fields=FIELDS | {"x": TEXT}), stream(fields=FIELDS | {"x": inner})
    assert healed(before, after)[0] == after
    more: Json = stream(fields=FIELDS | {"x": inner, "y": TEXT})
    [retyped, _] = decided([before], [more])
    assert orjson.loads(heal([before], [more], [retyped]).catalog)["streams"] == [after]


def test_new_type_can_be_applied_without_a_nested_change() -> None:
    """An array or object became an object only: its fields are the new ones, but for one."""
    old = {"type": ["array", "object"], "properties": {"a": TEXT, "c": TEXT}}
    new = {"type": "object", "properties": {"a": MOMENT, "d": TEXT}}
    before, after = stream(fields=FIELDS | {"x": old}), stream(fields=FIELDS | {"x": new})
    whole, inner = decided([before], [after])
    assert (whole.change.path, inner.change.path) == (("x",), ("x", "a"))
    for taken, expected in (
        (whole, {"type": "object", "properties": {"a": TEXT, "d": TEXT}}),
        (inner, {"type": ["array", "object"], "properties": {"a": MOMENT, "c": TEXT}}),
    ):
        [pair] = orjson.loads(heal([before], [after], [taken]).catalog)["streams"]
        assert pair == stream(fields=FIELDS | {"x": expected})


def test_removed_source_defined_key_is_applied_alone() -> None:
    """A new field is still not added."""
    after = stream(fields=FIELDS | {"new": TEXT})
    del after["stream"]["sourceDefinedPrimaryKey"]
    [key] = [d for d in decided([stream()], [after]) if d.change.kind == "primary_key_changed"]
    [pair] = orjson.loads(heal([stream()], [after], [key]).catalog)["streams"]
    expected = stream()
    del expected["stream"]["sourceDefinedPrimaryKey"]
    assert pair == expected


def test_excluded_field_is_never_selected() -> None:
    """A stream with all fields gets a list of fields; a list stays without it."""
    after = stream(fields=FIELDS | {"ssn": TEXT, "city": TEXT})
    city, ssn = decided([stream()], [after])
    ssn = msgspec.structs.replace(ssn, action="exclude")
    result = heal([stream()], [after], [city, ssn])
    [pair] = orjson.loads(result.catalog)["streams"]
    assert pair["stream"] == after["stream"]
    assert pair["config"] == stream(**picked("id", "updated", "total", "city"))["config"]
    assert [effect.code for effect in result.effects] == ["fields_hand_picked"]
    assert healing.plan_changes(catalog.parse(result.catalog), document(after)) == []

    before = stream(**picked("id", "updated"))
    [pair] = orjson.loads(heal([before], [after], [ssn]).catalog)["streams"]
    assert pair["config"] == before["config"]

    before, after = (
        stream(**picked("id", "updated", "total")),
        stream(fields=FIELDS | {"total": {}}),
    )
    decisions = decided([before], [after], "exclude")
    [pair] = orjson.loads(heal([before], [after], decisions).catalog)["streams"]
    assert pair["config"] == stream(**picked("id", "updated"))["config"]


def test_field_around_an_excluded_one_is_excluded() -> None:
    """Airbyte selects fields of the first level only; a note says so."""
    before, after = (
        stream(fields=FIELDS | {"who": {"type": "object", "properties": inner}})
        for inner in ({"a": TEXT}, {"a": TEXT, "ssn": TEXT})
    )
    result = heal([before], [after], decided([before], [after], "exclude"))
    [pair] = orjson.loads(result.catalog)["streams"]
    assert pair == stream(fields=after["stream"]["jsonSchema"]["properties"]) | {
        "config": stream(**picked("id", "updated", "total"))["config"]
    }
    assert [e.code for e in result.effects] == ["field_excluded_whole", "fields_hand_picked"]


def test_cursor_or_key_cannot_be_excluded() -> None:
    """That would be a connection without one."""
    before = stream(offer=PLAIN, cursorField=["total"])
    after = stream(offer=PLAIN, fields=FIELDS | {"total": MOMENT})
    assert refused([before], [after], *decided([before], [after], "exclude")) == [
        "excluded_field_needed"
    ]


# -- renames


def test_renamed_field_replaces_the_old_one() -> None:
    """In a list of fields, in mappers and in hashed fields."""
    after = stream(fields={"id": TEXT, "updated": MOMENT, "amount": TEXT, "ssn": TEXT})
    became: dict[Path, Path] = {("total",): ("amount",)}
    pair, codes = healed(stream(), after, became)
    assert (pair, codes) == (after, ["field_renamed"])

    def mapper(name: str) -> Json:
        conditions = {"type": "EQUAL", "fieldName": name, "comparisonValue": "total"}
        return {
            "hashedFields": [{"fieldPath": [name]}],
            "mappers": [
                {"type": "hashing", "mapperConfiguration": {"targetField": name, "method": "MD5"}},
                {"type": "row-filtering", "mapperConfiguration": {"conditions": conditions}},
                {"type": "hashing", "mapperConfiguration": {"targetField": "id"}},
            ],
        }

    pair, codes = healed(
        stream(**picked("id", "total", "updated"), **mapper("total")), after, became
    )
    assert (
        pair["config"]
        == (stream(**picked("id", "amount", "updated"), **mapper("amount"))["config"])
    )
    assert codes == ["mapper_followed", "field_renamed"]
    unpicked = stream(**picked("id", "updated"))
    assert healed(unpicked, after, became)[0]["config"] == unpicked["config"]


def test_renamed_cursor_and_key_are_followed() -> None:
    """Whether the source defines them or the connection; also when nothing else is applied."""
    after = stream(
        fields={"key": TEXT, "modified": MOMENT, "total": TEXT},
        offer={"defaultCursorField": ["modified"], "sourceDefinedPrimaryKey": [["key"]]},
    )
    became: dict[Path, Path] = {("id",): ("key",), ("updated",): ("modified",)}
    for before in (stream(), stream(**picked("id", "updated"))):
        pair, codes = healed(before, after, became)
        assert pair["config"]["cursorField"] == ["modified"]
        assert pair["config"]["primaryKey"] == [["key"]]
        assert {"cursor_followed", "key_followed"} <= set(codes)
    assert pair["config"]["selectedFields"] == picked("key", "modified")["selectedFields"]

    before, after = (
        stream(offer=PLAIN),
        stream(offer=PLAIN, fields=after["stream"]["jsonSchema"]["properties"]),
    )
    pair, _ = healed(before, after, became)
    assert (pair["config"]["cursorField"], pair["config"]["primaryKey"]) == (
        ["modified"],
        [["key"]],
    )

    # Only the renames are decided on: what the source defines stays as it was.
    after = stream(
        fields={"key": TEXT, "modified": MOMENT, "total": TEXT},
        offer={"defaultCursorField": ["modified"], "sourceDefinedPrimaryKey": [["key"]]},
    )
    some = [
        msgspec.structs.replace(d, became=became[d.change.path])
        for d in decided([stream()], [after])
        if d.change.kind == "field_removed"
    ]
    [pair] = orjson.loads(heal([stream()], [after], some).catalog)["streams"]
    assert (pair["config"]["cursorField"], pair["config"]["primaryKey"]) == (
        ["modified"],
        [["key"]],
    )


def test_rename_into_an_unselected_field_is_not_selected() -> None:
    """All of `amounts` would come with it; as a cursor it must."""
    inner = {"type": "object", "properties": {"total": TEXT, "ssn": TEXT}}
    after = stream(fields={"id": TEXT, "updated": MOMENT, "amounts": inner})
    pair, codes = healed(
        stream(**picked("id", "updated", "total")), after, {("total",): ("amounts", "total")}
    )
    assert pair["config"]["selectedFields"] == picked("id", "updated")["selectedFields"]
    assert codes == ["rename_not_selected", "field_renamed"]

    inner = {"type": "object", "properties": {"updated": MOMENT}}
    after = stream(offer=PLAIN, fields={"id": TEXT, "total": TEXT, "meta": inner})
    pair, codes = healed(
        stream(offer=PLAIN, **picked("id", "updated")), after, {("updated",): ("meta", "updated")}
    )
    assert pair["config"]["selectedFields"] == picked("id", "meta")["selectedFields"]
    assert pair["config"]["cursorField"] == ["meta", "updated"]


def test_renamed_stream_keeps_its_config() -> None:
    """The old one is deselected, not dropped; removed fields leave the list."""
    before = stream("deals", **picked("id", "updated", "total"))
    after = stream("opportunities", fields={"id": TEXT, "updated": MOMENT, "ssn": TEXT})
    gone, _ = decided([before], [after])
    assert gone.change == Change("stream_removed", StreamId(None, "deals"))
    renamed = msgspec.structs.replace(gone, became=StreamId(None, "opportunities"))
    result = heal([before, stream("x")], [after, stream("x")], [renamed])
    new, other, old = orjson.loads(result.catalog)["streams"]
    assert new["stream"] == after["stream"]
    assert new["config"] == stream("opportunities", **picked("id", "updated"))["config"]
    assert other == stream("x")
    assert old == stream("deals", selected=False, **picked("id", "updated", "total"))
    assert [e.code for e in result.effects] == ["selected_fields_gone", "stream_renamed"]

    twice = healing.heal(catalog.parse(result.catalog), document(after, stream("x")), [renamed])
    assert twice.catalog == result.catalog


# -- what was lost


def test_lost_cursor_falls_back_to_the_sources_or_full_refresh() -> None:
    """The nearest that the source supports, with a note about the effect."""
    shrunk = {"id": TEXT, "total": TEXT}
    own = {"defaultCursorField": ["total"]}
    pair, codes = healed(stream(), stream(fields=shrunk, offer=own))
    assert (pair["config"]["cursorField"], codes) == (["total"], ["cursor_followed"])

    plain = {"sourceDefinedCursor": False}
    for writes, instead in (("append_dedup", "overwrite"), ("append", "append")):
        pair, codes = healed(
            stream(offer=plain, destinationSyncMode=writes), stream(fields=shrunk, offer=plain)
        )
        assert (pair["config"]["syncMode"], pair["config"]["destinationSyncMode"]) == (
            "full_refresh",
            instead,
        )
        assert codes == ["cursor_fallback"]
    pair, codes = healed(stream(offer=plain), stream(fields=shrunk, offer=plain), cursor=("total",))
    assert pair["config"]["cursorField"] == ["total"]
    assert pair["config"]["syncMode"] == "incremental"

    only = plain | {"supportedSyncModes": ["incremental"]}
    before, after = stream(offer=only), stream(fields=shrunk, offer=only)
    assert refused([before], [after], *decided([before], [after])) == ["cursor_lost"]


def test_cursor_no_longer_defined_by_the_source_is_named() -> None:
    """The connection goes on by it; the same with a key."""
    before = stream(cursorField=[], primaryKey=[])
    pair, codes = healed(before, stream(offer=PLAIN))
    assert (pair["config"]["cursorField"], pair["config"]["primaryKey"]) == (["updated"], [["id"]])
    assert codes == ["cursor_kept"]


def test_lost_key_falls_back_to_the_sources_or_append() -> None:
    """Never to a part of the key, which would drop rows."""
    before = stream(offer=PLAIN, primaryKey=[["id"], ["total"]])
    shrunk = {"id": TEXT, "updated": MOMENT}
    pair, codes = healed(before, stream(fields=shrunk, offer=PLAIN))
    assert (pair["config"]["destinationSyncMode"], pair["config"]["primaryKey"]) == ("append", [])
    assert codes == ["key_fallback"]

    pair, codes = healed(before, stream(fields=shrunk, offer=PLAIN), primary_key=(("id",),))
    assert pair["config"]["primaryKey"] == [["id"]]
    assert codes == ["key_followed"]

    anew: Json = {"syncMode": "full_refresh", "destinationSyncMode": "overwrite_dedup"}
    pair, codes = healed(
        stream(offer=PLAIN, primaryKey=[["total"]], **anew), stream(fields=shrunk, offer=PLAIN)
    )
    assert (pair["config"]["destinationSyncMode"], codes) == ("overwrite", ["key_fallback"])

    own = PLAIN | {"sourceDefinedPrimaryKey": [["id"]]}
    pair, codes = healed(before, stream(fields=shrunk, offer=own))
    assert pair["config"]["primaryKey"] == [["id"]]
    assert pair["config"]["destinationSyncMode"] == "append_dedup"


def test_nested_key_of_the_source_is_followed_with_a_warning() -> None:
    """No known destination takes it, which the effect says; an object as a key is refused."""
    data = {"type": ["null", "object"], "properties": {"id": TEXT}}
    before = stream(fields=FIELDS | {"data": data})
    after = stream(
        fields=FIELDS | {"data": data}, offer={"sourceDefinedPrimaryKey": [["data", "id"]]}
    )
    (effect,) = heal([before], [after], decided([before], [after])).effects
    assert "refuse a nested key" in effect.message

    refused_key = stream(
        fields=FIELDS | {"data": data}, offer={"sourceDefinedPrimaryKey": [["data"]]}
    )
    with pytest.raises(HealImpossible) as impossible:
        heal([before], [refused_key], decided([before], [refused_key]))
    assert impossible.value.code == "compound_key"


def test_new_source_defined_key_is_applied_and_selected() -> None:
    """Airbyte refuses a list of fields without the key."""
    after = stream(offer={"sourceDefinedPrimaryKey": [["total"]]})
    pair, codes = healed(stream(**picked("id", "updated")), after)
    assert pair["config"]["primaryKey"] == [["total"]]
    assert pair["config"]["selectedFields"] == picked("id", "updated", "total")["selectedFields"]
    assert codes == ["key_followed", "field_selected"]


def test_lost_mode_falls_back_to_an_offered_one() -> None:
    offered = stream(
        offer={"supportedSyncModes": ["full_refresh"]},
        syncMode="full_refresh",
        destinationSyncMode="overwrite",
    )
    pair, codes = healed(stream(), offered)
    assert pair["config"]["syncMode"] == "full_refresh"
    assert pair["config"]["destinationSyncMode"] == "overwrite"
    assert codes == ["sync_mode_fallback"]


# -- streams


def test_removed_stream_is_deselected_and_not_dropped() -> None:
    """It is last, with its config as it was, and applying the document leaves it out."""
    result = heal(
        [stream("gone"), stream("stays")],
        [stream("stays")],
        decided([stream("gone")], [stream("stays")])[:1],
    )
    pairs = orjson.loads(result.catalog)["streams"]
    assert pairs == [stream("stays"), stream("gone", selected=False)]
    assert [effect.code for effect in result.effects] == ["stream_deselected"]
    only = decided([stream("gone")], [stream("new")])[:1]
    assert refused([stream("gone")], [stream("new")], *only) == ["no_selected_stream"]


def test_new_stream_is_selected_only_when_decided() -> None:
    """Then as in a new connection, in a mode that this one already uses."""
    after = [stream("a"), stream("new", fields={"id": TEXT, "updated": MOMENT})]
    after[1]["config"] = {"selected": False}
    [added] = decided([stream("a")], after)
    result = heal([stream("a")], after, [added])
    pairs = orjson.loads(result.catalog)["streams"]
    assert pairs[0] == stream("a")
    assert pairs[1] == stream("new", fields={"id": TEXT, "updated": MOMENT}, suggested=False)
    assert [effect.code for effect in result.effects] == ["stream_selected"]


def test_unaffected_streams_may_be_absent() -> None:
    before = [stream("a"), stream("b")]
    after = stream("a", fields=FIELDS | {"new": TEXT})
    decisions = decided([stream("a")], [after])
    result = healing.heal(
        catalog.parse(document(*before)), catalog.scan(document(after)), decisions
    )
    assert result.catalog == document(after | {"config": before[0]["config"]}, before[1])
    assert refused(before, [stream("b")], *decisions) == ["unknown_stream"]


# -- decisions that cannot be followed


def test_decision_on_another_change_is_refused() -> None:
    """The person decided something else than would be applied now."""
    seen = stream(fields=FIELDS | {"new": TEXT})
    [decision] = decided([stream()], [seen])
    other = stream(fields=FIELDS | {"new": {"type": "integer"}})
    assert refused([stream()], [other], decision) == ["decision_outdated"]
    removed = Instruction(Change("stream_removed", ORDERS), "apply")
    assert refused([stream()], [stream()], removed) == ["decision_outdated"]
    [gone] = decided([stream()], [stream(fields={"id": TEXT, "updated": MOMENT})])
    retyped = stream(fields=FIELDS | {"total": MOMENT})
    assert refused([stream()], [retyped], gone) == ["decision_outdated"]
    assert refused([stream()], [seen], decision, decision) == ["decided_twice"]

    def saga(**inner: Any) -> Json:
        return stream(fields=FIELDS | {"story": {"type": "object", "properties": inner}})

    [gone] = decided([saga(a=TEXT)], [stream()])
    assert refused([saga(a=TEXT)], [saga(b=TEXT)], gone) == ["decision_outdated"]


def test_rename_needs_an_existing_new_field() -> None:
    """And one for each removed field."""
    after = stream(fields={"id": TEXT, "updated": MOMENT, "amount": TEXT})
    added, gone = decided([stream()], [after])

    def become(decision: Instruction, name: Any) -> Instruction:
        return msgspec.structs.replace(decision, became=name)

    assert refused([stream()], [after], become(gone, ("nowhere",))) == ["unknown_field"]
    assert refused([stream()], [after], become(gone, ORDERS)) == ["not_a_rename"]
    assert refused([stream()], [after], become(added, ("id",))) == ["not_a_rename"]
    two = stream(fields=FIELDS | {"sum": TEXT})
    _, sum_, total = decided([two], [after])
    both = [become(each, ("amount",)) for each in (sum_, total)]
    assert refused([two], [after], *both) == ["renamed_twice"]

    stream_gone, _ = decided([stream()], [stream("other")])
    for name, code in (("nowhere", "unknown_stream"), ("b", "stream_already_selected")):
        renamed = become(stream_gone, StreamId(None, name))
        assert refused([stream(), stream("b")], [stream("b")], renamed) == [code]


def test_chosen_cursor_must_exist() -> None:
    """It is refused with its place."""
    after = stream(fields={"id": TEXT, "total": TEXT}, offer={"sourceDefinedCursor": False})
    before = stream(offer={"sourceDefinedCursor": False})
    [gone] = decided([before], [after])
    chosen = msgspec.structs.replace(gone, cursor=("nowhere",))
    assert refused([before], [after], chosen) == ["unknown_field"]


def test_invalid_discovery_is_refused() -> None:
    with pytest.raises(InvalidCatalog):
        healing.heal(catalog.parse(document(stream())), b"[]", [])


# -- what an older version needs
