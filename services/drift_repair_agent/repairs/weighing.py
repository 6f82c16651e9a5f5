"""Weigh the changes of a source: how AAM reacts to each, by policy, suggestions and decisions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from msgspec.structs import replace

from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.destination_limits import (
    Judgements,
    unsafe,
    with_judgement,
)
from services.drift_repair_agent.repairs.lapses import with_lapses
from services.drift_repair_agent.repairs.planned_changes import (
    BY_POLICY,
    Decision,
    PlannedChange,
    Suggestion,
    identity,
    selected,
)
from services.drift_repair_agent.repairs.policy import Policy, Reaction
from services.drift_repair_agent.repairs.suggestions import Asked
from shared.domain.catalog import StreamId
from shared.domain.drift import Change, Verdict

_NO_JUDGEMENTS: Judgements = MappingProxyType({})


def weigh(
    changes: Sequence[tuple[Change, Verdict]],
    asked: Asked,
    policy: Policy,
    refused: Collection[str],
    *,
    hiding: Collection[str] = (),
    stuck: Collection[str] = (),
    kept: Collection[str] = (),
    judgements: Judgements = _NO_JUDGEMENTS,
    ids: Mapping[str, str] | None = None,
) -> list[PlannedChange]:
    """Choose the reaction to each change that concerns the connection, in the given order.

    - `hiding` are new or retyped fields that contain a never-selected field. They are excluded
      whole, since Airbyte selects top-level fields only. If that removes data that is synced now, a
      person decides.
    - A person also decides about `stuck` changes, whose never-selected fields Airbyte cannot
      exclude, and about changes in `refused`.
    - A rename is applied without a person only if more than the names suggest it.
    - If the rag_engine could not be asked, a removal and the additions that may be its new name
      wait for a person.
    - Lapsed mappers wait for a person; see `with_lapses`, also for `kept`.
    - So does what the destination does not hold for certain, by `judgements`.
    - `ids` are those of the changes, by identity; None numbers them.
    """
    ids = changes_of.numbered(change for change, _ in changes) if ids is None else ids
    pairs = _pairs(changes, asked, policy)
    unheld = unsafe(judgements)
    planned: dict[str, PlannedChange] = {}
    for change, verdict in changes:
        mark = identity(change)
        is_new_field = change.kind == "field_added"
        item = PlannedChange(
            id=ids[mark],
            change=change,
            verdict=verdict,
            reaction=policy.reaction(verdict),
            excluded=mark in hiding or (is_new_field and any(map(policy.excludes, change.path))),
            suggestion_missing=change.stream in asked.unanswered and _is_open(change, verdict),
        )
        if mark in pairs:
            suggestion = pairs[mark]
            other = ids[identity(suggestion.change)]
            item = replace(item, pair=other)
            if item.is_removal:
                item = replace(item, suggestion=suggestion.suggestion)
        elif not verdict.affects_sync and change.kind != "stream_added":
            continue
        item = with_judgement(item, judgements)
        takes_away = item.excluded and not (is_new_field and len(change.path) == 1)
        is_unheld = mark in unheld and bool(item.destination)
        is_unsure = item.suggestion_missing or mark in refused or is_unheld
        is_open = is_unsure or takes_away or mark in stuck
        if item.reaction is Reaction.APPLY and is_open:
            item = replace(item, reaction=Reaction.PROPOSE)
        planned[item.id] = item
    for item in [item for item in planned.values() if item.suggestion is not None]:
        other_half = planned[item.pair or ""]
        reaction = _of_rename(item, other_half, policy, unheld | set(refused))
        planned[item.id] = replace(item, reaction=reaction)
        planned[other_half.id] = replace(other_half, reaction=reaction)
    reacted = with_lapses(list(planned.values()), [change for change, _ in changes], kept)
    return [item for item in reacted if item.reaction is not Reaction.IGNORE]


@dataclass(frozen=True, slots=True)
class _Half:
    """The other half of a rename, and the suggestion of it."""

    change: Change
    suggestion: Suggestion


def _pairs(
    changes: Sequence[tuple[Change, Verdict]], asked: Asked, policy: Policy
) -> dict[str, _Half]:
    """Both halves of each rename that is suggested and that the policy allows, by identity."""
    pairs: dict[str, _Half] = {}
    by_place: dict[tuple[str, StreamId, tuple[str, ...]], Change] = {
        (change.kind, change.stream, tuple(change.path)): change for change, _ in changes
    }
    for change, _ in changes:
        suggestion = asked.suggestions.get(identity(change))
        if suggestion is None or any(map(policy.excludes, suggestion.became)):
            continue
        is_field = change.kind == "field_removed"
        if policy.named("field" if is_field else "stream", "renamed") is Reaction.IGNORE:
            continue
        place = (
            ("field_added", change.stream, suggestion.became)
            if is_field
            else ("stream_added", StreamId(change.stream.namespace, suggestion.became[-1]), ())
        )
        added = by_place.get(place)
        if added is not None:
            suggestion = changes_of.weighed(suggestion)
            pairs[identity(change)] = _Half(added, suggestion)
            pairs[identity(added)] = _Half(change, suggestion)
    return pairs


def _is_open(change: Change, verdict: Verdict) -> bool:
    """Whether a change may be half of a rename."""
    return change.kind == "field_added" or (
        verdict.affects_sync and change.kind in ("field_removed", "stream_removed")
    )


def _of_rename(
    gone: PlannedChange, new: PlannedChange, policy: Policy, refused: Collection[str]
) -> Reaction:
    """The reaction to both halves of a suggested rename."""
    wanted = policy.named("field" if gone.change.path else "stream", "renamed")
    suggestion = gone.suggestion
    is_certain = (
        suggestion is not None
        and suggestion.taken_by_approve
        and suggestion.more_than_names
        and suggestion.confidence >= policy.rename_min_confidence
        and gone.identity not in refused
        and new.identity not in refused
    )
    if wanted is Reaction.APPLY and is_certain:
        return Reaction.APPLY
    if Reaction.PAUSE in (wanted, gone.reaction):
        return Reaction.PAUSE
    return Reaction.PROPOSE


def authors(decided: Sequence[PlannedChange]) -> str | None:
    """Who set the policy entries that decided these; None if all are defaults."""
    made = (item.decision for item in decided)
    known = {one.policy_set_by for one in made if one is not None and one.policy_set_by}
    return "; ".join(sorted(known)) or None


def policy_decision(item: PlannedChange, now: datetime, policy: Policy) -> Decision:
    """The decision that a policy takes about a change which it allows."""
    entity, what = item.verdict.entity, item.verdict.what
    if item.pair is not None:
        entity, what = "field" if item.change.path else "stream", "renamed"
    became = None if item.suggestion is None else item.suggestion.became
    is_renamed_stream = item.is_removal and selected(item.change, became) is not None
    return Decision(
        action="exclude" if item.excluded else "apply",
        by=BY_POLICY,
        at=now,
        became=became,
        continuity=item.continuity[0].choice if item.continuity else None,
        on_renamed_stream="take_state" if is_renamed_stream else None,
        policy_set_by=policy.set_by(entity, what),
    )
