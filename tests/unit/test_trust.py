"""When a discovery is suspicious at the first observation."""

from __future__ import annotations

import time

import pytest

from services.schema_observer.plausibility import Field, check_fields, check_streams, fields_of
from shared.domain.catalog import StreamId


def streams(count: int, prefix: str = "Object") -> set[StreamId]:
    return {StreamId(None, f"{prefix}{number}") for number in range(count)}


@pytest.mark.parametrize(
    "before, gone, code",
    [
        (1, 0, None),
        (2, 1, None),
        (3, 2, "streams_missing"),
        (10, 5, None),
        (10, 6, "streams_missing"),
        (100, 20, None),
        (100, 21, "streams_missing"),
        (1500, 300, None),
        (1500, 301, "streams_missing"),
        (4, 4, "no_streams"),
    ],
)
def test_number_of_streams_that_may_go(before: int, gone: int, code: str | None) -> None:
    """Unsynced ones: a few, or a fifth of many, and never more than half."""
    found = check_streams(before=before, now=before - gone, gone=streams(gone), synced=set())
    assert (found and found.code) == code


def test_one_missing_synced_stream_is_suspicious() -> None:
    """The first few are named."""
    account = StreamId(None, "Account")
    found = check_streams(
        before=200, now=199, gone={account}, synced={account, StreamId("b", "Contact")}
    )
    assert found is not None
    assert found.code == "synced_stream_missing"
    assert found.detail == "1 of 200 streams are gone, and these are synced: 'Account'."
    many = check_streams(before=200, now=190, gone=streams(10), synced=streams(10))
    assert many is not None
    assert many.detail.endswith("'Object0', 'Object1', 'Object2' and 7 more.")


def test_additions_are_not_suspicious() -> None:
    assert check_streams(before=1, now=500, gone=set(), synced=streams(1)) is None


def test_empty_source_is_suspicious() -> None:
    found = check_streams(before=0, now=0, gone=set(), synced=set())
    assert found is not None
    assert found.code == "no_streams"


def fields(count: int, prefix: str = "Field") -> set[Field]:
    return {(f"{prefix}{number}",) for number in range(count)}


@pytest.mark.parametrize(
    "before, now, code",
    [
        (4, 4, None),
        (4, 2, None),
        (4, 1, "fields_missing"),
        (1, 0, "stream_without_fields"),
        (12, 7, None),
        (12, 6, "fields_missing"),
        (100, 80, None),
        (100, 79, "fields_missing"),
        (0, 0, None),
    ],
)
def test_number_of_fields_of_a_synced_stream_that_may_go(
    before: int, now: int, code: str | None
) -> None:
    """A few, or a fifth of many, and never more than half; all of them is its own reason."""
    account = StreamId(None, "Account")
    found = check_fields({account: fields(before)}, {account: fields(now)})
    assert (found and found.code) == code
    if found is not None:
        assert "'Account'" in found.detail


def test_missing_fields_of_many_streams_are_added_up() -> None:
    """Three of ten are few in one stream, and not in six: a field permission was lost."""
    before = dict.fromkeys(streams(6), fields(10))
    now = dict.fromkeys(streams(6), fields(7))
    found = check_fields(before, now)
    assert found is not None
    assert found.code == "fields_missing"
    assert found.detail == (
        "18 of 60 fields of synced streams are gone: 'Object0', 'Object1', 'Object2' and 3 more."
    )
    one = StreamId(None, "Object0")
    assert check_fields({one: fields(10)}, {one: fields(7)}) is None


def test_renamed_fields_are_not_missing() -> None:
    """Additions are subtracted; a field that went with its parent counts once."""
    account = StreamId(None, "Account")
    assert check_fields({account: fields(10)}, {account: fields(10, prefix="Other")}) is None
    address = {("Address",), *(("Address", f"Line{number}") for number in range(9))}
    assert check_fields({account: address | fields(3)}, {account: fields(3)}) is None
    emptied = {("Address",)} | fields(3)
    found = check_fields({account: address | fields(3)}, {account: emptied})
    assert found is not None
    assert found.code == "fields_missing"


def test_fields_are_found_anywhere_in_a_schema() -> None:
    """In items, in alternatives and by reference; a recursive schema ends."""
    schema = {
        "definitions": {"line": {"properties": {"sku": {}, "parts": {"$ref": "#"}}}},
        "properties": {
            "lines": {"type": "array", "items": {"$ref": "#/definitions/line"}},
            "payer": {"anyOf": [{"type": "null"}, {"properties": {"name": {}}}]},
        },
    }
    found = fields_of(schema)
    assert {("lines",), ("lines", "sku"), ("payer",), ("payer", "name")} <= found
    assert fields_of(None) == fields_of({"properties": None}) == set()


def test_exponential_items_are_bounded() -> None:
    """Each definition is twice an item of the one before, without a step in the path."""
    definitions = {
        f"a{level}": {"type": "array", "items": [{"$ref": f"#/$defs/a{level + 1}"}] * 2}
        for level in range(40)
    }
    schema = {
        "$defs": definitions | {"a40": {"properties": {"end": {}}}},
        "properties": {"x": {"$ref": "#/$defs/a0"}},
    }
    began = time.process_time()
    assert fields_of(schema) == {("x",), ("x", "end")}
    assert time.process_time() - began < 1
