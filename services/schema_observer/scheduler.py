"""Schedules observations across processes, within a limit of discoveries per workspace.

A job is a slot: it observes one source after the other until none of its workspace is due. Claims
are rows with a lease, so sources claimed by a process that dies are due again when it expires.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from services.schema_observer import claim_queries
from services.schema_observer.claim_queries import Claim
from services.schema_observer.observer import Observed, Observer, open_discoveries
from shared import batches, registry
from shared.config import Settings
from shared.database import Database
from shared.discoveries import OBSERVE_SOURCE, Begun
from shared.errors import AamError
from shared.job_queue import Jobs
from shared.observability import logs
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_ENTRYPOINT: Final = "observe"
_SLOTS_IN_ALL: Final = 500
"""Limit across all workspaces and replicas; claims limit the load of a single workspace."""
_DUE_EVERY: Final = timedelta(seconds=1)
_ENROL_EVERY: Final = timedelta(seconds=10)
_MARGIN: Final = timedelta(minutes=1)
"""Time allowed for an observation beyond its discovery."""
_BATCH: Final = 32
_QUICK_S: Final = 1.0
"""After this time, a batch is ended: what it has observed is recorded, what it has not reached is
released, and a single source follows it. So no source waits long behind a slow one."""
_LARGE_BYTES: Final = 1024 * 1024
"""The same for a batch that uses more memory."""


class _Batch:
    """The claimed sources of a slot, and how far they have been observed."""

    def __init__(self, claims: Sequence[Claim], slot: UUID) -> None:
        self.slot = slot
        self.left = deque(claims)
        self.begun: dict[UUID, Begun] = {}
        """Discoveries by source that are recorded and not yet sent."""
        self.observed: list[Observed] = []
        """Results that are not yet recorded."""
        self.held = 0
        """Bytes of all results."""


class Scheduler:
    """Claims sources for the slots of this process, and observes them."""

    def __init__(self, settings: Settings, db: Database, jobs: Jobs, observing: Observer) -> None:
        self._at_once = settings.discoveries_at_once
        self._every = settings.observe_interval
        self._lease = settings.discover_timeout + _MARGIN
        self._capacity = asyncio.Semaphore(settings.airbyte_slow_calls)
        self._db = db
        self._jobs = jobs
        self._observing = observing
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        jobs.on(_ENTRYPOINT, self._fill_slot, at_once=_SLOTS_IN_ALL)
        jobs.on(OBSERVE_SOURCE, self._observe_soon, at_once=_SLOTS_IN_ALL)

    @property
    def periodic_tasks(self) -> tuple[PeriodicTask, PeriodicTask]:
        """Tasks run by one replica for all: enrol sources, and enqueue jobs for those due."""
        return (
            PeriodicTask(self._enrol, _ENROL_EVERY, singleton_name="observe.enrol"),
            PeriodicTask(self._nudge, _DUE_EVERY, singleton_name="observe"),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run requested observations inside the block; on exit, cancel them and release claims."""
        try:
            yield
        finally:
            self.stop()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2)

    def stop(self) -> None:
        """Make no further claims."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether this process accepts no more work."""
        return self._stopping.is_set()

    async def _enrol(self) -> None:
        async with self._db.transaction() as session:
            await claim_queries.enrol_sources(session, every=self._every)
        async with self._db.transaction() as session:
            await registry.prune_discoveries(session)

    async def _nudge(self) -> None:
        async with self._db.transaction() as session:
            due = await claim_queries.due_workspaces(
                session, entrypoint=_ENTRYPOINT, at_once=self._at_once
            )
            payloads = [str(workspace or "") for workspace, slots in due for _ in range(slots)]
            await self._jobs.enqueue_many(session, _ENTRYPOINT, payloads, after=timedelta(0))

    async def _fill_slot(self, payload: str) -> None:
        """The job: observe the due sources of a workspace, one after the other."""
        workspace = UUID(payload) if payload else None
        # Without capacity here the job ends; a process with capacity takes the next one.
        if self._capacity.locked():
            return
        async with self._capacity:
            slot, size = uuid4(), 1
            while not self.is_stopping:
                claims = await self._claim(workspace, slot, limit=size)
                if not claims:
                    return
                is_quick = await self._observe(claims, slot)
                size = min(2 * size, _BATCH) if is_quick else 1

    async def _claim(
        self,
        workspace: UUID | None,
        slot: UUID,
        *,
        limit: int,
        source_id: UUID | None = None,
        unanswered_since: datetime | None = None,
    ) -> list[Claim]:
        async with self._db.transaction() as session:
            return await claim_queries.claim_sources(
                session,
                workspace,
                slot=slot,
                at_once=self._at_once,
                lease=self._lease,
                every=self._every,
                limit=limit,
                source_id=source_id,
                unanswered_since=unanswered_since,
            )

    async def _observe(self, claims: Sequence[Claim], slot: UUID) -> bool:
        """Observe the claimed sources; True if all were observed, quickly and in little memory.

        Sources that were not reached are released. After an unexpected error they stay claimed
        until the lease ends, so that the source which causes it is not observed all the time.
        """
        batch = _Batch(claims, slot)
        try:
            return await self._observe_batch(batch)
        except (AamError, asyncio.CancelledError):
            await self._release(batch, claims)
            raise

    async def _observe_batch(self, batch: _Batch) -> bool:
        clock = asyncio.get_running_loop().time
        slow_at = clock() + _QUICK_S
        discovering = asyncio.create_task(self._discover(batch))
        try:
            await asyncio.wait({discovering}, timeout=_QUICK_S)
            if not discovering.done():
                await self._finish(batch)
            await discovering
            is_whole = not batch.left and batch.held < _LARGE_BYTES
            await self._finish(batch)
        finally:
            discovering.cancel()
            await asyncio.gather(discovering, return_exceptions=True)
        return is_whole and clock() < slow_at

    async def _discover(self, batch: _Batch) -> None:
        """Discover the sources of a batch, one after the other."""
        if len(batch.left) > 1:
            (begun,) = await batches.each(
                [list(batch.left)], self._observing.begin, log_event="discoveries_not_begun"
            )
            batches.raise_if_unavailable([begun])
            batch.begun = begun.result or {}
        while batch.left and batch.held < _LARGE_BYTES and not self.is_stopping:
            claim = batch.left.popleft()
            outcomes = await batches.each(
                [claim],
                lambda one: self._observing.discover(
                    one, batch.slot, batch.begun.pop(one.source_id, None)
                ),
                log_event="source_not_observed",
                fields=lambda one: {"source": str(one.source_id)},
            )
            batches.raise_if_unavailable(outcomes)
            observed = outcomes[0].result
            if observed is not None:
                batch.observed.append(observed)
                batch.held += observed.offered.size

    async def _finish(self, batch: _Batch) -> None:
        """Release the sources of a batch that were not reached, and record the others' results.

        A source that is being discovered is not affected, and is the last of its batch.
        """
        left, observed = list(batch.left), list(batch.observed)
        batch.left.clear()
        if left or batch.begun:
            await self._release(batch, left)
        if observed:
            await self._observing.record(observed, batch.slot)
            del batch.observed[: len(observed)]

    async def _release(self, batch: _Batch, claims: Sequence[Claim]) -> None:
        """Release claims; a discovery of the batch is ended, or withdrawn if it was not sent."""
        unsent = list(batch.begun.values())
        async with self._db.transaction() as session:
            await registry.withdraw_discoveries(session, [begun.id for begun in unsent])
            await registry.end_discoveries(session, open_discoveries(batch.observed))
            await claim_queries.release_sources(
                session, batch.slot, [claim.source_id for claim in claims]
            )
        for begun in unsent:
            batch.begun.pop(begun.source_id, None)

    async def observe_now(
        self, source_id: UUID, workspace: UUID | None, *, unanswered_since: datetime | None = None
    ) -> asyncio.Task[None] | None:
        """Observe one source in a task of this process; None while there is no free slot for it.

        None, too, where an observation that began at `unanswered_since` or later has ended.
        """
        if self.is_stopping or self._capacity.locked():
            return None
        slot = uuid4()
        claims = await self._claim(
            workspace, slot, limit=1, source_id=source_id, unanswered_since=unanswered_since
        )
        if not claims:
            return None
        task = asyncio.create_task(self._observe_once(claims, slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _observe_soon(self, payload: str) -> None:
        """The job: observe one source now, or next if there is no slot for it.

        It counts as a scheduled observation, which leaves a part of the daily limit to people.
        """
        source_id = UUID(payload)
        async with self._db.transaction() as session:
            found = await claim_queries.bring_forward(session, source_id)
        if found is not None:
            task = await self.observe_now(source_id, found.workspace_id)
            if task is not None:
                await task

    async def _observe_once(self, claims: list[Claim], slot: UUID) -> None:
        async with self._capacity:
            try:
                await self._observe(claims, slot)
            except AamError as error:
                log.warning("observation_failed", source=str(claims[0].source_id), code=error.code)
