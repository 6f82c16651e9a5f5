"""Periodic tasks that run beside the requests until the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from shared import batches, registry
from shared.database import Database
from shared.errors import AamError
from shared.observability import logs

log = logs.get(__name__)

_FINISH_WITHIN_S = 1.5
_RARE_FROM = timedelta(minutes=1)
_RARE_AFTER_S = 5.0
"""When a rare task first runs: a process that starts has more urgent work."""


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """A task and its interval; with a `singleton_name`, one replica runs it for all."""

    run: Callable[[], Awaitable[object]]
    interval: timedelta
    singleton_name: str | None = None


@asynccontextmanager
async def repeating(
    db: Database, *periodic_tasks: PeriodicTask
) -> AsyncIterator[Callable[[], None]]:
    """Run each task repeatedly within the block; yields a function that stops them.

    The first run is at once, but for tasks with an interval of a minute or more after 5 seconds.
    A task handles the errors it expects. Others are logged, and the task runs again after its
    interval. On exit, running tasks may finish; one that hangs is cancelled after a moment, which
    loses nothing, since every task starts from the rows in the registry.
    """
    stop, asking = asyncio.Event(), asyncio.Lock()
    tasks = {asyncio.create_task(_repeat(db, task, stop, asking)) for task in periodic_tasks}
    try:
        yield stop.set
    finally:
        stop.set()
        _, late = await asyncio.wait(tasks, timeout=_FINISH_WITHIN_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)


async def _repeat(
    db: Database, task: PeriodicTask, stop: asyncio.Event, asking: asyncio.Lock
) -> None:
    if task.interval >= _RARE_FROM:
        await _stopped_within(stop, _RARE_AFTER_S)
    while not stop.is_set():
        with logs.caused_by(None):
            try:
                name = task.singleton_name
                if name is None or await _is_our_turn(db, name, task.interval, asking):
                    await task.run()
            except AamError as error:
                log.warning("periodic_task_failed", task=task.singleton_name, code=error.code)
            except asyncio.CancelledError as error:
                if batches.is_cancellation(error):
                    raise
                log.exception("bug")
            except Exception:  # the outermost loop of background work: log and continue
                log.exception("bug")
        await _stopped_within(stop, task.interval.total_seconds())


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _is_our_turn(db: Database, name: str, every: timedelta, asking: asyncio.Lock) -> bool:
    """Claim a task for this replica; whether no other has claimed it within its interval.

    Tasks that are due together ask one at a time, so that they do not open a connection each.
    """
    async with asking, db.read() as session:
        return await registry.take_turn(session, name, every=every * 0.9)
