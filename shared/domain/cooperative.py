"""Long computations split into steps, so that they do not block an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from datetime import timedelta
from functools import update_wrapper
from time import monotonic
from typing import Generic, ParamSpec, TypeAlias, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]


class Stepwise(Generic[P, T]):
    """A function that runs to completion when called, or step by step through `.steps(…)`."""

    def __init__(self, steps: Callable[P, Steps[T]]) -> None:
        update_wrapper(self, steps)
        self.steps = steps

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        run = self.steps(*args, **kwargs)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return cast(T, end.value)


async def run_cooperatively(run: Steps[T], *, at_most: timedelta = timedelta(milliseconds=5)) -> T:
    """Run the steps, and yield to the event loop whenever `at_most` has passed.

    A step is never interrupted, so the loop is blocked for up to `at_most` plus the longest step.
    """
    until = monotonic() + at_most.total_seconds()
    while True:
        try:
            next(run)
        except StopIteration as end:
            return cast(T, end.value)
        if monotonic() >= until:
            await asyncio.sleep(0)
            until = monotonic() + at_most.total_seconds()
