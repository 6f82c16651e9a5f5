"""Looks that are taken again and again beside the requests, until the process stops."""

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


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """What is looked at, and how often; `name` where one replica's look does for all of them."""

    take: Callable[[], Awaitable[object]]
    every: timedelta
    name: str | None = None


@asynccontextmanager
async def repeating(
    db: Database, *periodic_tasks: PeriodicTask
) -> AsyncIterator[Callable[[], None]]:
    """Take each look, wait, and take it again; yields what tells them to stop.

    A look handles what it expects. What it does not expect is a bug: logged, and tried again.
    At the end each finishes the one it is taking; one that hangs is broken off after a moment, and
    as every look begins from the rows, nothing is lost with it.
    """
    stop, asking = asyncio.Event(), asyncio.Lock()
    tasks = {asyncio.create_task(_repeat(db, look, stop, asking)) for look in periodic_tasks}
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
    db: Database, look: PeriodicTask, stop: asyncio.Event, asking: asyncio.Lock
) -> None:
    while not stop.is_set():
        with logs.caused_by(None):
            try:
                if look.name is None or await _is_our_turn(db, look.name, look.every, asking):
                    await look.take()
            except AamError as error:
                log.warning("look_not_taken", look=look.name, code=error.code)
            except asyncio.CancelledError as error:
                if batches.is_cancellation(error):
                    raise
                log.exception("bug")
            except Exception:  # the outermost loop of background work: logged, goes on
                log.exception("bug")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), look.every.total_seconds())


async def _is_our_turn(db: Database, name: str, every: timedelta, asking: asyncio.Lock) -> bool:
    """Whether no replica has taken this look within its time; one that asks at once is the one.

    Looks that are due together ask one after the other: a dozen would open a dozen connections.
    """
    async with asking, db.read() as session:
        return await registry.take_turn(session, name, every=every * 0.9)
