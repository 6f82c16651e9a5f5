"""Polling until a condition holds that another task, process or server changes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(fact: Callable[[], Any], *, within: float = 60) -> Any:
    """Poll `fact`, which may be async, until its result is truthy, and return the result.

    At least two thirds of the time are pauses, so that what is waited for can run.
    """
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(within):
        while True:
            began = clock()
            found = fact()
            if found := (await found if inspect.isawaitable(found) else found):
                return found
            await asyncio.sleep(min(max(0.01, 2 * (clock() - began)), 0.25))


async def until_not(fact: Callable[[], Any], *, within: float = 60) -> None:
    """Poll `fact`, which may be async, until its result is falsy."""

    async def is_over() -> bool:
        found = fact()
        return not (await found if inspect.isawaitable(found) else found)

    await until(is_over, within=within)
