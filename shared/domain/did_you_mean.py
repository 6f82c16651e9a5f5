"""Suggestions for unknown names: the most similar known ones."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler

_ALIKE = 0.85
"""The smallest Jaro-Winkler similarity of a suggestion."""

_SHOWN = 80
"""The maximal length of a name in a sentence."""


def nearest(name: str, known: Iterable[str], *, limit: int = 1) -> list[str]:
    """The most similar known names, case-insensitive; empty if none is similar enough."""
    found = process.extract(
        name,
        list(known),
        scorer=JaroWinkler.similarity,
        processor=str.casefold,
        limit=limit,
        score_cutoff=_ALIKE,
    )
    return [match for match, _, _ in found]


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 1) -> str:
    """The end of a sentence about an unknown name: `; did you mean 'status'?`, or `.`."""
    words = [repr(one[:_SHOWN]) for one in nearest(name, known, limit=limit)]
    return f"; did you mean {' or '.join(words)}?" if words else "."
