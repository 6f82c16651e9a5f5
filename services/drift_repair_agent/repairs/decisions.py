"""People's decisions about repairs: approve, reject and roll back, each in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying import preflight, reselection
from services.drift_repair_agent.applying.destination_check import expect_tables_free
from services.drift_repair_agent.applying.dry_run import NO_DIFFERENCE, DryRun
from services.drift_repair_agent.continuity.choices import Continuity
from services.drift_repair_agent.healing import incompatibilities
from services.drift_repair_agent.repairs import (
    current_state,
    queries,
    transitions,
    two_approvals,
)
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.approval_choices import (
    approved,
    chosen,
    new_names,
)
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.dry_runs import DryRuns, Prepared
from services.drift_repair_agent.repairs.executor import (
    SOON,
    HealedCatalog,
    RepairExecutor,
    streams_of,
)
from services.drift_repair_agent.repairs.planned_changes import Decision, PlannedChange
from services.drift_repair_agent.repairs.policy import Policy
from services.drift_repair_agent.repairs.previews import Previews
from services.drift_repair_agent.repairs.schemas import (
    Approve,
    Decide,
    RollBack,
    Unchanged,
)
from services.drift_repair_agent.states.effects import StateEffects
from shared import airbyte_reads, failpoints, registry
from shared.airbyte_client import AirbyteClient
from shared.auth import scopes
from shared.database import Database
from shared.destinations import DestinationReader
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, Exclusions, InvalidCatalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import Conflict, Invalid, Unavailable, UpstreamUnknown
from shared.kept_state import Reselection
from shared.models import Connection, Repair, RepairState
from shared.operations import HttpResult, Intent, Key, Operations
from shared.outbox import EventType


class NotProposed(Conflict):
    """The repair no longer waits for a decision; `state` is its state now."""

    code = "not_proposed"


class StalePlan(Conflict):
    """The repair is out of date; `newer` names the repair that replaced it, if there is one."""

    code = "stale_plan"


class Repairs:
    """Records decisions and starts carrying them out."""

    def __init__(
        self,
        db: Database,
        airbyte: AirbyteClient,
        operations: Operations,
        executor: RepairExecutor,
        effects: StateEffects,
        continuity: Continuity,
        destinations: DestinationReader,
    ) -> None:
        self._continuity = continuity
        self._destinations = destinations
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        self._executor = executor
        self.previews = Previews(db, airbyte, effects)
        self._dry_runs = DryRuns(db, executor, self.previews)

    async def approve(
        self,
        repair_id: UUID,
        order: Approve,
        *,
        key: Key | None,
        wait: float,
        airbyte_deadline: float | None = None,
    ) -> HttpResult:
        """Approve a repair, or some of its changes: those are split off, the rest stays open.

        If Airbyte does not answer by `airbyte_deadline` (by the event loop's clock; None: in ten
        seconds), an approval that depends on the answer is refused; others are carried out later.

        Raises:
            NotFound: there is no such repair.
            NotProposed: it is decided already, or has ended.
            StalePlan: the catalog or the source has changed since.
            Invalid: the changes, or the choices for them, are invalid.
            GlobalStateUndecided: a stream is selected again that depends on a global state.
            SameApprover: the policy has another caller approve after this one.
            Conflict: another repair of the connection is under way.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return await self._answer(UUID(replay.body), is_replay=True)
        decision = await self._approval(repair_id, order, airbyte_deadline)
        connection_id = decision.now.row.id
        answer = await self._operations.at_once(
            Intent("approve", connection_id, {"repair_id": repair_id}, key=key), decision.write
        )
        failpoints.at("repair.decided")
        return await self._carried_out(answer, decision, wait=wait)

    async def dry_run_approve(self, repair_id: UUID, order: Approve) -> DryRun:
        """What an approval would do; nothing is recorded.

        Raises:
            AamError: what `approve` raises.
        """
        return await self._dry_runs.of(await self._approval(repair_id, order), repair_id)

    async def _approval(
        self, repair_id: UUID, order: Approve, airbyte_deadline: float | None = None
    ) -> Prepared:
        """Check an approval.

        Raises:
            AamError: as `approve`.
        """
        until = airbyte_deadline or airbyte_reads.airbyte_deadline()
        async with self._db.read() as session:
            repair = await queries.find_repair(session, repair_id)
            policy = await registry.find_policy(session, repair.connection_id)
            waiting = await queries.repair_in_progress(session, repair.connection_id)
            at = await registry.now(session)
        _expect_proposed(repair)
        if waiting is not None and not _is_waiting(waiting, repair.base_version):
            waiting = None  # raises Conflict below, under the lock
        in_effect = Policy.of(policy)
        _expect_allowed(order, in_effect)
        items = changes_of.read(repair.changes)
        now = await self._current(repair, items, order, waiting=waiting)
        decided = await approved(items, order, now, at)
        async with airbyte_reads.airbyte_answers_by(until):
            decided = await self._continuity.settled(now, decided, order, in_effect)
        before = [] if waiting is None else changes_of.read(waiting.changes)
        joined = changes_of.joined(decided, before)
        healed = await _healed(now, joined, in_effect.exclusions)
        again, refreshed = await self._reselected(now, healed.catalog, order, until, joined)

        async def write(session: AsyncSession) -> HttpResult:
            row, held = await self._lock(session, repair, now)
            mark = two_approvals.mark_of(decided, order)
            needs_two = two_approvals.are_needed(in_effect, decided)
            if needs_two and not two_approvals.is_second(held, mark):
                first = _decision(two_approvals.FIRST, decided, order, at)
                held.decisions = _with(held.decisions, first | mark)
                return HttpResult(202, str(held.id))
            await self._supersede_waiting(session, row, held, waiting)
            one = await _split(session, held, joined, order, RepairState.APPROVED, at)
            two_approvals.move(held, one, mark)
            one.snapshot_id = None if now.snapshot is None else now.snapshot.id
            one.base_version = row.catalog_version
            one.is_learned = not changes_of.has_lessons(decided)
            return HttpResult(202, str(one.id))

        return Prepared(now, healed.catalog, joined, again, refreshed, write, until, healed)

    async def reject(self, repair_id: UUID, order: Decide, *, key: Key | None) -> HttpResult:
        """Reject a repair, or some of its changes; they are not applied.

        Raises:
            NotFound, NotProposed, Invalid: as `approve`.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return await self._answer(UUID(replay.body), is_replay=True)
        async with self._db.read() as session:
            repair = await queries.find_repair(session, repair_id)
            at = await registry.now(session)
        made = Decision(
            action="keep",
            by=scopes.named(order.by),
            at=at,
            reason=order.reason,
            requested_by=scopes.requested_by(),
        )
        decided = [item.decided(made) for item in chosen(changes_of.read(repair.changes), order)]

        async def write(session: AsyncSession) -> HttpResult:
            row = await registry.lock_connection(session, repair.connection_id, even_archived=True)
            held = await queries.find_repair(session, repair.id, lock=True)
            _expect_proposed(held)
            _expect_same(held, repair)
            one = await _split(session, held, decided, order, RepairState.REJECTED, at)
            one.is_learned = not changes_of.has_lessons(decided)
            await transitions.announce(session, row, one, EventType.REPAIR_REJECTED)
            return HttpResult(200, str(one.id))

        answer = await self._operations.at_once(
            Intent("reject", repair.connection_id, {"repair_id": repair_id}, key=key), write
        )
        return await self._answer(UUID(answer.body), is_replay=answer.is_replay)

    async def roll_back(
        self, connection_id: UUID, order: RollBack, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Restore an older version as a new one.

        Raises:
            NotFound: there is no such connection, or it has no such version.
            Conflict: the source no longer has what that version needs, and `problems` lists it;
                or another repair is under way, or the connection's status does not allow it.
            Invalid: that version selects what the policy never selects, or a stream whose table
                another connection writes now.
            GlobalStateUndecided: it selects a stream again that depends on a global state.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return await self._answer(UUID(replay.body), is_replay=True)
        decision = await self._rollback(connection_id, order)
        if isinstance(decision, Unchanged):
            return HttpResult(200, decision.model_dump_json())
        answer = await self._operations.at_once(
            Intent("rollback", connection_id, {"version": order.version}, key=key), decision.write
        )
        return await self._carried_out(answer, decision, wait=wait)

    async def dry_run_roll_back(self, connection_id: UUID, order: RollBack) -> DryRun:
        """What a rollback would do; nothing is recorded.

        Raises:
            AamError: what `roll_back` raises.
        """
        decision = await self._rollback(connection_id, order)
        if not isinstance(decision, Unchanged):
            return await self._dry_runs.of(decision)
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        return DryRun(
            connection_id=connection_id,
            outcome="unchanged",
            base_version=row.catalog_version,
            catalog=NO_DIFFERENCE,
        )

    async def _rollback(self, connection_id: UUID, order: RollBack) -> Prepared | Unchanged:
        """Check a rollback; `Unchanged` if the version is equivalent to the head.

        Raises:
            AamError: as `roll_back`.
        """
        until = airbyte_reads.airbyte_deadline()
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)
            target = await registry.read_version(session, connection_id, order.version)
            exclusions = await registry.exclusions_of(session, connection_id)
            at = await registry.now(session)
        wanted = await run_cooperatively(catalogs.parse.steps(target.sync_catalog.encode()))
        also = [stream.id for stream in wanted.streams]
        now = await current_state.read(self._db, connection_id, also=also)
        preflight.expect_healable(now.row, None)
        if target.fingerprint == now.head.fingerprint:
            return Unchanged(connection_id=connection_id)
        await preflight.expect_selectable(wanted, exclusions, bodies=now.offered.values())
        await _expect_fits(wanted, now, version=order.version)
        await expect_tables_free(
            self._db, self._destinations, now.row, wanted, now.configured, deadline=until
        )
        again, refreshed = await self._reselected(now, wanted, order, until)
        undone = await changes_of.undone(wanted, now.configured)
        decision = _decision("rolled_back", undone, order, at)

        async def write(session: AsyncSession) -> HttpResult:
            row = await registry.lock_connection(session, connection_id)
            preflight.expect_healable(row, now.row.catalog_version)
            _expect_none_under_way(await queries.repair_in_progress(session, connection_id))
            repair = Repair(
                id=uuid4(),
                connection_id=connection_id,
                kind="rollback",
                snapshot_id=None if now.snapshot is None else now.snapshot.id,
                base_version=row.catalog_version,
                target_version=order.version,
                changes=changes_of.write(undone),
                decisions=msgspec.json.encode([decision]).decode(),
                next_at=at + SOON,
            )
            transitions.approve(repair)
            proposed = await queries.proposed_repair(session, connection_id)
            if proposed is not None:
                await transitions.mark_superseded(session, row, proposed, by=repair.id)
            if now.snapshot is not None:
                # The person has seen what the source offers now: do not plan for it again.
                await queries.save_plan(
                    session, row.id, now.snapshot.id, base_version=row.catalog_version + 1
                )
            session.add(repair)
            return HttpResult(202, str(repair.id))

        return Prepared(now, wanted, undone, again, refreshed, write, until)

    async def _carried_out(
        self, decided: HttpResult, decision: Prepared, *, wait: float
    ) -> HttpResult:
        """Start carrying out a decision; if that fails, a periodic task tries again later.

        Raises:
            UpstreamUnknown: the decision is recorded, but the repair's state cannot be read now.
        """
        repair_id = UUID(decided.body)
        try:
            if not decided.is_replay:
                operation_id = await self._executor.step(
                    repair_id,
                    known=decision.now,
                    healed=decision.healed,
                    airbyte_deadline=decision.airbyte_deadline,
                )
                if operation_id is not None:
                    await self._operations.outcome(operation_id, wait=wait)
            return await self._answer(repair_id, is_replay=decided.is_replay)
        except (Unavailable, UpstreamUnknown):
            raise UpstreamUnknown(
                f"Repair {repair_id} is decided, but the registry is unavailable: read its state "
                "later.",
                code="outcome_unknown",
                repair_id=repair_id,
            ) from None

    async def _answer(self, repair_id: UUID, *, is_replay: bool = False) -> HttpResult:
        """The repair as it is now: 200 if it has ended, 202 if it has not."""
        async with self._db.read() as session:
            repair = await queries.find_repair(session, repair_id)
            text = await queries.repair_json(session, repair_id)
        return HttpResult(202 if repair.ended_at is None else 200, text, is_replay=is_replay)

    async def _current(
        self,
        repair: Repair,
        items: Sequence[PlannedChange],
        order: Approve,
        *,
        waiting: Repair | None,
    ) -> CurrentState:
        """Read the connection's current state, and check that the repair still applies to it.

        Raises:
            StalePlan: the catalog, or the changes to decide, are no longer the same.
        """
        also = streams_of(repair) | new_names(items, order)
        also |= set() if waiting is None else streams_of(waiting)
        now = await current_state.read(self._db, repair.connection_id, also=also)
        newest = None if now.snapshot is None else now.snapshot.id
        is_still = now.row.catalog_version == repair.base_version and (
            newest == repair.snapshot_id or await now.has_all(chosen(items, order))
        )
        if not is_still:
            raise await self._stale(repair)
        return now

    async def _stale(self, repair: Repair) -> StalePlan:
        async with self._db.read() as session:
            newer = await queries.proposed_repair(session, repair.connection_id)
        newer_id = None if newer is None or newer.id == repair.id else newer.id
        return StalePlan(
            f"Repair {repair.id} was planned for a catalog or a source that has changed since.",
            newer=newer_id,
        )

    async def _lock(
        self, session: AsyncSession, repair: Repair, now: CurrentState
    ) -> tuple[Connection, Repair]:
        """Lock the connection and the repair, and check that neither has changed since read.

        Raises:
            NotProposed, StalePlan: they have changed.
        """
        row = await registry.lock_connection(session, repair.connection_id)
        held = await queries.find_repair(session, repair.id, lock=True)
        _expect_proposed(held)
        _expect_same(held, repair)
        newest = (
            None
            if row.airbyte_source_id is None
            else await registry.latest_snapshot(session, row.airbyte_source_id)
        )
        read = None if now.snapshot is None else now.snapshot.id
        if row.catalog_version != now.row.catalog_version or (newest and newest.id) != read:
            raise StalePlan(
                f"Connection {row.id} changed while repair {repair.id} was being decided.",
                newer=None,
            )
        return row, held

    async def _reselected(
        self,
        now: CurrentState,
        wanted: Catalog,
        order: Approve | RollBack,
        until: float,
        decided: Sequence[PlannedChange] = (),
    ) -> tuple[Reselection, tuple[StreamId, ...]]:
        """The streams that are selected again, and those of them that are refreshed.

        What was chosen for streams in decisions, also in earlier ones, goes before `order`.

        Raises:
            GlobalStateUndecided, Invalid, Unavailable: as `reselection.to_refresh`.
        """
        async with airbyte_reads.airbyte_answers_by(until):
            again = await reselection.find(self._airbyte, now.row, wanted, now.configured)
            choice = order.on_global_state
            return again, await reselection.to_refresh(
                self._airbyte, now.row, again, choice, chosen=changes_of.on_global_state(decided)
            )

    async def _supersede_waiting(
        self, session: AsyncSession, row: Connection, held: Repair, waiting: Repair | None
    ) -> None:
        """Supersede an approved repair that has not begun; this decision includes its changes.

        Raises:
            Conflict: another repair is under way.
            StalePlan: the waiting repair is not the one that was read.
        """
        other = await queries.repair_in_progress(session, row.id)
        if other is not None:
            other = await queries.find_repair(session, other.id, lock=True)
            if not _is_waiting(other, row.catalog_version):
                _expect_none_under_way(other)
        if _version_of(other) != _version_of(waiting):
            raise StalePlan(
                f"Connection {row.id} changed while repair {held.id} was being decided.", newer=None
            )
        if other is not None:
            await transitions.mark_superseded(session, row, other, by=held.id)
            await session.flush()


async def _healed(
    now: CurrentState, decided: Sequence[PlannedChange], exclusions: Exclusions
) -> HealedCatalog:
    """The catalog that the decisions lead to.

    Raises:
        Invalid: they lead to no catalog that Airbyte would accept; `problems` lists why.
    """
    try:
        healed = await now.healed(decided, exclusions)
    except InvalidCatalog as error:
        raise preflight.invalid(error, code="heal_impossible") from None
    wanted, fingerprint = await preflight.readable(healed.catalog, is_checked=True)
    return HealedCatalog(now, exclusions, wanted, fingerprint, healed.effects)


async def _expect_fits(wanted: Catalog, now: CurrentState, *, version: int) -> None:
    if now.snapshot is None:
        return
    found = await run_cooperatively(incompatibilities.steps(wanted, now.offered.values()))
    if found:
        raise Conflict(
            f"The source no longer has what version {version} of connection {now.row.id} needs.",
            code="rollback_impossible",
            problems=preflight.problems(InvalidCatalog(found)),
        )


def _expect_allowed(order: Approve, policy: Policy) -> None:
    """Check that no chosen new name is one that the policy never selects."""
    for change_id, choice in order.choices.items():
        if any(map(policy.excludes, choice.became or ())):
            raise Invalid(
                f"What is chosen for {change_id} is excluded: the policy never selects it.",
                code="never_selected",
            )


def _expect_proposed(repair: Repair) -> None:
    if repair.state != RepairState.PROPOSED:
        raise NotProposed(
            f"Repair {repair.id} is {repair.state}; it is not waiting for a decision.",
            state=repair.state,
            newer=repair.superseded_by,
        )


def _expect_same(held: Repair, read: Repair) -> None:
    if held.changes != read.changes or held.base_version != read.base_version:
        raise StalePlan(f"Repair {read.id} was changed while it was being decided.", newer=None)


def _expect_none_under_way(other: Repair | None) -> None:
    if other is not None:
        raise Conflict(
            f"Repair {other.id} of connection {other.connection_id} is {other.state}: wait until "
            "it has ended.",
            code="repair_in_progress",
            repair_id=other.id,
        )


def _is_waiting(repair: Repair, catalog_version: int) -> bool:
    """Whether an approved repair has not begun yet, so that it can be merged with a decision."""
    is_open = repair.state == RepairState.APPROVED and repair.kind == "heal"
    return is_open and repair.base_version == catalog_version


def _version_of(repair: Repair | None) -> tuple[UUID, str] | None:
    """A key that is equal for two reads of a repair if its changes are the same."""
    return None if repair is None else (repair.id, repair.changes)


async def _split(
    session: AsyncSession,
    held: Repair,
    decided: Sequence[PlannedChange],
    order: Decide,
    state: RepairState,
    at: datetime,
) -> Repair:
    """The repair with the decided changes: `held` if all are decided, else a new child of it."""
    verdict = "approved" if state == RepairState.APPROVED else "rejected"
    decision = _decision(verdict, decided, order, at)
    marks = {item.identity for item in decided}
    rest = [item for item in changes_of.read(held.changes) if item.identity not in marks]
    if not rest:
        held.changes = changes_of.write(decided)
        held.decisions = _with(held.decisions, decision)
        held.next_at = at + SOON
        _into(held, state)
        return held
    left = {item.id for item in rest}
    held.changes = changes_of.write(
        item if item.pair in left else replace(item, pair=None, suggestion=None) for item in rest
    )
    child = Repair(
        id=uuid4(),
        connection_id=held.connection_id,
        drift_id=held.drift_id,
        parent_id=held.id,
        snapshot_id=held.snapshot_id,
        base_version=held.base_version,
        changes=changes_of.write(decided),
        decisions=msgspec.json.encode([decision]).decode(),
        verify_by_sync=held.verify_by_sync,
        connector_step=held.connector_step,
        next_at=at + SOON,
    )
    _into(child, state)
    held.decisions = _with(held.decisions, decision | {"repair_id": child.id})
    session.add(child)
    return child


def _into(repair: Repair, state: RepairState) -> None:
    if state == RepairState.REJECTED:
        transitions.reject(repair)
    else:
        transitions.approve(repair)


def _decision(
    verdict: str, decided: Sequence[PlannedChange], order: Decide | RollBack, at: datetime
) -> dict[str, Any]:
    decision = {
        "verdict": verdict,
        "changes": [item.id for item in decided],
        "by": scopes.named(order.by),
        "requested_by": scopes.requested_by(),
        "at": at,
        "reason": order.reason,
    }
    if isinstance(order, Approve) and "on_renamed_stream" in order.model_fields_set:
        decision["on_renamed_stream"] = order.on_renamed_stream
    choice = order.on_global_state if isinstance(order, Approve | RollBack) else None
    return decision if choice is None else decision | {"on_global_state": choice}


def _with(decisions: str, decision: Mapping[str, Any]) -> str:
    return msgspec.json.encode([*msgspec.json.decode(decisions), decision]).decode()
