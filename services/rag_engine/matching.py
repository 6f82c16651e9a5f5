"""Match removed elements with added ones, and compute the confidence of each match.

Every pair has odds. A pair's probability follows from its own odds and those of its rivals, since
each removed element became at most one added element. All functions are pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.rag_engine import assignment, evidence, json_schema, name_similarity
from services.rag_engine.evidence import NAMES_AT_MOST, Element, Finding, Pair, Path, Question

Array: TypeAlias = NDArray[np.float64]


class Parameters(NamedTuple):
    """The terms of a pair's log odds, without its rivals; so few that 60 cases suffice to fit."""

    base: float
    name: float
    """Multiplied by the similarity of names, 0 to 1."""
    related: float
    """Added if the types differ, but values of one can be values of the other."""
    clashing: float
    """Added if values of one type cannot be values of the other."""
    pattern: float
    """Added if another pair has the same change of words."""


FITTED = Parameters(base=-0.2, name=4.0, related=-0.3, clashing=-2.8, pattern=2.0)
"""Fitted by `tests/bench/renames.py`; rounded, since the data supports no more digits."""

SUGGESTED_FROM = 0.08
"""Lowest confidence of a suggestion; of 400 fields renamed at once, the right pairs have 0.09."""
SHOWN_FROM = 0.05
"""Lowest confidence of an alternative that is listed with a suggestion."""

# Above _ALL_PAIRS pairs, only the _BEST pairs of each row and column are considered. The _CLOSE
# best pairs of each row or column are examined in detail.
_ALL_PAIRS = 40_000
_BEST = 20
_CLOSE = 5
# Factor on the similarity of names of fields whose parent changed.
_MOVED = 0.9
# Common members count if both sides have at least _MEMBERS. Streams with the same columns are the
# same stream, whatever their names; a share of a third is usual for unrelated ones.
_MEMBERS = 3
_BY_MEMBERS = 5.0
_USUAL_SHARE = 0.3
# Convergence threshold and iteration limit of belief propagation.
_SETTLED = 1e-6
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another candidate for the same removed element."""

    became: Path
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A suggested rename, with its confidence and evidence."""

    removed: Path
    became: Path
    confidence: float
    more_than_names: bool
    types_clash: bool
    """Whether no value of one type can be a value of the other."""
    rival: float
    """The highest confidence of another pair with either element; 0 if there is none."""
    evidence: Sequence[Finding]
    alternatives: Sequence[Alternative]


@dataclass(frozen=True, slots=True)
class Answer:
    """The suggestions, highest confidence first, and the removed elements without one."""

    suggestions: Sequence[Suggestion]
    unmatched: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The candidate pairs, as parallel arrays, and the evidence about them."""

    question: Question
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    alike: Array
    relation: NDArray[np.int8]
    """0 equal, 1 related, 2 clashing."""
    members: Array
    """The share of common members; NaN if there are too few to compare."""
    has_pattern: NDArray[np.bool_]
    findings: Sequence[Sequence[Finding]]

    @classmethod
    def of(cls, question: Question) -> Pairs:
        """All pairs; if too many, the likeliest ones and those with evidence beyond names."""
        removed, added = question.removed, question.added
        alike = _alike(removed, added, question.unchanged)
        relation = _relations(removed, added)
        members = _members(removed, added)
        likely = _log_odds(FITTED, alike, relation, members)
        found = evidence.without_names(question)
        rows, columns = _likely_pairs(likely, found)
        close = _close(likely, rows, columns)
        seen = evidence.from_names(question, close)
        fitting = [pair for pair in close if relation[pair] < _CLASHING]
        patterns = evidence.patterns(question, fitting)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
        return cls(
            question=question,
            rows=rows,
            columns=columns,
            alike=alike[rows, columns],
            relation=relation[rows, columns],
            members=members[rows, columns],
            has_pattern=np.array([pair in patterns for pair in pairs], dtype=np.bool_),
            findings=[
                [
                    *found.get(pair, ()),
                    *([_pattern(patterns[pair])] if pair in patterns else ()),
                    *seen.get(pair, ()),
                ]
                for pair in pairs
            ],
        )

    def probabilities(self, parameters: Parameters = FITTED) -> Array:
        """The probability of each pair, before bounds; 0 if a person rejected it."""
        odds = _log_odds(parameters, self.alike, self.relation, self.members)
        odds += parameters.pattern * self.has_pattern
        # The more candidates there are, the less likely is each of them.
        odds -= np.log(max(len(self.question.removed), len(self.question.added)))
        for index, found in enumerate(self.findings):
            weight = sum(finding.weight for finding in found)
            if any(finding.is_proof for finding in found):
                odds[index] = max(odds[index], 0.0)
            odds[index] = -np.inf if _is_vetoed(found) else odds[index] + weight
        return _marginals(self.rows, self.columns, odds)

    def confidences(self, parameters: Parameters = FITTED) -> Array:
        """The probabilities, limited to the highest confidence that each pair's evidence allows."""
        bounds = [_bound(found) for found in self.findings]
        return np.minimum(self.probabilities(parameters), bounds)

    def proven(self) -> NDArray[np.bool_]:
        """The pairs with proof beyond names, if no rival has proof and their types do not clash."""
        proven = np.array([_is_proven(found) for found in self.findings], dtype=np.bool_)
        in_row = np.bincount(self.rows, weights=proven)
        in_column = np.bincount(self.columns, weights=proven)
        alone = (in_row[self.rows] == 1) & (in_column[self.columns] == 1)
        return np.asarray(proven & alone & (self.relation < _CLASHING))


def suggest(question: Question, parameters: Parameters = FITTED) -> Answer:
    """Suggest what each removed element became; each added element is used at most once.

    The result does not depend on the order of either side.
    """
    question = question.in_order()
    if not question.removed or not question.added:
        return Answer([], [element.path for element in question.removed])
    pairs = Pairs.of(question)
    confidences = pairs.confidences(parameters)
    proven = pairs.proven()
    chosen = _assigned(pairs, confidences)
    suggestions = [
        Suggestion(
            removed=question.removed[pairs.rows[index]].path,
            became=question.added[pairs.columns[index]].path,
            confidence=_rounded(confidences[index]),
            more_than_names=bool(proven[index]),
            types_clash=bool(pairs.relation[index] == _CLASHING),
            rival=_rival(pairs, confidences, index),
            evidence=_evidence(pairs, index),
            alternatives=_alternatives(pairs, confidences, index),
        )
        for index in chosen
    ]
    suggestions.sort(key=lambda suggestion: (-suggestion.confidence, suggestion.removed))
    matched = {suggestion.removed for suggestion in suggestions}
    unmatched = [element.path for element in question.removed if element.path not in matched]
    return Answer(suggestions, unmatched)


_RELATIONS: tuple[json_schema.Relation, ...] = ("equal", "related", "clashing")
_CLASHING = 2


def _alike(
    removed: Sequence[Element], added: Sequence[Element], unchanged: Sequence[str]
) -> name_similarity.Matrix:
    """The similarity of names, reduced for fields whose parent changed."""
    found = name_similarity.similarity(
        [element.name for element in removed],
        [element.name for element in added],
        unchanged=unchanged,
    )
    ours, theirs = [[".".join(e.parent) for e in side] for side in (removed, added)]
    if set(ours) | set(theirs) == {""}:
        return found
    here, there = sorted(set(ours)), sorted(set(theirs))
    near = name_similarity.similarity(here, there)
    for row, one in enumerate(here):
        for column, other in enumerate(there):
            moved = 0.5 if not one or not other else near[row, column]
            near[row, column] = 1 if one == other else _MOVED * (0.7 + 0.3 * moved)
    rows, columns = [here.index(one) for one in ours], [there.index(one) for one in theirs]
    return found * near[np.ix_(rows, columns)]


def _relations(removed: Sequence[Element], added: Sequence[Element]) -> NDArray[np.int8]:
    sides = [[(element.kinds, element.item_kinds) for element in side] for side in (removed, added)]
    distinct = [list(dict.fromkeys(side)) for side in sides]
    table = np.array(
        [
            [
                _RELATIONS.index(json_schema.relation(one[0], other[0], items=(one[1], other[1])))
                for other in distinct[1]
            ]
            for one in distinct[0]
        ],
        dtype=np.int8,
    )
    places = [{kinds: n for n, kinds in enumerate(side)} for side in distinct]
    rows, columns = (
        [place[kinds] for kinds in side] for place, side in zip(places, sides, strict=True)
    )
    found: NDArray[np.int8] = table[np.ix_(rows, columns)]
    return found


def _members(removed: Sequence[Element], added: Sequence[Element]) -> name_similarity.Matrix:
    """The Jaccard similarity of the members; NaN if either side has too few."""
    found = np.full((len(removed), len(added)), np.nan, dtype=np.float64)
    sides = [
        [n for n, e in enumerate(side) if len(e.members) >= _MEMBERS] for side in (removed, added)
    ]
    if not all(sides):
        return found
    ours = [removed[n].members for n in sides[0]]
    theirs = [added[n].members for n in sides[1]]
    places, others = _places(ours), _places(theirs)
    both = np.zeros((len(ours), len(theirs)), dtype=np.float64)
    for name in places.keys() & others.keys():
        both[np.ix_(places[name], others[name])] += 1
    sizes = [np.array([len(part) for part in side]) for side in (ours, theirs)]
    found[np.ix_(*sides)] = both / (sizes[0][:, None] + sizes[1] - both)
    return found


def _places(side: Sequence[frozenset[str]]) -> Mapping[str, Sequence[int]]:
    """Where each member occurs."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, members in enumerate(side):
        for name in members:
            found[name].append(place)
    return found


def _log_odds(
    parameters: Parameters,
    alike: Array,
    relation: NDArray[np.int8],
    members: Array,
) -> Array:
    by_type = np.array([0, parameters.related, parameters.clashing])[relation]
    by_members = np.nan_to_num(_BY_MEMBERS * (members - _USUAL_SHARE), nan=0.0)
    found: Array = parameters.base + parameters.name * alike + by_type + by_members
    return found


def _likely_pairs(
    likely: Array, found: Iterable[Pair]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if likely.size <= _ALL_PAIRS:
        every = np.indices(likely.shape)
        return every[0].ravel(), every[1].ravel()
    keep = np.zeros(likely.shape, dtype=np.bool_)
    in_row = np.argsort(-likely, axis=1, kind="stable")[:, :_BEST]
    in_column = np.argsort(-likely, axis=0, kind="stable")[:_BEST]
    np.put_along_axis(keep, in_row, True, axis=1)
    np.put_along_axis(keep, in_column, True, axis=0)
    for pair in found:
        keep[pair] = True
    rows_and_columns = np.nonzero(keep)
    return rows_and_columns[0], rows_and_columns[1]


def _close(likely: Array, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> list[Pair]:
    """The likeliest few pairs of each row and of each column."""
    order = np.argsort(-likely[rows, columns], kind="stable")
    taken = np.zeros((2, max(likely.shape)), dtype=np.intp)
    found = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if taken[0, row] < _CLOSE or taken[1, column] < _CLOSE:
            found.append((row, column))
            taken[0, row] += 1
            taken[1, column] += 1
    return found


def _is_vetoed(found: Sequence[Finding]) -> bool:
    return any(finding.is_veto for finding in found)


def _is_proven(found: Sequence[Finding]) -> bool:
    is_doubted = any(finding.is_veto or finding.never_above < 1 for finding in found)
    return not is_doubted and any(finding.is_proof for finding in found)


def _bound(found: Sequence[Finding]) -> float:
    """The highest confidence that a pair's evidence allows: `at_most`, capped by `never_above`."""
    reached = max([NAMES_AT_MOST, *(finding.at_most for finding in found)])
    return min([reached, *(finding.never_above for finding in found)])


def _marginals(rows: NDArray[np.intp], columns: NDArray[np.intp], log_odds: Array) -> Array:
    """The marginal probability of each pair, given that every element has at most one partner.

    Belief propagation for matchings, which has a single fixed point; exact if the graph of pairs
    has no cycles.
    """
    odds = np.exp(np.clip(log_odds, -30, 30)) * (log_odds > -np.inf)
    from_row = from_column = np.ones_like(odds)
    for _ in range(_ROUNDS):
        offered = odds * from_column
        row = 1 / (1 + np.maximum(np.bincount(rows, offered)[rows] - offered, 0))
        offered = odds * row
        column = 1 / (1 + np.maximum(np.bincount(columns, offered)[columns] - offered, 0))
        moved = max(np.abs(row - from_row).max(), np.abs(column - from_column).max())
        from_row, from_column = row, column
        if moved < _SETTLED:
            break
    both: Array = odds * from_row * from_column
    return both / (1 + both)


def _assigned(pairs: Pairs, confidences: Array) -> list[int]:
    """The assignment with the highest total confidence; each row and column at most once."""
    eligible = np.flatnonzero(confidences >= SUGGESTED_FROM)
    rows, row_of = np.unique(pairs.rows[eligible], return_inverse=True)
    columns, column_of = np.unique(pairs.columns[eligible], return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))
    gain[row_of, column_of] = confidences[eligible]
    index = np.full(gain.shape, -1, dtype=np.intp)
    index[row_of, column_of] = eligible
    chosen = index[assignment.highest_gain(gain)]
    return [int(each) for each in chosen if each >= 0]


def _alternatives(pairs: Pairs, confidences: Array, index: int) -> list[Alternative]:
    same_row = np.flatnonzero((pairs.rows == pairs.rows[index]) & (confidences >= SHOWN_FROM))
    others = [
        Alternative(pairs.question.added[pairs.columns[other]].path, _rounded(confidences[other]))
        for other in same_row
        if other != index
    ]
    return sorted(others, key=lambda each: (-each.confidence, each.became))[:3]


def _rival(pairs: Pairs, confidences: Array, index: int) -> float:
    beside = (pairs.rows == pairs.rows[index]) | (pairs.columns == pairs.columns[index])
    beside[index] = False
    return _rounded(confidences[beside].max(initial=0.0))


def _evidence(pairs: Pairs, index: int) -> list[Finding]:
    """The evidence about a pair: names, types, candidates, members, connector, and findings."""
    question = pairs.question
    removed, added = question.removed[pairs.rows[index]], question.added[pairs.columns[index]]
    alike, relation = _rounded(pairs.alike[index]), int(pairs.relation[index])
    mine, theirs = removed.type_in_words, added.type_in_words
    found = [
        Finding(kind="name", score=alike, detail=f"The names are {alike:.0%} similar."),
        Finding(
            kind="type",
            score=(1, 0.5, -1)[relation],
            detail=f"Both are {mine}."
            if mine == theirs
            else (f"The type changes from {mine} to {theirs}."),
        ),
        Finding(
            kind="choice",
            score=_rounded(1 / max(len(question.removed), len(question.added))),
            detail=f"{len(question.removed)} removed, {len(question.added)} added.",
        ),
    ]
    if not np.isnan(pairs.members[index]):
        share = _rounded(pairs.members[index])
        detail = f"{share:.0%} of their members are in both."
        found.append(Finding(kind="members", score=share, detail=detail))
    if question.connector is not None:
        found.append(question.connector.stated())
    return found + list(pairs.findings[index])


def _pattern(change: str) -> Finding:
    return Finding(
        kind="pattern", score=0.7, detail=f"Other names changed in the same way: {change}."
    )


def _rounded(value: float) -> float:
    return round(float(value), 4)
