"""The tables of docs/guides/tables.md, from the rules that AAM judges destinations by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from shared.domain.destination import REMOVED, RETYPED, RULES, Rules

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "guides" / "tables.md"
_PART: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

_NAMES: Final = {
    "std": "ASCII letters, digits, `_`",
    "digit": "`_` before a digit",
    "letter": "`_` before anything but a letter",
    "lower": "lower case",
    "upper": "upper case",
    "braces": "`${}` become `_`",
}
_CUTS: Final = {
    "none": "refused",
    "hash": "end replaced by a hash",
    "hash_hex": "end replaced by a hash",
    "plain": "cut",
    "middle": "cut in the middle",
}
_CLASHES: Final = {
    "suffix_in_order": "the second gets `_1`",
    "sync_fails": "the sync fails",
    "unknown": "unknown",
}


def write() -> str:
    """The page with its tables written again; its prose is written by hand."""
    parts = {"removed": _removed, "retyped": _retyped, "names": _names}
    return _PART.sub(
        lambda found: found[1] + "\n".join((*parts[found[2]](), found[3])), PAGE.read_text()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _versions(rules: Rules) -> str:
    since = "" if rules.since == "0.0.0" else f" {rules.since}"
    if rules.until is None:
        return f"{rules.title} from{since or ' the first version'}"
    return f"{rules.title}{since and f' from{since}'} before {rules.until}"


def _removed() -> Iterator[str]:
    rows = []
    for rules in RULES:
        steps = [(version, fate) for version, fate in rules.removed.values]
        for at, (version, fate) in enumerate(steps):
            first = _versions(rules) if at == 0 else f"{rules.title} from {version}"
            if at == 0 and len(steps) > 1:
                first += f", before {steps[1][0]}"
            _, words = REMOVED[fate]
            asked = "no" if fate == "keep" else "yes"
            rows.append(
                (first, words.format(column="of the field"), asked, rules.sources["removed"])
            )
    return _table(("destination", "what it does", "asks a person", "source"), rows)


def _retyped() -> Iterator[str]:
    rows = [
        (
            _versions(rules),
            RETYPED[rules.retype],
            ", ".join(f"{one.replace('>', ' → ')}" for one in sorted(rules.safe_types)) or "none",
        )
        for rules in RULES
    ]
    return _table(("destination", "what it does", "applied without a person"), rows)


def _names() -> Iterator[str]:
    rows = []
    for rules in RULES:
        length = "no limit found" if rules.column_length is None else f"{rules.column_length}"
        cut = _CUTS.get(rules.cut, "unknown") if rules.column_length is not None else ""
        columns = "no limit found" if rules.max_columns is None else f"{rules.max_columns}"
        rows.append(
            (
                _versions(rules),
                ", ".join(_NAMES[step] for step in rules.steps) or "unchanged",
                f"{length}{cut and f': {cut}'}",
                columns,
                "exact" if rules.compare == "exact" else "ignores case",
                "the sync fails unless exactly equal"
                if rules.engine_compare is not None
                else _CLASHES[rules.column_clash],
            )
        )
    return _table(
        (
            "destination",
            "name of the column",
            "maximum length",
            "maximum number of columns",
            "comparison of names",
            "two fields with one name",
        ),
        rows,
    )
