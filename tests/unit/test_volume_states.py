"""A stream's episode of suspicious syncs: its beginning, its end, and rows that are pending."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from services.orchestrator.volume_states import SyncedStream, Volume, judge, of_job
from shared.airbyte_client import Job, StreamCount, StreamCounts
from shared.domain import volume as volumes
from shared.domain.catalog import StreamId

DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
MONDAY, SATURDAY = datetime(2026, 3, 2, tzinfo=UTC), 5
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
        judged.append(judge(sync, judged[: -volumes.MOST - 1 : -1], version=version))
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


def every(
    hours: int, until: timedelta, a_hour: Callable[[datetime], float], *, since: timedelta = DAY * 0
) -> list[Volume]:
    """Syncs by so many hours from a Monday's midnight on, or later, with the rows of each hour."""
    at = MONDAY + since
    syncs = []
    while at < MONDAY + until:
        times = [at + timedelta(hours=hour) for hour in range(hours)]
        at += timedelta(hours=hours)
        syncs.append(Volume("Account", "", at, False, round(sum(map(a_hour, times)))))
    return syncs


def quiet_weekends(share: float, *failures: timedelta) -> Callable[[datetime], float]:
    """The rows of an hour; none on the days that begin so long after the first Monday."""

    def a_hour(at: datetime) -> float:
        if any(failure <= at - MONDAY < failure + DAY for failure in failures):
            return 0
        return 250 * (share if at.weekday() >= SATURDAY else 1)

    return a_hour


def alarms(syncs: Iterable[Volume]) -> list[timedelta]:
    """How long after the first Monday's midnight each episode begins."""
    return [one.ended_at - MONDAY for one in follow(syncs) if one.begins_episode]


@pytest.mark.parametrize("share", [0, 0.2])
@pytest.mark.parametrize("hours", [1, 2, 6, 12, 24])
def test_quiet_weekends_become_usual(hours: int, share: float) -> None:
    """The first two raise an alarm, unless they are among the first eight syncs."""
    begins = alarms(every(hours, 8 * WEEK, quiet_weekends(share)))

    first = 5 * DAY + timedelta(hours=hours)
    assert begins == ([] if hours == 24 else [first, first + WEEK])


def test_quiet_nights_become_usual() -> None:
    """As weekends, after two of them."""

    def by_day(at: datetime) -> float:
        return 0 if at.hour < 6 else 250

    nine = timedelta(hours=9)
    assert alarms(every(1, 3 * WEEK, by_day, since=nine)) == [
        number * DAY + timedelta(hours=1) for number in (1, 2)
    ]

    def in_business_hours(at: datetime) -> float:
        return by_day(at) if at.weekday() < SATURDAY else 0

    begins = alarms(every(1, 6 * WEEK, in_business_hours, since=nine))
    assert len(begins) == 5
    assert max(begins) < 2 * WEEK


@pytest.mark.parametrize(
    "hours, share, failure, found",
    [
        (1, 0, 37 * DAY + timedelta(hours=10), timedelta(hours=1)),
        (6, 0, 37 * DAY + timedelta(hours=10), timedelta(hours=8)),
        (6, 0, 35 * DAY, timedelta(hours=6)),
        (12, 0, 35 * DAY, timedelta(hours=12)),
        (1, 0.2, 40 * DAY + timedelta(hours=10), timedelta(hours=1)),
        (6, 0.2, 40 * DAY + timedelta(hours=12), timedelta(hours=6)),
        (12, 0.2, 40 * DAY + timedelta(hours=12), timedelta(hours=12)),
    ],
    ids=["1h", "6h", "6h-Monday", "12h-Monday", "1h-weekend", "6h-weekend", "12h-weekend"],
)
def test_failure_among_quiet_weekends_is_found(
    hours: int, share: float, failure: timedelta, found: timedelta
) -> None:
    """In the first sync without rows, right after a weekend, too, or at one that has rows."""
    begins = alarms(every(hours, 6 * WEEK, quiet_weekends(share, failure)))

    assert begins[2:] == [failure + found]


def test_failure_right_after_a_quiet_weekend_is_found_within_hours() -> None:
    """Times up to three hours apart count as the same."""
    begins = alarms(every(1, 6 * WEEK, quiet_weekends(0, 35 * DAY)))

    assert begins[2:] == [35 * DAY + timedelta(hours=4)]


@pytest.mark.parametrize("hours", [1, 6])
def test_second_failure_at_the_same_time_of_the_week_is_found(hours: int) -> None:
    """One time before is not enough."""
    first, second = 15 * DAY, 22 * DAY
    begins = alarms(every(hours, 4 * WEEK, quiet_weekends(1, first, second)))

    assert begins == [one + timedelta(hours=hours) for one in (first, second)]


@pytest.mark.parametrize("hours", [6, 24])
def test_failure_goes_on_through_quiet_weekends(hours: int) -> None:
    """A weekend without rows does not end it; it raises one alarm, and becomes usual."""
    days = [(6 * 7 + 2 + day) * DAY for day in range(8 * 7)]
    found = follow(every(hours, 14 * WEEK, quiet_weekends(0, *days)))

    begins = [one.ended_at - MONDAY for one in found if one.begins_episode]
    assert begins[0 if hours == 24 else 2 :] == [days[0] + timedelta(hours=hours)]
    assert found[-1].usual_since == MONDAY + begins[-1]
    quiet = [one for one in found if one.suspicious_since and one.ended_at.weekday() >= SATURDAY]
    assert all(one.usual_low for one in quiet)


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
