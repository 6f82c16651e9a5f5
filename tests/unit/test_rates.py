"""How often a caller may ask."""

from __future__ import annotations

import pytest

from shared.http import rate_limit
from shared.http.rate_limit import Rates


class Clock:
    """A time that stands still unless it is put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.mark.parametrize("per_second", [0.1, 0.5, 1, 3, 7.5, 100])
def test_burst_is_twice_the_rate(per_second: float) -> None:
    """Below one in two seconds, one at once; a refused caller gets the time to wait."""
    clock = Clock()
    measured = Rates(per_second, clock)
    at_once = max(1, int(2 * per_second))

    assert [measured.wait_s("ada") for _ in range(at_once)] == [0] * at_once
    wait = measured.wait_s("ada")
    assert wait == pytest.approx((at_once + 1) / per_second - max(2, 1 / per_second))
    clock.now += wait * 0.99
    assert measured.wait_s("ada") > 0
    clock.now += wait * 0.011
    assert measured.wait_s("ada") == 0
    assert measured.wait_s("ada") > 0


def test_rate_holds_over_a_long_time() -> None:
    """However uneven the requests."""
    clock = Clock()
    measured = Rates(100, clock)
    taken = 0
    for _ in range(1000):
        clock.now += 0.1
        taken += sum(measured.wait_s("ada") == 0 for _ in range(50))

    assert taken == pytest.approx(10_000 + 200, abs=15)


def test_each_caller_has_its_own_limit() -> None:
    measured = Rates(1, Clock())
    while not measured.wait_s("ada"):
        pass

    assert measured.wait_s("bob") == 0


def test_idle_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller is kept until its limit is fully restored."""
    monkeypatch.setattr(rate_limit, "_MOST_REMEMBERED", 100)
    clock = Clock()
    measured = Rates(1, clock)
    while not measured.wait_s("ada"):
        pass
    for number in range(1000):
        clock.now += 0.0005
        measured.wait_s(f"caller {number}")

    assert measured.wait_s("ada") > 0
    clock.now += 10
    measured.wait_s("bob")
    assert set(measured._paid_until) == {"bob"}
