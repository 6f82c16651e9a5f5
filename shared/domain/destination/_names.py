"""The names of columns and tables in a destination, as its connector makes them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from shared.domain.destination._facts import Cut, Limit, Rules

_SPACES: Final = re.compile(r"[ \t\n\x0b\f\r]+")
_SPECIAL: Final = re.compile(r"[^A-Za-z0-9_]")
_MOST_SUFFIXES: Final = 10_000
_HASH: Final = 8
"""Digits of the hash that replaces the end of a long name."""


def std(name: str) -> str:
    """ASCII letters, digits and `_` only: marks are dropped, everything else becomes `_`.

    Source: airbyte-cdk data/Transformations, and Names of the older Java CDK.
    """
    if name.isascii() and name.isidentifier():
        return name
    letters = (c for c in unicodedata.normalize("NFKD", name) if unicodedata.category(c)[0] != "M")
    return _SPECIAL.sub("_", _SPACES.sub("_", "".join(letters)))


def _braces(name: str) -> str:
    return re.sub(r"[${}]", "_", name) if "${" in name else name


STEPS: Final[Mapping[str, Callable[[str], str]]] = {
    "std": std,
    "lower": str.lower,
    "upper": str.upper,
    "braces": _braces,
    "digit": lambda name: f"_{name}" if name[:1].isdigit() else name,
    "letter": lambda name: name if name[:1].isalpha() or name[:1] == "_" else f"_{name}",
    "dataset": lambda name: name if name[:1].isalnum() else f"n{name}",
}


class Column(msgspec.Struct, frozen=True):
    """The column of one field."""

    field: str
    name: str | None
    """None if the destination gives it none: it refuses the name, or what it does is unknown."""
    clashes_with: str | None = None
    """The earlier field whose column would have had this name."""
    is_long: bool = False
    """Whether the name is longer than the destination takes; `Rules.cut` says what follows."""


def columns(rules: Rules, fields: Sequence[str]) -> list[Column]:
    """The columns of fields in this order: the first field of each name gets it.

    Source: CDK schema/ColumnNameResolver@9605e5cf; CatalogParser@0173f12b does the same.
    """
    taken: dict[str, str] = {}
    in_engine: dict[str, str] = {}
    found: list[Column] = []
    for field in fields:
        base, is_long = _made(rules, field)
        key = compared(rules.compare, base)
        other = taken.get(key)
        name: str | None = base
        if other is not None:
            name = _suffixed(rules, field, base, taken)
        else:
            other = in_engine.get(compared(rules.engine_compare or rules.compare, base))
            name = base if other is None else None
        if name is not None:
            taken[compared(rules.compare, name)] = field
            in_engine[compared(rules.engine_compare or rules.compare, name)] = field
        found.append(Column(field, name, other, is_long))
    return found


def table_name(rules: Rules, name: str) -> str:
    """The table of a stream, whose prefix is part of `name`, if it clashes with none."""
    steps = rules.steps if rules.table_steps is None else rules.table_steps
    return _cut(_stepped(steps, name), rules.table_length, rules.cut)


def schema_name(rules: Rules, name: str) -> str:
    """The schema or dataset of this name."""
    if rules.schema_steps is None:
        return table_name(rules, name)
    return _stepped(rules.schema_steps, name)


def second_table(schema: str | None, name: str) -> str:
    """The name of a table whose own name is taken by an earlier stream.

    Source: CDK schema/TableNameResolver@9089d14d.
    """
    digest = hashlib.sha1(f"{schema or ''}&airbyte&{name}".encode(), usedforsecurity=False)
    return f"{name}_{digest.hexdigest()[:3]}"


def compared(how: str, name: str) -> str:
    """A key that is equal for names that count as the same; unknown comparisons ignore case."""
    return name if how == "exact" else name.casefold()


def _made(rules: Rules, field: str) -> tuple[str, bool]:
    whole = _stepped(rules.steps, field)
    cut = _cut(whole, rules.column_length, rules.cut)
    is_long = isinstance(rules.column_length, int) and len(whole) > rules.column_length
    return cut, is_long


def _suffixed(rules: Rules, field: str, base: str, taken: Mapping[str, str]) -> str | None:
    """The next free name with a number."""
    if rules.column_clash != "suffix_in_order":
        return None
    for number in range(1, _MOST_SUFFIXES):
        name = _made(rules, f"{field}_{number}")[0]
        if name == base:
            break  # the number was cut away
        if compared(rules.compare, name) not in taken:
            return name
    affix = max((len(base) - 5) // 2, 1)
    between = len(field) - 2 * affix
    name = _made(rules, f"{field[:affix]}{between}{field[-affix:]}")[0]
    return name if compared(rules.compare, name) not in taken else None


def _stepped(steps: Sequence[str], name: str) -> str:
    for step in steps:
        name = STEPS[step](name)
    return name


def _cut(name: str, length: Limit, cut: Cut) -> str:
    """A name with its end, or its middle, replaced if it is longer than `length`."""
    if not isinstance(length, int) or len(name) <= length:
        return name
    if cut == "hash":
        return f"{name[: length - _HASH - 1]}_{str(_java_hash(name))[-_HASH:]}"
    if cut == "hash_hex":
        digest = format(_java_hash(name) & 0xFFFFFFFF, "x")
        return f"{name[: length - _HASH - 1]}_{digest[-_HASH:]}"
    if cut == "plain":
        return name[:length]
    if cut == "middle":
        half = (length - 2) // 2
        return f"{name[:half]}__{name[-half:]}"
    return name


def _java_hash(text: str) -> int:
    """Java's `String.hashCode`: of UTF-16 units, signed, 32 bits."""
    units = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for at in range(0, len(units), 2):
        value = (value * 31 + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value
