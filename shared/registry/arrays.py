"""Conditions on lists of values of any length."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from sqlalchemy import ARRAY, ColumnElement, any_, cast
from sqlalchemy.orm import InstrumentedAttribute

T = TypeVar("T")


def one_of(column: InstrumentedAttribute[T], values: Collection[T]) -> ColumnElement[bool]:
    """SQL for a column that has one of the values, which are one parameter: an array.

    `in_` makes each value a parameter of its own, and a statement can have 32,767 of them.
    """
    return column == any_(cast(list(values), ARRAY(column.type)))
