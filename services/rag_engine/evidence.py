"""What speaks for, and against, that a field or stream that is gone became one that is new."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from services.rag_engine import json_schema, names
from services.rag_engine.json_schema import Schema
from services.rag_engine.names import Matrix
from services.rag_engine.samples import Sample, are_same, overlap

Path: TypeAlias = tuple[str, ...]
Entity: TypeAlias = Literal["field", "stream"]
Pair: TypeAlias = tuple[int, int]
Kind: TypeAlias = Literal[
    "name", "type", "choice", "members", "pattern", "qualifier", "inverse", "position",
    "description", "note", "hint", "past_decision", "values",
]  # fmt: skip

NAMES_AT_MOST = 0.90
"""How sure names, types and what else a schema shows can make: docs/decisions/0018 has the data."""
NOTE_AT_MOST = 0.92
VALUES_AT_MOST = 0.95
PAST_AT_MOST = 0.95
HINT_AT_MOST = 0.98
INVERSE_AT_MOST = 0.4
"""A person has to look: applied as a rename, it would turn every value round."""

_PROVEN = 9.0
"""A log weight beside which no look-alike counts."""

# Words that make another quantity of a name: units, codes, and which one of several is meant.
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
    """One piece of evidence about a pair, as it is shown and as it counts.

    `score` is from -1, against, to 1, for. `weight` is added to the pair's log odds; `at_most` is
    how sure the pair can become by it.
    """

    kind: Kind
    score: float
    detail: str
    weight: float = 0.0
    at_most: float = NAMES_AT_MOST
    never_above: float = 1.0
    """How sure the pair can be at all, whatever else speaks for it."""
    is_proof: bool = False
    """Whether it is more than names: a declared hint, an identical decision, the same values."""
    is_veto: bool = False
    """Whether a person has said no to exactly this."""


@dataclass(frozen=True)
class Element:
    """A field, or a stream, of one side. A stream's path is its name, its schema the whole one."""

    path: Path
    schema: Schema = field(default_factory=dict)
    position: int | None = None
    sample: Sample | None = None

    @property
    def name(self) -> str:
        """The last part of the path that is a name."""
        return self._names[-1] if self._names else ""

    @property
    def parent(self) -> Path:
        """The names before it."""
        return self._names[:-1]

    @cached_property
    def dotted(self) -> str:
        """The path for people."""
        return ".".join(self.path)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The types of its values."""
        return json_schema.kinds(self.schema)

    @cached_property
    def item_kinds(self) -> frozenset[str]:
        """The types of the items, where it is an array that states them."""
        return json_schema.item_kinds(self.schema)

    @property
    def type_in_words(self) -> str:
        """The types for people."""
        if self.kinds == {"array"} and self.item_kinds:
            return f"array of {' or '.join(sorted(self.item_kinds))}"
        return " or ".join(sorted(self.kinds)) or "of no stated type"

    @cached_property
    def members(self) -> frozenset[str]:
        """The names of what is in it."""
        return json_schema.members(self.schema)

    @cached_property
    def _names(self) -> Path:
        return tuple(part for part in self.path if part != "[]")  # the step into an array


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """What a person once decided, newest first wherever there are several."""

    entity: Entity
    namespace: str | None
    stream: str
    removed: Path
    became: Path | None
    is_accepted: bool
    connection: str | None = None
    """The connection that it was taken in; None where it was taken for all of the source type."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is gone, what is new, and what is known besides.

    `past` are decisions about the same source type, newest first. `unchanged` are the names that
    both sides have. `connection` is the one that the question is asked for, where it is for one.
    """

    entity: Entity = "field"
    namespace: str | None = None
    stream: str = ""
    removed: Sequence[Element]
    added: Sequence[Element]
    past: Sequence[PastDecision] = ()
    unchanged: Sequence[str] = ()
    connection: str | None = None

    def in_order(self) -> Question:
        """The same question, however its parts were ordered."""
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
        )


Findings: TypeAlias = dict[Pair, list[Finding]]


def said(question: Question) -> Findings:
    """What is said about pairs however unlike they look: hints, notes, decisions, values."""
    found: Findings = defaultdict(list)
    for source in (_hints, _notes, _descriptions, _identical_decisions, _values):
        for pair, finding in source(question):
            found[pair].append(finding)
    return found


def seen(question: Question, pairs: Iterable[Pair]) -> Findings:
    """What the names and places of pairs show, of those that are alike enough to look closer."""
    found: Findings = defaultdict(list)
    similar = _SimilarDecisions(question)
    for i, j in pairs:
        removed, added = question.removed[i], question.added[j]
        found[i, j] += _qualifier(removed, added)
        found[i, j] += _inverse(removed, added)
        found[i, j] += _position(removed, added)
        found[i, j] += similar.about(removed, added)
    return found


# Said


def _named(elements: Sequence[Element], *, fold: bool = False) -> dict[str, list[int]]:
    """Where each name, alone or with the path before it, occurs."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, element in enumerate(elements):
        for name in {element.name, element.dotted}:
            found[name.casefold() if fold else name].append(index)
    return found


def _hints(question: Question) -> Iterator[tuple[Pair, Finding]]:
    ours, theirs = _named(question.removed), _named(question.added)
    for pair in sorted(
        {
            (i, j)
            for j, added in enumerate(question.added)
            for name in json_schema.declared_earlier(added.schema)
            for i in ours.get(name, ())
        }
        | {
            (i, j)
            for i, removed in enumerate(question.removed)
            for name in json_schema.declared_later(removed.schema)
            for j in theirs.get(name, ())
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
        detail = "A note on what is gone names what is new."
        if pair in earlier:
            detail = "A note on what is new names what is gone."
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
            detail = "Both have the same description, and nothing else has it."
            yield (
                (mine[0], other[0]),
                Finding(kind="description", score=0.8, detail=detail, weight=2),
            )


def _identical_decisions(question: Question) -> Iterator[tuple[Pair, Finding]]:
    """What people decided about exactly these fields, or streams, of this stream.

    A rejection is final in the connection that it was taken in, and speaks a little against the
    pair in others. That something became nothing ends what was accepted before in that connection,
    and says nothing about the fields that come later. Other connections are asked only about what
    this one's own decisions leave open.
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
    """Those that name a new field and that no newer one, of the same connection, has replaced."""
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
    detail="A person accepted the same in this stream before.",
    weight=_PROVEN,
    at_most=PAST_AT_MOST,
    is_proof=True,
)
_REJECTED = Finding(kind="past_decision", score=-1, detail="A person rejected this.", is_veto=True)
_ELSEWHERE = "the same in another connection"


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
                detail = "Both take few values, and have none in common."
                yield (i, j), Finding(kind="values", score=-0.7, detail=detail, weight=-2)


def _best_beside(shares: Matrix, *, axis: int) -> Matrix:
    """For each number, the greatest other one along the axis; 0 where there is none."""
    none = np.zeros_like(shares[:1] if axis == 0 else shares[:, :1])
    ordered = np.sort(np.concatenate([none, shares], axis=axis), axis=axis)
    second, first = np.split(ordered.take([-2, -1], axis=axis), 2, axis=axis)
    return np.where(shares == first, second, first)


def _same_values(share: float) -> Finding:
    return Finding(
        kind="values",
        score=round(share, 4),
        detail=f"{share:.0%} of the sampled values are the same, and no others' are.",
        weight=4 + 2 * share,
        at_most=VALUES_AT_MOST,
        is_proof=True,
    )


# Seen


def _qualifier(removed: Element, added: Element) -> Iterator[Finding]:
    """A look-alike that stands for something else: `balance` → `balance_cents`."""
    ours, theirs = names.words(removed.name), names.words(added.name)
    more = set(theirs) - set(ours)
    telling = sorted(more & _QUALIFIERS)
    if telling and set(ours) < set(theirs):
        detail = f"“{telling[0]}” may make another quantity of it."
        yield Finding(kind="qualifier", score=-0.6, detail=detail, weight=-2.5)
    elif added.name.startswith("_") and not removed.name.startswith("_") and not more:
        detail = "A leading underscore often marks another, internal field."
        yield Finding(kind="qualifier", score=-0.6, detail=detail, weight=-3)


def _inverse(removed: Element, added: Element) -> Iterator[Finding]:
    """A truth value that turned round: `deactivated` → `is_active`."""
    if not removed.kinds & added.kinds & {"boolean"}:
        return
    ours, theirs = set(names.words(removed.name)), set(names.words(added.name))
    turned = (
        bool(ours & _NOT) != bool(theirs & _NOT)
        or any(ours & pair and theirs & pair and ours & pair != theirs & pair
               for pair in _OPPOSITES)
        or any(_negates(one, theirs) for one in ours)
        or any(_negates(one, ours) for one in theirs)
    )  # fmt: skip
    if turned:
        detail = "The new name says the opposite: values may be inverted."
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
        detail = "It stands at the same place of the schema."
        yield Finding(kind="position", score=0.3, detail=detail, weight=0.5)


class _SimilarDecisions:
    """What people said about the same names in other streams, or about the same edit of names."""

    def __init__(self, question: Question) -> None:
        self._names: dict[tuple[str, str], bool] = {}
        self._edits: set[names.Edit] = set()
        here = (question.entity, question.namespace, question.stream)
        gone = {element.path for element in question.removed}
        for past in reversed(question.past):  # the newest has the last word
            is_here = (past.entity, past.namespace, past.stream) == here
            if past.entity != question.entity or past.became is None:
                continue
            if is_here and past.removed in gone:
                continue  # about exactly this
            one, other = past.removed[-1], past.became[-1]
            if not is_here:
                self._names[one, other] = past.is_accepted
            # A rejection is about its own pair: other names may change in the same words.
            if past.is_accepted and (edit := names.edit(one, other)) is not None:
                self._edits.add(edit)

    def about(self, removed: Element, added: Element) -> Iterator[Finding]:
        """At most one finding: it counts a little, and is no proof."""
        if (said := self._names.get((removed.name, added.name))) is not None:
            yield _similar(said, "the same names in another stream", weight=1.0)
        elif self._edits and names.edit(removed.name, added.name) in self._edits:
            yield _similar(True, "the same change of words", weight=0.6)


def _similar(is_accepted: bool, what: str, *, weight: float) -> Finding:
    return Finding(
        kind="past_decision",
        score=0.4 if is_accepted else -0.4,
        detail=f"A person {'accepted' if is_accepted else 'rejected'} {what} before.",
        weight=weight if is_accepted else -weight,
    )


def patterns(question: Question, pairs: Iterable[Pair]) -> Mapping[Pair, str]:
    """The pairs whose change of words another pair, of others, has too, with that change in words.

    Whoever renames `total_net` to `total_net_amount` renames `total_gross` in the same breath.
    """
    edits: dict[names.Edit, list[Pair]] = defaultdict(list)
    for i, j in pairs:
        edit = names.edit(question.removed[i].name, question.added[j].name)
        if edit is not None and edit != ((), ()):
            edits[edit].append((i, j))
    return {
        (i, j): _shown(edit)
        for edit, alike in edits.items()
        for i, j in alike
        if any(k != i and m != j for k, m in alike)
    }


def _shown(edit: names.Edit) -> str:
    gone, come = (" ".join(side) for side in edit)
    if gone and come:
        return f"“{gone}” → “{come}”"
    return f"“{gone}” gone" if gone else f"“{come}” added"
