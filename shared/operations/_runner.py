"""Starts operations, runs those of this process, and takes over abandoned ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shared import batches, failpoints, outbox, registry
from shared.auth import label_limits
from shared.config import Settings
from shared.database import Database
from shared.errors import (
    AamError,
    DeadlinePassed,
    NotFound,
    Unavailable,
    UpstreamUnknown,
)
from shared.job_queue import Jobs
from shared.models import Connection, ConnectionStatus, OperationStatus
from shared.observability import logs, metrics, tracing
from shared.operations import _sql as sql
from shared.operations._begin import Recorder
from shared.operations._operation import (
    FIRST_LEASE,
    MARGIN,
    HandedOver,
    Host,
    HttpResult,
    Intent,
    Operation,
    Saga,
    Superseded,
    may_pass,
)
from shared.operations.schemas import Accepted
from shared.outbox import EventType
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_LOST_EVERY = timedelta(seconds=1)
_LOST_SINCE = timedelta(seconds=0.5)
_MAX_CONCURRENCY = 500
_HAND_OVER_WITHIN_S = 5.0
_MOST_ABANDONS = 5
"""How many times a saga may fail to abandon an operation."""
_MOST_BEGUN = 100
"""How many attempts may start in all, including those that found the registry unavailable."""
_MOST_ATTEMPTS = 100
"""The number of owners after which an operation past its deadline is not run any more."""
_ABANDONED = "abandoned"
"""Key among the step results: how many attempts to abandon the operation have failed."""
_BEGUN = "abandon_begun"
"""The same, including attempts that found the registry unavailable after they were counted."""
_NOT_ABANDONED = "abandon_failed"
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0


class Operations(Recorder):
    """Starts operations, runs those of this process, and takes over abandoned ones."""

    def __init__(self, settings: Settings, db: Database, jobs: Jobs, *, service: str) -> None:
        entrypoint = f"resume.{service}"
        super().__init__(db, jobs, entrypoint=entrypoint, deadline=settings.operation_deadline)
        self._sagas: dict[str, Saga] = {}
        self._tasks: dict[UUID, asyncio.Task[HttpResult | None]] = {}
        self._stopping = asyncio.Event()
        self._stop_by = 0.0
        self._host = Host(db, settings.in_flight_window, self._stopping)
        jobs.on(entrypoint, self._complete, at_once=10)

    def register(self, kind: str, saga: Saga) -> None:
        """Register the saga for a kind of operation."""
        self._sagas[kind] = saga

    @property
    def is_stopping(self) -> bool:
        """Whether this process accepts no more work."""
        return self._stopping.is_set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run operations within the block; on exit finish or hand over each within seconds."""
        try:
            yield
        finally:
            self.stop()
            if self._tasks:
                left = self._stop_by - asyncio.get_running_loop().time()
                _, late = await asyncio.wait(self._tasks.values(), timeout=max(left, 0.5))
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late, timeout=1)

    @property
    def takeover_task(self) -> PeriodicTask:
        """The task that takes over operations with an expired lease, even if their job was lost."""
        return PeriodicTask(self._take_over_lost, _LOST_EVERY)

    def stop(self) -> None:
        """Accept no more work: waiting requests get their response, operations are handed over."""
        if not self._stopping.is_set():
            self._stop_by = asyncio.get_running_loop().time() + _HAND_OVER_WITHIN_S
        self._stopping.set()

    # Starting

    async def begin(
        self, intent: Intent, write: Callable[[AsyncSession, UUID], Awaitable[HttpResult | None]]
    ) -> HttpResult | UUID:
        """Record an operation in one transaction with `write`, start it, and return its id.

        If `write` returns a result, nothing is left to do: the operation is recorded as done if it
        has a key, else not at all. That result, or an earlier one of the same key, is returned.

        Raises:
            KeyReused, OperationRunning: as in `replayed`.
            Conflict: the connection has an open operation; the class and code show its kind.
            Unavailable: nothing was recorded.
            UpstreamUnknown: it may have been recorded; look up its `operation_id` later.
        """
        if self.is_stopping or len(self._tasks) >= _MAX_CONCURRENCY:
            raise Unavailable("This process accepts no more operations at the moment.", code="busy")
        recorded = await self._record(intent, write)
        if isinstance(recorded, HttpResult):
            return recorded
        if recorded is None:
            return intent.id  # another owner runs it, or has: `outcome` reads its row
        failpoints.at(f"{intent.kind}.intent.after")
        self._start(Operation(self._host, recorded, recorded["owner"]))
        return intent.id

    async def outcome(self, begun: HttpResult | UUID, *, wait: float) -> HttpResult:
        """The result of an operation, or 202 with its id if it still runs after `wait` seconds."""
        if isinstance(begun, HttpResult):
            return begun
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        task = self._tasks.get(begun)
        if task is not None:
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({task, stopping}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if task.done() and not task.cancelled() and (answer := task.result()) is not None:
                return answer
        # Another process runs it, or did: poll its row.
        while True:
            try:
                view = await self._row(begun)
                if view["response_status"] is not None:
                    return HttpResult(view["response_status"], view["response"])
            except (Unavailable, NotFound):
                pass
            if clock() >= until or self.is_stopping:
                accepted = Accepted(operation_id=begun, status=OperationStatus.RUNNING)
                return HttpResult(202, accepted.model_dump_json())
            await self._host.sleep(0.25)

    async def _row(self, operation_id: UUID) -> Mapping[Any, Any]:
        async with self._db.read() as session:
            found = (await session.execute(sql.READ, {"id": operation_id})).mappings().one_or_none()
        if found is None:
            raise NotFound(f"No operation {operation_id}.")
        return found

    # Running

    def _start(self, operation: Operation) -> None:
        task = asyncio.create_task(self._drive(operation), name=f"operation {operation.id}")
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation.id, None))

    async def _drive(self, operation: Operation) -> HttpResult | None:
        """Run an operation to its end and return its result; None if it was handed over or lost."""
        operation_id, request_id = str(operation.id), operation.request_id
        with (
            label_limits.registry_wide(),
            structlog.contextvars.bound_contextvars(operation=operation_id, request_id=request_id),
            tracing.span(
                f"operation {operation.kind}", operation=operation_id, request_id=request_id
            ),
        ):
            try:
                await self._run(operation)
            except (Superseded, HandedOver) as left:
                log.info("operation_released", reason=type(left).__name__)
            except asyncio.CancelledError:
                # The process ends during a call: the next owner waits for the in-flight window.
                with suppress(Superseded, Unavailable, UpstreamUnknown):
                    await operation.hand_over()
                log.info("operation_released", reason="cancelled")
            else:
                return operation.answer
        return None

    async def _run(self, operation: Operation) -> None:
        saga = self._sagas[operation.kind]
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                _expect_runnable(operation)
                if operation.failure is None:
                    await saga.run(operation)
                else:
                    await saga.undo(operation)
            except AamError as error:
                failure = error
            except (Superseded, HandedOver):
                raise
            except (Exception, asyncio.CancelledError) as bug:  # the outermost loop of an operation
                if batches.is_cancellation(bug):
                    raise
                log.exception("bug")
                failure = AamError(
                    "Unexpected error; the log has the details under the request id."
                )
            else:
                break
            try:
                if await self._has_ended(operation, saga, failure, pause_s):
                    break
            except (Unavailable, UpstreamUnknown) as away:
                # The operation stays in memory and is retried.
                log.warning("operation_waiting", code=away.code)
                await self._host.sleep(pause_s)
                if self.is_stopping:
                    raise HandedOver from None
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        failpoints.at(f"{operation.kind}.finish.after")
        failed = operation.failure is not None
        metrics.OPERATIONS.labels(
            kind=operation.kind, outcome="failed" if failed else "done"
        ).observe(operation.age)
        log.info("operation_ended", kind=operation.kind, failed=failed)

    async def _has_ended(
        self, operation: Operation, saga: Saga, failure: AamError, pause_s: float
    ) -> bool:
        """Handle a failure: undo, retry after a pause, or abandon; return whether it has ended."""
        if operation.failure is None and not may_pass(failure):
            await operation.fail(failure)
        elif not operation.deadline_passed:
            await operation.wait(pause_s * random.uniform(0.8, 1.2), failure.code)  # noqa: S311
        elif operation.failure is None:
            await operation.fail(
                DeadlinePassed(
                    f"Operation {operation.id} could not be completed by its deadline; the last "
                    f"error was {failure.code}.",
                    code=_deadline_code(operation),
                )
            )
        else:
            return await self._abandoned(operation, saga, pause_s)
        return False

    async def _abandoned(self, operation: Operation, saga: Saga, pause_s: float) -> bool:
        """Abandon an operation, or end it without its saga after too many attempts."""
        tries = operation.results.get(_ABANDONED, 0) + 1
        begun = operation.results.get(_BEGUN, 0)
        operation.results[_ABANDONED] = tries
        try:
            # Counted before the attempt, which may crash the process.
            await operation.note("abandoning")
            if tries > _MOST_ABANDONS or begun >= _MOST_BEGUN:
                await self._give_up(operation, tries)
            else:
                operation.results[_BEGUN] = begun + 1
                await saga.abandon(operation)
        except (Unavailable, UpstreamUnknown):
            operation.results[_ABANDONED] = tries - 1  # the registry is unavailable: not an attempt
            raise
        except (Superseded, HandedOver):
            raise
        except (Exception, asyncio.CancelledError) as error:  # the outermost loop of an attempt
            if batches.is_cancellation(error):
                raise
            if isinstance(error, AamError):
                log.warning("operation_not_abandoned", kind=operation.kind, code=error.code)
            else:
                log.exception("bug")
            await operation.wait(pause_s, _NOT_ABANDONED)
            return False
        return True

    async def _give_up(self, operation: Operation, tries: int) -> None:
        """End an operation that its saga cannot abandon; set the connection it holds to FAILED."""
        await operation.fail(
            DeadlinePassed(
                f"Operation {operation.id} passed its deadline, and the effect on its connection "
                "could not be recorded.",
                code=_NOT_ABANDONED,
            )
        )
        async with self._db.transaction() as session:
            row = None
            if operation.has_connection:
                row = await session.get(Connection, operation.connection_id, with_for_update=True)
            is_held = row is not None and (
                row.heal_id == operation.id or row.status is ConnectionStatus.PENDING
            )
            # If this fails, too, the next attempt ends only the operation.
            if row is not None and is_held and tries <= _MOST_ABANDONS + 1:
                row.status = ConnectionStatus.FAILED
                row.heal_id = row.healing_since = None
                row.failure_code = _NOT_ABANDONED
                row.failure_detail = str((operation.failure or {}).get("detail"))
                event = EventType.CONNECTION_FAILED
                outbox.record(session, event, row, ref=operation.id, code=_NOT_ABANDONED)
            await operation.finish(session)

    # Taking over

    async def _complete(self, payload: str) -> None:
        """Continue an operation whose lease has expired, or schedule another check."""
        operation_id = UUID(payload)
        if await self._claim(operation_id) or self.is_stopping:
            return
        async with self._db.transaction() as session:
            left = await session.scalar(sql.LEASE_LEFT, {"id": operation_id})
            if left is not None:
                await self._jobs.enqueue(
                    session, self._entrypoint, payload, after=max(left, timedelta(0)) + MARGIN
                )

    async def _take_over_lost(self) -> None:
        """Take over operations whose lease has expired, whether or not their job is queued."""
        async with self._db.read() as session:
            lost = (
                await session.scalars(
                    sql.LOST,
                    {"kinds": list(self._sagas), "limit": _MAX_CONCURRENCY, "since": _LOST_SINCE},
                )
            ).all()
        await batches.each(
            lost,
            self._claim,
            log_event="operation_not_taken",
            fields=lambda operation_id: {"operation": str(operation_id)},
        )

    async def _claim(self, operation_id: UUID) -> bool:
        """Claim an operation whose lease has expired, and run it; return whether it was claimed."""
        if self.is_stopping or len(self._tasks) >= _MAX_CONCURRENCY:
            return False
        owner = uuid4()
        async with self._db.transaction() as session:
            row = (
                (
                    await session.execute(
                        sql.CLAIM, {"id": operation_id, "owner": owner, "lease": FIRST_LEASE}
                    )
                )
                .mappings()
                .one_or_none()
            )
            if row is None:
                return False
            await self._jobs.enqueue(
                session, self._entrypoint, str(operation_id), after=FIRST_LEASE + MARGIN
            )
        log.info("operation_taken_over", operation=str(operation_id), attempts=row["attempts"])
        self._start(Operation(self._host, row, owner))
        return True

    # Reading

    async def view(self, operation_id: UUID, *, is_explained: bool) -> str:
        """One operation as JSON text, with failure explanations if `is_explained`.

        Raises:
            NotFound: there is no such operation.
        """
        async with self._db.read() as session:
            found: str | None = await session.scalar(
                sql.VIEW, {"id": operation_id, "explained": is_explained}
            )
        if found is None:
            raise NotFound(f"No operation {operation_id}.")
        return found

    async def page(
        self,
        *,
        connection_id: UUID | None,
        status: OperationStatus | None,
        cursor: registry.Cursor | None,
        limit: int,
        is_explained: bool,
    ) -> str:
        """A page of operations as JSON text, newest first, filtered by connection or status."""
        conditions, parameters = registry.after_cursor(cursor)
        if connection_id is not None:
            conditions.append("t.connection_id = :connection_id")
            parameters["connection_id"] = connection_id
        if status is not None:
            conditions.append("t.status = :status")
            parameters["status"] = status.value
        async with self._db.read() as session:
            found: str = await session.scalar(
                sql.page_statement(conditions),
                parameters | {"limit": limit, "explained": is_explained},
            )
        return found


def _expect_runnable(operation: Operation) -> None:
    """Check that the operation has not crashed too many processes.

    Raises:
        DeadlinePassed: its deadline has passed, and it has had too many owners.
    """
    if operation.deadline_passed and operation.attempts >= _MOST_ATTEMPTS:
        raise DeadlinePassed(
            f"Operation {operation.id} was taken over too often.", code=_deadline_code(operation)
        )


def _deadline_code(operation: Operation) -> str:
    return f"{_DEADLINE_OF.get(operation.kind, operation.kind)}_deadline"


_DEADLINE_OF = {"apply": "heal"}
