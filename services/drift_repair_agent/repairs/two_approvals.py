"""Approvals by two callers, from the severity that the policy sets.

The first approval is recorded in the repair's decisions. The second decides, if another caller
approves the same changes with the same choices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from services.drift_repair_agent.repairs.planned_changes import PlannedChange, means_same
from services.drift_repair_agent.repairs.policy import Policy
from services.drift_repair_agent.repairs.schemas import Approve
from shared.auth import scopes
from shared.errors import Conflict
from shared.models import Repair

FIRST: Final = "first_approval"
"""The verdict of a first approval among a repair's decisions."""

_NOT_CHOSEN: Final = frozenset({"by", "at", "reason", "is_named", "requested_by", "policy_set_by"})
"""What two decisions with the same choices may differ in."""
_OF_APPROVAL: Final = frozenset({"on_renamed_stream", "on_global_state"})
"""Choices that are made once for all changes of an approval."""
_Entry = dict[str, Any]


class SameApprover(Conflict):
    """The first approval is by the same caller: another one must approve."""

    code = "same_approver"


def are_needed(policy: Policy, decided: Sequence[PlannedChange]) -> bool:
    """Whether the policy has two callers approve these changes."""
    threshold = policy.two_approvals_from
    return threshold is not None and any(
        item.verdict.severity.rank >= threshold.rank for item in decided
    )


def suffices(former: Repair | None, policy: Policy) -> bool:
    """Whether an earlier approval still holds under this policy."""
    if former is None or policy.two_approvals_from is None:
        return True
    return any(one["verdict"] == FIRST for one in _read(former.decisions))


def mark_of(decided: Sequence[PlannedChange], order: Approve) -> _Entry:
    """What identifies an approval: its caller, and a hash of its changes and choices."""
    choices = {
        item.identity: {
            name: value
            for name, value in msgspec.structs.asdict(item.decision).items()
            if name not in _NOT_CHOSEN | _OF_APPROVAL
        }
        for item in decided
        if item.decision is not None
    }
    approved = [choices, order.on_global_state, order.on_renamed_stream]
    encoded = msgspec.json.encode(approved, order="deterministic")
    digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
    return {"approver": scopes.person(), "approval": digest}


def is_second(held: Repair, mark: Mapping[str, Any]) -> bool:
    """Whether another caller has approved the same; False if no one has.

    Raises:
        SameApprover: only the same caller has.
    """
    firsts = [one for one in _read(held.decisions) if _is_first(one, mark)]
    if any(one["approver"] != mark["approver"] for one in firsts):
        return True
    if firsts:
        raise SameApprover(
            f"The first approval of repair {held.id} is by the same caller: another one must "
            "approve, too."
        )
    return False


def move(held: Repair, decided: Repair, mark: Mapping[str, Any]) -> None:
    """Move the first approvals to the repair that was decided by the second one.

    So that they do not count again if the same changes are proposed once more.
    """
    if held is decided:
        return
    entries = _read(held.decisions)
    firsts = [one for one in entries if _is_first(one, mark)]
    held.decisions = _write([one for one in entries if one not in firsts])
    decided.decisions = _write([*firsts, *_read(decided.decisions)])


def carried(
    decisions: str,
    before: Sequence[PlannedChange],
    after: Sequence[PlannedChange],
    *,
    only_first: bool,
) -> str:
    """The decisions of a proposal after a new plan, as JSON text.

    A first approval stays if each of its changes means the same in the new plan. The other
    decisions belong to the former proposal, and stay unless `only_first`.
    """
    were = {item.id: item for item in before}
    now = {item.identity: item for item in after}
    kept = []
    for entry in _read(decisions):
        if entry["verdict"] != FIRST:
            kept += [] if only_first else [entry]
            continue
        old = [were[id_] for id_ in entry["changes"] if id_ in were]
        new = [now[item.identity] for item in old if item.identity in now]
        if len(new) == len(entry["changes"]) and all(map(means_same, old, new)):
            kept.append(entry | {"changes": [item.id for item in new]})
    return _write(kept)


def _is_first(entry: _Entry, mark: Mapping[str, Any]) -> bool:
    return entry["verdict"] == FIRST and bool(entry["approval"] == mark["approval"])


def _read(decisions: str) -> list[_Entry]:
    found: list[_Entry] = msgspec.json.decode(decisions)
    return found


def _write(decisions: Sequence[_Entry]) -> str:
    return msgspec.json.encode(decisions).decode()
