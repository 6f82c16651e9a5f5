"""The changes of a repair as they are stored: the difference, its severity, the reaction to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from services.drift_repair_agent.applying.reselection import OnGlobalState
from services.drift_repair_agent.healing import Action, Continuity, Instruction
from services.drift_repair_agent.repairs.policy import Reaction
from services.drift_repair_agent.states.decision import OnRenamedStream
from shared.domain import drift
from shared.domain.catalog import Catalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.domain.destination import Finding
from shared.domain.drift import MAPPER_LAPSED, MAPPING_CONFLICT, Change, Severity, Verdict

Path = tuple[str, ...]

BY_POLICY = "policy"
"""`by` of a decision that the policy made."""


class Suggestion(msgspec.Struct, frozen=True):
    """The rag_engine's suggestion of what a removed field or stream became."""

    became: Path
    confidence: float
    more_than_names: bool = False
    types_clash: bool = False
    rival: float = 0.0
    """The highest confidence of another pair with either of the two."""
    taken_by_approve: bool = False
    """Whether an approval without `choices` uses it; otherwise it approves a removal and an
    addition."""
    not_taken_because: str | None = None
    evidence: tuple[dict[str, Any], ...] = ()
    alternatives: tuple[dict[str, Any], ...] = ()


TAKEN_FROM = 0.5
"""Lowest confidence of a suggestion that an approval uses without naming it."""
RIVAL_MARGIN = 0.2
"""Smallest lead of such a suggestion over the next candidate for either field."""


def weighed(suggestion: Suggestion) -> Suggestion:
    """Set whether an approval without `choices` uses the suggestion, and if not, why."""
    rivals = [suggestion.rival, *(float(one["confidence"]) for one in suggestion.alternatives)]
    if suggestion.confidence < TAKEN_FROM:
        reason = f"Its confidence is {suggestion.confidence:.2f}, which is below {TAKEN_FROM:.2f}."
    elif suggestion.types_clash:
        reason = (
            "The types are incompatible: no value of the old one is a valid value of the new one."
        )
    elif suggestion.confidence - max(rivals) < RIVAL_MARGIN:
        reason = (
            f"Another candidate is within {RIVAL_MARGIN:.2f}: {max(rivals):.2f} versus "
            f"{suggestion.confidence:.2f}."
        )
    else:
        return replace(suggestion, taken_by_approve=True, not_taken_because=None)
    return replace(suggestion, taken_by_approve=False, not_taken_because=reason)


MapperChoice = Literal["drop", "follow", "keep_field"]
"""What a person may choose for lapsed mappers; see `schemas.Choice`."""


class ContinuityOption(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may become of the column of a renamed field."""

    choice: Continuity
    effect: str
    view: str | None = None
    """Where the column cannot be kept: the SQL of a view with both values under the former name.
    AAM does not run it."""


class Decision(msgspec.Struct, frozen=True):
    """A decision about one change: who, when and why, and what was chosen."""

    action: Action
    by: str
    at: datetime
    became: Path | None = None
    cursor: Path | None = None
    primary_key: tuple[Path, ...] | None = None
    continuity: Continuity | None = None
    """What becomes of the column of a renamed field."""
    on_renamed_stream: OnRenamedStream | None = None
    """What a renamed stream starts from; None for other changes."""
    on_global_state: OnGlobalState | None = None
    """What was chosen for a stream that it selects, if that has a global state."""
    reason: str | None = None
    is_named: bool = False
    """Whether a person named what it became instead of following the suggestion."""
    requested_by: str | None = None
    """Whose credentials requested it; None if the policy decided."""
    policy_set_by: str | None = None
    """Who set the policy entry that decided; None for a default entry."""


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a planned change other than its change and verdict."""

    id: str
    reaction: Reaction
    excluded: bool = False
    """Whether the field stays unselected even if the change is approved."""
    pair: str | None = None
    suggestion: Suggestion | None = None
    choices: tuple[MapperChoice, ...] = ()
    """What may be chosen for lapsed mappers; empty for other changes."""
    suggestion_missing: bool = False
    """Whether the rag_engine could not be asked yet; it is asked again."""
    continuity: tuple[ContinuityOption, ...] = ()
    """What may become of the column of a field that was probably renamed, first what the policy
    takes if it applies the rename."""
    destination: tuple[Finding, ...] = ()
    """What the destination does with it, as far as a person should know, the worst first."""
    decision: Decision | None = None


class PlannedChange(_Planned, frozen=True, kw_only=True):
    """One change of a repair; `pair` is the id of the other half of a suggested rename."""

    change: Change
    verdict: Verdict

    @property
    def is_removal(self) -> bool:
        """Whether a field or stream was removed, and so may have been renamed."""
        return self.change.kind in ("field_removed", "stream_removed")

    @property
    def is_lapse(self) -> bool:
        """Whether mappers no longer find their field."""
        return self.change.kind == MAPPER_LAPSED

    @property
    def is_conflict(self) -> bool:
        """Whether a new field has the name that a mapper gives another one."""
        return self.change.kind == MAPPING_CONFLICT

    @property
    def identity(self) -> str:
        """A key that is equal for the same change, whenever it is found."""
        return identity(self.change)

    def decided(self, made: Decision) -> PlannedChange:
        """A copy with this decision."""
        return replace(self, decision=made)


def identity(change: Change) -> str:
    """A key that is equal for the same change, whenever it is found."""
    return msgspec.json.encode(change, order="sorted").decode()


def numbered(
    changes: Iterable[Change],
    *,
    proposed: Iterable[PlannedChange] = (),
    decided: Collection[str] = (),
) -> dict[str, str]:
    """The ids of changes, by identity.

    People decide about the open proposal by the ids that they have read. So a change that is
    `proposed` keeps its id, and no other change gets an id that the proposal has or had; `decided`
    are those of changes that were split off from it.
    """
    ids = {item.identity: item.id for item in proposed}
    taken = {*ids.values(), *decided}
    free = (name for name in map("c{}".format, count(1)) if name not in taken)
    for change in changes:
        mark = identity(change)
        if mark not in ids:
            ids[mark] = next(free)
    return ids


def means_same(one: PlannedChange, other: PlannedChange) -> bool:
    """Whether a decision about one holds for the other: the same change with the same effects."""
    return (
        one.identity == other.identity
        and one.verdict == other.verdict
        and one.excluded == other.excluded
        and one.destination == other.destination
    )


def read(stored: str) -> list[PlannedChange]:
    """Decode the changes of a repair from its row."""
    return [
        PlannedChange(
            change=msgspec.convert(one, type=Change),
            verdict=msgspec.convert(one, type=Verdict),
            **msgspec.structs.asdict(msgspec.convert(one, type=_Planned)),
        )
        for one in msgspec.json.decode(stored)
    ]


def write(items: Iterable[PlannedChange]) -> str:
    """Encode the changes of a repair as a JSON array, for its row and for API responses."""
    return msgspec.json.encode([to_json(item) for item in items]).decode()


def to_json(item: PlannedChange) -> dict[str, Any]:
    """A change and its verdict as one object, as the API returns it."""
    rest = _Planned(**{name: getattr(item, name) for name in _Planned.__struct_fields__})
    beside: dict[str, Any] = msgspec.to_builtins(rest)
    return {"id": item.id} | drift.written(item.change, item.verdict) | beside


def removal_of(lapse: PlannedChange, items: Iterable[PlannedChange]) -> PlannedChange | None:
    """The removal of the field that lapsed mappers name; None if it is not among the changes."""
    for item in items:
        is_removal = item.change.kind == "field_removed"
        if is_removal and (item.change.stream, item.change.path) == _place(lapse):
            return item
    return None


def _place(item: PlannedChange) -> tuple[StreamId, Path]:
    return item.change.stream, tuple(item.change.path)


def kept_lapses(repairs: Iterable[str]) -> frozenset[str]:
    """Identities of the lapsed mappers that people decided to leave as they are."""
    return frozenset(
        item.identity
        for stored in repairs
        for item in read(stored)
        if item.is_lapse and item.decision is not None and item.decision.action == "keep"
    )


def decisions(items: Sequence[PlannedChange]) -> list[Instruction]:
    """The instructions for `heal` that follow from the decided changes.

    An added stream that is the new name of another needs none: the rename selects it.
    """
    instructions = [_decision(item, item.decision) for item in items if item.decision is not None]
    new_names = {
        decision.became for decision in instructions if isinstance(decision.became, StreamId)
    }
    return [
        decision
        for decision in instructions
        if decision.change.kind != "stream_added" or decision.change.stream not in new_names
    ]


def selected(change: Change, became: Path | None) -> StreamId | None:
    """The stream that following a change selects: an added one, or the new name of another."""
    if change.kind == "stream_added":
        return change.stream
    if change.kind == "stream_removed" and became is not None:
        return StreamId(change.stream.namespace, became[-1])
    return None


def on_global_state(items: Iterable[PlannedChange]) -> dict[StreamId, OnGlobalState]:
    """What was chosen for the streams that the decided changes select."""
    chosen: dict[StreamId, OnGlobalState] = {}
    for item in items:
        made = item.decision
        stream = None if made is None else selected(item.change, made.became)
        if made is not None and made.on_global_state is not None and stream is not None:
            chosen[stream] = made.on_global_state
    return chosen


def _decision(item: PlannedChange, made: Decision) -> Instruction:
    became: Path | StreamId | None = made.became
    if item.change.kind == "stream_removed":
        became = selected(item.change, made.became)
    return Instruction(
        change=item.change,
        action=made.action,
        became=became,
        cursor=made.cursor,
        primary_key=made.primary_key,
        continuity=made.continuity,
    )


def has_lessons(items: Iterable[PlannedChange]) -> bool:
    """Whether the rag_engine can learn something from the decisions; see `lessons`."""
    return any(lessons(item) for item in items)


def lessons(item: PlannedChange) -> list[tuple[str, Path | None, Literal["accepted", "rejected"]]]:
    """What a person's decision says about a removal, as (unique name, new path, verdict).

    A new path of None means that it was not renamed. There are no lessons if the person chose no
    `became`, and the suggestion was weak or the rag_engine had not been asked yet.
    """
    made, suggestion = item.decision, item.suggestion
    if made is None or made.by == BY_POLICY or not item.is_removal:
        return []
    is_weak = suggestion is not None and not suggestion.taken_by_approve
    if (is_weak or item.suggestion_missing) and not made.is_named:
        return []
    is_followed = made.action != "keep"
    learned: list[tuple[str, Path | None, Literal["accepted", "rejected"]]] = []
    if is_followed:
        learned.append((item.id, made.became, "accepted"))
    if suggestion is not None and not (is_followed and made.became == suggestion.became):
        learned.append((f"{item.id} not", suggestion.became, "rejected"))
    return learned


def worst(items: Iterable[PlannedChange]) -> Severity:
    """The highest severity of the changes."""
    return drift.worst(item.verdict.severity for item in items)


def pauses(items: Iterable[PlannedChange]) -> bool:
    """Whether the connection is to be paused until these are decided."""
    return any(item.reaction is Reaction.PAUSE for item in items)


def joined(
    decided: Sequence[PlannedChange], before: Iterable[PlannedChange]
) -> list[PlannedChange]:
    """Merge new decisions with those `before`; for the same change, the new one wins.

    Ids of those before are renamed if they clash.
    """
    ids, identities = {item.id for item in decided}, {item.identity for item in decided}
    left = [item for item in before if item.identity not in identities]
    return [
        *decided,
        *(replace(item, id=f"{item.id}w") if item.id in ids else item for item in left),
    ]


async def undone(target: Catalog, head: Catalog) -> list[PlannedChange]:
    """The changes that a rollback undoes: those that led from the target to the head."""
    synced = target.by_id()
    return [
        PlannedChange(
            id=f"c{number}",
            change=change,
            verdict=drift.severity(change, synced.get(change.stream)),
            reaction=Reaction.PROPOSE,
        )
        for number, change in enumerate(
            await run_cooperatively(drift.diff.steps(target, head)), start=1
        )
    ]
