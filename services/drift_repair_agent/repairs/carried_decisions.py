"""People's decisions that survive a new plan: what was approved, but could not be applied.

A decided repair becomes stale if one of its changes is gone, or if the catalog has changed. What
else was decided in it and means the same in the new plan is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.planned_changes import (
    BY_POLICY,
    PlannedChange,
    means_same,
)
from services.drift_repair_agent.repairs.policy import Reaction
from shared.auth import scopes
from shared.domain.catalog import StreamId
from shared.models import Repair


def with_decisions(planned: Sequence[PlannedChange], former: Repair | None) -> list[PlannedChange]:
    """The plan with the decisions of the former repair about changes that mean the same.

    Both halves of a rename are carried over, or none. In streams with lapsed mappers nothing is,
    since those decisions depend on each other.
    """
    if former is None:
        return list(planned)
    decided = {item.identity: item for item in changes_of.read(former.changes)}
    lapsed = {one.change.stream for one in (*planned, *decided.values()) if one.is_lapse}
    same = {
        item.identity
        for item in planned
        if (old := decided.get(item.identity)) is not None
        and _is_by_a_person(old)
        and means_same(old, item)
        and item.change.stream not in lapsed
    }
    places = {(old.change.stream, tuple(old.change.path)): mark for mark, old in decided.items()}
    for mark, old in decided.items():
        became = None if old.decision is None else old.decision.became
        if became is None:
            continue
        half = places.get(_place(old, became), "")
        if mark not in same or half not in same:
            same -= {mark, half}
    return [
        replace(item, reaction=Reaction.APPLY, decision=decided[item.identity].decision)
        if item.identity in same
        else item
        for item in planned
    ]


def approvals_of(former: Repair, items: Sequence[PlannedChange]) -> list[dict[str, Any]]:
    """People's approvals of the former repair, as decisions about these changes of the new one."""
    carried = {"changes": [item.id for item in items], "carried_from": former.id}
    return [
        entry | carried
        for entry in msgspec.json.decode(former.decisions)
        if entry["verdict"] in ("approved", "first_approval") and entry["by"] != BY_POLICY
    ]


def consume(
    former: Repair, carried: Sequence[PlannedChange], repair_id: UUID | None, at: datetime
) -> None:
    """Record in the former repair what was carried over, if anything, so that it is not again."""
    ids = {item.identity: item.id for item in changes_of.read(former.changes)}
    entry = {
        "verdict": "carried_over",
        "changes": [ids[item.identity] for item in carried],
        "by": scopes.named(None),
        "at": at,
        "reason": None,
        "repair_id": repair_id,
    }
    former.decisions = msgspec.json.encode([*msgspec.json.decode(former.decisions), entry]).decode()


def _is_by_a_person(item: PlannedChange) -> bool:
    made = item.decision
    return made is not None and made.by != BY_POLICY and made.action != "keep"


def _place(gone: PlannedChange, became: tuple[str, ...]) -> tuple[StreamId, tuple[str, ...]]:
    stream = gone.change.stream
    if gone.change.kind == "stream_removed":
        return StreamId(stream.namespace, became[-1]), ()
    return stream, became
