"""Similarity of names, by their words (whatever their spelling) and by their letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

Matrix: TypeAlias = NDArray[np.float64]
Edit: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]

_CUSTOM = re.compile(r"__(c|r|pc)$")  # Salesforce's suffixes of custom fields
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_SHORT = {
    "amt": "amount",
    "cnt": "count",
    "dt": "date",
    "img": "image",
    "msg": "message",
    "nr": "number",
    "pct": "percent",
    "qty": "quantity",
    "ts": "timestamp",
}
_ALIKE = 0.6
_BEGINS = 0.8
_BATCH_ROWS = 256


@lru_cache(maxsize=16384)
def words(name: str) -> tuple[str, ...]:
    """The words of a name; the same for `privateMetas`, `private_meta` and `Private Meta`."""
    parted = _HUMP.sub("_", _CUSTOM.sub("", name))
    return tuple(_plain(word.lower()) for word in _WORD.findall(parted)) or (name.lower(),)


def _plain(word: str) -> str:
    if word in _SHORT:
        return _SHORT[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def edit(removed: str, added: str) -> Edit | None:
    """The removed and added words, each in alphabetical order; None if no word is common.

    `total_net` → `total_net_amount` and `total` → `total_amount` are the same edit. Two names of
    one word each always have an edit.
    """
    ours, theirs = Counter(words(removed)), Counter(words(added))
    if not ours & theirs and (len(ours) > 1 or len(theirs) > 1):
        return None
    return tuple(sorted((ours - theirs).elements())), tuple(sorted((theirs - ours).elements()))


def similarity(
    removed: Sequence[str], added: Sequence[str], *, unchanged: Iterable[str] = ()
) -> Matrix:
    """The similarity of names, from 0 to 1; a row per removed name, a column per added one.

    The mean of two measures: common letters, and common words, where each word is matched with the
    most similar one of the other name. Words of many `unchanged` names (a common prefix) count
    less.
    """
    known = Counter(word for name in unchanged for word in set(words(name)))
    ours, theirs = _Words(removed, known), _Words(added, known)
    alike = _alike(ours.vocabulary, theirs.vocabulary)
    found = np.empty((len(removed), len(added)), dtype=np.float64)
    covered = theirs.covered(alike.T)  # of each added name, by each removed word
    for start in range(0, len(removed), _BATCH_ROWS):
        rows = slice(start, start + _BATCH_ROWS)
        found[rows] = _dice(ours, theirs, alike, covered, rows)
    joined = [["".join(words(name)) for name in side] for side in (removed, added)]
    letters = process.cdist(*joined, scorer=fuzz.ratio, dtype=np.float64)
    return np.asarray(found + letters / 100) / 2


class _Words:
    """The words of many names, as indexes into a vocabulary, with their weights."""

    def __init__(self, names: Sequence[str], known: Counter[str]) -> None:
        parts = [words(name) for name in names]
        self.vocabulary = sorted({word for part in parts for word in part})
        number = {word: index for index, word in enumerate(self.vocabulary)}
        self.flat = np.array([number[word] for part in parts for word in part])
        self.starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        self.ends = np.cumsum([len(part) for part in parts])
        rarity = [1 / (1 + np.log1p(known[word])) for word in self.vocabulary]
        self.weights = np.array(rarity, dtype=np.float64)[self.flat]
        self.total = np.add.reduceat(self.weights, self.starts)

    def covered(self, alike: Matrix) -> Matrix:
        """The best similarity of each name (a row) to each word of the other side (a column)."""
        return np.maximum.reduceat(alike[self.flat], self.starts, axis=0)


def _dice(ours: _Words, theirs: _Words, alike: Matrix, covered: Matrix, rows: slice) -> Matrix:
    starts = ours.starts[rows]
    first, last = starts[0], ours.ends[rows][-1]
    flat, weights, starts = ours.flat[first:last], ours.weights[first:last], starts - first
    removed_overlap = np.add.reduceat(covered.T[flat] * weights[:, None], starts, axis=0)
    best = np.maximum.reduceat(alike[flat], starts, axis=0)
    added_overlap = np.add.reduceat(best[:, theirs.flat] * theirs.weights, theirs.starts, axis=1)
    found: Matrix = (removed_overlap + added_overlap) / (ours.total[rows][:, None] + theirs.total)
    return found


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> Matrix:
    """The similarity of words: 0 below a threshold, at least `_BEGINS` if one is a prefix."""
    found = process.cdist(ours, theirs, scorer=fuzz.ratio, dtype=np.float64) / 100
    found[found < _ALIKE] = 0
    for one, other, matrix in ((ours, theirs, found), (theirs, ours, found.T)):
        number = {word: index for index, word in enumerate(one)}
        for column, word in enumerate(other):
            for length in range(3, len(word)):
                row = number.get(word[:length])
                if row is not None:
                    matrix[row, column] = max(matrix[row, column], _BEGINS)
    return np.asarray(found)
