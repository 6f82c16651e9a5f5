"""The state machine of a repair: every write of `repairs.state` is here.

```text
                 ┌────────────────────────────────────────▶ REJECTED   by a person
                 ├────────────────────────────────────────▶ EXPIRED    no decision in time
 (planned) ─▶ PROPOSED ───────────────────────────────────▶ SUPERSEDED by a newer plan
                 │ by a person, whole or in part
                 ▼
 (policy) ──▶ APPROVED ───────────────────────────────────▶ SUPERSEDED, FAILED, APPLIED (no change)
                 │ its operation begins
                 ▼
              APPLYING ──────────────▶ APPLIED, FAILED
                 │ verified by a sync
                 ▼
              VERIFYING ─────────────▶ APPLIED
                 │ the sync fails for a schema reason, or brings far fewer rows (by policy)
                 ▼
              ROLLING_BACK ──────────▶ ROLLED_BACK, FAILED, SUPERSEDED, APPLIED (no change)
```

Each function expects the connection's row to be locked and runs in its caller's transaction. None
of them calls another service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import planned_changes, queries
from services.drift_repair_agent.webhooks.messages import notify
from shared import outbox
from shared.models import Connection, Repair, RepairState
from shared.outbox import EventType

BY_A_PERSON = "by_a_person"
SYNC_FAILED = "sync_failed"
INCONCLUSIVE = "verification_inconclusive"
SUSPICIOUS_VOLUME = "suspicious_volume"

_S = RepairState
NEXT: Final[Mapping[str | None, frozenset[RepairState]]] = {
    None: frozenset({_S.PROPOSED, _S.APPROVED, _S.REJECTED}),
    _S.PROPOSED: frozenset({_S.APPROVED, _S.REJECTED, _S.EXPIRED, _S.SUPERSEDED}),
    _S.APPROVED: frozenset({_S.APPLYING, _S.SUPERSEDED, _S.FAILED, _S.APPLIED}),
    _S.APPLYING: frozenset({_S.VERIFYING, _S.APPLIED, _S.FAILED}),
    _S.VERIFYING: frozenset({_S.APPLIED, _S.ROLLING_BACK}),
    _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK, _S.FAILED, _S.SUPERSEDED, _S.APPLIED}),
    **{
        state: frozenset()
        for state in (
            *(_S.APPLIED, _S.REJECTED, _S.EXPIRED),
            *(_S.SUPERSEDED, _S.FAILED, _S.ROLLED_BACK),
        )
    },
}
"""The states that may follow each state; None is a repair that is not stored yet."""


class InvalidTransition(Exception):
    """The repair's current state does not allow this transition: a bug in the caller."""

    def __init__(self, repair: Repair, state: RepairState) -> None:
        super().__init__(f"Repair {repair.id} is {repair.state}; it cannot become {state}.")


def _enter(repair: Repair, state: RepairState) -> None:
    if state not in NEXT[repair.state]:
        raise InvalidTransition(repair, state)
    repair.state = state


def _end(repair: Repair, state: RepairState) -> None:
    _enter(repair, state)
    repair.ended_at = func.now()
    repair.failure_code = None


def propose(repair: Repair) -> None:
    """Mark a new repair as waiting for a person's decision."""
    _enter(repair, RepairState.PROPOSED)


def approve(repair: Repair) -> None:
    """Mark a repair as approved by a person or by the policy."""
    _enter(repair, RepairState.APPROVED)


def reject(repair: Repair) -> None:
    """End a repair that a person rejected; its changes are not applied."""
    _end(repair, RepairState.REJECTED)


def expire(repair: Repair) -> None:
    """End a repair that was not decided in time; its changes are not applied."""
    _end(repair, RepairState.EXPIRED)


async def announce(
    session: AsyncSession,
    row: Connection,
    repair: Repair,
    event: EventType,
    code: str | None = None,
) -> None:
    """Record a transition's event and its webhook messages."""
    outbox.record(session, event, row, ref=repair.id, code=code)
    await notify(session, repair, event)


async def announce_proposed(session: AsyncSession, row: Connection, repair: Repair) -> None:
    """Announce that a repair waits for a person; the event's code is its highest severity."""
    await announce(
        session,
        row,
        repair,
        EventType.REPAIR_PROPOSED,
        planned_changes.worst(planned_changes.read(repair.changes)),
    )


async def mark_superseded(
    session: AsyncSession, row: Connection, repair: Repair, *, by: UUID | None
) -> None:
    """End a repair that a newer one replaces (`by`) or that no longer applies (`by` is None)."""
    _end(repair, RepairState.SUPERSEDED)
    repair.superseded_by = by
    await announce(session, row, repair, EventType.REPAIR_SUPERSEDED)


async def mark_failed(
    session: AsyncSession, row: Connection, repair: Repair, *, code: str, detail: str | None
) -> None:
    """End a repair that could not be carried out; the connection is as it was, or FAILED."""
    _end(repair, RepairState.FAILED)
    repair.failure_code, repair.failure_detail = code, detail
    if repair.kind == "rollback" or await _was_to_resume(session, row, repair):
        # It replaced a plan, or the operation that resumes: the plan must be made again.
        await queries.forget_plan(session, row.id)
    await announce(session, row, repair, EventType.REPAIR_FAILED, code)


async def _was_to_resume(session: AsyncSession, row: Connection, repair: Repair) -> bool:
    """Whether this repair would have resumed the connection: no open change requires its pause."""
    if row.paused_by is None or planned_changes.pauses(planned_changes.read(repair.changes)):
        return False
    rest = await queries.proposed_repair(session, row.id)
    return rest is None or not planned_changes.pauses(planned_changes.read(rest.changes))


def mark_applying(repair: Repair, operation_id: UUID) -> None:
    """Record the operation that applies a repair, or that restores the previous version."""
    if repair.state != RepairState.ROLLING_BACK:
        _enter(repair, RepairState.APPLYING)
    repair.operation_id = operation_id
    repair.failure_code = None


async def mark_catalog_applied(
    session: AsyncSession, row: Connection, repair_id: UUID, *, base: int, number: int
) -> None:
    """Record that Airbyte holds a repair's catalog as version `number`.

    The open repair that it was split from is moved from version `base` to `number`.
    """
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return  # ended before its operation finished; the catalog version refers to it
    if repair.state == RepairState.ROLLING_BACK:
        repair.restored_version = number
        _end(repair, RepairState.ROLLED_BACK)
        is_suspicious = repair.failure_detail == SUSPICIOUS_VOLUME
        repair.failure_code = SUSPICIOUS_VOLUME if is_suspicious else SYNC_FAILED
        await announce(session, row, repair, EventType.REPAIR_ROLLED_BACK, repair.failure_code)
        return
    repair.version_number = number
    if repair.kind == "rollback":
        _end(repair, RepairState.APPLIED)
        await announce(session, row, repair, EventType.REPAIR_ROLLED_BACK, BY_A_PERSON)
    elif repair.verify_by_sync:
        _enter(repair, RepairState.VERIFYING)
        repair.attempts, repair.next_at, repair.deadline_at = 0, func.now(), None
    else:
        await mark_applied(session, row, repair)
    await _rebase(session, repair, base, number)


async def mark_catalog_refused(
    session: AsyncSession, row: Connection, repair_id: UUID, failure: Mapping[str, Any]
) -> None:
    """Record that Airbyte did not accept a repair's catalog."""
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return
    code = str(failure.get("code"))
    if repair.state == RepairState.ROLLING_BACK:
        code = "rollback_failed"
    await mark_failed(session, row, repair, code=code, detail=failure.get("detail"))


def start_rollback(repair: Repair, code: str | None) -> None:
    """Record that the verifying sync failed with `code`; the previous version is to be restored.

    The code is SUSPICIOUS_VOLUME if the sync succeeded, but brought far fewer rows than usual.
    """
    _enter(repair, RepairState.ROLLING_BACK)
    repair.operation_id, repair.failure_detail = None, code
    repair.failure_code, repair.attempts, repair.next_at = None, 0, func.now()
    repair.deadline_at = None


async def mark_applied(
    session: AsyncSession,
    row: Connection,
    repair: Repair,
    *,
    note: str | None = None,
    detail: str | None = None,
) -> None:
    """End a repair whose catalog is in force; `note` is a code if it could not be verified."""
    _end(repair, RepairState.APPLIED)
    repair.failure_code = note
    if detail is not None:
        repair.failure_detail = detail
    await announce(session, row, repair, EventType.REPAIR_APPLIED, note)


async def _rebase(session: AsyncSession, repair: Repair, base: int, number: int) -> None:
    """Move the open repair that this one was split from to the new version."""
    rest = await queries.proposed_repair(session, repair.connection_id)
    if rest is not None and rest.id == repair.parent_id and rest.base_version == base:
        rest.base_version = number
