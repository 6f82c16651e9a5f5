"""People's decisions about repairs: approve, reject and roll back, each in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying import preflight, reselection
from services.drift_repair_agent.applying.reselection import OnGlobalState
from services.drift_repair_agent.continuity.choices import Continuity
from services.drift_repair_agent.healing import Effect, incompatibilities
from services.drift_repair_agent.repairs import (
    current_state,
    destination_limits,
    queries,
    transitions,
    two_approvals,
)
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.approval_choices import (
    approved,
    chosen,
    new_names,
    previewed,
)
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.executor import (
    SOON,
    HealedCatalog,
    RepairExecutor,
    renamed_streams,
    streams_of,
)
from services.drift_repair_agent.repairs.planned_changes import Decision, PlannedChange
from services.drift_repair_agent.repairs.policy import Policy, Reaction
from services.drift_repair_agent.repairs.schemas import (
    Approve,
    Decide,
    RollBack,
    RollBackPreview,
    Unchanged,
)
from services.drift_repair_agent.states.decision import lost_candidates
from services.drift_repair_agent.states.effects import StateEffects
from services.drift_repair_agent.states.restorer import outcome
from shared import failpoints, registry
from shared.airbyte_client import AirbyteClient
from shared.auth import scopes
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain import drift
from shared.domain.catalog import Catalog, Exclusions, InvalidCatalog, Problem, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import AamError, Conflict, Invalid, Unavailable, UpstreamUnknown
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
    ) -> None:
        self._continuity = continuity
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        self._executor = executor
        self._effects = effects

    async def approve(
        self, repair_id: UUID, order: Approve, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Approve a repair, or some of its changes: those are split off, the rest stays open.

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
        decided = await self._continuity.settled(now, decided, order, in_effect)
        joined = decided if waiting is None else _joined(decided, waiting)
        healed = await _healed(now, joined, in_effect.exclusions)
        await self._expect_decided(now, healed.catalog, order.on_global_state)

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

        answer = await self._operations.at_once(
            Intent("approve", repair.connection_id, {"repair_id": repair_id}, key=key), write
        )
        failpoints.at("repair.decided")
        return await self._carried_out(answer, now, healed, wait=wait)

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
            Invalid: that version selects what the policy never selects.
            GlobalStateUndecided: it selects a stream again that depends on a global state.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return await self._answer(UUID(replay.body), is_replay=True)
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
            unchanged = Unchanged(connection_id=connection_id)
            return HttpResult(200, unchanged.model_dump_json())
        await preflight.expect_selectable(wanted, exclusions, bodies=now.offered.values())
        await _expect_fits(wanted, now, version=order.version)
        await self._expect_decided(now, wanted, order.on_global_state)
        undone = await _undone(wanted, now.configured)
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

        answer = await self._operations.at_once(
            Intent("rollback", connection_id, {"version": order.version}, key=key), write
        )
        return await self._carried_out(answer, now, wait=wait)

    async def _carried_out(
        self,
        decided: HttpResult,
        now: CurrentState,
        healed: HealedCatalog | None = None,
        *,
        wait: float,
    ) -> HttpResult:
        """Start carrying out a decision; if that fails, a periodic task tries again later.

        Raises:
            UpstreamUnknown: the decision is recorded, but the repair's state cannot be read now.
        """
        repair_id = UUID(decided.body)
        try:
            if not decided.is_replay:
                operation_id = await self._executor.step(repair_id, known=now, healed=healed)
                if operation_id is not None:
                    await self._operations.outcome(operation_id, wait=wait)
            return await self._answer(repair_id, is_replay=decided.is_replay)
        except Unavailable:
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

    async def _expect_decided(
        self, now: CurrentState, wanted: Catalog, choice: OnGlobalState | None
    ) -> None:
        """Check that nothing is selected again whose changes would be missed without a decision.

        Raises:
            GlobalStateUndecided, Invalid, Unavailable: as `reselection.to_refresh`.
        """
        again = await reselection.find(self._airbyte, now.row, wanted, now.configured)
        await reselection.to_refresh(self._airbyte, now.row, again, choice)

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

    async def view(self, repair_id: UUID) -> bytes:
        """One repair as JSON, with the difference between the catalog before and after it.

        Raises:
            NotFound: there is no such repair.
        """
        async with self._db.read() as session:
            text = await queries.repair_json(session, repair_id)
            repair = await queries.find_repair(session, repair_id)
        more = {
            "sync_state": await self._state(repair),
            "catalog": await self._catalog(repair),
        }
        return text.rstrip().removesuffix("}").encode() + b", " + msgspec.json.encode(more)[1:]

    async def _state(self, repair: Repair) -> dict[str, Any] | None:
        """What became of the state before and after the repair was applied."""
        if repair.operation_id is None:
            return None
        async with self._db.read() as session:
            saved, put = await queries.state_steps(session, repair.operation_id)
        if saved is None:
            return None
        nothing: dict[str, Any] = {"put_back": [], "not_put_back": []}
        result = nothing if put is None else msgspec.json.decode(put)
        return outcome(msgspec.json.decode(saved), result).model_dump()

    async def _catalog(self, repair: Repair) -> dict[str, Any] | None:
        """The difference that the repair made or would make; None if neither is known."""
        if repair.version_number is not None:
            before = await self._version(repair.connection_id, repair.version_number - 1)
            after = await self._version(repair.connection_id, repair.version_number)
            return await _difference(before, after)
        if repair.kind == "rollback" or repair.ended_at is not None:
            return None
        now = await current_state.read(self._db, repair.connection_id, also=streams_of(repair))
        items = changes_of.read(repair.changes)
        decided = previewed(items, repair.created_at)
        try:
            async with self._db.read() as session:
                exclusions = await registry.exclusions_of(session, repair.connection_id)
            healed = await now.healed(decided, exclusions)
            after = await run_cooperatively(catalogs.parse.steps(healed.catalog))
        except InvalidCatalog as error:
            return _NO_DIFFERENCE | {"problems": preflight.problems(error)}
        renamed = renamed_streams(decided)
        effects = [
            *healed.effects,
            *destination_limits.effects(decided),
            *await self._reselected(now, after),
            *await self._of_states(
                self._effects.of_heal(now.row, before=now.configured, after=after, renamed=renamed),
                [one.new for one in renamed],
            ),
        ]
        difference = await _difference(now.configured, after)
        return difference | {"effects": msgspec.to_builtins(effects)}

    @staticmethod
    async def _of_states(
        effects: Awaitable[list[Effect]], streams: Iterable[StreamId]
    ) -> list[Effect]:
        """These effects; if Airbyte does not return the state, that it is unknown for `streams`."""
        try:
            async with asyncio.timeout(_STATE_WITHIN_S):
                return await effects
        except (AamError, TimeoutError):
            return list(reselection.unknown_effects(streams))

    async def preview_rollback(self, connection_id: UUID, version: int) -> RollBackPreview:
        """What a rollback would change, what it could not put back, and why it would be refused.

        Raises:
            NotFound: there is no such connection, or it has no such version.
        """
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)
        wanted = await self._version(connection_id, version)
        also = [stream.id for stream in wanted.streams]
        now = await current_state.read(self._db, connection_id, also=also)
        found: list[Problem] = []
        if now.snapshot is not None:
            found = await run_cooperatively(incompatibilities.steps(wanted, now.offered.values()))
        lost = lost_candidates(wanted, now.configured)
        effects = [
            *await self._reselected(now, wanted),
            *await self._of_states(
                self._effects.of_rollback(now.row, before=now.configured, after=wanted), lost
            ),
        ]
        difference = await _difference(now.configured, wanted)
        return RollBackPreview(
            connection_id=connection_id,
            version=version,
            catalog=difference
            | {
                "schema_changes": msgspec.to_builtins(difference["schema_changes"]),
                "config_changes": msgspec.to_builtins(difference["config_changes"]),
                "effects": msgspec.to_builtins(effects),
                "problems": preflight.problems(InvalidCatalog(found)) if found else [],
            },
        )

    async def _reselected(self, now: CurrentState, after: Catalog) -> list[Effect]:
        """What the state that Airbyte kept means for the streams that are selected again."""
        try:
            async with asyncio.timeout(_STATE_WITHIN_S):
                again = await reselection.find(self._airbyte, now.row, after, now.configured)
        except (AamError, TimeoutError):
            before = {stream.id for stream in now.configured.streams if stream.selected}
            added = {stream.id for stream in after.streams if stream.selected} - before
            return list(reselection.unknown_effects(added))
        return list(reselection.effects(again))

    async def _version(self, connection_id: UUID, number: int) -> Catalog:
        async with self._db.read() as session:
            version = await registry.read_version(session, connection_id, number)
        return await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))


_STATE_WITHIN_S: Final = 5.0
"""How long a view of a repair waits for the state in Airbyte."""
_NO_DIFFERENCE: dict[str, Any] = {
    "schema_changes": [],
    "config_changes": [],
    "effects": [],
    "problems": [],
}


async def _difference(before: Catalog, after: Catalog) -> dict[str, Any]:
    """The schema and configuration differences between two catalogs."""
    return _NO_DIFFERENCE | {
        "schema_changes": await run_cooperatively(drift.diff.steps(before, after.selected())),
        "config_changes": await run_cooperatively(drift.diff_config.steps(before, after)),
    }


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
    return HealedCatalog(now, exclusions, wanted, fingerprint)


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


async def _undone(target: Catalog, head: Catalog) -> list[PlannedChange]:
    """The changes that a rollback undoes: those that led from the target to the head."""
    synced = target.by_id()
    return [
        PlannedChange(
            id=f"c{number}",
            change=change,
            verdict=drift.severity(change, synced.get(change.stream)),
            reaction=Reaction.PROPOSE,
        )
        for number, change in enumerate(
            await run_cooperatively(drift.diff.steps(target, head)), start=1
        )
    ]


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


def _joined(decided: Sequence[PlannedChange], waiting: Repair) -> list[PlannedChange]:
    """Merge new decisions with those of the waiting repair; for the same change, the new one wins.

    The waiting repair's change ids are renamed if they clash.
    """
    ids, identities = {item.id for item in decided}, {item.identity for item in decided}
    before = [item for item in changes_of.read(waiting.changes) if item.identity not in identities]
    return [
        *decided,
        *(replace(item, id=f"{item.id}w") if item.id in ids else item for item in before),
    ]


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
    ids = {item.id for item in decided}
    rest = [item for item in changes_of.read(held.changes) if item.id not in ids]
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
