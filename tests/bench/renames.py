"""Precision, recall and calibration of rename suggestions.

The ground truth is renames that developers declared; the baseline matches fields of the same type
by string similarity. Steps without a rename count too: any suggestion for them is wrong.
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
ABSENT = f"{FILE} does not exist (AAM_RENAMES is the path of the declared renames)."
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_BINS = 10
_FORMATS = ("date", "date-time")


@dataclass(frozen=True)
class Step:
    """One change of a table: removed and added fields by name and type, and declared renames."""

    repository: str
    application: str
    removed: dict[str, str]
    added: dict[str, str]
    gold: dict[str, str]

    @property
    def question(self) -> Question:
        """The step as input of `suggest`."""
        removed, added = (
            [Element((name,), _schema(type_)) for name, type_ in side.items()]
            for side in (self.removed, self.added)
        )
        return Question(removed=removed, added=added)


class Assessed(NamedTuple):
    """A suggestion for a step: its confidence, and whether it is correct."""

    confidence: float
    is_true: bool


class Score(NamedTuple):
    """Precision and recall of a set of suggestions."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall or 1)


def steps() -> list[Step]:
    """Read the steps from `FILE`; the list is empty when the file does not exist."""
    if not FILE.is_file():
        return []
    read = orjson.loads(gzip.decompress(FILE.read_bytes()))
    return [Step(s["repo"], s["app"], s["removed"], s["added"], s["gold"]) for s in read]


def measure() -> Iterator[Line]:
    """Measure precision and recall, reliability by confidence, and cross-validation by repository.

    The baseline has similarities instead of confidences; its best threshold is used.
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
            job = f"{what} at ≥ {at_least} (baseline: string similarity ≥ {at_least})"
            yield _percent(job, a, b)
    best, baseline = 100 * best_f1(ours, renames), 100 * best_f1(plain, renames)
    yield Line(job="best F1", measured=best, baseline=baseline, unit="%", limit=1, at_least=True)
    yield from _reliability(ours)
    once = distinct(judged)
    renames = sum(len(step.gold) for step in once)
    ours, plain = assess(once), assess(once, plainly)
    job = f"without duplicate steps ({len(once)}, {renames} renames): best F1"
    yield _percent(job, best_f1(ours, renames), best_f1(plain, renames))
    yield _percent("without duplicate steps: calibration error", ece(ours))
    yield from _cross_validate(judged)
    yield from _times()


def _reliability(ours: Sequence[Assessed]) -> Iterator[Line]:
    for lower, of_bin in bins(ours):
        job = f"correct at {lower:.1f}-{lower + 0.1:.1f}, n = {len(of_bin)} (baseline: confidence)"
        yield _percent(job, _accuracy(of_bin), float(np.mean([each.confidence for each in of_bin])))
    yield Line(job="expected calibration error", measured=100 * ece(ours), unit="%", limit=15)
    constant = _accuracy(ours) * (1 - _accuracy(ours))
    yield Line(
        job="Brier score (baseline: constant confidence)",
        measured=100 * brier(ours),
        baseline=100 * constant,
        unit="%",
        limit=1,
    )


def _cross_validate(judged: Sequence[Step]) -> Iterator[Line]:
    """Cross-validate: fit without one repository or application, then assess on it."""
    for repository in sorted({step.repository for step in judged}):
        here, ours = _fit_without(judged, lambda step: step.repository, repository)
        renames = sum(len(step.gold) for step in here)
        name = f"fitted without {repository.partition('+')[0]} ({renames} renames)"
        baseline = best_f1(assess(here, plainly), renames)
        yield _percent(f"{name}: best F1", best_f1(ours, renames), baseline)
        yield _percent(f"{name}: calibration error", ece(ours))
    applications = sorted({step.application for step in judged if step.gold})
    parts = [_fit_without(judged, lambda step: step.application, one) for one in applications]
    ours = [each for _, of_part in parts for each in of_part]
    here = [step for of_part, _ in parts for step in of_part]
    renames = sum(len(step.gold) for step in here)
    name = f"leave-one-application-out, {len(applications)} folds"
    baseline = best_f1(assess(here, plainly), renames)
    yield _percent(f"{name}: best F1", best_f1(ours, renames), baseline)
    yield _percent(f"{name}: calibration error", ece(ours))
    for parameter, value in fit(judged)._asdict().items():
        in_use = FITTED._asdict()[parameter]
        yield Line(
            job=f"{parameter}: {in_use} in use; fitted to all steps", measured=value, unit=""
        )


def _fit_without(
    judged: Sequence[Step], part: Callable[[Step], str], value: str
) -> tuple[list[Step], list[Assessed]]:
    here = [step for step in judged if part(step) == value]
    fitted = fit(step for step in judged if part(step) != value)
    return here, assess(here, partial(suggested_pairs, parameters=fitted))


def _times() -> Iterator[Line]:
    """Time suggestions by number of fields, compared with string similarity and assignment."""
    for size in (10, 300, 2000):
        removed, added = (
            {f"{word}_{n}_total": "number" for n in range(size)} for word in ("net", "gross")
        )
        step = Step("", "", removed, added, {})
        baseline = best_ms(partial(_assign_by_similarity, list(removed), list(added)))
        job = f"{size:,} removed, {size:,} added"
        yield Line(job=job, measured=best_ms(partial(suggested_pairs, step)), baseline=baseline)


def _assign_by_similarity(removed: Sequence[str], added: Sequence[str]) -> Any:
    alike = process.cdist(removed, added, scorer=fuzz.ratio, dtype=np.float64)
    return linear_sum_assignment(alike, maximize=True)


def _percent(job: str, measured: float, baseline: float = 0) -> Line:
    return Line(job=job, measured=100 * measured, baseline=100 * baseline or None, unit="%")


# Suggestions


def suggested_pairs(step: Step, parameters: Parameters = FITTED) -> dict[tuple[str, str], float]:
    """Return our suggestions' confidence by pair."""
    suggested = suggest(step.question, parameters)
    return {(s.removed[0], s.became[0]): s.confidence for s in suggested.suggestions}


def plainly(step: Step) -> dict[tuple[str, str], float]:
    """Return the baseline's similarity by pair: an assignment among fields of the same type."""
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


# Metrics


def assess(
    judged: Iterable[Step], method: Callable[[Step], dict[tuple[str, str], float]] = suggested_pairs
) -> list[Assessed]:
    """Assess every suggestion that a method makes for these steps."""
    return [
        Assessed(confidence, step.gold.get(removed) == became)
        for step in judged
        for (removed, became), confidence in method(step).items()
    ]


def score(suggested: Sequence[Assessed], renames: int, at_least: float) -> Score:
    """Return precision and recall of the suggestions with at least this confidence."""
    taken = [each for each in suggested if each.confidence >= at_least]
    right = sum(each.is_true for each in taken)
    return Score(right / (len(taken) or 1), right / renames)


def best_f1(suggested: Sequence[Assessed], renames: int) -> float:
    """Return the F1 at the best threshold."""
    return max(score(suggested, renames, at_least).f1 for at_least in THRESHOLDS)


def bins(suggested: Sequence[Assessed]) -> Iterator[tuple[float, list[Assessed]]]:
    """Group the suggestions by tenths of confidence; empty bins are omitted."""
    for number in range(_BINS):
        of_bin = [t for t in suggested if min(int(t.confidence * _BINS), _BINS - 1) == number]
        if of_bin:
            yield number / _BINS, of_bin


def ece(suggested: Sequence[Assessed]) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy."""
    return sum(
        abs(sum(each.confidence for each in of_bin) - sum(each.is_true for each in of_bin))
        for _, of_bin in bins(suggested)
    ) / len(suggested)


def brier(suggested: Sequence[Assessed]) -> float:
    """Return the Brier score: mean squared distance of confidence and outcome."""
    return float(np.mean([(each.confidence - each.is_true) ** 2 for each in suggested]))


def _accuracy(suggested: Sequence[Assessed]) -> float:
    return float(np.mean([each.is_true for each in suggested]))


def distinct(known: Iterable[Step]) -> list[Step]:
    """Return the steps that both remove and add fields, without duplicates."""
    found = {repr((s.removed, s.added, s.gold)): s for s in known if s.removed and s.added}
    return list(found.values())


# Fitting

_EXPECTED = np.array([0, 4, -1, -2.5, 1])
_SPREAD = np.array([3, 3, 1.5, 1.5, 1])


def fit(known: Iterable[Step]) -> Parameters:
    """Return the maximum a posteriori parameters, with a normal prior around `_EXPECTED`.

    Duplicate steps count once: twelve tables that renamed `created` at once are one decision.
    """
    data = [(pairs := Pairs.of(s.question.in_order()), _truth(s, pairs)) for s in distinct(known)]

    def negative_log_posterior(values: Any) -> float:
        parameters = Parameters(*values)
        total = 0.5 * float((((values - _EXPECTED) / _SPREAD) ** 2).sum())
        for pairs, truth in data:
            p = np.clip(pairs.probabilities(parameters), 1e-6, 1 - 1e-6)
            total -= float(np.log(np.where(truth, p, 1 - p)).sum())
        return total

    return Parameters(*minimize(negative_log_posterior, _EXPECTED, method="L-BFGS-B").x)


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
