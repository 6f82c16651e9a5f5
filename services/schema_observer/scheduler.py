"""Whose turn it is: any number of processes share the sources, and a workspace's few discoveries.

A job is a slot: it looks at one source after the other until none of its workspace is due. Claims
are rows with a lease, so what a process leaves when it dies is due again when the lease is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from services.schema_observer import observation_queries
from services.schema_observer.observation_queries import Claim
from services.schema_observer.observer import Observed, Observer
from shared import batches, registry
from shared.config import Settings
from shared.database import Database
from shared.errors import AamError
from shared.jobs import Jobs
from shared.observability import logs
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_ENTRYPOINT: Final = "observe"
_SLOTS_IN_ALL: Final = 500
"""Over all workspaces and replicas; what is asked of one workspace is limited by claims."""
_DUE_EVERY: Final = timedelta(seconds=1)
_ENROL_EVERY: Final = timedelta(seconds=10)
_MARGIN: Final = timedelta(minutes=1)
"""What a look may take beyond its discovery."""
_BATCH: Final = 32
_QUICK_S: Final = 1.0
"""A batch that takes longer ends, and a single source follows: nobody waits behind a slow one."""
_LARGE_BYTES: Final = 1024 * 1024
"""The same for one that holds more in memory."""


class Scheduler:
    """Claims sources for the slots of this process, and has them looked at."""

    def __init__(self, settings: Settings, db: Database, jobs: Jobs, observing: Observer) -> None:
        self._at_once = settings.discoveries_at_once
        self._every = settings.observe_interval
        self._lease = settings.discover_timeout + _MARGIN
        self._room = asyncio.Semaphore(settings.airbyte_slow_calls)
        self._db = db
        self._jobs = jobs
        self._observing = observing
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        jobs.on(_ENTRYPOINT, self._fill_slot, at_once=_SLOTS_IN_ALL)

    @property
    def periodic_tasks(self) -> tuple[PeriodicTask, PeriodicTask]:
        """What one replica does for all: who is to be looked at, and slots for what is due."""
        return (
            PeriodicTask(self._enrol, _ENROL_EVERY, name="observe.enrol"),
            PeriodicTask(self._nudge, _DUE_EVERY, name="observe"),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks that were asked for go on within; at the end what is left is given back."""
        try:
            yield
        finally:
            self.stop()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether this process takes no more work."""
        return self._stopping.is_set()

    async def _enrol(self) -> None:
        async with self._db.transaction() as session:
            await observation_queries.enrol_sources(session, every=self._every)
        async with self._db.transaction() as session:
            await registry.prune_discoveries(session)

    async def _nudge(self) -> None:
        async with self._db.transaction() as session:
            due = await observation_queries.due_workspaces(
                session, entrypoint=_ENTRYPOINT, at_once=self._at_once
            )
            payloads = [str(workspace or "") for workspace, slots in due for _ in range(slots)]
            await self._jobs.enqueue_many(session, _ENTRYPOINT, payloads, after=timedelta(0))

    async def _fill_slot(self, payload: str) -> None:
        """The job: look at what is due in a workspace, one source after the other."""
        workspace = UUID(payload) if payload else None
        # Without room here the job ends; the next is for whoever has some.
        if self._room.locked():
            return
        async with self._room:
            slot, size = uuid4(), 1
            while not self.is_stopping:
                claims = await self._claim(workspace, slot, limit=size)
                if not claims:
                    return
                is_quick = await self._look_at(claims, slot)
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
            return await observation_queries.claim_sources(
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

    async def _look_at(self, claims: Sequence[Claim], slot: UUID) -> bool:
        """Whether all were looked at, and easily; those that it came not to are given back.

        After an error that is a bug they stay claimed until the lease is over, so that a source
        which brings it about is not looked at all the time.
        """
        clock = asyncio.get_running_loop().time
        slow_at, looks, held = clock() + _QUICK_S, list[Observed](), 0
        left = deque(claims)

        def is_easy() -> bool:
            return clock() < slow_at and held < _LARGE_BYTES

        try:
            while left and is_easy() and not self.is_stopping:
                claim = left.popleft()
                outcomes = await batches.each(
                    [claim],
                    lambda one: self._observing.discover(one, slot),
                    log_event="source_not_observed",
                    fields=lambda one: {"source": str(one.source_id)},
                )
                batches.raise_away(outcomes)
                look = outcomes[0].result
                if look is not None:
                    looks.append(look)
                    held += look.offered.size
            await self._observing.take(looks, slot)
        except (AamError, asyncio.CancelledError):
            await self._give_back(slot)
            raise
        if left:
            await self._give_back(slot)
        return not left and is_easy()

    async def _give_back(self, slot: UUID) -> None:
        async with self._db.transaction() as session:
            await observation_queries.give_back_sources(session, slot)

    async def look_now(
        self, source_id: UUID, workspace: UUID | None, *, unanswered_since: datetime | None = None
    ) -> asyncio.Task[None] | None:
        """Look at one source by a task of this process; None while there is no slot for it.

        None, too, where a look that began at `unanswered_since` or later has ended meanwhile.
        """
        if self.is_stopping or self._room.locked():
            return None
        slot = uuid4()
        claims = await self._claim(
            workspace, slot, limit=1, source_id=source_id, unanswered_since=unanswered_since
        )
        if not claims:
            return None
        task = asyncio.create_task(self._look_once(claims, slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look_once(self, claims: list[Claim], slot: UUID) -> None:
        async with self._room:
            try:
                await self._look_at(claims, slot)
            except AamError as error:
                log.warning("look_not_taken", source=str(claims[0].source_id), code=error.code)
