"""Carry out decided repairs, one step at a time; any replica may run the next step."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying import reselection
from services.drift_repair_agent.applying.dry_run import Afterwards
from services.drift_repair_agent.applying.preflight import (
    expect_healable,
    expect_no_sync,
    readable,
)
from services.drift_repair_agent.applying.reselection import GlobalStateUndecided, OnGlobalState
from services.drift_repair_agent.applying.saga import Heal
from services.drift_repair_agent.healing import Effect
from services.drift_repair_agent.recent_failures import Postponed
from services.drift_repair_agent.repairs import current_state, queries, transitions
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.states.decision import OnRenamedStream, Renamed, lost_candidates
from shared import batches, failpoints, outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import airbyte_answers_by
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, Exclusions, InvalidCatalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import AamError, Conflict, Invalid, NotActive, NotFound
from shared.models import Connection, Repair, RepairState, VersionOrigin
from shared.observability import logs
from shared.operations import HttpResult, Intent, Operations
from shared.outbox import EventType

log = logs.get(__name__)

_BATCH_SIZE = 20
_PAUSED_OR_RESUMED = "paused_or_resumed"
_AGAIN_AFTER = timedelta(seconds=10)
SOON = timedelta(seconds=3)
"""Delay before the periodic task begins a decided repair that its decider has not begun."""
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0


class Stale(Exception):
    """The catalog or the source has changed since the repair was decided."""


@dataclass(frozen=True, slots=True)
class HealedCatalog:
    """A catalog that results from a repair's decisions, with what it was made from."""

    state: CurrentState
    exclusions: Exclusions
    catalog: Catalog
    fingerprint: str
    effects: tuple[Effect, ...] = ()

    def holds_in(self, now: CurrentState, exclusions: Exclusions) -> bool:
        """Whether the same decisions lead to it in the state `now`."""
        return (
            now.configured is self.state.configured
            and now.offered is self.state.offered
            and exclusions.patterns == self.exclusions.patterns
        )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the next step of a repair would do."""

    outcome: Literal["applied", "unchanged", "failed", "superseded"]
    afterwards: Afterwards
    error: AamError | None = None
    """Why it would fail, or what it would wait for."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The catalog that a repair's next step applies, and the state that it starts from."""

    now: CurrentState
    airbyte_connection_id: UUID
    catalog: Catalog
    fingerprint: str
    restored: int | None
    """The version that it restores; None if it applies decided changes."""

    @property
    def is_new(self) -> bool:
        """Whether it differs from the head."""
        return self.fingerprint != self.now.head.fingerprint


class RepairExecutor:
    """Carries out decided repairs; every step starts from the repair's row and may be repeated."""

    def __init__(
        self, db: Database, airbyte: AirbyteClient, operations: Operations, *, deadline: timedelta
    ) -> None:
        self._db = db
        self._deadline = deadline
        self._airbyte = airbyte
        self._operations = operations
        self._verify: Callable[[Repair], Awaitable[None]] | None = None
        self._postponed = Postponed()

    def verify_with(self, verify: Callable[[Repair], Awaitable[None]]) -> None:
        """Set the function that runs the next step of a repair in VERIFYING."""
        self._verify = verify

    async def run_due(self) -> None:
        """Run the next step of every decided repair that is due."""
        async with self._db.read() as session:
            due = await queries.claim_repairs(
                session, limit=_BATCH_SIZE, again_after=_AGAIN_AFTER, deadline=self._deadline
            )
        await self._each(due, self.step)

    async def end_stranded(self) -> None:
        """End the repairs whose operation ended without recording their outcome.

        A repair that cannot be ended is skipped for a while.
        """
        async with self._db.read() as session:
            stranded = await queries.stranded_repairs(
                session, limit=_BATCH_SIZE, but=self._postponed.ids
            )
        self._postponed.add_failed(await self._each(stranded, self._end_stranded))

    @staticmethod
    async def _each(
        repairs: Sequence[UUID], run: Callable[[UUID], Awaitable[object]]
    ) -> list[batches.Outcome[UUID, object]]:
        return await batches.each(
            repairs,
            run,
            log_event="repair_not_carried_out",
            fields=lambda repair_id: {"repair": str(repair_id)},
            max_concurrency=_BATCH_SIZE,
        )

    async def step(
        self,
        repair_id: UUID,
        *,
        known: CurrentState | None = None,
        healed: HealedCatalog | None = None,
        airbyte_deadline: float | None = None,
    ) -> UUID | None:
        """Run a repair's next step; return the id of the operation that it started, if any.

        Whoever has just decided the repair passes the state that it has read (`known`) and the
        catalog that it has made (`healed`), which are used again unless the connection or its
        source has changed since. If Airbyte does not answer by `airbyte_deadline`, a time of the
        event loop's clock, the repair waits, and the step runs again later.
        """
        async with self._db.read() as session:
            repair = await queries.find_repair(session, repair_id)
            is_late = repair.deadline_at is not None and (
                repair.deadline_at <= await registry.now(session)
            )
        if is_late:
            await self._end_late(repair)
            return None
        try:
            if repair.state == RepairState.VERIFYING and self._verify is not None:
                await self._verify(repair)
                return None
            if repair.state not in (RepairState.APPROVED, RepairState.ROLLING_BACK):
                return None
            return await self._begin(repair, known, healed, airbyte_deadline)
        except Stale:
            await self._supersede(repair)
        except (Invalid, NotFound, GlobalStateUndecided) as error:
            if repair.state == RepairState.VERIFYING:
                await self._wait(repair, error)  # the catalog is in force; only the sync is missing
            else:
                await self._fail(repair, error)
        except AamError as error:
            await self._wait(repair, error)
        return None

    async def rehearse(
        self,
        repair: Repair,
        *,
        known: CurrentState,
        healed: HealedCatalog | None,
        rest: Repair | None,
        airbyte_deadline: float,
    ) -> Rehearsal:
        """What `step` would do with a repair that is about to be decided; nothing is started.

        `rest` is the proposal with the changes that stay open.
        """
        afterwards = self._afterwards(repair, known.row, rest)
        try:
            found = await self._wanted(repair, known, healed)
            if not found.is_new and afterwards == "as_it_is":
                return Rehearsal("unchanged", afterwards)
            order = await self._order(repair, found, afterwards, airbyte_deadline)
            await self._operations.rehearse(Intent("apply", repair.connection_id, order))
        except Stale:
            detail = "The catalog or the source has changed since the decision."
            return Rehearsal("superseded", afterwards, Conflict(detail, code="stale_plan"))
        except (Invalid, NotFound, GlobalStateUndecided) as error:
            return Rehearsal("failed", afterwards, error)
        except AamError as error:
            return Rehearsal("applied", afterwards, error)
        return Rehearsal("applied", afterwards)

    async def _begin(
        self,
        repair: Repair,
        known: CurrentState | None,
        healed: HealedCatalog | None,
        airbyte_deadline: float | None,
    ) -> UUID | None:
        """Start the operation that applies the repair; None if there is nothing to apply.

        Raises:
            Stale: the connection or its source has changed since the decision.
            Invalid: the decisions lead to no catalog that Airbyte would accept, or to a refresh
                that the destination does not support.
            GlobalStateUndecided: they select streams again that depend on a global state.
            AamError: the operation cannot be started now.
        """
        found = await self._wanted(repair, known, healed)
        async with self._db.read() as session:
            rest = await queries.proposed_repair(session, repair.connection_id)
        afterwards = self._afterwards(repair, found.now.row, rest)
        if not found.is_new and afterwards == "as_it_is":
            await self._end_unchanged(repair)
            return None
        order = await self._order(repair, found, afterwards, airbyte_deadline)
        begun = await self._begun(repair, order, found.catalog)
        if isinstance(begun, UUID):
            return begun
        if begun.body == _PAUSED_OR_RESUMED and known is not None:
            # With its present state.
            return await self._begin(repair, None, None, airbyte_deadline)
        return None

    async def _wanted(
        self, repair: Repair, known: CurrentState | None, healed: HealedCatalog | None
    ) -> _Wanted:
        """The catalog to apply.

        Raises:
            Stale, Invalid, AamError: as `_begin`.
        """
        number = repair.target_version
        if repair.state == RepairState.ROLLING_BACK:
            number = repair.base_version
        now = await current_state.read(
            self._db, repair.connection_id, also=streams_of(repair), is_trusted=True, known=known
        )
        is_restoring = repair.state == RepairState.ROLLING_BACK
        base = repair.version_number if is_restoring else repair.base_version
        if now.row.catalog_version != base:
            raise Stale
        if now.row.archived_at is not None:
            raise Invalid(f"Connection {now.row.id} is archived.", code=NotActive.code)
        airbyte_connection_id = expect_healable(now.row, None)
        async with self._db.read() as session:
            exclusions = await registry.exclusions_of(session, now.row.id)
        if number is not None:
            document = await self._version(repair.connection_id, number, now, exclusions)
            wanted, fingerprint = await readable(document, is_checked=True)
        elif healed is not None and healed.holds_in(now, exclusions):
            wanted, fingerprint = healed.catalog, healed.fingerprint
        else:
            document = await self._healed(repair, now, exclusions)
            wanted, fingerprint = await readable(document, is_checked=True)
        return _Wanted(now, airbyte_connection_id, wanted, fingerprint, number)

    async def _order(
        self,
        repair: Repair,
        found: _Wanted,
        afterwards: Afterwards,
        airbyte_deadline: float | None,
    ) -> Heal:
        """The order of the operation, once no sync is running.

        Raises:
            Invalid, GlobalStateUndecided, AamError: as `_begin`.
        """
        now, wanted = found.now, found.catalog
        is_restoring = repair.state == RepairState.ROLLING_BACK
        decision = {} if is_restoring else _last_decision(repair)
        # Restoring the version before cannot wait for a decision: refresh what it selects again.
        choice: OnGlobalState | None = (
            "refresh" if is_restoring else decision.get("on_global_state")
        )
        items = [] if is_restoring else changes_of.read(repair.changes)
        chosen = changes_of.on_global_state(items)
        async with airbyte_answers_by(airbyte_deadline):
            await expect_no_sync(self._airbyte, now.row.id, found.airbyte_connection_id)
            again = await reselection.find(self._airbyte, now.row, wanted, now.configured)
            refresh = await reselection.to_refresh(
                self._airbyte, now.row, again, choice, chosen=chosen
            )
        is_rollback = found.restored is not None
        return Heal(
            airbyte_connection_id=found.airbyte_connection_id,
            fingerprint=found.fingerprint,
            base_version=now.row.catalog_version,
            base_status=now.row.status,
            snapshot_id=None if now.snapshot is None else now.snapshot.id,
            source_catalog_id=None if now.snapshot is None else now.snapshot.airbyte_catalog_id,
            origin=VersionOrigin.ROLLBACK if is_rollback else VersionOrigin.REPAIR,
            repair_id=repair.id,
            decided_by=decided_by(repair),
            policy_set_by=decision.get("policy_set_by"),
            requested_by=decision.get("requested_by"),
            is_paused=now.row.paused_by is not None,
            is_paused_by_person=now.row.pause_requested_by is not None,
            afterwards=afterwards,
            resumed=again.resumed,
            refresh=refresh,
            lost=lost_candidates(wanted, now.configured) if is_rollback else (),
            renamed=() if is_rollback else renamed_by(repair),
        )

    async def _begun(self, repair: Repair, order: Heal, wanted: Catalog) -> UUID | HttpResult:
        expected = repair.state

        async def take(session: AsyncSession, operation_id: UUID) -> HttpResult | None:
            row = await registry.lock_connection(session, repair.connection_id)
            held = await queries.find_repair(session, repair.id, lock=True)
            if held.state != expected:
                return HttpResult(409, "")
            expect_healable(row, order.base_version)
            if (row.pause_requested_by is not None, row.paused_by is not None) != (
                order.is_paused_by_person,
                order.is_paused,
            ):
                return HttpResult(409, _PAUSED_OR_RESUMED)  # so `afterwards` is outdated
            transitions.mark_applying(held, operation_id)
            registry.begin_heal(row, operation_id)
            outbox.record(session, EventType.CATALOG_HEALING, row, ref=operation_id)
            return None

        failpoints.at("repair.approved")
        return await self._operations.begin(
            Intent("apply", repair.connection_id, order, catalogs.dump(wanted)), take
        )

    async def _healed(self, repair: Repair, now: CurrentState, exclusions: Exclusions) -> bytes:
        """The catalog that results from the decisions.

        Raises:
            Stale: the source no longer has all of the decided changes.
            Invalid: the decisions lead to no valid catalog.
        """
        items = changes_of.read(repair.changes)
        newest = None if now.snapshot is None else now.snapshot.id
        if newest != repair.snapshot_id and not await now.has_all(items):
            raise Stale
        try:
            healed = await now.healed(items, exclusions)
        except InvalidCatalog as error:
            raise Invalid(str(error), code="heal_impossible") from None
        return healed.catalog

    async def _version(
        self, connection_id: UUID, number: int, now: CurrentState, exclusions: Exclusions
    ) -> bytes:
        """An older catalog without the never-selected fields that are not synced now.

        Raises:
            Invalid: a stream cannot be synced without one of them.
        """
        async with self._db.read() as session:
            version = await registry.read_version(session, connection_id, number)
        document = version.sync_catalog.encode()
        try:
            wanted = await run_cooperatively(catalogs.parse.steps(document))
            offered = {
                stream: catalogs.read_stream(body).stream for stream, body in now.offered.items()
            }
            restored = exclusions.restored(wanted, now.configured, offered=offered)
            return catalogs.dump(restored)
        except InvalidCatalog as error:
            raise Invalid(str(error), code=error.code) from None

    @staticmethod
    def _afterwards(repair: Repair, row: Connection, rest: Repair | None) -> Afterwards:
        """The connection's state after the operation; `rest` is the proposal that stays open.

        `resumed` if AAM has paused it and no open change requires a pause. `paused` if the repair
        is rolled back after a failed verification and its changes require a pause. A person's
        pause stays.
        """
        if row.pause_requested_by is not None:
            return "as_it_is"
        if repair.state == RepairState.ROLLING_BACK:
            items = changes_of.read(repair.changes)
            return "paused" if changes_of.pauses(items) else "as_it_is"
        if row.paused_by is None:
            return "as_it_is"
        if rest is not None and changes_of.pauses(changes_of.read(rest.changes)):
            return "as_it_is"
        return "resumed"

    async def _supersede(self, repair: Repair) -> None:
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state == repair.state:
                await transitions.mark_superseded(session, row, held, by=None)
                await queries.forget_plan(session, row.id)

    async def _fail(self, repair: Repair, error: AamError) -> None:
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state == repair.state:
                await transitions.mark_failed(
                    session, row, held, code=error.code, detail=error.detail
                )

    async def _end_late(self, repair: Repair) -> None:
        """End a repair that is past its deadline; what was not applied is planned again.

        A catalog that could not be verified stays in force, as after an inconclusive sync.
        """
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state != repair.state or held.deadline_at != repair.deadline_at:
                return
            if held.operation_id is not None and row.heal_id == held.operation_id:
                return  # its operation is running and has its own deadline
            if held.state == RepairState.VERIFYING:
                await transitions.mark_applied(session, row, held, note=transitions.INCONCLUSIVE)
                return
            met = "" if held.failure_code is None else f"; the last error was {held.failure_code}"
            detail = f"It could not be completed before its deadline{met}."
            is_restoring = held.state == RepairState.ROLLING_BACK
            code = "rollback_failed" if is_restoring else "repair_deadline"
            await transitions.mark_failed(session, row, held, code=code, detail=detail)
            await queries.forget_plan(session, row.id)
        log.warning("repair_deadline_passed", repair=str(repair.id), code=code)

    async def _end_stranded(self, repair_id: UUID) -> None:
        async with self._db.transaction() as session:
            repair = await queries.find_repair(session, repair_id)
            row, held = await self._lock(session, repair)
            if held.state not in (RepairState.APPLYING, RepairState.ROLLING_BACK):
                return
            if held.operation_id != repair.operation_id:
                return
            detail = f"Operation {held.operation_id} ended without a recorded outcome."
            await transitions.mark_failed(session, row, held, code="operation_ended", detail=detail)
            await queries.forget_plan(session, row.id)

    async def _end_unchanged(self, repair: Repair) -> None:
        """End a repair whose catalog is equivalent to the head."""
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state == repair.state:
                await transitions.mark_applied(session, row, held)

    @staticmethod
    async def _lock(session: AsyncSession, repair: Repair) -> tuple[Connection, Repair]:
        row = await registry.lock_connection(session, repair.connection_id, even_archived=True)
        return row, await queries.find_repair(session, repair.id, lock=True)

    async def _wait(self, repair: Repair, error: AamError) -> None:
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(repair.attempts, 10), _LONGEST_PAUSE_S)
        pause_s *= random.uniform(0.8, 1.2)  # noqa: S311
        async with self._db.transaction() as session:
            await queries.wait_on(session, repair.id, code=error.code, seconds=pause_s)
        log.info("repair_waiting", repair=str(repair.id), code=error.code)


def decided_by(repair: Repair) -> str:
    """Who made a repair's last decision: a person's name, or `policy`."""
    if repair.state == RepairState.ROLLING_BACK:
        return changes_of.BY_POLICY
    return str(_last_decision(repair)["by"])


def _last_decision(repair: Repair) -> dict[str, Any]:
    decisions: list[dict[str, Any]] = msgspec.json.decode(repair.decisions)
    return decisions[-1]


def renamed_by(
    repair: Repair, decided: Iterable[changes_of.PlannedChange] | None = None
) -> tuple[Renamed, ...]:
    """The streams that take their state along.

    `decided` are its changes as decided; None means as stored. A first approval stores no decision
    in them.
    """
    items = changes_of.read(repair.changes) if decided is None else decided
    # Decisions that an earlier release stored have no choice of their own.
    return renamed_streams(items, unset=_last_decision(repair).get("on_renamed_stream"))


def renamed_streams(
    items: Iterable[changes_of.PlannedChange], *, unset: OnRenamedStream | None = None
) -> tuple[Renamed, ...]:
    """The streams that the decided changes rename, and that take their state along.

    `unset` is the choice for decisions without one.
    """
    taken = [
        item
        for item in items
        if item.decision is not None and (item.decision.on_renamed_stream or unset) != "read_again"
    ]
    return tuple(
        Renamed(one.change.stream, one.became)
        for one in changes_of.decisions(taken)
        if one.action == "apply"
        and one.change.kind == "stream_removed"
        and isinstance(one.became, StreamId)
    )


def streams_of(repair: Repair) -> set[StreamId]:
    """The streams that a repair concerns, including ones that the connection does not sync."""
    streams = set()
    for item in changes_of.read(repair.changes):
        stream = item.change.stream
        streams.add(stream)
        if item.change.kind == "stream_removed" and item.decision and item.decision.became:
            streams.add(StreamId(stream.namespace, item.decision.became[-1]))
    return streams
