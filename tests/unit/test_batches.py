"""A failing item never affects the others, and every failure is logged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger, LogCapture

from shared import batches
from shared.errors import NotFound


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the module logs; its own logger may be cached by a test before."""
    capture = LogCapture()
    logger = structlog.wrap_logger(
        CapturingLogger(), processors=[capture], wrapper_class=structlog.BoundLogger
    )
    monkeypatch.setattr(batches, "log", logger)
    return capture.entries


async def halved(number: int) -> int:
    """Half of an even number; odd ones fail in two ways."""
    await asyncio.sleep(0)
    if number == 3:
        raise NotFound(f"No number {number}.")
    if number % 2:
        raise ZeroDivisionError(number)
    return number // 2


@pytest.mark.parametrize("max_concurrency", [1, 3, 20])
async def test_failing_item_does_not_affect_the_others(
    max_concurrency: int, lines: list[Any]
) -> None:
    """Outcomes are in the items' order; an expected error shows its code, a bug its traceback."""
    outcomes = await batches.each(
        range(8),
        halved,
        log_event="number_not_halved",
        fields=lambda number: {"id": number},
        max_concurrency=max_concurrency,
    )

    assert [outcome.item for outcome in outcomes] == list(range(8))
    assert [outcome.result for outcome in outcomes] == [0, None, 1, None, 2, None, 3, None]
    assert isinstance(outcomes[3].error, NotFound)
    assert {line["event"] for line in lines} == {"number_not_halved"}
    by_id = {line["id"]: line for line in lines}
    assert by_id.keys() == {1, 3, 5, 7}
    assert (by_id[3]["log_level"], by_id[3]["code"]) == ("warning", "not_found")
    assert (by_id[5]["log_level"], by_id[5]["code"]) == ("error", "bug")
    assert isinstance(by_id[5]["exc_info"], ZeroDivisionError)


async def test_concurrency_is_bounded() -> None:
    """Items are taken from their iterator as they are run."""
    running, peak, taken = 0, 0, 0

    def numbers() -> Any:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    async def run(_number: int) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        assert taken <= 50
        await asyncio.sleep(0.001)
        running -= 1

    await batches.each(numbers(), run, log_event="unused", max_concurrency=4)

    assert (peak, taken) == (4, 50)


async def test_failing_batch_does_not_flood_the_log(lines: list[Any]) -> None:
    """Twenty lines, and one with the numbers."""

    async def fail(number: int) -> None:
        raise NotFound(f"No number {number}.")

    await batches.each(range(500), fail, log_event="number_not_found")

    assert len(lines) == 21
    assert (lines[-1]["failed"], lines[-1]["of"]) == (500, 500)


@pytest.mark.parametrize("max_concurrency", [1, 3])
async def test_cancellation_propagates(max_concurrency: int) -> None:
    """What runs is cancelled, and nothing more is begun."""
    begun: list[int] = []
    started = asyncio.Event()

    async def wait(number: int) -> None:
        begun.append(number)
        started.set()
        await asyncio.Event().wait()

    batch = asyncio.create_task(
        batches.each(range(9), wait, log_event="unused", max_concurrency=max_concurrency)
    )
    await started.wait()
    await asyncio.sleep(0)
    batch.cancel()

    with pytest.raises(asyncio.CancelledError):
        await batch
    assert len(begun) <= max_concurrency


@pytest.mark.parametrize("max_concurrency", [1, 3])
async def test_cancelled_dependency_fails_only_its_item(max_concurrency: int) -> None:
    async def run(number: int) -> int:
        if number == 2:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task
        return number

    outcomes = await batches.each(
        range(5), run, log_event="not_done", max_concurrency=max_concurrency
    )

    assert [one.result for one in outcomes] == [0, 1, None, 3, 4]
    assert isinstance(outcomes[2].error, RuntimeError)
