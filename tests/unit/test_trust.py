"""When a discovery is doubted at the first sight."""

from __future__ import annotations

import pytest

from services.schema_observer.trust import doubt
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
def test_how_many_may_go(before: int, gone: int, code: str | None) -> None:
    """Of streams that nobody syncs: a few, or a fifth of many, and never more than half."""
    found = doubt(before=before, now=before - gone, gone=streams(gone), synced=set())
    assert (found and found.code) == code


def test_one_synced_stream_is_enough() -> None:
    """It is named; so are a few of many."""
    account = StreamId(None, "Account")
    found = doubt(before=200, now=199, gone={account}, synced={account, StreamId("b", "Contact")})
    assert found is not None
    assert found.code == "synced_stream_missing"
    assert found.detail == "1 of 200 streams are gone, and these are synced: 'Account'."
    many = doubt(before=200, now=190, gone=streams(10), synced=streams(10))
    assert many is not None
    assert many.detail.endswith("'Object0', 'Object1', 'Object2' and 7 more.")


def test_nothing_gone_is_no_reason() -> None:
    """However much is new."""
    assert doubt(before=1, now=500, gone=set(), synced=streams(1)) is None


def test_a_source_that_never_offered_anything_is_doubted() -> None:
    """No streams are no schema."""
    found = doubt(before=0, now=0, gone=set(), synced=set())
    assert found is not None
    assert found.code == "no_streams"
