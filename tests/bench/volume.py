"""How many alarms about the rows of a stream are right, and how many failures raise one.

The histories are generated, with a fixed seed: syncs by the hour, by six hours or by the day; read
incrementally or as a whole; quiet or empty weekends and nights; growth; bursts; holidays; streams
with few rows; syncs out of schedule. They begin at any hour of the week. In some streams the rows
stop, or nearly stop, at the end.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.orchestrator.volume_states import Volume, judge
from shared.domain import volume
from tests.bench.results_table import Line, best_ms

STREAMS = 500
SEED = 20_261_130
_WEEKS = 10
_LEARNED = timedelta(weeks=3)
"""How long a stream's alarms may be those of its first quiet nights and weekends."""
_JUDGED = timedelta(weeks=2)
"""The end of each history, whose alarms are right or false for the precision."""
_YEAR = timedelta(days=365)
_FAILING = timedelta(days=4)
_START = datetime(2026, 3, 2, tzinfo=UTC)
_SATURDAY, _MORNING = 5, 6
_FEW = 20
"""A failure counts if the stream would otherwise have had as many rows."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A generated stream: what it would have had, and what it had after its failure, if any."""

    kind: str
    is_often_empty: bool
    """Whether its syncs by the hour are empty each night or weekend, so it cannot be judged."""
    syncs: tuple[Volume, ...]
    expected: tuple[float, ...]
    fails_at: datetime | None


@dataclass(frozen=True, slots=True)
class Result:
    """How one stream was judged."""

    stream: Stream
    false_alarms: tuple[datetime, ...]
    """Its false alarms; one is raised once while a stream stays suspicious."""
    is_found: bool | None
    """Whether its failure was found in the first sync that lost rows; None if none lost any."""

    @property
    def learning(self) -> int:
        """How many false alarms it raised while it was new."""
        learned_at = self.stream.syncs[0].ended_at + _LEARNED
        return sum(at < learned_at for at in self.false_alarms)

    @property
    def last(self) -> int:
        """How many false alarms it raised at the end of its history."""
        since = self.stream.syncs[-1].ended_at - _JUDGED
        return sum(at >= since for at in self.false_alarms)


@dataclass(frozen=True, slots=True)
class _Source:
    """What a source does: `weekend` and `night` are shares of its usual rows."""

    kind: str
    a_day: float
    growth: float
    noise: float
    weekend: float
    night: float
    holidays: frozenset[int]

    @classmethod
    def drawn(cls, random_: random.Random, every: timedelta) -> _Source:
        """A source that is read at this interval."""
        kind = random_.choice(["steady", "weekdays", "business", "nights", "bursts", "few"])
        a_day = 10 ** random_.uniform(2, 6)
        if kind == "few":
            a_day = random_.uniform(0.3, 6) * (timedelta(days=1) / every)
        weekend = {"weekdays": random_.uniform(0.1, 0.5), "business": 0.0}.get(kind, 1.0)
        return cls(
            kind=kind,
            a_day=a_day,
            growth=random_.uniform(-0.005, 0.02),
            noise=random_.uniform(0.05, 0.4),
            weekend=weekend,
            night=random_.choice([0.0, 0.05]) if kind == "nights" else 1.0,
            holidays=frozenset(
                random_.randrange(_WEEKS * 7) for _ in range(2 if weekend < 1 else 0)
            ),
        )

    def between(self, since: datetime, until: datetime) -> float:
        """The rows of a time, without noise."""
        total, at = 0.0, since
        while at < until:
            after = min(at + timedelta(hours=1), until)
            total += self._a_day(at) * ((after - at) / timedelta(days=1))
            at = after
        return total

    def _a_day(self, at: datetime) -> float:
        day = (at - _START).days
        share = self.weekend if at.weekday() >= _SATURDAY else 1.0
        if day in self.holidays:
            share = max(self.weekend, 0.3)
        if at.hour < _MORNING:
            share *= self.night
        return self.a_day * (1 + self.growth) ** day * share

    def varied(self, random_: random.Random, rows: float) -> float:
        """Rows with the source's noise, and sometimes with a burst."""
        rows *= random_.lognormvariate(0, self.noise)
        if self.kind == "bursts" and random_.random() < 0.05:
            rows *= random_.uniform(5, 30)
        return rows


def generate(random_: random.Random) -> Stream:
    """One stream with ten weeks of syncs, of which one in fifty is out of schedule.

    It begins at any hour of the week, so that its first quiet time may be new to it or not.
    """
    every = timedelta(hours=random_.choice([1, 6, 24, 24]))
    is_whole = random_.random() < 0.3
    source = _Source.drawn(random_, every)
    start = _START + timedelta(hours=random_.randrange(7 * 24))
    end = start + timedelta(weeks=_WEEKS)
    fails_at, remaining = None, 1.0
    if random_.random() < 0.3:
        fails_at = end - timedelta(days=random_.uniform(1, _FAILING.days))
        remaining = random_.choice([0.0, 0.0, 0.02, 0.05])
    syncs, expected = [], []
    at, before, size = start + every, start, source.a_day * 10
    while at <= end:
        is_extra = random_.random() < 0.02
        ended_at = at + random_.uniform(-0.03, 0.03) * every
        if is_extra:
            ended_at -= every * random_.uniform(0.2, 0.9)
        ended_at = max(ended_at, before + timedelta(minutes=1))
        rows = source.between(before, ended_at)
        if is_whole:
            size += rows / 10
            rows = size * random_.lognormvariate(0, 0.02)
        else:
            rows = source.varied(random_, rows)
        has_failed = fails_at is not None and ended_at >= fails_at
        count = _poisson(random_, rows * (remaining if has_failed else 1.0))
        syncs.append(Volume("", "", ended_at, is_whole, count))
        expected.append(rows)
        before = ended_at
        if not is_extra:
            at += every
    is_often_empty = not is_whole and every.days < 1 and 0 in (source.weekend, source.night)
    return Stream(source.kind, is_often_empty, tuple(syncs), tuple(expected), fails_at)


def _poisson(random_: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(random_.gauss(mean, mean**0.5)))
    left, number = random_.expovariate(1.0), 0
    while left < mean:
        left += random_.expovariate(1.0)
        number += 1
    return number


def follow(stream: Stream) -> Result:
    """Judge the syncs of a stream from the first one on, one after another, as is recorded."""
    recorded: deque[Volume] = deque(maxlen=volume.MOST)
    false_alarms, found = [], []
    for sync, expected in zip(stream.syncs, stream.expected, strict=True):
        judged = judge(sync, recorded, version=1)
        recorded.appendleft(judged)
        has_failed = stream.fails_at is not None and sync.ended_at >= stream.fails_at
        if judged.begins_episode and not has_failed:
            false_alarms.append(sync.ended_at)
        if has_failed and expected >= _FEW and not judged.is_pending:
            found.append(judged.suspicious_since is not None)
    return Result(stream, tuple(false_alarms), found[0] if found else None)


def results(streams: int = STREAMS, seed: int = SEED) -> list[Result]:
    """Judge that many generated streams."""
    random_ = random.Random(seed)  # noqa: S311
    return [follow(generate(random_)) for _ in range(streams)]


def precision(judged: Sequence[Result]) -> float:
    """The share of right alarms at the end of the histories, where the failures are."""
    right = sum(one.is_found is True for one in judged)
    return right / (right + sum(one.last for one in judged) or 1)


def false_a_year(judged: Sequence[Result]) -> float:
    """The false alarms of one stream in a year, once it is no longer new."""
    later = sum(len(one.false_alarms) - one.learning for one in judged)
    return later / len(judged) * (_YEAR / (timedelta(weeks=_WEEKS) - _LEARNED))


def recall(judged: Sequence[Result]) -> float:
    """The share of failures that are found in the first sync that lost rows."""
    failures = [one.is_found for one in judged if one.is_found is not None]
    return sum(failures) / (len(failures) or 1)


def measure() -> Iterator[Line]:
    """Precision and recall of alarms, in percent, and the cost of one judgement."""
    judged = results()
    usual = [one for one in judged if not one.stream.is_often_empty]
    alarms = sum(one.last + (one.is_found is True) for one in judged)
    job = f"precision of {alarms} alarms in {len(judged)} streams, last two weeks"
    yield Line(job=job, measured=100 * precision(judged), unit="%", limit=95, at_least=True)
    job = "false alarms of a stream in its first three weeks"
    learning = sum(one.learning for one in judged) / len(judged)
    yield Line(job=job, measured=learning, unit="alarms", limit=0.4)
    job = "false alarms of a stream in a year after that"
    yield Line(job=job, measured=false_a_year(judged), unit="alarms", limit=1)
    failures = sum(one.is_found is not None for one in usual)
    job = f"recall of {failures} failures, streams that are rarely empty"
    yield Line(job=job, measured=100 * recall(usual), unit="%", limit=90, at_least=True)
    job = "recall of all failures"
    yield Line(job=job, measured=100 * recall(judged), unit="%", limit=85, at_least=True)
    longest = max(judged, key=lambda one: len(one.stream.syncs)).stream.syncs[-volume.MOST - 1 :]
    cost = best_ms(lambda: judge(longest[-1], longest[-2::-1], version=1))
    yield Line(job=f"one judgement, {volume.MOST} syncs", measured=cost)
