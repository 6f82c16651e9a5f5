"""A queue between a feed, which never waits, and its one reader, which does."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ReaderQueue(Generic[T]):
    """Items for one reader. Its length is limited by whoever adds to it."""

    def __init__(self) -> None:
        self.is_over = False
        self._queue: deque[T] = deque()
        self._wakes = asyncio.Event()

    async def items(self, *, within_s: float) -> list[T]:
        """What was queued, as soon as there is anything; empty after the time or at the end."""
        if not self._queue and not self.is_over:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wakes.wait(), within_s)
        self._wakes.clear()
        found = list(self._queue)
        self._queue.clear()
        return found

    def end(self) -> None:
        """Nothing will be queued any more."""
        self.is_over = True
        self._wakes.set()

    def _append(self, item: T) -> None:
        self._queue.append(item)
        self._wakes.set()
