"""How earlier review decisions affect rename suggestions.

Suggestions for the declared renames are computed again after a sequence of decisions. Except for
the history, no sequence reveals which pair is correct, so accuracy must not drop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from services.rag_engine.evidence import PastDecision
from services.rag_engine.matching import suggest
from tests.bench import renames
from tests.bench.renames import Assessed, Step
from tests.bench.results_table import Line

HERE, THERE = "a", "b"
Decisions: TypeAlias = Callable[[Step], Sequence[PastDecision]]


def decision(
    step: Step, removed: str, became: str | None, *, accepted: bool = True, at: str = HERE
) -> PastDecision:
    """Build a reviewer's decision about a field of the step's application."""
    return PastDecision(
        entity="field",
        namespace=None,
        stream=step.application,
        removed=(removed,),
        became=None if became is None else (became,),
        is_accepted=accepted,
        connection=at,
    )


def dropped(step: Step) -> list[PastDecision]:
    """Each removed field was decided before to be a removal, not a rename."""
    return [decision(step, removed, None) for removed in step.removed]


def mistaken(step: Step) -> list[PastDecision]:
    """Each incorrect suggestion was rejected before."""
    return [
        decision(step, removed, became, accepted=False)
        for removed, became in suggested_pairs(step)
        if step.gold.get(removed) != became
    ]


def others_words(step: Step) -> list[PastDecision]:
    """Suggestions for other fields whose names contain the same words were rejected before."""
    return [
        decision(step, f"{removed}_x", f"{became}_x", accepted=False)
        for removed, became in suggested_pairs(step)
    ]


def elsewhere(step: Step) -> list[PastDecision]:
    """Every suggestion was rejected in another connection, the correct ones too."""
    return [
        decision(step, removed, became, accepted=False, at=THERE)
        for removed, became in suggested_pairs(step)
    ]


SEQUENCES: dict[str, Decisions] = {
    "each field dropped before": dropped,
    "each wrong suggestion rejected before": mistaken,
    "other fields with the same words rejected": others_words,
    "another connection rejected each suggestion": elsewhere,
}


def suggested_pairs(step: Step, past: Sequence[PastDecision] = ()) -> dict[tuple[str, str], float]:
    """Return the suggestions' confidence by pair, given these decisions, newest first."""
    question = replace(step.question, past=past, stream=step.application, connection=HERE)
    return {(s.removed[0], s.became[0]): s.confidence for s in suggest(question).suggestions}


def after(judged: Iterable[Step], decisions: Decisions) -> list[Assessed]:
    """Assess the suggestions for each step after its own sequence of decisions."""
    return renames.assess(judged, lambda step: suggested_pairs(step, decisions(step)))


def history(judged: Iterable[Step]) -> list[Assessed]:
    """Assess the suggestions when the steps come in order and each is decided correctly."""
    suggestions: list[Assessed] = []
    past: dict[str, list[PastDecision]] = {}
    for step in judged:
        known = past.setdefault(step.application, [])
        suggested = suggested_pairs(step, known)
        suggestions += renames.assess([step], lambda _, suggested=suggested: suggested)  # type: ignore[misc]
        for removed, became in suggested:
            if step.gold.get(removed) != became:
                known.insert(0, decision(step, removed, became, accepted=False))
        for removed in step.removed:
            known.insert(0, decision(step, removed, step.gold.get(removed)))
    return suggestions


def measure() -> Iterator[Line]:
    """Measure F1 and calibration after each sequence, compared with those without decisions."""
    judged = renames.steps()
    if not judged:
        yield Line(job=renames.ABSENT, measured=0, unit="steps")
        return
    total = sum(len(step.gold) for step in judged)
    plain = renames.assess(judged)
    results = {name: after(judged, decisions) for name, decisions in SEQUENCES.items()}
    results["every step decided in order"] = history(judged)
    for name, suggestions in results.items():
        best, baseline = (
            100 * renames.best_f1(suggestions, total),
            100 * renames.best_f1(plain, total),
        )
        limit = 0.8 if name.startswith("another") else 1
        yield Line(
            job=f"{name}: best F1; baseline: no decisions",
            measured=best,
            baseline=baseline,
            unit="%",
            limit=limit,
            at_least=True,
        )
        error = 100 * renames.ece(suggestions)
        # With only the wrong suggestions rejected, the remaining ones are underconfident.
        at_most = None if "wrong" in name else 15
        yield Line(job=f"{name}: calibration error", measured=error, unit="%", limit=at_most)
