"""Fields that are gone and new, and what is suggested for them."""

from __future__ import annotations

from typing import Any

from services.rag_engine.evidence import Element, Question
from services.rag_engine.field_samples import Sample
from services.rag_engine.matching import Answer, Suggestion, suggest

TEXT = {"type": ["null", "string"]}
NUMBER = {"type": ["null", "number"]}
YES_NO = {"type": "boolean"}


def element(dotted: str, schema: Any = None, values: Any = None, **more: Any) -> Element:
    """A field by its dotted path."""
    sample = None if values is None else Sample.of(list(values))
    return Element(
        tuple(dotted.split(".")), TEXT if schema is None else schema, sample=sample, **more
    )


def became(removed: Any, added: Any, schema: Any = None, **more: Any) -> Answer:
    """What is suggested for names, or elements, separated by blanks."""
    sides = [
        [element(name, schema) for name in side.split()] if isinstance(side, str) else side
        for side in (removed, added)
    ]
    return suggest(Question(removed=sides[0], added=sides[1], stream="orders", **more))


def only(answer: Answer) -> Suggestion:
    """The one suggestion."""
    [suggestion] = answer.suggestions
    return suggestion


def kinds_of(suggestion: Suggestion) -> set[str]:
    """The kinds of evidence."""
    return {finding.kind for finding in suggestion.evidence}


def pairs(answer: Answer) -> dict[str, str]:
    """What became what."""
    return {".".join(s.removed): ".".join(s.became) for s in answer.suggestions}
