"""Whether two fields hold the same values: compared and forgotten, never kept and never told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Values: TypeAlias = frozenset[bytes]

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
    def of(cls, values: Sequence[Any]) -> Sample:
        """What can be told from these values.

        Not telling are fewer than ten, truth values, numbers that lie as densely as counted ones
        (ids from 1 on, quantities), and dates and times: a row has several that are equal.
        """
        there = [_plain(value) for value in values if value is not None]
        distinct = {orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in there}
        return cls(frozenset(distinct), len(there), len(distinct) >= _ENOUGH and _telling(there))

    @property
    def is_choice(self) -> bool:
        """Whether few values come again and again."""
        return 2 <= len(self.values) <= _FEW and self.count >= 5 * len(self.values)


def overlap(one: Sample, other: Sample) -> float:
    """The share of values that both have among those that either has."""
    either = len(one.values | other.values)
    return len(one.values & other.values) / either if either else 0.0


def are_same(one: Sample, other: Sample, *, rivals: Iterable[float]) -> bool:
    """Whether both hold the same values, and no rival's overlap comes near."""
    shared = overlap(one, other)
    return (
        one.is_telling
        and other.is_telling
        and shared >= _SAME
        and len(one.values & other.values) >= _ENOUGH
        and shared >= max(rivals, default=0.0) + _MARGIN
    )


def _plain(value: Any) -> Any:
    # 1 became 1.0 where an integer became a number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _telling(values: Sequence[Any]) -> bool:
    if all(isinstance(value, bool) for value in values):
        return False
    if all(isinstance(value, int | float) for value in values):
        return bool(max(values) - min(values) >= _DENSE * len(set(values)))
    return not all(isinstance(value, str) and _DATE.match(value) for value in values)
