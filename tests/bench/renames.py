"""How often a suggested rename is one, and whether its confidence means what it says.

Judged by renames that developers declared, pair by pair, beside the plain way: similar letters and
the same type. Steps without any rename count too: whatever is suggested there is wrong.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from rapidfuzz import fuzz, process
from scipy.optimize import linear_sum_assignment, minimize

from services.rag_engine.evidence import Element, Question
from services.rag_engine.matching import FITTED, Pairs, Parameters, suggest
from tests.bench.results_table import Line, best_ms

FILE = Path(
    os.environ.get("AAM_RENAMES") or Path(__file__).parents[3] / "shared" / "renames-dev.json.gz"
)
ABSENT = f"there is no {FILE} (AAM_RENAMES says where the declared renames are)."
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_BINS = 10
_FORMATS = ("date", "date-time")


@dataclass(frozen=True)
class Step:
    """What one change of a table removed and added, by name and type, and what became what."""

    repository: str
    application: str
    removed: dict[str, str]
    added: dict[str, str]
    gold: dict[str, str]

    @property
    def question(self) -> Question:
        """The step as it is asked."""
        removed, added = (
            [Element((name,), _schema(type_)) for name, type_ in side.items()]
            for side in (self.removed, self.added)
        )
        return Question(removed=removed, added=added)


class Assessed(NamedTuple):
    """One suggestion of a step: how sure it was, and whether it was true."""

    confidence: float
    is_true: bool


class Score(NamedTuple):
    """Of what was suggested, how much is true; of what is true, how much was suggested."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Both in one number."""
        return 2 * self.precision * self.recall / (self.precision + self.recall or 1)


def steps() -> list[Step]:
    """Every step of the file; none where there is no file."""
    if not FILE.is_file():
        return []
    read = orjson.loads(gzip.decompress(FILE.read_bytes()))
    return [Step(s["repo"], s["app"], s["removed"], s["added"], s["gold"]) for s in read]


def measure() -> Iterator[Line]:
    """Precision and recall beside the plain way's, the reliability table, and other repositories.

    The plain way has similarities, not confidences; its best threshold is taken as its floor.
    """
    judged = steps()
    if not judged:
        yield Line(job=ABSENT, measured=0, unit="steps")
        return
    renames = sum(len(step.gold) for step in judged)
    yield Line(job=f"steps, with {renames} renames in them", measured=len(judged), unit="")
    ours, plain = assess(judged), assess(judged, plainly)
    for at_least in THRESHOLDS:
        scores = score(ours, renames, at_least), score(plain, renames, at_least)
        for what, a, b in zip(("precision", "recall"), *scores, strict=True):
            job = f"{what} at ≥ {at_least} (floor: letters and same type ≥ {at_least})"
            yield _percent(job, a, b)
    best, floor = 100 * best_f1(ours, renames), 100 * best_f1(plain, renames)
    yield Line(job="best F1", measured=best, floor=floor, unit="%", limit=1, at_least=True)
    yield from _reliability(ours)
    once = distinct(judged)
    renames = sum(len(step.gold) for step in once)
    ours, plain = assess(once), assess(once, plainly)
    job = f"equal steps once ({len(once)}, {renames} renames): best F1"
    yield _percent(job, best_f1(ours, renames), best_f1(plain, renames))
    yield _percent("equal steps once: calibration error", ece(ours))
    yield from _elsewhere(judged)
    yield from _times()


def _reliability(ours: Sequence[Assessed]) -> Iterator[Line]:
    for lower, of_bin in bins(ours):
        job = f"true of those at {lower:.1f}-{lower + 0.1:.1f}, n = {len(of_bin)} (floor: stated)"
        yield _percent(job, _share(of_bin), float(np.mean([each.confidence for each in of_bin])))
    yield Line(job="expected calibration error", measured=100 * ece(ours), unit="%", limit=15)
    yield Line(job="Brier score (floor: of one confidence for all)", measured=100 * brier(ours),
               floor=100 * _share(ours) * (1 - _share(ours)), unit="%", limit=1)  # fmt: skip


def _elsewhere(judged: Sequence[Step]) -> Iterator[Line]:
    """What was fitted without a repository, or without one application's tables, judged by it."""
    for repository in sorted({step.repository for step in judged}):
        here, ours = _held_back(judged, lambda step: step.repository, repository)
        renames = sum(len(step.gold) for step in here)
        name = f"fitted without {repository.partition('+')[0]} ({renames} renames)"
        floor = best_f1(assess(here, plainly), renames)
        yield _percent(f"{name}: best F1", best_f1(ours, renames), floor)
        yield _percent(f"{name}: calibration error", ece(ours))
    applications = sorted({step.application for step in judged if step.gold})
    parts = [_held_back(judged, lambda step: step.application, one) for one in applications]
    ours = [each for _, of_part in parts for each in of_part]
    here = [step for of_part, _ in parts for step in of_part]
    renames = sum(len(step.gold) for step in here)
    name = f"fitted without the application judged, {len(applications)} times"
    floor = best_f1(assess(here, plainly), renames)
    yield _percent(f"{name}: best F1", best_f1(ours, renames), floor)
    yield _percent(f"{name}: calibration error", ece(ours))
    for parameter, value in fit(judged)._asdict().items():
        in_force = FITTED._asdict()[parameter]
        yield Line(job=f"{parameter}: {in_force} in force; fitted to all", measured=value, unit="")


def _held_back(
    judged: Sequence[Step], part: Callable[[Step], str], value: str
) -> tuple[list[Step], list[Assessed]]:
    here = [step for step in judged if part(step) == value]
    fitted = fit(step for step in judged if part(step) != value)
    return here, assess(here, partial(ask, parameters=fitted))


def _times() -> Iterator[Line]:
    """What a question costs by its size, beside similar letters and an assignment alone."""
    for size in (10, 300, 2000):
        removed, added = (
            {f"{word}_{n}_total": "number" for n in range(size)} for word in ("net", "gross")
        )
        step = Step("", "", removed, added, {})
        floor = best_ms(partial(_letters, list(removed), list(added)))
        job = f"{size:,} gone, {size:,} new"
        yield Line(job=job, measured=best_ms(partial(ask, step)), floor=floor)


def _letters(removed: Sequence[str], added: Sequence[str]) -> Any:
    alike = process.cdist(removed, added, scorer=fuzz.ratio, dtype=np.float64)
    return linear_sum_assignment(alike, maximize=True)


def _percent(job: str, measured: float, floor: float = 0) -> Line:
    return Line(job=job, measured=100 * measured, floor=100 * floor or None, unit="%")


# What is suggested


def ask(step: Step, parameters: Parameters = FITTED) -> dict[tuple[str, str], float]:
    """Our suggestions."""
    answer = suggest(step.question, parameters)
    return {(s.removed[0], s.became[0]): s.confidence for s in answer.suggestions}


def plainly(step: Step) -> dict[tuple[str, str], float]:
    """The plain way: the assignment of most similar letters, among those of the same type."""
    removed, added = sorted(step.removed), sorted(step.added)
    if not removed or not added:
        return {}
    alike = np.array(
        [
            [fuzz.ratio(a, b) / 100 * (step.removed[a] == step.added[b]) for b in added]
            for a in removed
        ]
    )
    rows, columns = linear_sum_assignment(alike, maximize=True)
    return {
        (removed[row], added[column]): float(alike[row, column])
        for row, column in zip(rows, columns, strict=True)
    }


# How good that is


def assess(
    judged: Iterable[Step], way: Callable[[Step], dict[tuple[str, str], float]] = ask
) -> list[Assessed]:
    """Every suggestion that a way makes about these steps."""
    return [
        Assessed(confidence, step.gold.get(removed) == became)
        for step in judged
        for (removed, became), confidence in way(step).items()
    ]


def score(suggested: Sequence[Assessed], renames: int, at_least: float) -> Score:
    """Precision and recall of the suggestions that are this sure."""
    taken = [each for each in suggested if each.confidence >= at_least]
    right = sum(each.is_true for each in taken)
    return Score(right / (len(taken) or 1), right / renames)


def best_f1(suggested: Sequence[Assessed], renames: int) -> float:
    """The F1 of the threshold that suits best."""
    return max(score(suggested, renames, at_least).f1 for at_least in THRESHOLDS)


def bins(suggested: Sequence[Assessed]) -> Iterator[tuple[float, list[Assessed]]]:
    """The suggestions by tenths of confidence; tenths without any are left out."""
    for number in range(_BINS):
        of_bin = [t for t in suggested if min(int(t.confidence * _BINS), _BINS - 1) == number]
        if of_bin:
            yield number / _BINS, of_bin


def ece(suggested: Sequence[Assessed]) -> float:
    """Expected calibration error: the average distance of confidence from the true share."""
    return sum(
        abs(sum(each.confidence for each in of_bin) - sum(each.is_true for each in of_bin))
        for _, of_bin in bins(suggested)
    ) / len(suggested)


def brier(suggested: Sequence[Assessed]) -> float:
    """Mean squared distance of confidence and truth."""
    return float(np.mean([(each.confidence - each.is_true) ** 2 for each in suggested]))


def _share(suggested: Sequence[Assessed]) -> float:
    return float(np.mean([each.is_true for each in suggested]))


def distinct(known: Iterable[Step]) -> list[Step]:
    """The steps that may hold a rename, equal ones once."""
    found = {repr((s.removed, s.added, s.gold)): s for s in known if s.removed and s.added}
    return list(found.values())


# Fitting

_EXPECTED = np.array([0, 4, -1, -2.5, 1])
_SPREAD = np.array([3, 3, 1.5, 1.5, 1])


def fit(known: Iterable[Step]) -> Parameters:
    """The parameters under which these steps are likeliest, held near what one would expect.

    Equal steps count once: twelve tables that renamed `created` in one afternoon are one decision.
    """
    data = [(pairs := Pairs.of(s.question.in_order()), _truth(s, pairs)) for s in distinct(known)]

    def unlikely(values: Any) -> float:
        parameters = Parameters(*values)
        total = 0.5 * float((((values - _EXPECTED) / _SPREAD) ** 2).sum())
        for pairs, truth in data:
            p = np.clip(pairs.probabilities(parameters), 1e-6, 1 - 1e-6)
            total -= float(np.log(np.where(truth, p, 1 - p)).sum())
        return total

    return Parameters(*minimize(unlikely, _EXPECTED, method="L-BFGS-B").x)


def _truth(step: Step, pairs: Pairs) -> Any:
    removed, added = pairs.question.removed, pairs.question.added
    return np.array(
        [
            step.gold.get(removed[row].path[0]) == added[column].path[0]
            for row, column in zip(pairs.rows, pairs.columns, strict=True)
        ]
    )


def _schema(type_: str) -> dict[str, str]:
    return {"type": "string", "format": type_} if type_ in _FORMATS else {"type": type_}
