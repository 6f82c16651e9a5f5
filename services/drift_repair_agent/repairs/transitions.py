"""How a repair's state changes: always with its connection's row locked, in the transaction of why.

Nothing here asks anybody: each function writes what its caller has found out.
"""

from __future__ import annotations

from typing import Any
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


async def told(
    session: AsyncSession,
    row: Connection,
    repair: Repair,
    event: EventType,
    code: str | None = None,
) -> None:
    """Tell what became of a repair, in the transaction that makes it true."""
    outbox.record(session, event, row, ref=repair.id, code=code)
    await notify(session, repair, event)


async def proposed(session: AsyncSession, row: Connection, repair: Repair) -> None:
    """Tell that a repair waits for a person; the code is the gravest of its severities."""
    await told(
        session, row, repair, EventType.REPAIR_PROPOSED, changes.worst(changes.read(repair.changes))
    )


async def superseded(
    session: AsyncSession, row: Connection, repair: Repair, *, by: UUID | None
) -> None:
    """End a repair that a newer one, or the source itself, has made pointless."""
    end(repair, RepairState.SUPERSEDED)
    repair.superseded_by = by
    await told(session, row, repair, EventType.REPAIR_SUPERSEDED)


async def failed(
    session: AsyncSession, row: Connection, repair: Repair, *, code: str, detail: str | None
) -> None:
    """End a repair that could not be carried out; the connection is as it was, or FAILED."""
    end(repair, RepairState.FAILED)
    repair.failure_code, repair.failure_detail = code, detail
    if repair.kind == "rollback":
        # The plan that it took the place of is to be made again.
        await queries.forget_plan(session, row.id)
    await told(session, row, repair, EventType.REPAIR_FAILED, code)


def end(repair: Repair, state: RepairState) -> None:
    """Give a repair its last state."""
    repair.state = state
    repair.ended_at = func.now()
    repair.failure_code = None


def begin(repair: Repair, operation_id: UUID) -> None:
    """Give a decided repair to the operation that carries it out."""
    if repair.state == RepairState.APPROVED:
        repair.state = RepairState.APPLYING
    repair.operation_id = operation_id
    repair.failure_code = None


async def carried_out(
    session: AsyncSession, row: Connection, repair_id: UUID, *, base: int, number: int
) -> None:
    """Note that Airbyte holds what a repair wanted, as version `number`; its rest moves along."""
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return  # it was ended without waiting for this; the version names it
    if repair.state == RepairState.ROLLING_BACK:
        repair.restored_version = number
        end(repair, RepairState.ROLLED_BACK)
        repair.failure_code = SYNC_FAILED
        await told(session, row, repair, EventType.REPAIR_ROLLED_BACK, SYNC_FAILED)
        return
    repair.version_number = number
    if repair.kind == "rollback":
        end(repair, RepairState.APPLIED)
        await told(session, row, repair, EventType.REPAIR_ROLLED_BACK, BY_A_PERSON)
    elif repair.verify_by_sync:
        repair.state = RepairState.VERIFYING
        repair.tries, repair.next_at, repair.deadline_at = 0, func.now(), None
    else:
        await applied(session, row, repair)
    await _rebase(session, repair, base, number)


def roll_back(repair: Repair, code: str | None) -> None:
    """Note that the sync with a repair failed, and why: the version before is to be restored."""
    repair.state = RepairState.ROLLING_BACK
    repair.operation_id, repair.failure_detail = None, code
    repair.failure_code, repair.tries, repair.next_at = None, 0, func.now()
    repair.deadline_at = None


async def applied(
    session: AsyncSession, row: Connection, repair: Repair, *, note: str | None = None
) -> None:
    """End a repair well; `note` says what could not be found out about it."""
    end(repair, RepairState.APPLIED)
    repair.failure_code = note
    await told(session, row, repair, EventType.REPAIR_APPLIED, note)


async def _rebase(session: AsyncSession, repair: Repair, base: int, number: int) -> None:
    """Let what was split from this repair, and is still open, go on from the new version."""
    rest = await queries.proposed_repair(session, repair.connection_id)
    if rest is not None and rest.id == repair.parent_id and rest.base_version == base:
        rest.base_version = number


async def not_carried_out(
    session: AsyncSession, row: Connection, repair_id: UUID, failure: dict[str, Any]
) -> None:
    """Note that Airbyte did not take what a repair wanted."""
    repair = await queries.find_repair(session, repair_id, lock=True)
    if repair.ended_at is not None:
        return
    code = str(failure.get("code"))
    if repair.state == RepairState.ROLLING_BACK:
        code = "rollback_failed"
    await failed(session, row, repair, code=code, detail=failure.get("detail"))
