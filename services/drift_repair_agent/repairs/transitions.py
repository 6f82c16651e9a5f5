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
                 │ the sync fails for a schema reason
                 ▼
              ROLLING_BACK ──────────▶ ROLLED_BACK, FAILED, SUPERSEDED, APPLIED (no change)
```

Each function expects the connection's row to be locked and runs in the transaction of the cause. It
calls no other service: it writes what its caller has found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import changes, queries
from services.drift_repair_agent.webhooks.messages import notify
from shared import outbox
from shared.models import Connection, Repair, RepairState
from shared.outbox import EventType

BY_A_PERSON = "by_a_person"
SYNC_FAILED = "sync_failed"
INCONCLUSIVE = "verification_inconclusive"

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
    """A repair was to enter a state that does not follow its own: a bug of the caller."""

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
    """Have a new repair wait for a person."""
    _enter(repair, RepairState.PROPOSED)


def approve(repair: Repair) -> None:
    """Have a repair carried out, as a person or the policy decided."""
    _enter(repair, RepairState.APPROVED)


def reject(repair: Repair) -> None:
    """End a repair that a person refused: nothing is done."""
    _end(repair, RepairState.REJECTED)


def expire(repair: Repair) -> None:
    """End a repair that was not decided in time: nothing is done."""
    _end(repair, RepairState.EXPIRED)


async def announce(
    session: AsyncSession,
    row: Connection,
    repair: Repair,
    event: EventType,
    code: str | None = None,
) -> None:
    """Record the event of a transition and its messages to webhooks."""
    outbox.record(session, event, row, ref=repair.id, code=code)
    await notify(session, repair, event)


async def announce_proposed(session: AsyncSession, row: Connection, repair: Repair) -> None:
    """Announce that a repair waits for a person; the code is the worst of its severities."""
    await announce(
        session, row, repair, EventType.REPAIR_PROPOSED, changes.worst(changes.read(repair.changes))
    )


async def mark_superseded(
    session: AsyncSession, row: Connection, repair: Repair, *, by: UUID | None
) -> None:
    """End a repair that a newer one, or the source itself, has made pointless."""
    _end(repair, RepairState.SUPERSEDED)
    repair.superseded_by = by
    await announce(session, row, repair, EventType.REPAIR_SUPERSEDED)


async def mark_failed(
    session: AsyncSession, row: Connection, repair: Repair, *, code: str, detail: str | None
) -> None:
    """End a repair that could not be carried out; the connection is as it was, or FAILED."""
    _end(repair, RepairState.FAILED)
    repair.failure_code, repair.failure_detail = code, detail
    if repair.kind == "rollback":
        # The plan that it took the place of is to be made again.
        await queries.forget_plan(session, row.id)
    await announce(session, row, repair, EventType.REPAIR_FAILED, code)


def mark_applying(repair: Repair, operation_id: UUID) -> None:
    """Give a repair to the operation that carries it out, or that restores the version before."""
    if repair.state != RepairState.ROLLING_BACK:
        _enter(repair, RepairState.APPLYING)
    repair.operation_id = operation_id
    repair.failure_code = None


async def mark_carried_out(
    session: AsyncSession, row: Connection, repair_id: UUID, *, base: int, number: int
) -> None:
    """Note that Airbyte holds what a repair wanted, as version `number`; its rest moves along."""
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return  # it was ended without waiting for this; the version names it
    if repair.state == RepairState.ROLLING_BACK:
        repair.restored_version = number
        _end(repair, RepairState.ROLLED_BACK)
        repair.failure_code = SYNC_FAILED
        await announce(session, row, repair, EventType.REPAIR_ROLLED_BACK, SYNC_FAILED)
        return
    repair.version_number = number
    if repair.kind == "rollback":
        _end(repair, RepairState.APPLIED)
        await announce(session, row, repair, EventType.REPAIR_ROLLED_BACK, BY_A_PERSON)
    elif repair.verify_by_sync:
        _enter(repair, RepairState.VERIFYING)
        repair.tries, repair.next_at, repair.deadline_at = 0, func.now(), None
    else:
        await mark_applied(session, row, repair)
    await _rebase(session, repair, base, number)


async def mark_not_carried_out(
    session: AsyncSession, row: Connection, repair_id: UUID, failure: Mapping[str, Any]
) -> None:
    """Note that Airbyte did not take what a repair wanted."""
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return
    code = str(failure.get("code"))
    if repair.state == RepairState.ROLLING_BACK:
        code = "rollback_failed"
    await mark_failed(session, row, repair, code=code, detail=failure.get("detail"))


def start_rollback(repair: Repair, code: str | None) -> None:
    """Note that the sync with a repair failed, and why: the version before is to be restored."""
    _enter(repair, RepairState.ROLLING_BACK)
    repair.operation_id, repair.failure_detail = None, code
    repair.failure_code, repair.tries, repair.next_at = None, 0, func.now()
    repair.deadline_at = None


async def mark_applied(
    session: AsyncSession, row: Connection, repair: Repair, *, note: str | None = None
) -> None:
    """End a repair whose catalog is in force; `note` says what could not be verified."""
    _end(repair, RepairState.APPLIED)
    repair.failure_code = note
    await announce(session, row, repair, EventType.REPAIR_APPLIED, note)


async def _rebase(session: AsyncSession, repair: Repair, base: int, number: int) -> None:
    """Let what was split from this repair, and is still open, go on from the new version."""
    rest = await queries.proposed_repair(session, repair.connection_id)
    if rest is not None and rest.id == repair.parent_id and rest.base_version == base:
        rest.base_version = number
