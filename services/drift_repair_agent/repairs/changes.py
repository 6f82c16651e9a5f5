"""The changes of a repair as they are stored: what differs, how grave, what is done about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from services.drift_repair_agent.healing import Action, Instruction
from services.drift_repair_agent.repairs.policy import Reaction
from shared.domain import drift
from shared.domain.catalog import StreamId
from shared.domain.drift import Change, Severity, Verdict

Path = tuple[str, ...]

BY_POLICY = "policy"
"""Who decided where no person did."""


class Suggestion(msgspec.Struct, frozen=True):
    """What a removed field or stream probably became, by the rag_engine."""

    became: Path
    confidence: float
    more_than_names: bool = False
    types_clash: bool = False
    rival: float = 0.0
    """The confidence of the likeliest other pair with either of the two."""
    taken_by_approve: bool = False
    """Whether an approve that names nothing takes it; else it is a removal beside an addition."""
    not_taken_because: str | None = None
    evidence: tuple[dict[str, Any], ...] = ()
    alternatives: tuple[dict[str, Any], ...] = ()


TAKEN_FROM = 0.5
"""A suggestion must be likelier than not to be taken by an approve that does not name it."""
RIVAL_MARGIN = 0.2
"""And further than this from the next candidate for either field."""


def weighed(suggestion: Suggestion) -> Suggestion:
    """The same, with whether an approve that names nothing takes it, and why not."""
    rivals = [suggestion.rival, *(float(one["confidence"]) for one in suggestion.alternatives)]
    if suggestion.confidence < TAKEN_FROM:
        reason = f"Its confidence is {suggestion.confidence:.2f}, which is below {TAKEN_FROM:.2f}."
    elif suggestion.types_clash:
        reason = "The types clash: no value of the old one can be a value of the new one."
    elif suggestion.confidence - max(rivals) < RIVAL_MARGIN:
        reason = (
            f"Another candidate is as close as {RIVAL_MARGIN:.2f}:"
            f" {max(rivals):.2f} against {suggestion.confidence:.2f}."
        )
    else:
        return replace(suggestion, taken_by_approve=True, not_taken_because=None)
    return replace(suggestion, taken_by_approve=False, not_taken_because=reason)


class Decision(msgspec.Struct, frozen=True):
    """A decision about one change: who, when and why, and what was chosen."""

    action: Action
    by: str
    at: datetime
    became: Path | None = None
    cursor: Path | None = None
    primary_key: tuple[Path, ...] | None = None
    why: str | None = None
    is_named: bool = False
    """Whether a person said what it became, and did not just follow what was suggested."""
    asked_by: str | None = None
    """Whose credentials asked for it; None where AAM decided by the policy."""
    policy_set_by: str | None = None
    """Who set the policy's entry that decided; None where it is the default."""


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a repair. `pair` names the change that it is decided with: a rename's half."""

    id: str
    change: Change
    verdict: Verdict
    reaction: Reaction
    excluded: bool = False
    """A new field that is never selected, whoever approves the change."""
    pair: str | None = None
    suggestion: Suggestion | None = None
    suggestion_missing: bool = False
    """The rag_engine could not be asked; it is asked again."""
    decision: Decision | None = None

    @property
    def is_removal(self) -> bool:
        """Whether something is gone that may have become something else."""
        return self.change.kind in ("field_removed", "stream_removed")

    @property
    def identity(self) -> str:
        """What is equal for the same change, whenever it is found."""
        return identity(self.change)

    def decided(self, made: Decision) -> PlannedChange:
        """The same, decided."""
        return replace(self, decision=made)


def identity(change: Change) -> str:
    """What is equal for the same change, whenever it is found."""
    return msgspec.json.encode(change, order="sorted").decode()


def read(stored: str) -> list[PlannedChange]:
    """The changes of a repair, from its row."""
    return [
        PlannedChange(
            change=msgspec.convert(one, type=Change),
            verdict=msgspec.convert(one, type=Verdict),
            **msgspec.structs.asdict(msgspec.convert(one, type=_Rest)),
        )
        for one in msgspec.json.decode(stored)
    ]


def write(items: Iterable[PlannedChange]) -> str:
    """The changes of a repair, for its row and for whoever reads it: a JSON array."""
    return msgspec.json.encode([told(item) for item in items]).decode()


def told(item: PlannedChange) -> dict[str, Any]:
    """A change as it is answered: with its verdict, in one object."""
    rest = _Rest(*(getattr(item, name) for name in _Rest.__struct_fields__))
    beside: dict[str, Any] = msgspec.to_builtins(rest)
    return {"id": item.id} | drift.written(item.change, item.verdict) | beside


class _Rest(msgspec.Struct, frozen=True):
    """What an item has beside its change and its verdict."""

    id: str
    reaction: Reaction
    excluded: bool = False
    pair: str | None = None
    suggestion: Suggestion | None = None
    suggestion_missing: bool = False
    decision: Decision | None = None


def decisions(items: Sequence[PlannedChange]) -> list[Instruction]:
    """What is to be done about the decided ones, as `heal` takes it.

    A stream that another one became is selected by that.
    """
    told = [_decision(item, item.decision) for item in items if item.decision is not None]
    new_names = {decision.became for decision in told if isinstance(decision.became, StreamId)}
    return [
        decision
        for decision in told
        if decision.change.kind != "stream_added" or decision.change.stream not in new_names
    ]


def _decision(item: PlannedChange, made: Decision) -> Instruction:
    became: Path | StreamId | None = made.became
    if made.became is not None and item.change.kind == "stream_removed":
        became = StreamId(item.change.stream.namespace, made.became[-1])
    return Instruction(
        change=item.change,
        action=made.action,
        became=became,
        cursor=made.cursor,
        primary_key=made.primary_key,
    )


def teaches(items: Iterable[PlannedChange]) -> bool:
    """Whether a person's decision says something about what a removed field or stream became."""
    return any(lessons(item) for item in items)


def lessons(item: PlannedChange) -> list[tuple[str, Path | None, Literal["accepted", "rejected"]]]:
    """What a person's decision says: a name of its own, what it is about, and how it was decided.

    A decision that only followed a weak suggestion, or turned it down with the rest of the repair,
    says nothing about what the field became; nor does one that was made before anybody was asked.
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
    """The gravest of their severities."""
    return drift.worst(item.verdict.severity for item in items)


def pauses(items: Iterable[PlannedChange]) -> bool:
    """Whether the connection is to stand still until these are decided."""
    return any(item.reaction is Reaction.PAUSE for item in items)
