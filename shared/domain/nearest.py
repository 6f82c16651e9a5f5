"""The known name that somebody probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler

_ALIKE = 0.85
"""From which Jaro-Winkler similarity on a known name is offered for an unknown one."""

_SHOWN = 80
"""Characters of a name that a sentence shows."""


def nearest(name: str, known: Iterable[str], *, limit: int = 1) -> list[str]:
    """The known names most like this one, in any case of letters; none where none is alike."""
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
    """What to add to a sentence about an unknown name: `; did you mean 'status'?`, or `.`."""
    words = [repr(one[:_SHOWN]) for one in nearest(name, known, limit=limit)]
    return f"; did you mean {' or '.join(words)}?" if words else "."
