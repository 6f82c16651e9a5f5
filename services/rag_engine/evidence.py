"""Find evidence for and against that a removed field or stream was renamed to an added one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from services.rag_engine import json_schema, name_similarity
from services.rag_engine.field_samples import Sample, are_same, overlap
from services.rag_engine.json_schema import Schema
from services.rag_engine.name_similarity import Matrix

Path: TypeAlias = tuple[str, ...]
Entity: TypeAlias = Literal["field", "stream"]
Pair: TypeAlias = tuple[int, int]
Kind: TypeAlias = Literal[
    "name", "type", "choice", "members", "pattern", "qualifier", "inverse", "position",
    "description", "note", "hint", "past_decision", "values", "connector_version",
]  # fmt: skip

NAMES_AT_MOST = 0.90
"""Highest confidence from names, types and the rest of a schema: see docs/decisions/0018."""
NOTE_AT_MOST = 0.92
VALUES_AT_MOST = 0.95
PAST_AT_MOST = 0.95
HINT_AT_MOST = 0.98
INVERSE_AT_MOST = 0.4
"""A person must decide: if the meaning is inverted, a rename would invert every value."""

_GUIDES_NAMED = 3
_PROVEN = 9.0
"""A log-odds weight that outweighs any similarity of names."""

# Words that change the quantity that a name stands for: units, codes, and ordinals.
_QUALIFIERS = frozenset(
    {"cent", "code", "hash", "iso", "micro", "milli", "ms", "nano", "percent", "percentage"}
    | {"count", "max", "maximum", "min", "minimum", "raw", "rounded", "total"}
    | {"auto", "current", "estimated", "first", "former", "initial", "last", "next", "old"}
    | {"original", "prev", "previous", "second", "minute", "hour", "week", "month", "year"}
)
_OPPOSITES = (
    {"hidden", "visible"},
    {"private", "public"},
    {"open", "closed"},
    {"enabled", "disabled"},
    {"allow", "deny"},
    {"allowed", "blocked"},
    {"include", "exclude"},
    {"on", "off"},
)
_NEGATIONS = ("non", "dis", "de", "un", "in")
_NOT = frozenset({"not", "no", "non", "never", "without"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One piece of evidence about a pair: what is shown, and how it counts.

    `score` ranges from -1 (against) to 1 (for). `weight` is added to the pair's log odds. `at_most`
    is the highest confidence that it justifies; of several findings, the highest counts.
    """

    kind: Kind
    score: float
    detail: str
    weight: float = 0.0
    at_most: float = NAMES_AT_MOST
    never_above: float = 1.0
    """Upper limit of the pair's confidence, whatever the other evidence."""
    is_proof: bool = False
    """Whether it is more than names: a declared hint, an identical decision, the same values."""
    is_veto: bool = False
    """Whether a person has rejected exactly this pair."""


@dataclass(frozen=True)
class Element:
    """A removed or added field or stream; a stream's path is its name, its schema the whole one."""

    path: Path
    schema: Schema = field(default_factory=dict)
    position: int | None = None
    sample: Sample | None = None

    @property
    def name(self) -> str:
        """The last part of the path that is not an array step."""
        return self._names[-1] if self._names else ""

    @property
    def parent(self) -> Path:
        """The names before `name` in the path."""
        return self._names[:-1]

    @cached_property
    def dotted(self) -> str:
        """The path for display."""
        return ".".join(self.path)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The types of its values."""
        return json_schema.kinds(self.schema)

    @cached_property
    def item_kinds(self) -> frozenset[str]:
        """The types of an array's items; empty if it is no array or does not state them."""
        return json_schema.item_kinds(self.schema)

    @property
    def type_in_words(self) -> str:
        """The types for display."""
        if self.kinds == {"array"} and self.item_kinds:
            return f"array of {' or '.join(sorted(self.item_kinds))}"
        return " or ".join(sorted(self.kinds)) or "of unknown type"

    @cached_property
    def members(self) -> frozenset[str]:
        """The names of the fields directly inside it."""
        return json_schema.members(self.schema)

    @cached_property
    def _names(self) -> Path:
        return tuple(part for part in self.path if part != "[]")  # the step into an array


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A person's past decision; lists of them are ordered newest first."""

    entity: Entity
    namespace: str | None
    stream: str
    removed: Path
    became: Path | None
    is_accepted: bool
    connection: str | None = None
    """The connection that it was made for; None if it was made for the whole source type."""


@dataclass(frozen=True, slots=True)
class ConnectorChange:
    """A change of the connector's version that came with the removals and additions."""

    versions: str
    """Both versions for display: `2.10.3 → 3.0.0`."""
    guides: Sequence[str] = ()
    """URLs of the migration guides of the breaking changes in between."""

    def stated(self) -> Finding:
        """The change as evidence that is stated, but has no weight: see docs/decisions/0109."""
        if not self.guides:
            detail = f"They came with another version of the connector: {self.versions}."
            return Finding(kind="connector_version", score=0.2, detail=detail)
        guides = ", ".join(self.guides[:_GUIDES_NAMED])
        detail = (
            f"They came with a breaking change of the connector, {self.versions}. Its migration "
            f"guide: {guides}"
        )
        return Finding(kind="connector_version", score=0.5, detail=detail)


@dataclass(frozen=True, kw_only=True)
class Question:
    """The removed and added elements, and their context.

    `past` are decisions about the same source type, newest first. `unchanged` are the names that
    both sides have. `connection` is the connection that the question is about, if any.
    `connector` is the change of the connector's version, if there was one.
    """

    entity: Entity = "field"
    namespace: str | None = None
    stream: str = ""
    removed: Sequence[Element]
    added: Sequence[Element]
    past: Sequence[PastDecision] = ()
    unchanged: Sequence[str] = ()
    connection: str | None = None
    connector: ConnectorChange | None = None

    def in_order(self) -> Question:
        """The question with its parts sorted, so that their order does not affect the answer."""
        removed, added = (
            sorted(side, key=lambda element: element.path) for side in (self.removed, self.added)
        )
        return Question(
            entity=self.entity,
            namespace=self.namespace,
            stream=self.stream,
            removed=removed,
            added=added,
            past=self.past,
            unchanged=sorted(self.unchanged),
            connection=self.connection,
            connector=self.connector,
        )


Findings: TypeAlias = dict[Pair, list[Finding]]


def without_names(question: Question) -> Findings:
    """Evidence that does not depend on similar names: hints, notes, decisions, values."""
    found: Findings = defaultdict(list)
    for source in (_hints, _notes, _descriptions, _identical_decisions, _values):
        for pair, finding in source(question):
            found[pair].append(finding)
    return found


def from_names(question: Question, pairs: Iterable[Pair]) -> Findings:
    """Evidence from the names and positions of the given pairs, which are the likeliest ones."""
    found: Findings = defaultdict(list)
    similar = _SimilarDecisions(question)
    for i, j in pairs:
        removed, added = question.removed[i], question.added[j]
        found[i, j] += _qualifier(removed, added)
        found[i, j] += _inverse(removed, added)
        found[i, j] += _position(removed, added)
        found[i, j] += similar.about(removed, added)
    return found


def _named(elements: Sequence[Element], *, fold: bool = False) -> dict[str, list[int]]:
    """The indexes of the elements with each name; the dotted path counts as a name, too."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, element in enumerate(elements):
        for name in {element.name, element.dotted}:
            found[name.casefold() if fold else name].append(index)
    return found


def _hints(question: Question) -> Iterator[tuple[Pair, Finding]]:
    """The renames that schemas declare; a name without a path means a field beside this one."""
    ours, theirs = _named(question.removed), _named(question.added)
    for pair in sorted(
        {
            (i, j)
            for j, added in enumerate(question.added)
            for name in json_schema.declared_earlier(added.schema)
            for i in ours.get(name, ())
            if _is_meant(name, question.removed[i], added)
        }
        | {
            (i, j)
            for i, removed in enumerate(question.removed)
            for name in json_schema.declared_later(removed.schema)
            for j in theirs.get(name, ())
            if _is_meant(name, question.added[j], removed)
        }
    ):
        yield (
            pair,
            Finding(
                kind="hint",
                score=1,
                detail="The schema declares this rename.",
                weight=_PROVEN,
                at_most=HINT_AT_MOST,
                is_proof=True,
            ),
        )


def _is_meant(name: str, named: Element, declaring: Element) -> bool:
    """Whether a declaration at one element means the other by this name."""
    return named.parent == declaring.parent or ("." in name and named.dotted == name)


def _notes(question: Question) -> Iterator[tuple[Pair, Finding]]:
    ours, theirs = _named(question.removed, fold=True), _named(question.added, fold=True)
    later = {
        (i, j)
        for i, removed in enumerate(question.removed)
        for name in json_schema.noted_later(removed.schema)
        for j in theirs.get(name.casefold(), ())
    }
    earlier = {
        (i, j)
        for j, added in enumerate(question.added)
        for name in json_schema.noted_earlier(added.schema)
        for i in ours.get(name.casefold(), ())
    }
    for pair in sorted(later | earlier):
        detail = "The description of the old one mentions the new one."
        if pair in earlier:
            detail = "The description of the new one mentions the old one."
        yield pair, Finding(kind="note", score=1, detail=detail, weight=6, at_most=NOTE_AT_MOST)


def _descriptions(question: Question) -> Iterator[tuple[Pair, Finding]]:
    sides: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list)]
    for side, elements in zip(sides, (question.removed, question.added), strict=True):
        for index, element in enumerate(elements):
            if text := json_schema.description(element.schema):
                side[text].append(index)
    for text, mine in sorted(sides[0].items()):
        other = sides[1].get(text, [])
        if len(mine) == len(other) == 1:
            detail = "Both have the same description, which is unique on each side."
            yield (
                (mine[0], other[0]),
                Finding(kind="description", score=0.8, detail=detail, weight=2),
            )


def _identical_decisions(question: Question) -> Iterator[tuple[Pair, Finding]]:
    """What people decided about exactly these fields or streams.

    A rejection is final in its connection, and counts slightly against the pair in others. A
    decision that an element was not renamed revokes renames that were accepted earlier in that
    connection, but does not exclude later fields. Decisions of other connections count only where
    this connection has none of its own.
    """
    ours = {element.path: index for index, element in enumerate(question.removed)}
    theirs = {element.path: index for index, element in enumerate(question.added)}
    here = (question.entity, question.namespace, question.stream)
    about = [
        past
        for past in question.past
        if (past.entity, past.namespace, past.stream) == here and past.removed in ours
    ]
    own = [past for past in about if past.connection in (None, question.connection)]
    others = [past for past in about if past.connection not in (None, question.connection)]
    in_force = list(_in_force(own, by_connection=False))
    renamed = {past.removed for past in in_force if past.is_accepted}
    settled = {(past.removed, past.became) for past in own}
    for past in in_force:
        if past.became in theirs:
            finding = _ACCEPTED if past.is_accepted else _REJECTED
            yield (ours[past.removed], theirs[past.became]), finding
    for past in _in_force(others, by_connection=True):
        pair = (past.removed, past.became)
        if past.became not in theirs or past.removed in renamed or pair in settled:
            continue
        settled.add(pair)
        finding = _ACCEPTED if past.is_accepted else _similar(False, _ELSEWHERE, weight=1.0)
        yield (ours[past.removed], theirs[past.became]), finding


def _in_force(decisions: Iterable[PastDecision], *, by_connection: bool) -> Iterator[PastDecision]:
    """The decisions that name a new path and that no newer one in the same scope replaces."""
    settled: set[tuple[str | None, Path, Path | None]] = set()
    accepted: set[tuple[str | None, Path]] = set()
    for past in decisions:
        scope = past.connection if by_connection else None
        pair, gone = (scope, past.removed, past.became), (scope, past.removed)
        is_replaced = pair in settled or (past.is_accepted and gone in accepted)
        settled.add(pair)
        if past.is_accepted:
            accepted.add(gone)
        if past.became is not None and not is_replaced:
            yield past


_ACCEPTED = Finding(
    kind="past_decision",
    score=1,
    detail="A person accepted the same rename in this stream before.",
    weight=_PROVEN,
    at_most=PAST_AT_MOST,
    is_proof=True,
)
_REJECTED = Finding(
    kind="past_decision", score=-1, detail="A person rejected this rename before.", is_veto=True
)
_ELSEWHERE = "the same rename in another connection"


def _values(question: Question) -> Iterator[tuple[Pair, Finding]]:
    ours = [(i, e.sample) for i, e in enumerate(question.removed) if e.sample is not None]
    theirs = [(j, e.sample) for j, e in enumerate(question.added) if e.sample is not None]
    if not ours or not theirs:
        return
    shares = np.array([[overlap(mine, other) for _, other in theirs] for _, mine in ours])
    rivals = np.maximum(_best_beside(shares, axis=0), _best_beside(shares, axis=1))
    for row, (i, mine) in enumerate(ours):
        for column, (j, other) in enumerate(theirs):
            share = float(shares[row, column])
            if are_same(mine, other, share=share, rival=float(rivals[row, column])):
                yield (i, j), _same_values(share)
            elif share == 0 and mine.is_choice and other.is_choice:
                detail = "Both have few distinct values, and none in common."
                yield (i, j), Finding(kind="values", score=-0.7, detail=detail, weight=-2)


def _best_beside(shares: Matrix, *, axis: int) -> Matrix:
    """For each number, the greatest of the others along the axis; 0 if there are no others."""
    none = np.zeros_like(shares[:1] if axis == 0 else shares[:, :1])
    ordered = np.sort(np.concatenate([none, shares], axis=axis), axis=axis)
    second, first = np.split(ordered.take([-2, -1], axis=axis), 2, axis=axis)
    return np.where(shares == first, second, first)


def _same_values(share: float) -> Finding:
    return Finding(
        kind="values",
        score=round(share, 4),
        detail=f"{share:.0%} of the sampled values match, more than in any other pair.",
        weight=4 + 2 * share,
        at_most=VALUES_AT_MOST,
        is_proof=True,
    )


def _qualifier(removed: Element, added: Element) -> Iterator[Finding]:
    """Evidence that a similar name stands for something else: `balance` → `balance_cents`."""
    ours, theirs = name_similarity.words(removed.name), name_similarity.words(added.name)
    more = set(theirs) - set(ours)
    telling = sorted(more & _QUALIFIERS)
    if telling and set(ours) < set(theirs):
        detail = f"“{telling[0]}” may denote another quantity."
        yield Finding(kind="qualifier", score=-0.6, detail=detail, weight=-2.5)
    elif added.name.startswith("_") and not removed.name.startswith("_") and not more:
        detail = "A leading underscore often marks a separate, internal field."
        yield Finding(kind="qualifier", score=-0.6, detail=detail, weight=-3)


def _inverse(removed: Element, added: Element) -> Iterator[Finding]:
    """Evidence that a boolean was inverted: `deactivated` → `is_active`."""
    if not removed.kinds & added.kinds & {"boolean"}:
        return
    ours, theirs = set(name_similarity.words(removed.name)), set(name_similarity.words(added.name))
    turned = (
        bool(ours & _NOT) != bool(theirs & _NOT)
        or any(ours & pair and theirs & pair and ours & pair != theirs & pair
               for pair in _OPPOSITES)
        or any(_negates(one, theirs) for one in ours)
        or any(_negates(one, ours) for one in theirs)
    )  # fmt: skip
    if turned:
        detail = "The new name has the opposite meaning: values may be inverted."
        yield Finding(
            kind="inverse", score=-0.8, detail=detail, weight=-2.5, never_above=INVERSE_AT_MOST
        )


def _negates(word: str, others: set[str]) -> bool:
    rest = (
        word.removeprefix(no) for no in _NEGATIONS if word.startswith(no) and word not in others
    )
    return any(len(left) >= 4 and any(other[:4] == left[:4] for other in others) for left in rest)


def _position(removed: Element, added: Element) -> Iterator[Finding]:
    if removed.position is not None and removed.position == added.position:
        detail = "It is at the same position in the schema."
        yield Finding(kind="position", score=0.3, detail=detail, weight=0.5)


class _SimilarDecisions:
    """People's decisions about the same names in other streams, or about the same edit of names."""

    def __init__(self, question: Question) -> None:
        self._names: dict[tuple[str, str], bool] = {}
        self._edits: set[name_similarity.Edit] = set()
        here = (question.entity, question.namespace, question.stream)
        gone = {element.path for element in question.removed}
        for past in reversed(question.past):  # the newest overrides the others
            is_here = (past.entity, past.namespace, past.stream) == here
            if past.entity != question.entity or past.became is None:
                continue
            if is_here and past.removed in gone:
                continue  # covered by _identical_decisions
            one, other = past.removed[-1], past.became[-1]
            if not is_here:
                self._names[one, other] = past.is_accepted
            # A rejection concerns only its own pair; the same edit of other names may be right.
            if past.is_accepted and (edit := name_similarity.edit(one, other)) is not None:
                self._edits.add(edit)

    def about(self, removed: Element, added: Element) -> Iterator[Finding]:
        """At most one finding, with a low weight and never a proof."""
        if (was_accepted := self._names.get((removed.name, added.name))) is not None:
            yield _similar(was_accepted, "the same rename in another stream", weight=1.0)
        elif self._edits and name_similarity.edit(removed.name, added.name) in self._edits:
            yield _similar(True, "the same change of words in another name", weight=0.6)


def _similar(is_accepted: bool, what: str, *, weight: float) -> Finding:
    return Finding(
        kind="past_decision",
        score=0.4 if is_accepted else -0.4,
        detail=f"A person {'accepted' if is_accepted else 'rejected'} {what} before.",
        weight=weight if is_accepted else -weight,
    )


def patterns(question: Question, pairs: Iterable[Pair]) -> Mapping[Pair, str]:
    """The pairs whose change of words also occurs in an unrelated pair, with that change as text.

    For example, `total_net` → `total_net_amount` and `total_gross` → `total_gross_amount`.
    """
    edits: dict[name_similarity.Edit, list[Pair]] = defaultdict(list)
    for i, j in pairs:
        edit = name_similarity.edit(question.removed[i].name, question.added[j].name)
        if edit is not None and edit != ((), ()):
            edits[edit].append((i, j))
    return {
        (i, j): _shown(edit)
        for edit, alike in edits.items()
        for i, j in alike
        if any(k != i and m != j for k, m in alike)
    }


def _shown(edit: name_similarity.Edit) -> str:
    gone, come = (" ".join(side) for side in edit)
    if gone and come:
        return f"“{gone}” → “{come}”"
    return f"“{gone}” removed" if gone else f"“{come}” added"
