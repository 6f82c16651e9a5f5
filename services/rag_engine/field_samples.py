"""Compare sampled values of two fields; values are never stored, logged or returned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Values: TypeAlias = frozenset[tuple[bool, Scalar]]

_ENOUGH = 10
_SAME = 0.5
_MARGIN = 0.2
_FEW = 20
_DENSE = 20
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}|\d{1,2}:\d\d")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}([.,][0-9]{1,300})?")


@dataclass(frozen=True, slots=True)
class Sample:
    """The distinct values of a field's sample, without null."""

    values: Values
    count: int
    is_telling: bool
    """Whether another field is unlikely to have the same values by chance."""

    @classmethod
    def of(cls, values: Sequence[Scalar]) -> Sample:
        """Build a sample and decide whether its values identify the field.

        These do not: fewer than ten values, booleans, dense numbers (ids from 1 on, quantities),
        and dates and times, of which a row often has several equal ones.
        """
        there = [value for value in values if value is not None]
        # True must differ from 1; 1.0 equals 1, since an integer may have become a number.
        distinct = frozenset((isinstance(value, bool), value) for value in there)
        return cls(distinct, len(there), len(distinct) >= _ENOUGH and _telling(there))

    @property
    def is_choice(self) -> bool:
        """Whether a few values recur, as in an enum."""
        return 2 <= len(self.values) <= _FEW and self.count >= 5 * len(self.values)


def overlap(one: Sample, other: Sample) -> float:
    """The Jaccard similarity of the two sets of values, from 0 to 1."""
    either = len(one.values | other.values)
    return len(one.values & other.values) / either if either else 0.0


def are_same(one: Sample, other: Sample, *, share: float, rival: float) -> bool:
    """Whether both hold the same values; `share` is their overlap, `rival` the next best one."""
    return (
        one.is_telling
        and other.is_telling
        and share >= max(_SAME, rival + _MARGIN)
        and len(one.values & other.values) >= _ENOUGH
    )


def _telling(values: Sequence[Scalar]) -> bool:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(texts) == len(values):
        if not all(_NUMBER.fullmatch(text) for text in texts):
            return not all(_DATE.match(text) for text in texts)
        numbers = [float(text.replace(",", ".")) for text in texts]  # of sheets and files
    if len(numbers) < len(values) or all(isinstance(number, bool) for number in numbers):
        return False
    try:
        return max(numbers) - min(numbers) >= _DENSE * len(set(numbers))
    except OverflowError:  # an integer that is too large for a float
        return True
