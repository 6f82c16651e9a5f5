"""Dry runs of decisions: the same checks and the same transaction, which is rolled back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying.dry_run import DryRun, as_problem
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.executor import HealedCatalog, RepairExecutor, renamed_by
from services.drift_repair_agent.repairs.planned_changes import PlannedChange
from services.drift_repair_agent.repairs.previews import Previews
from services.drift_repair_agent.states.schemas import StreamName
from shared.database import Database
from shared.domain.catalog import Catalog, StreamId
from shared.kept_state import Reselection
from shared.models import Repair, RepairState
from shared.operations import HttpResult


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decision that has passed its checks, and the transaction that records it."""

    now: CurrentState
    wanted: Catalog
    decided: Sequence[PlannedChange]
    """The changes that it decides, and those that were approved before and not applied yet."""
    again: Reselection
    refreshed: Sequence[StreamId]
    write: Callable[[AsyncSession], Awaitable[HttpResult]]
    """Checks the decision again under locks, and records it; returns the repair's id."""
    airbyte_deadline: float
    """Until when the request waits for Airbyte, by the event loop's clock."""
    healed: HealedCatalog | None = None
    """The catalog of an approval; None of a rollback."""


class DryRuns:
    """Finds out what a decision would do."""

    def __init__(self, db: Database, executor: RepairExecutor, previews: Previews) -> None:
        self._db = db
        self._executor = executor
        self._previews = previews

    async def of(self, decision: Prepared, proposed: UUID | None = None) -> DryRun:
        """What a decision would do; nothing is recorded. `proposed` is the repair to approve.

        Raises:
            AamError: what recording the decision raises.
        """
        async with self._db.rehearsal() as session:
            recorded = await decision.write(session)
            await session.flush()
            repair = await queries.find_repair(session, UUID(recorded.body))
            rest = await queries.proposed_repair(session, repair.connection_id)
            for one in {repair, rest} - {None}:
                session.expunge(one)  # its values are needed after the transaction
        open_changes = 0 if rest is None else len(changes_of.read(rest.changes))
        found: dict[str, Any] = {
            "connection_id": repair.connection_id,
            "repair_id": proposed,
            "base_version": decision.now.row.catalog_version,
            "changes": [] if proposed is None else _just_decided(repair),
            "open_changes": open_changes,
            "catalog": await self._catalog(decision, repair),
            "resumed": [StreamName.of(one) for one in decision.again.resumed],
            "refreshed": [StreamName.of(one) for one in decision.refreshed],
        }
        if repair.state == RepairState.PROPOSED:
            return DryRun(outcome="first_approval", **found)
        begun = await self._executor.rehearse(
            repair,
            known=decision.now,
            healed=decision.healed,
            rest=rest,
            airbyte_deadline=decision.airbyte_deadline,
        )
        if begun.error is not None and begun.outcome != "applied":
            found["catalog"] |= {"problems": [as_problem(begun.error)]}
        waits = begun.error if begun.outcome == "applied" else None
        return DryRun(
            outcome=begun.outcome,
            afterwards=begun.afterwards,
            waits_for=None if waits is None else waits.code,
            waits_for_detail=None if waits is None else waits.detail,
            **found,
        )

    async def _catalog(self, decision: Prepared, repair: Repair) -> dict[str, Any]:
        if decision.healed is None:
            return await self._previews.of_rollback(decision.now, decision.wanted)
        return await self._previews.of_heal(
            decision.now,
            decision.wanted,
            decision.decided,
            renamed_by(repair, decision.decided),
            decision.healed.effects,
        )


def _just_decided(repair: Repair) -> list[str]:
    """The ids of the changes that the repair's last decision is about."""
    changes: list[str] = msgspec.json.decode(repair.decisions)[-1]["changes"]
    return changes
