"""Whether two fields hold the same values: compared and forgotten, never kept and never told."""

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
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class Sample:
    """The distinct values of a field's sample, null aside."""

    values: Values
    count: int
    is_telling: bool
    """Whether another field would hardly have the same ones by chance."""

    @classmethod
    def of(cls, values: Sequence[Scalar]) -> Sample:
        """What can be told from these values.

        Not telling are fewer than ten, truth values, numbers that lie as densely as counted ones
        (ids from 1 on, quantities), and dates and times: a row has several that are equal.
        """
        there = [value for value in values if value is not None]
        # True is no 1; 1.0 is, where an integer became a number.
        distinct = frozenset((isinstance(value, bool), value) for value in there)
        return cls(distinct, len(there), len(distinct) >= _ENOUGH and _telling(there))

    @property
    def is_choice(self) -> bool:
        """Whether few values come again and again."""
        return 2 <= len(self.values) <= _FEW and self.count >= 5 * len(self.values)


def overlap(one: Sample, other: Sample) -> float:
    """The share of values that both have among those that either has."""
    either = len(one.values | other.values)
    return len(one.values & other.values) / either if either else 0.0


def are_same(one: Sample, other: Sample, *, share: float, rival: float) -> bool:
    """Whether both hold the same values: `share` is their overlap, `rival` the next best one's."""
    return (
        one.is_telling
        and other.is_telling
        and share >= max(_SAME, rival + _MARGIN)
        and len(one.values & other.values) >= _ENOUGH
    )


def _telling(values: Sequence[Scalar]) -> bool:
    if all(isinstance(value, str) for value in values):
        return not all(_DATE.match(str(value)) for value in values)
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values) or all(isinstance(number, bool) for number in numbers):
        return False
    try:
        return max(numbers) - min(numbers) >= _DENSE * len(set(numbers))
    except OverflowError:  # a float beside a number beyond all floats
        return True
