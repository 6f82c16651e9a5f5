"""Looks that are taken again and again beside the requests, until the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from shared import logs

log = logs.get(__name__)

Look = Callable[[], Awaitable[object]]


@asynccontextmanager
async def repeating(*looks: tuple[Look, timedelta]) -> AsyncIterator[None]:
    """Take each look, wait, and take it again; at the end, each finishes the one it is taking.

    A look handles what it expects. What it does not expect is a bug: logged, and tried again.
    Nothing is cancelled, so that no look ends between its effect and the record of it.
    """
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_repeat(look, every, stop)) for look, every in looks]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _repeat(look: Look, every: timedelta, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await look()
        except Exception:  # the outermost loop of background work: logged, goes on
            log.exception("bug")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every.total_seconds())
