"""What another policy would have done with a connection's newest drifts."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict

from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs import preview_queries
from services.drift_repair_agent.repairs.planned_changes import PlannedChange, Suggestion
from services.drift_repair_agent.repairs.policy import Policy, PolicyOverrides, Reaction, changed
from services.drift_repair_agent.repairs.policy_store import expect_known
from services.drift_repair_agent.repairs.schemas import PolicyOrder
from services.drift_repair_agent.repairs.suggestions import Asked
from services.drift_repair_agent.repairs.weighing import weigh
from shared import registry
from shared.database import Database
from shared.domain.drift import Change, Verdict
from shared.domain.policy_layers import LayeredPolicy, PolicyLayer
from shared.models import Drift
from shared.registry import Cursor, cursor_of

_MOST_CHANGES: Final = 500
"""Most changes of a drift that a preview weighs."""
PreviewedReaction = Literal["apply", "propose", "ignore", "pause", "exclude"]
"""A reaction; `exclude` follows the source, but leaves the field out by `never_select`."""


class PreviewedChange(BaseModel):
    """A change, with the reactions by the policy in effect and by the previewed one."""

    kind: str
    stream: dict[str, Any]
    path: list[str]
    severity: str
    now: PreviewedReaction
    previewed: PreviewedReaction


class PreviewedDrift(BaseModel):
    """A drift, with its changes."""

    drift_id: UUID
    first_seen_at: datetime
    change_count: int
    """The number of its changes; at most 500 are weighed and listed."""
    different: int
    """How many of the listed changes the previewed policy would react to differently."""
    changes: list[PreviewedChange]


class PolicyPreview(BaseModel):
    """The newest drifts, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "drift_id": "2f0c9d1e-5b4a-4c3d-9e8f-7a6b5c4d3e2f",
                            "first_seen_at": "2026-11-24T09:30:00.123456Z",
                            "change_count": 1,
                            "different": 1,
                            "changes": [
                                {
                                    "kind": "field_added",
                                    "stream": {"namespace": None, "name": "Account"},
                                    "path": ["Tier__c"],
                                    "severity": "harmless",
                                    "now": "apply",
                                    "previewed": "propose",
                                }
                            ],
                        }
                    ],
                    "next": None,
                }
            ]
        }
    )

    items: list[PreviewedDrift]
    next: str | None = None


async def previewed(
    db: Database,
    connection_id: UUID,
    order: PolicyOrder,
    *,
    after: Cursor | None,
    limit: int,
) -> PolicyPreview:
    """What the policy with this update would have done with the newest drifts.

    Suggestions of renames are those that were made for the drift. What depended on the connection
    at that time is left out, and each may have AAM propose a change instead of applying it: names
    nested in a field, the column of a renamed field (`continuity`), mappers, a global state, limits
    of the destination, and earlier rejections.

    Raises:
        NotFound: there is no such connection.
        Invalid: the matrix has no such entry.
    """
    expect_known(order)
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        stored = await registry.find_policy(session, connection_id)
        drifts = await preview_queries.newest_drifts(
            session, connection_id, after=after, limit=limit + 1
        )
        kept = drifts[:limit]
        repairs = await preview_queries.changes_of_drifts(session, [one.id for one in kept])
    now, other = Policy.of(stored), Policy.of(_with(stored, order))
    items = []
    for drift in kept:
        items.append(_on_drift(drift, repairs.get(drift.id, []), now, other))
        await asyncio.sleep(0)  # up to 500 changes are weighed twice, so other requests go on
    more = len(drifts) > limit
    return PolicyPreview(
        items=items, next=cursor_of(kept[-1].first_seen_at, kept[-1].id) if more else None
    )


def _with(stored: LayeredPolicy, order: PolicyOrder) -> LayeredPolicy:
    """The policy with an update of the connection's own layer."""
    own = msgspec.convert({} if stored.own is None else stored.own.settings, type=PolicyOverrides)
    new = changed(own, order.model_dump(mode="json", exclude_unset=True, exclude={"by"}))
    above = [layer for layer in stored.layers if layer.level != "connection"]
    return LayeredPolicy((PolicyLayer("connection", msgspec.to_builtins(new)), *above))


def _on_drift(drift: Drift, repairs: list[str], now: Policy, other: Policy) -> PreviewedDrift:
    recorded = msgspec.json.decode(drift.changes)
    changes = [
        (msgspec.convert(one, type=Change), msgspec.convert(one, type=Verdict))
        for one in islice(recorded, _MOST_CHANGES)
    ]
    suggestions = {
        item.identity: item.suggestion
        for text in repairs
        for item in changes_of.read(text)
        if item.suggestion is not None
    }
    before, after = (_reactions(changes, suggestions, policy) for policy in (now, other))
    items = [
        PreviewedChange(
            kind=change.kind,
            stream=msgspec.to_builtins(change.stream),
            path=list(change.path),
            severity=verdict.severity,
            now=before.get(mark, "ignore"),
            previewed=after.get(mark, "ignore"),
        )
        for change, verdict in changes
        for mark in (changes_of.identity(change),)
    ]
    return PreviewedDrift(
        drift_id=drift.id,
        first_seen_at=drift.first_seen_at,
        change_count=len(recorded),
        different=sum(item.now != item.previewed for item in items),
        changes=items,
    )


def _reactions(
    changes: list[tuple[Change, Verdict]], suggestions: dict[str, Suggestion], policy: Policy
) -> dict[str, PreviewedReaction]:
    weighed = weigh(changes, Asked(suggestions), policy, ())
    return {item.identity: _shown(item) for item in weighed}


def _shown(item: PlannedChange) -> PreviewedReaction:
    is_left_out = item.excluded and item.reaction is Reaction.APPLY
    return "exclude" if is_left_out else item.reaction.value
