"""What people's earlier decisions do to the suggestions that come after them.

The declared renames are asked about again, each after a sequence of decisions. Except for the
history no sequence says which pair is right: what is suggested must stay as true as it was without.
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
    """What a person decided in a connection about a field of the step's application."""
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
    """Every field that is gone was dropped once before: it became nothing then."""
    return [decision(step, removed, None) for removed in step.removed]


def mistaken(step: Step) -> list[PastDecision]:
    """What is suggested wrongly was rejected before."""
    return [
        decision(step, removed, became, accepted=False)
        for removed, became in ask(step)
        if step.gold.get(removed) != became
    ]


def others_words(step: Step) -> list[PastDecision]:
    """Other fields were rejected as renames in the same words."""
    return [
        decision(step, f"{removed}_x", f"{became}_x", accepted=False)
        for removed, became in ask(step)
    ]


def elsewhere(step: Step) -> list[PastDecision]:
    """Another connection rejected every suggestion, also the right ones."""
    return [
        decision(step, removed, became, accepted=False, at=THERE) for removed, became in ask(step)
    ]


SEQUENCES: dict[str, Decisions] = {
    "each field was dropped before": dropped,
    "each wrong suggestion was rejected before": mistaken,
    "other fields were rejected in the same words": others_words,
    "another connection rejected each suggestion": elsewhere,
}


def ask(step: Step, past: Sequence[PastDecision] = ()) -> dict[tuple[str, str], float]:
    """What is suggested after these decisions, newest first."""
    question = replace(step.question, past=past, stream=step.application, connection=HERE)
    return {(s.removed[0], s.became[0]): s.confidence for s in suggest(question).suggestions}


def after(judged: Iterable[Step], decisions: Decisions) -> list[Assessed]:
    """The suggestions about each step after its own sequence of decisions."""
    return renames.assess(judged, lambda step: ask(step, decisions(step)))


def history(judged: Iterable[Step]) -> list[Assessed]:
    """The suggestions of a connection whose steps come in order and are each decided truly."""
    suggestions: list[Assessed] = []
    past: dict[str, list[PastDecision]] = {}
    for step in judged:
        known = past.setdefault(step.application, [])
        suggested = ask(step, known)
        suggestions += renames.assess([step], lambda _, suggested=suggested: suggested)  # type: ignore[misc]
        for removed, became in suggested:
            if step.gold.get(removed) != became:
                known.insert(0, decision(step, removed, became, accepted=False))
        for removed in step.removed:
            known.insert(0, decision(step, removed, step.gold.get(removed)))
    return suggestions


def measure() -> Iterator[Line]:
    """F1 and calibration after each sequence, beside those without any decision."""
    judged = renames.steps()
    if not judged:
        yield Line(job=renames.ABSENT, measured=0, unit="steps")
        return
    total = sum(len(step.gold) for step in judged)
    plain = renames.assess(judged)
    results = {name: after(judged, decisions) for name, decisions in SEQUENCES.items()}
    results["every step was decided in order"] = history(judged)
    for name, suggestions in results.items():
        best, floor = (
            100 * renames.best_f1(suggestions, total),
            100 * renames.best_f1(plain, total),
        )
        limit = 0.8 if name.startswith("another") else 1
        yield Line(
            job=f"{name}: best F1 (floor: no decision)",
            measured=best,
            floor=floor,
            unit="%",
            limit=limit,
            at_least=True,
        )
        error = 100 * renames.ece(suggestions)
        # Where only the wrong ones are known, what is left proves true more often than it says.
        at_most = None if "wrong" in name else 15
        yield Line(job=f"{name}: calibration error", measured=error, unit="%", limit=at_most)
