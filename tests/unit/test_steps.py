"""Long computations let others run."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from shared.domain.cooperative import Steps, Stepwise, run_cooperatively


@Stepwise
def total(numbers: range) -> Steps[int]:
    """The sum, one number a step."""
    found = 0
    for number in numbers:
        found += number
        yield
    return found


def test_function_can_be_called_without_steps() -> None:
    """The steps are there for who asks."""
    assert total(range(5)) == 10
    assert len(list(total.steps(range(5)))) == 5


async def test_other_tasks_run_between_slices() -> None:
    """A ticker goes on while a long computation runs."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    assert await run_cooperatively(total.steps(range(100)), at_most=timedelta(0)) == 4950
    ticker.cancel()
    assert ticks >= 99
