"""Which syncs bring suspiciously few rows, by the history of the stream alone."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.domain import volume
from shared.domain.volume import Judgement, Sync, is_early, is_new_level, judge, sentence
from tests.bench import volume as bench

DAY = timedelta(days=1)
MONDAY = datetime(2026, 3, 2, 3, tzinfo=UTC)


def daily(*rows: int, incremental: bool = True) -> list[Sync]:
    """One sync a day from a Monday on."""
    window = DAY if incremental else None
    return [Sync(MONDAY + number * DAY, count, window) for number, count in enumerate(rows)]


def judged(*rows: int, incremental: bool = True) -> Judgement:
    """The judgement of the last of these daily syncs."""
    *history, newest = daily(*rows, incremental=incremental)
    return judge(history, newest)


USUAL = (1400, 1900, 1200, 1500, 1600, 1300, 1700, 1450)


@pytest.mark.parametrize("incremental", [True, False])
def test_none_or_far_fewer_rows_are_suspicious(incremental: bool) -> None:
    """The usual range is that of the history."""
    found = judged(*USUAL, 0, incremental=incremental)

    assert found == Judgement(low=1200, high=1900, is_suspicious=True)
    assert sentence(1200, 1900, 0) == "usually 1,200 to 1,900 rows; now 0"
    assert judged(*USUAL, 100, incremental=incremental).is_suspicious
    assert not judged(*USUAL, 900, incremental=incremental).is_suspicious
    assert not judged(*USUAL, 90_000, incremental=incremental).is_suspicious


def test_nothing_is_said_with_fewer_than_eight_syncs() -> None:
    """Nor of what is older than the history that is compared."""
    assert judged(*USUAL[:7], 0) == Judgement()
    *history, newest = daily(*USUAL, 0)
    assert judge(history, Sync(newest.ended_at + volume.HISTORY, 0)) == Judgement()


@given(
    st.lists(st.integers(0, 10**9), max_size=7),
    st.integers(0, 10**9),
)
def test_short_history_is_never_judged(rows: list[int], newest: int) -> None:
    """Whatever is in it."""
    assert judged(*rows, newest) == Judgement()


@given(
    st.lists(st.integers(0, 10**9), min_size=8, max_size=100),
    st.floats(0.1, 1),
    st.randoms(use_true_random=False),
)
def test_stream_that_is_often_empty_is_never_suspicious(
    rows: list[int], share: float, random_: random.Random
) -> None:
    """An empty sync in ten, at any time, is enough."""
    with_gaps = [0 if random_.random() < share else count for count in rows]
    empty = sum(count == 0 for count in with_gaps)
    if empty * 10 < len(with_gaps):
        with_gaps[: -(-len(with_gaps) // 10)] = [0] * -(-len(with_gaps) // 10)
    random_.shuffle(with_gaps)
    # Fewer than four weeks, so that no weekday is compared with itself.
    syncs = [Sync(MONDAY + n * timedelta(hours=6), count) for n, count in enumerate(with_gaps)]

    assert not judge(syncs, Sync(syncs[-1].ended_at + timedelta(hours=6), 0)).is_suspicious


@given(st.lists(st.integers(0, 10**9), min_size=8, max_size=60))
def test_as_many_rows_as_ever_before_are_never_suspicious(rows: list[int]) -> None:
    """Nor more than that."""
    assert not judged(*rows, min(rows)).is_suspicious
    assert not judged(*rows, max(rows) + 1).is_suspicious


def test_empty_weekends_are_usual_after_four_weeks() -> None:
    """And an empty Monday is suspicious then."""
    week = (1400, 1900, 1200, 1500, 1600, 0, 0)

    assert not judged(*week * 5, 1500, 1400, 1600, 1300, 1500, 0).is_suspicious
    monday = judged(*week * 5, 0)
    assert (monday.is_suspicious, monday.low) == (True, 1400)
    assert not judged(*week * 2, 0).is_suspicious


@pytest.mark.parametrize("age", [DAY, 7 * DAY, 21 * DAY])
def test_as_few_rows_as_at_the_same_time_before_are_quiet(age: timedelta) -> None:
    """If those had been as few once more before, and usual rows came since then."""
    *history, newest = daily(*USUAL * 3, 100)
    before = Sync(newest.ended_at - age - timedelta(minutes=50), 150, DAY, repeats=1)
    history[-1] = replace(history[-1], ended_at=newest.ended_at - timedelta(hours=1))

    assert judge(history, newest, [before]) == Judgement(150, 150, is_quiet=True, repeats=2)
    once = judge(history, newest, [replace(before, repeats=0)])
    assert (once.is_suspicious, once.repeats) == (True, 1)
    fewer = judge(history, replace(newest, rows=30), [before])
    assert (fewer.is_suspicious, fewer.repeats) == (True, 0)
    few = [replace(before, rows=19)]
    assert judge(history, replace(newest, rows=0), few).is_quiet
    elsewhen = [replace(before, ended_at=newest.ended_at - age / 2)]
    assert judge(history, newest, elsewhen).is_suspicious


def test_rows_since_the_newest_usual_ones_do_not_make_a_sync_quiet() -> None:
    """They may be of the same failure."""
    *history, before, newest = daily(*USUAL, 0, 0)

    assert judge(history, newest, [replace(before, repeats=2)]).is_suspicious


def test_weekday_is_that_of_the_time_not_of_the_date() -> None:
    """A sync around midnight may end on either day."""
    random_ = random.Random(1)  # noqa: S311
    minutes = [timedelta(minutes=random_.randint(-30, 30)) for _ in range(57)]
    midnight = MONDAY.replace(hour=0)
    week = (0, 1400, 1900, 1200, 1500, 1600, 0)
    syncs = [Sync(midnight + n * DAY + minutes[n], week[n % 7], DAY) for n in range(57)]

    assert [n for n in range(28, 57) if judge(syncs[:n], syncs[n]).is_suspicious] == []


def test_growing_stream_is_judged_by_its_newest_syncs() -> None:
    """Ten times as many rows as two months ago, and then as many as then."""
    rows = [round(1000 * 1.04**n) for n in range(56)]

    assert not judged(*rows, rows[-1] // 2).is_suspicious
    assert judged(*rows, 20).is_suspicious


def test_bursts_and_one_past_failure_change_nothing() -> None:
    """The usual range ignores the extreme syncs of a long history."""
    rows = list(USUAL * 5)
    rows[7], rows[20] = 900_000, 0

    found = judged(*rows, 0)
    assert found.is_suspicious
    assert found.low == 1200


def test_rows_of_a_short_window_are_scaled() -> None:
    """A sync after a third of the usual time may have a third of the rows, or fewer."""
    *history, newest = daily(*USUAL, 150)

    third = Sync(newest.ended_at, 150, DAY / 3)
    assert judge(history, Sync(newest.ended_at, 150, DAY)).is_suspicious
    assert not judge(history, third).is_suspicious
    assert judge(history, Sync(newest.ended_at, 150, None)).is_suspicious


def test_sync_soon_after_another_is_early() -> None:
    """Unless such syncs are usual, or the stream is read as a whole."""
    history = daily(*USUAL)

    assert is_early(history, DAY / 2)
    assert not is_early(history, DAY)
    assert not is_early(history, None)
    assert not is_early(history[:6], DAY / 2)
    often = [*history, Sync(history[-1].ended_at + DAY / 4, 200, DAY / 4)]
    assert not is_early(often, DAY / 4)


def test_suspicious_syncs_become_usual_after_a_week_and_eight_syncs() -> None:
    """If they agree with one another."""
    newest = Sync(MONDAY + 9 * DAY, 0, DAY)

    assert is_new_level(daily(*[0] * 8), newest)
    assert not is_new_level(daily(*[0] * 7), newest)
    hourly = [Sync(MONDAY + n * timedelta(hours=1), 0) for n in range(20)]
    assert not is_new_level(hourly, Sync(MONDAY + timedelta(hours=21), 0))
    assert not is_new_level(daily(*[100] * 8), newest)


def test_generated_histories() -> None:
    """A part of what `make bench` measures, with room for the smaller number."""
    found = bench.results(12, seed=6)

    assert bench.precision(found) >= 0.9
    assert bench.recall([one for one in found if not one.stream.is_often_empty]) >= 0.8
    assert bench.false_a_year(found) <= 2
