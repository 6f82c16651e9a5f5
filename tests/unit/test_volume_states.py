"""A stream's episode of suspicious syncs: its beginning, its end, and rows that are pending."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from services.orchestrator.volume_states import SyncedStream, Volume, judge, of_job
from shared.airbyte_client import Job, StreamCount, StreamCounts
from shared.domain.catalog import StreamId

DAY = timedelta(days=1)
START = datetime(2026, 3, 2, 3, tzinfo=UTC)
USUAL = [1400, 1900, 1200, 1500, 1600, 1300, 1700, 1450]
ACCOUNT, LEAD = StreamId(None, "Account"), StreamId("crm", "Lead")


def volume(
    day: float, rows: int, *, is_full_refresh: bool = False, is_pending: bool = False
) -> Volume:
    """One sync of Account."""
    at = START + day * DAY
    return Volume("Account", "", at, is_full_refresh, rows, is_pending=is_pending)


def follow(syncs: Iterable[Volume]) -> list[Volume]:
    """Judge syncs one after another; the version is the number of the sync."""
    judged: list[Volume] = []
    for version, sync in enumerate(syncs):
        judged.append(judge(sync, judged[::-1], version=version))
    return judged


def daily(*rows: int, is_full_refresh: bool = False) -> list[Volume]:
    return [volume(day, count, is_full_refresh=is_full_refresh) for day, count in enumerate(rows)]


@pytest.mark.parametrize("is_full_refresh", [True, False])
def test_episode_begins_once_and_ends_with_a_usual_sync(is_full_refresh: bool) -> None:
    """Its suspicious syncs are not what is usual; a second episode begins anew."""
    found = follow(daily(*USUAL, 0, 0, 3, 1500, 0, is_full_refresh=is_full_refresh))

    assert [one.begins_episode for one in found[7:]] == [False, True, False, False, False, True]
    assert [one.suspicious_version for one in found[8:]] == [8, 8, 8, None, 12]
    assert {one.suspicious_since for one in found[8:11]} == {START + 8 * DAY}
    assert {(one.usual_low, one.usual_high) for one in found[8:12]} == {(1200, 1900)}


def test_fewer_rows_become_usual_after_a_week() -> None:
    """The stream is not suspicious for ever, and its old level does not come back by itself."""
    found = follow(daily(*USUAL, *[50] * 12, 0))

    assert [one.suspicious_since is not None for one in found[8:]] == [True] * 8 + [False] * 4 + [
        True
    ]
    assert found[16].usual_since == START + 8 * DAY
    assert (found[19].usual_low, found[19].usual_high) == (50, 50)
    assert found[20].begins_episode


def test_rows_of_a_failed_sync_are_judged_with_the_next() -> None:
    """An incremental stream goes on where the failed sync ended."""
    failed = volume(8, 1500, is_pending=True)

    found = follow([*daily(*USUAL), failed, volume(8.1, 20)])
    assert not found[-1].is_pending
    assert found[-1].suspicious_since is None
    assert follow([*daily(*USUAL), volume(8.1, 20)])[-1].suspicious_since is not None


def test_early_sync_of_an_incremental_stream_is_pending() -> None:
    """It shows the state before; a stream that is read as a whole is judged by any sync."""
    *_, early, following = follow([*daily(*USUAL), volume(7.3, 0), volume(8, 0)])
    assert (early.is_pending, early.suspicious_since) == (True, None)
    assert following.begins_episode

    *_, suspicious, early = follow([*daily(*USUAL, 0), volume(8.3, 0)])
    assert early.is_pending
    assert early.suspicious_since == suspicious.ended_at
    assert (early.usual_low, early.usual_high) == (1200, 1900)
    assert not early.begins_episode

    whole = [*daily(*USUAL, is_full_refresh=True), volume(7.3, 0, is_full_refresh=True)]
    assert follow(whole)[-1].begins_episode


def test_change_of_the_sync_mode_begins_a_new_history() -> None:
    """A whole table and its changes have nothing in common."""
    found = follow([*daily(*USUAL, is_full_refresh=True), volume(8, 0)])

    assert (found[-1].suspicious_since, found[-1].usual_low) == (None, None)


def job(**members: object) -> Job:
    """A job that ended."""
    return Job(
        **{
            "id": 1,
            "connection_id": None,
            "config_type": "sync",
            "status": "succeeded",
            "created_at": START,
            "started_at": START,
            "ended_at": START + DAY,
            "attempts": 1,
            "records": 5,
            "bytes_": 50,
            "failure_type": None,
            "failure_origin": None,
            **members,
        }  # type: ignore[arg-type]
    )


STREAMS = [SyncedStream("Account", "", True), SyncedStream("Lead", "crm", False)]
COUNTS = {ACCOUNT: StreamCount(5, 50)}


def rows(counted: Job, counts: dict[StreamId, StreamCount] = COUNTS) -> dict[str, int]:
    return {one.stream_name: one.rows for one in of_job(STREAMS, counted, counts, START)}


def test_stream_without_a_count_had_no_rows() -> None:
    """Airbyte leaves out a stream of which nothing came."""
    assert rows(job()) == {"Account": 5, "Lead": 0}


def test_failed_and_refreshed_streams_are_left_out() -> None:
    """What a failed job read of a whole table is read again; a refresh reads what was read."""
    counts = {ACCOUNT: StreamCount(5, 50), LEAD: StreamCount(7, 70)}

    assert rows(job(status="failed"), counts) == {"Lead": 7}
    assert rows(job(status="cancelled")) == {}
    assert rows(job(refreshed=frozenset({LEAD})), counts) == {"Account": 5}


def test_attempts_are_added_up_as_airbyte_does() -> None:
    """Its own totals first; an attempt reads a whole table again, and continues the others."""
    attempts: tuple[StreamCounts, ...] = (
        {ACCOUNT: StreamCount(3, 30), LEAD: StreamCount(4, None)},
        {},
        {ACCOUNT: StreamCount(5, 50), LEAD: StreamCount(7, 70)},
    )
    counted = job(streams_by_attempt=attempts)

    assert counted.counts(full_refresh={ACCOUNT}) == {
        ACCOUNT: StreamCount(5, 50),
        LEAD: StreamCount(11, 70),
    }
    totals = {LEAD: StreamCount(9, 90)}
    assert job(streams=totals, streams_by_attempt=attempts).counts(full_refresh=()) == totals
    assert job(streams_by_attempt=({},)).counts(full_refresh=()) == {}
    assert job(streams=totals).counts(full_refresh=()) is None
