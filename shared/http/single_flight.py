"""Coalesces concurrent calls: callers that arrive during a run wait for its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs a call at most once at a time, so that its load does not grow with its callers.

    A caller that joins gets the result of a run that began before, and one that is cancelled does
    not end it for the others.
    """

    def __init__(self) -> None:
        self._running: asyncio.Task[T] | None = None

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the run that is in progress, or of a new one."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(call())
        return await asyncio.shield(self._running)
