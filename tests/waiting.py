"""Waiting in a test for what another task, process or server does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(fact: Callable[[], Any], *, within: float = 60) -> Any:
    """Wait until `fact` returns something true, or an awaitable of it, and return that."""
    async with asyncio.timeout(within):
        while True:
            found = fact()
            if found := (await found if inspect.isawaitable(found) else found):
                return found
            await asyncio.sleep(0.01)


async def until_not(fact: Callable[[], Any], *, within: float = 60) -> None:
    """Wait until `fact` no longer returns something true, or an awaitable of it."""

    async def is_over() -> bool:
        found = fact()
        return not (await found if inspect.isawaitable(found) else found)

    await until(is_over, within=within)
