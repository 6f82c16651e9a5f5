"""How long a batch item that failed is skipped."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from services.drift_repair_agent.recent_failures import Postponed
from shared.batches import Outcome
from shared.errors import Unavailable

ITEM, OTHER = uuid4(), uuid4()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the event loop, in seconds; a test sets its one item."""
    now = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    return now


def failed(item: UUID) -> Outcome[UUID, None]:
    """The outcome of an item that failed."""
    return Outcome(item, error=Unavailable("The registry is away."))


def pause_s(postponed: Postponed, clock: list[float]) -> int:
    """How long the item is skipped from now on; the clock is at its end then."""
    began = clock[0]
    while ITEM in postponed.ids:
        clock[0] += 1
    return int(clock[0] - began)


async def test_pauses_double_up_to_a_minute(clock: list[float]) -> None:
    """A short outage delays an item for seconds; one that never works takes few turns."""
    postponed, pauses = Postponed(), []
    for _ in range(6):
        postponed.add_failed([failed(ITEM)])
        pauses.append(pause_s(postponed, clock))

    assert pauses == [5, 10, 20, 40, 60, 60]


async def test_longest_pause_is_that_of_the_caller(clock: list[float]) -> None:
    """For items that cost more than their turn, such as an operation each."""
    postponed, pauses = Postponed(longest_s=300), []
    for _ in range(8):
        postponed.add(ITEM)
        pauses.append(pause_s(postponed, clock))

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]


async def test_pauses_start_anew(clock: list[float]) -> None:
    """After a success, or a minute without a failure."""
    postponed = Postponed()
    postponed.add_failed([failed(ITEM), failed(OTHER)])
    postponed.add_failed([failed(ITEM), Outcome(OTHER)])
    assert postponed.ids == [ITEM]
    assert pause_s(postponed, clock) == 10

    postponed.add_failed([Outcome(ITEM)])
    postponed.add_failed([failed(ITEM)])
    assert pause_s(postponed, clock) == 5

    clock[0] += 60
    assert postponed.ids == []
    postponed.add_failed([failed(ITEM)])
    assert pause_s(postponed, clock) == 5
