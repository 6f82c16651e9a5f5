"""Decides whether a sync of a stream brought far fewer rows than the stream's syncs usually do.

A lost selection, a lost permission and a broken filter look like this: the sync succeeds, and the
rows are missing. The decision compares the newest sync with the stream's own history alone.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final

import msgspec

FEWEST: Final = 8
"""Syncs that a history needs; with fewer, nothing is decided."""
MOST: Final = 240
"""The newest syncs of a history, which alone are compared."""
HISTORY: Final = timedelta(weeks=8)
"""Older syncs are not compared."""
NEW_LEVEL_AFTER: Final = timedelta(weeks=1)
"""How long a stream's suspicious syncs must have agreed with one another to become its usual
ones."""
REPEATED: Final = 2
"""How many times before a stream must have had as few rows, so that they are usual then."""

_PERIODS: Final = (
    (timedelta(days=1), timedelta(hours=1)),
    *((timedelta(weeks=weeks), timedelta(hours=3)) for weeks in (1, 2, 3)),
)
"""After how long a stream may have few rows again, such as at night or at weekends, and how far
from the exact time. A weekend may be unlike the others, so that the one before it counts."""
_SEASONAL_AFTER: Final = timedelta(weeks=4)
"""The history after which syncs at the same time of the week are compared with one another."""
_WEEK: Final = 7 * 24 * 3600.0
_SAME_TIME: Final = 3 * 3600.0
_SAME_TIMES: Final = 4
_LEVEL: Final = 28
"""How many of the newest syncs give the level around which a stream's rows vary."""
_SPREADS: Final = 4.5
_LEAST_SPREAD: Final = 0.1
"""In logarithms: rows of a stream that hardly varied may still vary by a tenth."""
_FEWER: Final = math.log(3)
"""How much fewer than in the lowest usual sync is far fewer, as a logarithm."""
_LEAST_ROWS: Final = 20
"""A stream whose usual syncs have fewer rows may have none by chance."""
_OUTLIERS: Final = 0.03
"""The share of a history's lowest syncs that is ignored, such as those of a past failure."""
_EARLY: Final = 0.9


class Sync(msgspec.Struct, frozen=True):
    """One sync of a stream; `window` is the time since the stream's sync before it.

    A window is given for a stream that is read incrementally, whose rows grow with it; it is None
    for one that is read as a whole, and for the first sync. Of a sync with far fewer rows than
    usual, `repeats` is how many times before, each time a day or a week earlier, the stream had as
    few; REPEATED at most.
    """

    ended_at: datetime
    rows: int
    window: timedelta | None = None
    repeats: int = 0


class Judgement(msgspec.Struct, frozen=True):
    """The rows that were usual, from `low` to `high`; both None if the history is too short.

    If the rows were far fewer than at other times, the sync is either suspicious, or quiet: as few
    rows are usual at this time of the day or of the week.
    """

    low: int | None = None
    high: int | None = None
    is_suspicious: bool = False
    is_quiet: bool = False
    repeats: int = 0
    """Those of the newest sync, see `Sync`."""


def judge(history: Sequence[Sync], newest: Sync, lows: Iterable[Sync] = ()) -> Judgement:
    """Compare the newest sync with the ones before it, oldest first.

    `lows` are earlier syncs with far fewer rows than usual that are not part of the history: they
    were suspicious until a sync with the usual rows came, or quiet. A newest sync with as few rows
    as `lows` at the same time is quiet after REPEATED such times. So the first quiet weekends are
    suspicious, and the following ones are not, although the history has no weekend. Syncs since
    the newest one of the history are not compared with: they may be the same failure.

    In logarithms: the history's syncs vary around a level, that of the newest ones, or, with four
    weeks of history, that of the newest ones of the same weekday. The newest sync is suspicious
    if it is further below its level than almost every earlier one was below its own, by a factor,
    and by several times the usual spread (the median absolute deviation). So a stream that is
    often empty is never suspicious for being empty, unless it is empty on fixed weekdays alone.
    """
    history = [one for one in history if newest.ended_at - one.ended_at <= HISTORY][-MOST:]
    if len(history) < FEWEST:
        return Judgement()
    usual_window = _usual_window(history)
    values = [_log(one.rows / _excess(one, usual_window)) for one in history]
    every, levels, lowest_alike = _levels(history, values, newest)
    level = levels.pop()
    deviations = sorted(value - base for value, base in zip(values, levels, strict=True))
    spread = max(1.4826 * median(map(abs, deviations)), _LEAST_SPREAD)
    lowest = deviations[int(len(deviations) * _OUTLIERS)]
    highest = deviations[-1 - int(len(deviations) * _OUTLIERS)]
    # Rows of a shorter window than usual are counted as if it had been as long as usual.
    value = _log(newest.rows * max(1.0, 1 / _excess(newest, usual_window)))
    margin = max(_FEWER - lowest, _SPREADS * spread)
    low, high = _rows(level + lowest), _rows(level + highest)
    if _rows(level) < _LEAST_ROWS or value >= min(level - margin, lowest_alike):
        return Judgement(low, high, is_quiet=value < every - margin)
    fewer = max(_FEWER, _SPREADS * spread)
    as_few = [
        (one.repeats, rows)
        for one, rows in _alike(lows, newest, usual_window)
        if one.ended_at < history[-1].ended_at
        and (value >= rows - fewer or _rows(rows) < _LEAST_ROWS)
    ]
    repeats = min(REPEATED, 1 + max(as_few)[0]) if as_few else 0
    if repeats < REPEATED:
        return Judgement(low, high, is_suspicious=True, repeats=repeats)
    quiet = [rows for _, rows in as_few]
    return Judgement(_rows(min(quiet)), _rows(max(quiet)), is_quiet=True, repeats=repeats)


def is_early(history: Iterable[Sync], window: timedelta | None) -> bool:
    """Whether an incremental sync came so soon after the one before that its rows say nothing.

    They are counted with those of the next sync instead.
    """
    windows = sorted(one.window for one in history if one.window is not None)
    if window is None or len(windows) < FEWEST - 1:  # the first of eight syncs has no window
        return False
    return window < _EARLY * windows[len(windows) // 10]


def is_new_level(episode: Sequence[Sync], newest: Sync) -> bool:
    """Whether a stream's suspicious syncs, oldest first, have become its usual ones.

    So a stream whose rows became fewer for good is not suspicious for ever.
    """
    return (
        len(episode) >= FEWEST
        and newest.ended_at - episode[0].ended_at >= NEW_LEVEL_AFTER
        and not judge(episode, newest).is_suspicious
    )


def sentence(low: int, high: int, rows: int) -> str:
    """The usual and the newest number of rows in words."""
    usual = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"usually {usual} rows; now {rows:,}"


def _alike(
    lows: Iterable[Sync], newest: Sync, usual_window: timedelta | None
) -> Iterator[tuple[Sync, float]]:
    """The syncs that ended a day or some weeks before the newest one, or nearly so.

    Each with its rows as a logarithm, as many as it would have had in the usual window.
    """
    for one in lows:
        age = newest.ended_at - one.ended_at
        if any(abs(age - period) <= tolerance for period, tolerance in _PERIODS):
            yield one, _log(one.rows / _excess(one, usual_window))


def _usual_window(history: Sequence[Sync]) -> timedelta | None:
    windows = [one.window for one in history if one.window is not None]
    return median(windows) if windows else None  # type: ignore[type-var]


def _excess(one: Sync, usual: timedelta | None) -> float:
    """The ratio of a sync's window to the usual one; 1 where it has none."""
    if one.window is None or not usual:
        return 1.0
    return max(one.window / usual, 1e-3)


def _levels(
    history: Sequence[Sync], values: Sequence[float], newest: Sync
) -> tuple[float, list[float], float]:
    """The level at any time; that of each sync of the history, and at last that of the newest.

    Also the lowest of the syncs that the newest one's level is made from.
    """
    every = median(values[-_LEVEL:])
    if newest.ended_at - history[0].ended_at < _SEASONAL_AFTER:
        return every, [every] * (len(history) + 1), math.inf
    # The week three times, so that its first and its last hours are neighbours.
    times = [_time_of_week(one) for one in (*history, newest)]
    week = sorted(
        (at + turn, value)
        for at, value in zip(times, values, strict=False)
        for turn in (-_WEEK, 0.0, _WEEK)
    )
    levels, lowest = [], math.inf
    for at in times:
        first, last = bisect(week, (at - _SAME_TIME,)), bisect(week, (at + _SAME_TIME, math.inf))
        alike = [value for _, value in week[first:last]]
        is_enough = len(alike) >= _SAME_TIMES
        levels.append(median(alike) if is_enough else every)
        lowest = min(alike) if is_enough else math.inf
    return every, levels, lowest


def _time_of_week(one: Sync) -> float:
    return one.ended_at.timestamp() % _WEEK


def _log(rows: float) -> float:
    return math.log1p(rows)


def _rows(value: float) -> int:
    return max(0, round(math.expm1(value)))
