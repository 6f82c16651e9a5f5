"""Plan repairs: how a connection's catalog should follow the changes of its source.

A plan is made for the newest snapshot, whatever drifts led to it. The changes that the policy
allows become a repair that is applied at once; the rest become one that waits for a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying.pause import Pause, PauseSaga
from services.drift_repair_agent.continuity.choices import Continuity
from services.drift_repair_agent.recent_failures import Postponed
from services.drift_repair_agent.repairs import (
    carried_decisions,
    current_state,
    queries,
    transitions,
    two_approvals,
)
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.carried_decisions import with_decisions
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.destination_limits import (
    DestinationLimits,
)
from services.drift_repair_agent.repairs.executor import SOON, RepairExecutor
from services.drift_repair_agent.repairs.lapses import applicable
from services.drift_repair_agent.repairs.planned_changes import (
    BY_POLICY,
    PlannedChange,
    identity,
)
from services.drift_repair_agent.repairs.policy import Policy, Reaction
from services.drift_repair_agent.repairs.suggestions import Known, Suggestions
from services.drift_repair_agent.repairs.weighing import authors, policy_decision, weigh
from services.drift_repair_agent.webhooks.messages import notify
from shared import batches, failpoints, kept_state, registry
from shared.airbyte_client import AirbyteClient
from shared.auth import label_limits
from shared.config import Settings
from shared.database import Database
from shared.domain.catalog import StreamId, read_stream
from shared.domain.connector_versions import Step, joined
from shared.domain.drift import MAPPER_LAPSED, Change, Verdict
from shared.errors import Conflict, NotActive
from shared.models import Connection, ConnectionStatus, Drift, Repair, Snapshot
from shared.observability import logs
from shared.operations import HttpResult, Intent, Operations
from shared.outbox import EventType
from shared.saved_states.store import StateStore

log = logs.get(__name__)

_BATCH_SIZE = 50
_LATELY = timedelta(hours=1)
_LONGEST_WITHOUT_PAUSE_S = 300.0
"""The longest wait before a pause or resume that failed is tried again: each try is an operation on
the connection's timeline."""
_MAX_CONCURRENCY = 4


@dataclass(frozen=True, slots=True)
class _Basis:
    """The input of a plan."""

    current_state: CurrentState
    snapshot: Snapshot
    before: Snapshot | None
    """The snapshot that the connection was last planned for."""
    drift: Drift
    policy: Policy
    proposed: Repair | None
    step: Step | None
    """The change of the connector's version since then, or with an open proposal."""
    refused: frozenset[str]
    """Identities of changes that were rejected, rolled back or failed: they need a person."""
    former: Repair | None
    """A decided repair that became stale, whose decisions may hold for the new plan."""


class Planner:
    """Plans for connections whose source has changed; once, however many replicas run it."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        operations: Operations,
        suggesting: Suggestions,
        executor: RepairExecutor,
        states: StateStore,
        limits: DestinationLimits,
        continuity: Continuity,
    ) -> None:
        self._continuity = continuity
        self._limits = limits
        self._expiry = settings.repair_expiry
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        self._suggesting = suggesting
        self._executor = executor
        self._postponed = Postponed()
        self._passed: list[UUID] = []
        """The connections of the preceding full batches, which the next batch skips."""
        self._not_set = Postponed(longest_s=_LONGEST_WITHOUT_PAUSE_S)
        """The connections that could not be paused or resumed."""
        saga = PauseSaga(settings, db, airbyte, states, on_failed=self._plan_again_later)
        operations.register("pause", saga)

    async def plan_recent(self) -> None:
        """Plan for connections with a recent drift or a proposal, in case their job was lost."""
        await self._plan_due(drifted_within=_LATELY)

    async def plan_all_due(self) -> None:
        """Plan for every connection that is due, including those that drifted long ago."""
        await self._plan_due(drifted_within=None)

    async def _plan_due(self, *, drifted_within: timedelta | None) -> None:
        async with self._db.read() as session:
            due = await queries.plans_due(
                session,
                limit=_BATCH_SIZE,
                but=[*self._skipped, *self._passed],
                drifted_within=drifted_within,
            )
        # Connections that cannot be planned for yet would otherwise fill the next batch again.
        self._passed = [*self._passed, *due] if len(due) == _BATCH_SIZE else []
        await self._each(due, self.plan)

    @property
    def _skipped(self) -> list[UUID]:
        """The connections to leave out of the next batch."""
        return [*self._postponed.ids, *self._not_set.ids]

    async def _plan_again_later(self, session: AsyncSession, connection_id: UUID) -> None:
        """Forget the plan of a connection that could not be paused or resumed as planned."""
        await queries.forget_plan(session, connection_id)
        self._not_set.add(connection_id)

    async def _each(
        self, connections: Sequence[UUID], run: Callable[[UUID], Awaitable[None]]
    ) -> None:
        transitions = await batches.each(
            connections,
            run,
            log_event="not_planned",
            fields=lambda connection_id: {"connection": str(connection_id)},
            max_concurrency=_MAX_CONCURRENCY,
        )
        self._postponed.add_failed(transitions)

    async def job(self, payload: str) -> None:
        """Plan for the connection that a drift was recorded for."""
        await self.plan(UUID(payload))

    async def again(self, connection_id: UUID) -> None:
        """Plan for a connection even if its source has not changed since the last plan.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived, or not ACTIVE.
            Conflict: a repair or an operation of it is under way.
        """
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            if row.status is not ConnectionStatus.ACTIVE:
                raise NotActive(f"Connection {row.id} is {row.status}; it must be ACTIVE.")
            under_way = await queries.repair_in_progress(session, row.id)
            if under_way is not None or await registry.is_busy(session, row.id):
                raise Conflict(
                    f"A repair of connection {row.id} is in progress: wait until it has ended.",
                    code="repair_in_progress",
                    repair_id=_id(under_way),
                )
            await queries.forget_plan(session, row.id)
        with label_limits.registry_wide():  # the table of a new stream may be another connection's
            await self.plan(connection_id)

    async def ask_again(self) -> None:
        """Plan again where the rag_engine could not be asked, once it is available."""
        async with self._db.read() as session:
            waiting = await queries.unsuggested(session, limit=_BATCH_SIZE, but=self._skipped)
        if waiting and await self._suggesting.is_available():
            await self._each(waiting, self._planned_again)

    async def _planned_again(self, connection_id: UUID) -> None:
        async with self._db.transaction() as session:
            await queries.forget_plan(session, connection_id)
        await self.plan(connection_id)

    async def plan(self, connection_id: UUID) -> None:
        """Compare source and catalog, ask for rename suggestions, and record the repairs.

        Raises:
            Conflict: an operation of the connection is open; it is planned for afterwards.
            Unavailable: nothing was recorded; also if Airbyte does not report the destination.
            UpstreamRefused: Airbyte does not return the state of a stream to be selected.
        """
        async with self._db.read() as session:
            if not await queries.is_plan_due(session, connection_id):
                return
            if await registry.is_busy(session, connection_id):
                return  # the operation may pause it; the next run plans for it
        basis = await self._basis(connection_id)
        if basis is None:
            return
        changes = await basis.current_state.changes()
        known = await self._known(basis, changes)
        asked = await self._suggesting.ask(
            basis.current_state, changes, known=known, step=basis.step
        )
        hiding = {
            identity(change)
            for change, _ in changes
            if any(map(basis.policy.excludes, basis.current_state.names_within(change)))
        }
        stuck = {
            identity(change)
            for change, _ in changes
            if not basis.current_state.can_leave_out(change, basis.policy.exclusions)
        }
        planned = weigh(
            changes,
            asked,
            basis.policy,
            basis.refused,
            hiding=hiding,
            stuck=stuck,
            kept=await self._kept_lapses(connection_id, changes),
            judgements=await self._limits.judged(basis.current_state, changes, basis.policy),
            ids=_ids([change for change, _ in changes], basis.proposed),
        )
        at, policy = basis.drift.first_seen_at, basis.policy
        planned = await self._continuity.planned(basis.current_state, planned, policy)
        planned = await applicable(
            planned,
            basis.current_state,
            policy.exclusions,
            decide=lambda item: item.decided(policy_decision(item, at, policy)),
        )
        planned = await self._without_gaps(basis, planned)
        if two_approvals.suffices(basis.former, policy):
            planned = with_decisions(planned, basis.former)
        failpoints.at("repair.weighed")
        safe_id = await self._record(basis, planned)
        if safe_id is not None:
            failpoints.at("repair.recorded")
            await self._executor.step(safe_id, known=basis.current_state)

    async def _without_gaps(
        self, basis: _Basis, planned: list[PlannedChange]
    ) -> list[PlannedChange]:
        """The plan, in which a person decides about each stream that depends on a global state.

        A policy would select such a stream again without what changed meanwhile, or have all of it
        read again.

        Raises:
            Unavailable: Airbyte does not return the state now; the plan is made later.
        """
        selecting = {
            item.change.stream
            for item in planned
            if item.change.kind == "stream_added" and item.reaction is Reaction.APPLY
        }
        airbyte_id = basis.current_state.row.airbyte_connection_id
        if not selecting or airbyte_id is None:
            return planned
        again = await kept_state.with_state(self._airbyte, airbyte_id, selecting)
        open_ids = {item.id for item in planned if item.change.stream in again.gapped}
        open_ids |= {item.pair for item in planned if item.id in open_ids and item.pair}
        return [
            replace(item, reaction=Reaction.PROPOSE) if item.id in open_ids else item
            for item in planned
        ]

    async def _kept_lapses(
        self, connection_id: UUID, changes: Sequence[tuple[Change, Verdict]]
    ) -> frozenset[str]:
        """The lapsed mappers that people decided to leave as they are."""
        if not any(change.kind == MAPPER_LAPSED for change, _ in changes):
            return frozenset()
        async with self._db.read() as session:
            return changes_of.kept_lapses(await queries.lapses_decided(session, connection_id))

    async def _basis(self, connection_id: UUID) -> _Basis | None:
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            drift = await queries.newest_drift(session, connection_id)
            policy = await registry.find_policy(session, connection_id)
            proposed = await queries.proposed_repair(session, connection_id)
            refused = await queries.refused_changes(session, connection_id)
            former = await queries.stale_decided(session, connection_id)
            if drift is None or row.airbyte_source_id is None:
                return None
            before = await self._before(session, row, drift)
            new = await self._new_streams(session, drift, before)
            step = await _connector_step(session, drift, before, proposed)
        known = [] if proposed is None else changes_of.read(proposed.changes)
        new |= {item.change.stream for item in known if item.change.kind == "stream_added"}
        now = await current_state.read(self._db, connection_id, also=new, is_trusted=True)
        if now.snapshot is None or now.snapshot.id != drift.after_snapshot_id:
            return None  # a newer drift has been recorded; the next run plans for it
        return _Basis(
            now,
            now.snapshot,
            before,
            drift,
            Policy.of(policy),
            proposed,
            step,
            frozenset(item.identity for text in refused for item in changes_of.read(text)),
            former,
        )

    async def _known(self, basis: _Basis, changes: Sequence[tuple[Change, Verdict]]) -> Known:
        """The fields that hand-picked streams had at the last plan, selected or not."""
        gone = {
            c.stream for c, verdict in changes if c.kind == "field_removed" and verdict.affects_sync
        }
        picked = [
            stream.id
            for stream in basis.current_state.configured.streams
            if stream.id in gone and stream.config.selected_names() is not None
        ]
        if not picked or basis.before is None:
            return {}
        names = [stream.name for stream in picked]
        async with self._db.read() as session:
            bodies = await registry.stream_bodies(session, basis.before, names=names)
        streams = [read_stream(body) for body in bodies]
        return {one.id: frozenset(one.stream.fields() or ()) for one in streams}

    async def _before(
        self, session: AsyncSession, row: Connection, drift: Drift
    ) -> Snapshot | None:
        """The snapshot that the connection was last planned for."""
        plan = await queries.find_plan(session, row.id)
        is_again = plan is None or plan.snapshot_id == drift.after_snapshot_id
        before_id = drift.before_snapshot_id if plan is None or is_again else plan.snapshot_id
        return None if before_id is None else await registry.find_snapshot(session, before_id)

    async def _new_streams(
        self, session: AsyncSession, drift: Drift, before: Snapshot | None
    ) -> set[StreamId]:
        """The streams that the source has added since the last plan."""
        if before is None or drift.after_snapshot_id == before.id:
            return set()
        newest = await registry.find_snapshot(session, drift.after_snapshot_id)
        return {
            StreamId(*offered)
            for offered in await registry.offered_streams(session, newest)
            - await registry.offered_streams(session, before)
        }

    async def _record(self, basis: _Basis, planned: Sequence[PlannedChange]) -> UUID | None:
        """Record the plan, with an operation that pauses or resumes the connection if needed.

        Returns the id of the repair to carry out now; None without one, or if the plan is out
        of date, in which case the next run makes another.
        """
        safe_id: UUID | None = None
        held = basis.current_state.row
        pauses = changes_of.pauses(planned)
        safe = any(item.reaction is Reaction.APPLY for item in planned)
        is_free = held.paused_by is None and held.pause_requested_by is None
        may_pause = is_free and not _is_unpaused(held, basis.proposed, planned)
        wants = "inactive" if pauses and may_pause else None
        if held.paused_by is not None and not pauses and not safe:
            wants = "active"
        if wants is None or held.airbyte_connection_id is None:
            async with self._db.transaction() as session:
                await registry.lock_connection(session, held.id)
                if await registry.is_busy(session, held.id):
                    return None
                _, safe_id = await self._write(session, basis, planned)
            return safe_id

        rest = [item for item in planned if item.reaction is not Reaction.APPLY]
        proposed = basis.proposed
        is_kept = proposed is not None and _are_same(rest, changes_of.read(proposed.changes))
        rest_id = proposed.id if proposed is not None and is_kept else uuid4()

        async def take(session: AsyncSession, _operation_id: UUID) -> HttpResult | None:
            nonlocal safe_id
            is_written, safe_id = await self._write(session, basis, planned, rest_id=rest_id)
            return None if is_written else HttpResult(409, "")

        pause = Pause(
            held.airbyte_connection_id,
            "active" if wants == "active" else "inactive",
            rest_id if wants == "inactive" else held.paused_by,
            held.catalog_version,
        )
        begun = await self._operations.begin(Intent("pause", held.id, pause), take)
        await self._operations.outcome(begun, wait=0)
        return safe_id

    async def _write(
        self,
        session: AsyncSession,
        basis: _Basis,
        planned: Sequence[PlannedChange],
        *,
        rest_id: UUID | None = None,
    ) -> tuple[bool, UUID | None]:
        """Write the plan; return whether it was written, and the id of the repair to carry out."""
        held = basis.current_state.row
        row = await registry.lock_connection(session, held.id)
        proposed = await queries.proposed_repair(session, row.id)
        newest = await queries.newest_drift(session, row.id)
        await registry.lock_policy_layers(session)
        policy = Policy.of(await registry.find_policy(session, row.id))
        is_still = (
            row.status is ConnectionStatus.ACTIVE
            and policy.own == basis.policy.own
            and row.catalog_version == held.catalog_version
            and row.paused_by == held.paused_by
            and row.pause_requested_by == held.pause_requested_by
            and row.unpaused_repair_id == held.unpaused_repair_id
            and newest is not None
            and newest.id == basis.drift.id
            and _id(proposed) == _id(basis.proposed)
            and (proposed is None or proposed.changes == (basis.proposed or proposed).changes)
            and await queries.is_plan_due(session, row.id)
        )
        if not is_still:
            return False, None
        await queries.save_plan(
            session, row.id, basis.snapshot.id, base_version=row.catalog_version
        )
        safe = [item for item in planned if item.reaction is Reaction.APPLY]
        rest = [item for item in planned if item.reaction is not Reaction.APPLY]
        if proposed is not None and _are_same(rest, changes_of.read(proposed.changes)):
            proposed.snapshot_id, proposed.drift_id = basis.snapshot.id, basis.drift.id
            proposed.base_version = row.catalog_version
            proposed.decisions = _decisions_of(proposed, rest, only_first=False)
            proposed.changes = changes_of.write(rest)
            proposed.connector_step = registry.write_step(basis.step)
            rest_repair: Repair | None = proposed
        else:
            rest_repair = self._proposal(basis, rest, rest_id or uuid4()) if rest else None
            if rest_repair is not None and proposed is not None:
                rest_repair.decisions = _decisions_of(proposed, rest, only_first=True)
            if proposed is not None:
                await transitions.mark_superseded(session, row, proposed, by=_id(rest_repair))
                await session.flush()
        now = await registry.now(session)
        if rest_repair is not None and rest_repair is not proposed:
            rest_repair.expires_at = now + self._expiry
            session.add(rest_repair)
            await session.flush()
            await transitions.announce_proposed(session, row, rest_repair)
            if any(item.is_lapse for item in rest):
                await notify(session, rest_repair, EventType.MAPPER_LAPSED)
        if row.paused_by is not None and rest_repair is not None and changes_of.pauses(rest):
            row.paused_by = rest_repair.id
        if row.unpaused_repair_id is not None:
            is_still_unpaused = _is_unpaused(row, basis.proposed, planned)
            row.unpaused_repair_id = _id(rest_repair) if is_still_unpaused else None
        repair = self._approved(basis, safe, now, parent_id=_id(rest_repair)) if safe else None
        if basis.former is not None:
            former = await queries.find_repair(session, basis.former.id, lock=True)
            carried = [item for item in safe if item.decision is not None]
            carried_decisions.consume(former, carried, _id(repair) if carried else None, now)
        if repair is not None:
            session.add(repair)
        return True, _id(repair)

    def _proposal(self, basis: _Basis, rest: Sequence[PlannedChange], repair_id: UUID) -> Repair:
        repair = Repair(
            id=repair_id,
            connection_id=basis.current_state.row.id,
            drift_id=basis.drift.id,
            snapshot_id=basis.snapshot.id,
            base_version=basis.current_state.row.catalog_version,
            changes=changes_of.write(rest),
            connector_step=registry.write_step(basis.step),
            verify_by_sync=basis.policy.verify == "sync",
        )
        transitions.propose(repair)
        return repair

    def _approved(
        self, basis: _Basis, safe: Sequence[PlannedChange], now: datetime, *, parent_id: UUID | None
    ) -> Repair:
        """A repair that the policy has approved, or a person before the plan was made again."""
        carried = [item for item in safe if item.decision is not None]
        by_policy = [
            item.decided(policy_decision(item, now, basis.policy))
            for item in safe
            if item.decision is None
        ]
        decision = {
            "verdict": "approved",
            "changes": [item.id for item in by_policy],
            "by": BY_POLICY,
            "policy_set_by": authors(by_policy),
            "at": now,
            "reason": None,
        }
        decisions = [decision] if by_policy else []
        if carried and basis.former is not None:
            # The last decision is that of the catalog version: a person's comes last.
            decisions += carried_decisions.approvals_of(basis.former, carried)
        repair = Repair(
            id=uuid4(),
            connection_id=basis.current_state.row.id,
            drift_id=basis.drift.id,
            parent_id=parent_id,
            snapshot_id=basis.snapshot.id,
            base_version=basis.current_state.row.catalog_version,
            changes=changes_of.write([*by_policy, *carried]),
            decisions=msgspec.json.encode(decisions).decode(),
            connector_step=registry.write_step(basis.step),
            verify_by_sync=basis.policy.verify == "sync",
            next_at=now + SOON,
        )
        transitions.approve(repair)
        return repair


async def _connector_step(
    session: AsyncSession, drift: Drift, before: Snapshot | None, proposed: Repair | None
) -> Step | None:
    """The change of the connector's version that came with what is planned now."""
    stored = [] if proposed is None else [proposed.connector_step]
    if before is None:
        stored.append(drift.connector_step)
    else:
        stored += await queries.connector_steps(session, drift.connection_id, since=before.taken_at)
    steps = (registry.read_step(one) for one in stored)
    return joined([step for step in steps if step is not None])


def _ids(changes: Sequence[Change], proposed: Repair | None) -> dict[str, str]:
    """The ids of the changes, by identity; those of the open proposal stay."""
    if proposed is None:
        return changes_of.numbered(changes)
    made = msgspec.json.decode(proposed.decisions)
    return changes_of.numbered(
        changes,
        proposed=changes_of.read(proposed.changes),
        decided=[id_ for decision in made for id_ in decision["changes"]],
    )


def _decisions_of(proposed: Repair, rest: Sequence[PlannedChange], *, only_first: bool) -> str:
    """The decisions of a proposal that hold for the changes of a new plan."""
    before = changes_of.read(proposed.changes)
    return two_approvals.carried(proposed.decisions, before, rest, only_first=only_first)


def _are_same(one: Sequence[PlannedChange], other: Sequence[PlannedChange]) -> bool:
    """Whether two proposals look the same to a person, so that no new one is announced."""
    return {_read(item) for item in one} == {_read(item) for item in other}


def _read(item: PlannedChange) -> tuple[str, Reaction, object]:
    suggestion = item.suggestion
    suggested = None if suggestion is None else (suggestion.became, suggestion.taken_by_approve)
    return item.identity, item.reaction, suggested


def _is_unpaused(
    row: Connection, proposed: Repair | None, planned: Sequence[PlannedChange]
) -> bool:
    """Whether a person has ended the pause for all of the planned changes that require one."""
    if proposed is None or row.unpaused_repair_id != proposed.id:
        return False
    return _pausing(planned) <= _pausing(changes_of.read(proposed.changes))


def _pausing(items: Sequence[PlannedChange]) -> set[str]:
    return {item.identity for item in items if item.reaction is Reaction.PAUSE}


def _id(repair: Repair | None) -> UUID | None:
    return None if repair is None else repair.id
