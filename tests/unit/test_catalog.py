"""A syncCatalog is read, checked, compared, chosen and merged, and its bytes survive."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import catalog
from shared.domain.catalog import Catalog, InvalidCatalog, StreamId, _validation
from tests.unit.catalogs import (
    CATALOGS,
    MOMENT,
    TEXT,
    Json,
    document,
    picked,
    shuffled,
    stream,
    streams,
)

EVERY_MODE = ("append", "overwrite", "append_dedup", "overwrite_dedup")


def problems(*pairs: Json, **limits: Any) -> list[tuple[str, str]]:
    """Code and place of everything wrong with a catalog of these streams."""
    try:
        catalog.validate(catalog.parse(document(*pairs)), **limits)
    except InvalidCatalog as error:
        return [(problem.code, problem.field) for problem in error.problems]
    return []


def as_airbyte_keeps_it(pairs: list[Json]) -> list[Json]:
    """What `connections/get` answers after these streams were applied."""
    stored = []
    for pair in deepcopy(pairs):
        definition, config = pair["stream"], pair["config"]
        if config["selected"] is False:
            continue
        if config["fieldSelectionEnabled"]:
            names = {field["fieldPath"][0] for field in config["selectedFields"]}
            schema = definition["jsonSchema"]
            schema["properties"] = {k: v for k, v in schema["properties"].items() if k in names}
        definition |= {"isFileBased": False}
        config |= {"suggested": False, "hashedFields": [], "mappers": [], "generationId": 7}
        stored.append(pair)
    return stored


# -- reading and writing


@given(CATALOGS)
def test_catalog_round_trips(pairs: list[Json]) -> None:
    """Nothing of Airbyte's is lost, also not unknown members."""
    pairs[0]["stream"]["aMemberOfTheFuture"] = {"x": [1, None]}

    read = catalog.parse(document(*pairs))

    assert catalog.dump(read) == document(*pairs)
    assert [bytes(s) for s in catalog.scan(document(*pairs))] == [s.raw for s in read.streams]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"streams":null}',
        b'{"streams":[1]}',
        b'{"streams":[{}]}',
        b'{"streams":[{"stream":{},"config":{}}]}',
        b'{"streams":[{"stream":{"name":7}}]}',
        b'{"streams":[{"stream":{"name":"a","jsonSchema":{"x":"\xff"}}}]}',
        b'{"streams":[{"stream":{"name":"a","jsonSchema":{"x":"\\\\\\u0000"}}}]}',
        b'{"streams":[{"stream":{"name":"a"},"config":{"cursorField":"a"}}]}',
        b'{"streams":[' + b"[" * 100_000,
        b'{"streams":[{"stream":{"name":"a"}}',
    ],
)
def test_invalid_catalog_is_refused_without_quoting_it(body: bytes) -> None:
    """The error has the place and the reason, whatever the bytes are."""
    with pytest.raises(InvalidCatalog) as refused:
        catalog.parse(body)
    assert refused.value.code == "invalid_catalog"


def test_escaped_backslash_before_u0000_is_no_nul() -> None:
    """A regular expression in a schema may name the character without containing it."""
    schema = rb'{"pattern":"\\u0000"}'
    read = catalog.parse(b'{"streams":[{"stream":{"name":"a","jsonSchema":%s}}]}' % schema)
    assert [stream.id.name for stream in read.streams] == ["a"]


def outcome(body: bytes) -> str:
    """The fingerprint of a catalog, or "refused"; what else is raised fails the test."""
    try:
        return catalog.fingerprint_of(catalog.parse(body))
    except InvalidCatalog:
        return "refused"


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b'{"streams":[' + b + b"]}"))
def test_any_bytes_are_a_catalog_or_invalid_catalog(body: bytes) -> None:
    assert outcome(body)


def test_all_unreadable_streams_are_named_at_once() -> None:
    bad = stream(cursorField="updated")
    with pytest.raises(InvalidCatalog) as refused:
        catalog.parse(document(bad, stream("fine"), bad))
    places = [problem.field for problem in refused.value.problems]
    assert places == ["streams[0].config.cursorField", "streams[2].config.cursorField"]


# -- what must hold


@given(CATALOGS)
def test_offered_catalog_is_valid(pairs: list[Json]) -> None:
    """No false alarm on field names that are JSON Schema's keywords, unions, or odd types."""
    assert problems(*pairs) == []


@pytest.mark.parametrize(
    "pair,code,place",
    [
        (stream(syncMode="sometimes"), "unsupported_sync_mode", "config.syncMode"),
        (stream(destinationSyncMode=None), "unsupported_sync_mode", "config.destinationSyncMode"),
        (
            stream(offer={"supportedSyncModes": ["full_refresh"]}),
            "unsupported_sync_mode",
            "config.syncMode",
        ),
        (
            stream(destinationSyncMode="overwrite"),
            "unsupported_sync_mode",
            "config.destinationSyncMode",
        ),
        (
            stream(cursorField=[], offer={"sourceDefinedCursor": False}),
            "missing_cursor",
            "config.cursorField",
        ),
        (stream(cursorField=["nowhere"]), "unknown_field", "config.cursorField"),
        (
            stream(primaryKey=[], offer={"sourceDefinedPrimaryKey": []}),
            "missing_primary_key",
            "config.primaryKey",
        ),
        (stream(primaryKey=[["nowhere"]]), "unknown_field", "config.primaryKey[0]"),
        (stream(primaryKey=[["id"], []]), "missing_primary_key", "config.primaryKey[1]"),
        (
            stream(fieldSelectionEnabled=True, selectedFields=None),
            "missing_selected_fields",
            "config.selectedFields",
        ),
        (
            stream(**picked("id", "updated", "nowhere")),
            "unknown_field",
            "config.selectedFields[2].fieldPath",
        ),
        (stream(**picked("id", "total")), "cursor_not_selected", "config.cursorField"),
        (stream(**picked("updated")), "key_not_selected", "config.primaryKey[0]"),
        (stream(offer={"jsonSchema": None}), "invalid_catalog", "stream.jsonSchema"),
        (stream(offer={"jsonSchema": [1]}), "invalid_catalog", "stream.jsonSchema"),
    ],
)
def test_invalid_member_is_named_with_its_place(pair: Json, code: str, place: str) -> None:
    """The code is stable and the place is the member to edit."""
    assert problems(stream("fine"), pair) == [(code, f"streams[1].{place}")]


def test_nested_and_empty_selected_fields_are_refused() -> None:
    """Airbyte answers 500 to the one and loses data with the other."""
    paths: list[Json] = [{"fieldPath": path} for path in (["id"], ["updated"], ["total", "x"], [])]
    pair = stream(fieldSelectionEnabled=True, selectedFields=[*paths, {}])
    assert problems(pair) == [
        ("nested_selected_field", "streams[0].config.selectedFields[2].fieldPath"),
        ("invalid_selected_field", "streams[0].config.selectedFields[3].fieldPath"),
        ("invalid_selected_field", "streams[0].config.selectedFields[4].fieldPath"),
    ]
    assert problems(stream(**picked()))[0] == (
        "missing_selected_fields",
        "streams[0].config.selectedFields",
    )


def test_catalog_needs_a_selected_stream_and_distinct_names() -> None:
    """Absent `selected` means selected; the same name in two namespaces is two streams."""
    off = stream("off", selected=False, syncMode="nonsense")
    unsaid = stream("unsaid")
    del unsaid["config"]["selected"]

    assert problems() == [("empty_catalog", "streams")]
    assert problems(off) == [("no_selected_stream", "streams")]
    assert problems(off, unsaid) == []
    assert problems(stream("a"), stream("a", namespace="b")) == []
    assert problems(stream("a"), stream("b"), stream("a", selected=False)) == [
        ("duplicate_stream", "streams[2].stream.name")
    ]


def test_selected_stream_has_an_explicit_flag() -> None:
    """Airbyte's server fails on a stream without `selected`; the others are unchanged."""
    unsaid = stream("unsaid")
    del unsaid["config"]["selected"]
    read = catalog.parse(document(unsaid, stream("off", selected=False), stream("said")))

    sent = orjson.loads(catalog.dump(read.selected()))["streams"]
    assert sent == [stream("unsaid"), stream("said")]
    assert catalog.dump(read.selected().selected()) == catalog.dump(read.selected())


def test_source_defined_cursor_needs_no_name() -> None:
    """A cursor that the source defines needs no name, and no field in the schema.

    Deduplicated, no name may be written down that is no field: the destination looks for it.
    """
    assert problems(stream(cursorField=[], offer={"defaultCursorField": []})) == []
    hidden = {"defaultCursorField": ["_lsn"]}
    assert problems(stream(cursorField=[], offer=hidden)) == []
    appended: Json = {"destinationSyncMode": "append", "primaryKey": []}
    assert problems(stream(cursorField=["_lsn"], offer=hidden, **appended)) == []
    [(code, place)] = problems(stream(cursorField=["_lsn"], offer=hidden))
    assert (code, place) == ("unknown_field", "streams[0].config.cursorField")


def test_airbytes_size_limits_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits count selected fields of selected streams only."""
    pair = stream(**picked("id", "updated"))
    monkeypatch.setattr(_validation, "MAX_FIELDS", 2)
    assert problems(pair, stream("off", selected=False)) == []
    monkeypatch.setattr(_validation, "MAX_FIELDS", 1)
    assert problems(pair) == [("catalog_too_large", "streams")]
    monkeypatch.undo()
    monkeypatch.setattr(_validation, "MAX_BYTES", 300)
    assert problems(pair) == [("catalog_too_large", "streams")]


def test_modes_of_the_destination_are_checked() -> None:
    """Where they are known."""
    assert problems(stream(), destination_sync_modes={"append_dedup"}) == []
    assert problems(stream(), destination_sync_modes={"append"}) == [
        ("unsupported_sync_mode", "streams[0].config.destinationSyncMode")
    ]


def test_problems_are_bounded_and_show_names_safely() -> None:
    """A hostile name stays on one line, and a thousand problems are fifty."""
    pairs = [stream(f"\n\x1b[31m{'x' * 500}{n}", cursorField=["gone"]) for n in range(60)]
    with pytest.raises(InvalidCatalog) as refused:
        catalog.validate(catalog.parse(document(*pairs)))
    assert len(refused.value.problems) == 50
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 300
    assert msgspec.json.encode(refused.value.problems)


# -- what it means


@given(CATALOGS, st.integers(0, 99))
def test_order_does_not_change_the_fingerprint(pairs: list[Json], seed: int) -> None:
    """Of streams, keys and sets; the hash per stream, too."""
    other = shuffled({"streams": pairs}, seed)["streams"]
    one, two = catalog.parse(document(*pairs)), catalog.parse(document(*other))

    assert catalog.fingerprint_of(one) == catalog.fingerprint_of(two)
    assert catalog.fingerprint_of(one) == catalog.document_fingerprint(catalog.dump(two))
    hashes = [
        {catalog.canonical_hash(s) for s in catalog.scan(document(*p))} for p in (pairs, other)
    ]
    assert hashes[0] == hashes[1]


@given(CATALOGS, st.integers(0, 99))
def test_read_back_catalog_has_the_same_fingerprint(pairs: list[Json], seed: int) -> None:
    """Although Airbyte cuts, fills in and drops."""
    sent = catalog.parse(document(*pairs, stream("not meant", selected=False)))
    stored = shuffled({"streams": as_airbyte_keeps_it(pairs)}, seed)["streams"]

    assert catalog.fingerprint_of(sent) == catalog.document_fingerprint(document(*stored))


EQUAL: list[tuple[Json, Json]] = [
    (stream(cursorField=None), stream()),
    (stream(primaryKey=[]), stream()),
    (stream(aliasName=None), stream()),
    (stream("or-ders", aliasName="or_ders"), stream("or-ders")),
    (stream(suggested=True, syncId=4, minimumGenerationId=1), stream()),
    (stream(offer={"namespace": None, "isResumable": False}), stream()),
    (stream(fields={"id": {"type": ["string"]}}), stream(fields={"id": {"type": "string"}})),
    (stream(selectedFields=[{"fieldPath": ["id"]}]), stream()),
    (
        stream(mappers=[{"id": "1", "type": "hashing", "mapperConfiguration": {"a": None}}]),
        stream(mappers=[{"id": "2", "mapperConfiguration": {}, "type": "hashing"}]),
    ),
    (
        stream(fields={"id": {"minimum": 1.0, "maximum": 100}}),
        stream(fields={"id": {"minimum": 1, "maximum": 1e2}}),
    ),
]


@pytest.mark.parametrize("one,other", EQUAL)
def test_equivalent_catalogs_have_one_fingerprint(one: Json, other: Json) -> None:
    """Airbyte's defaults and numbering do not count."""
    assert catalog.document_fingerprint(document(one)) == catalog.document_fingerprint(
        document(other)
    )


DIFFERENT: list[Json] = [
    stream(),
    stream("Orders"),
    stream(namespace="orders"),
    stream(syncMode="full_refresh"),
    stream(destinationSyncMode="append"),
    stream(cursorField=["total"]),
    stream(primaryKey=[["id"], ["total"]]),
    stream(primaryKey=[["id", "total"]]),
    stream(aliasName="other"),
    stream(**picked("id", "updated")),
    stream(**picked("id", "updated", "total")),
    stream(fields={"id": TEXT, "updated": MOMENT}),
    stream(fields={"id": TEXT, "updated": MOMENT, "total": {"type": "string"}}),
    stream(fields={"id": TEXT, "updated": TEXT, "total": TEXT}),
    stream(fields={"id": TEXT, "updated": MOMENT, "type": TEXT}),
    stream(fields={"id": TEXT, "updated": MOMENT, "total": {"maximum": 2**64}}),
    stream(fields={"id": TEXT, "updated": MOMENT, "total": {"maximum": 2**64 + 1}}),
    stream(fields={"id": TEXT, "updated": MOMENT, "total": {"default": ["a", "b"]}}),
    stream(fields={"id": TEXT, "updated": MOMENT, "total": {"default": ["b", "a"]}}),
    stream(offer={"sourceDefinedCursor": False}),
    stream(offer={"sourceDefinedPrimaryKey": [["total"]]}),
    stream(offer={"supportedSyncModes": ["incremental"]}),
    stream(mappers=[{"type": "hashing", "mapperConfiguration": {"targetField": "id"}}]),
    stream(mappers=[{"type": "hashing", "mapperConfiguration": {"targetField": "total"}}]),
    stream(includeFiles=True),
    stream(destinationObjectName="orders"),
]


def test_different_settings_have_different_fingerprints() -> None:
    """Every setting that Airbyte keeps is in it."""
    prints = [
        catalog.fingerprint_of(catalog.parse(msgspec.json.encode({"streams": [pair]})))
        for pair in DIFFERENT
    ]
    assert len(set(prints)) == len(DIFFERENT)


def test_hash_of_an_offered_stream_ignores_the_config() -> None:
    one, other = catalog.scan(document(stream(), stream(selected=False, syncMode="full_refresh")))
    assert catalog.canonical_hash(one) == catalog.canonical_hash(other)
    assert catalog.raw_hash(one) != catalog.raw_hash(other)


def test_deep_and_hostile_schemas_end() -> None:
    """Nesting is bounded: an answer or an InvalidCatalog, never a RecursionError."""
    outcomes = []
    for depth in (50, 100, 400, 800, 950, 5000):
        nested = b'{"properties":{"a":' * depth + b"{}" + b"}}" * depth
        body = b'{"streams":[{"stream":{"name":"a","jsonSchema":%s},"config":{}}]}' % nested
        outcomes.append(outcome(body))
    assert "refused" not in outcomes[:2], "what a source may well have"
    assert outcomes[-1] == "refused"
    fingerprints = [one for one in outcomes if one != "refused"]
    assert len(set(fingerprints)) == len(fingerprints), "every level counts"


@pytest.mark.parametrize(
    "number", ["1e999", "1e999999999999999999999", "9" * 5000, "0." + "1" * 400]
)
def test_extreme_numbers_in_schemas(number: str) -> None:
    """A schema may hold any number that JSON can write: refused, or unlike a small one."""
    of, small = (
        outcome(b'{"streams":[{"stream":{"name":"a","jsonSchema":{"maximum":%s}}}]}' % one.encode())
        for one in (number, "0")
    )
    assert small != "refused"
    assert of != small


# -- choosing


def offered(*pairs: Json) -> bytes:
    """A discovery: nothing is selected yet."""
    for pair in pairs:
        pair["config"] |= {"selected": False, "suggested": pair["config"].get("suggested", False)}
    return document(*pairs)


def modes(pair: Json, *destination: str) -> tuple[str | None, str | None]:
    """How a stream would be synced into a destination that can do this."""
    chosen = catalog.choose(document(pair), streams=None, destination_sync_modes=destination)
    config = chosen.streams[0].config
    return config.sync_mode, config.destination_sync_mode


def test_airbytes_suggested_streams_are_chosen_or_else_all() -> None:
    """Names come only from the source."""
    some = offered(stream("a"), stream("b", suggested=True), stream("c"))
    every = offered(stream("a"), stream("c"))

    for discovered, names in ((some, ["b"]), (every, ["a", "c"])):
        chosen = catalog.choose(discovered, streams=None, destination_sync_modes=EVERY_MODE)
        assert [s.id.name for s in chosen.streams] == names


def test_streams_are_chosen_by_name() -> None:
    """With the namespace where one name is in two of them."""
    discovered = offered(stream("a"), stream("t", namespace="x"), stream("t", namespace="y"))

    def chosen(*names: str) -> list[StreamId]:
        found = catalog.choose(discovered, streams=names, destination_sync_modes=EVERY_MODE)
        return [s.id for s in found.streams]

    assert chosen("y.t", "a", "a") == [StreamId(None, "a"), StreamId("y", "t")]
    with pytest.raises(InvalidCatalog) as refused:
        chosen("gone", "t", "a")
    assert [p.code for p in refused.value.problems] == ["unknown_stream", "ambiguous_stream"]
    assert "'gone'" in str(refused.value)
    with pytest.raises(InvalidCatalog, match="No stream is selected"):
        chosen()


def test_best_common_sync_mode_is_chosen() -> None:
    """Incremental and deduplicated where there are a cursor and a key."""
    keyless = stream(offer={"sourceDefinedPrimaryKey": []})
    bare = stream(offer={"sourceDefinedCursor": False, "defaultCursorField": []})
    only_incremental = stream(offer={"supportedSyncModes": ["incremental"]})

    assert modes(stream(), *EVERY_MODE) == ("incremental", "append_dedup")
    assert modes(stream(), "append", "overwrite") == ("full_refresh", "overwrite")
    assert modes(stream(), "append") == ("incremental", "append")
    assert modes(keyless, *EVERY_MODE) == ("full_refresh", "overwrite")
    assert modes(bare, *EVERY_MODE) == ("full_refresh", "overwrite")
    assert modes(bare, "append") == ("full_refresh", "append")
    assert modes(only_incremental, "append", "overwrite") == ("incremental", "append")
    with pytest.raises(InvalidCatalog, match="supports no sync mode"):
        modes(only_incremental, "overwrite")


@given(CATALOGS)
def test_chosen_catalog_is_valid_and_stable(pairs: list[Json]) -> None:
    """It can be applied as it is, and reads back equal."""
    chosen = catalog.choose(document(*pairs), streams=None, destination_sync_modes=EVERY_MODE)

    catalog.validate(chosen, destination_sync_modes=EVERY_MODE)
    again = catalog.parse(catalog.dump(chosen))
    assert catalog.fingerprint_of(chosen) == catalog.fingerprint_of(again)
    for pair in orjson.loads(catalog.dump(chosen))["streams"]:
        assert pair["config"]["selected"] is True
        assert {"cursorField", "primaryKey", "aliasName", "selectedFields"} <= set(pair["config"])


def test_too_large_choice_has_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_validation, "MAX_FIELDS", 5)
    discovered = offered(stream("a"), stream("b"))
    with pytest.raises(InvalidCatalog, match="Select fewer streams") as refused:
        catalog.choose(discovered, streams=None, destination_sync_modes=EVERY_MODE)
    assert refused.value.code == "catalog_too_large"


# -- merging


def merged(configured: Json, discovered: Json) -> tuple[Json, list[str]]:
    """One stream after a fresh look at its source, and what a person should know."""
    result = catalog.merge(
        catalog.parse(document(configured)), document(discovered), every_stream=False
    )
    assert result.removed == ()
    return orjson.loads(result.catalog)["streams"][0], [note.code for note in result.notes]


@given(CATALOGS)
def test_merging_an_unchanged_source_changes_nothing(pairs: list[Json]) -> None:
    """Whatever is configured stays, byte for byte in its config."""
    before = catalog.parse(document(*pairs))
    result = catalog.merge(before, document(*pairs), every_stream=True)
    assert result.notes == ()
    assert result.removed == ()
    assert orjson.loads(result.catalog) == {"streams": pairs}


@given(CATALOGS, CATALOGS)
def test_merging_selects_no_new_stream(configured: list[Json], discovered: list[Json]) -> None:
    """Selected after it is what was selected before and still exists."""
    before = catalog.parse(document(*configured))
    result = catalog.merge(before, document(*discovered), every_stream=True)

    after = catalog.parse(result.catalog)
    there = {s.id for s in catalog.parse(document(*discovered)).streams}
    had = {s.id for s in before.streams}
    assert {s.id for s in after.selected().streams} == had & there
    assert set(result.removed) == had - there
    assert [s.id for s in after.streams][-len(result.removed) :] == list(result.removed) or (
        not result.removed
    )
    assert len(after.streams) == len(had | there)
    assert result.unselected == len(there - had)
    assert catalog.dump(before) == document(*configured)


def test_merged_stream_has_the_new_definition_and_its_old_config() -> None:
    """A new field is added where all fields are synced, and not where a person selected them."""
    grown = stream(fields={"id": TEXT, "updated": MOMENT, "total": TEXT, "ssn": TEXT})

    pair, notes = merged(stream(aliasName="mine"), grown | {"config": {}})
    assert pair == {"stream": grown["stream"], "config": stream(aliasName="mine")["config"]}
    assert notes == []

    pair, notes = merged(stream(**picked("id", "updated")), grown)
    assert pair["config"] == stream(**picked("id", "updated"))["config"]
    assert notes == []


def test_merging_reports_what_the_source_lost() -> None:
    """Fields leave the selection; a key, a cursor or a mode that went is named."""
    shrunk = stream(fields={"id": TEXT, "updated": MOMENT})
    pair, notes = merged(stream(**picked("id", "updated", "total")), shrunk)
    assert pair["config"]["selectedFields"] == picked("id", "updated")["selectedFields"]
    assert notes == ["selected_fields_gone"]

    plain = {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}
    own = stream(offer=plain)
    lost = stream(fields={"total": TEXT}, offer=plain)
    assert merged(own, lost)[1] == ["cursor_gone", "key_gone"]

    rekeyed = stream(offer={"sourceDefinedPrimaryKey": [["total"]]})
    pair, notes = merged(stream(**picked("id", "updated")), rekeyed)
    assert pair["config"]["primaryKey"] == [["total"]]
    assert pair["config"]["selectedFields"] == picked("id", "updated")["selectedFields"]
    assert notes == ["primary_key_replaced", "key_not_selected"]

    recursored = stream(offer={"defaultCursorField": ["total"]})
    pair, notes = merged(stream(), recursored)
    assert pair["config"]["cursorField"] == ["total"]
    assert notes == ["cursor_replaced"]

    once = stream(offer={"supportedSyncModes": ["full_refresh"]}, syncMode="full_refresh")
    once["config"]["destinationSyncMode"] = "overwrite"
    pair, notes = merged(stream(), once)
    assert (pair["config"]["syncMode"], pair["config"]["destinationSyncMode"]) == (
        "full_refresh",
        "overwrite",
    )
    assert notes == ["sync_mode_replaced"]


def test_removed_stream_is_last_and_not_selected() -> None:
    """So that a person sees it, and applying the merge drops it."""
    before = catalog.parse(document(stream("gone"), stream("stays")))
    result = catalog.merge(before, document(stream("stays"), stream("new")), every_stream=False)

    after = catalog.parse(result.catalog)
    assert [(s.id.name, s.selected) for s in after.streams] == [("stays", True), ("gone", False)]
    assert result.removed == (StreamId(None, "gone"),)
    assert result.unselected == 1


@given(streams())
def test_streams_can_be_found_by_id(pair: Json) -> None:
    read: Catalog = catalog.parse(document(pair))
    assert read.by_id() == {read.streams[0].id: read.streams[0]}
