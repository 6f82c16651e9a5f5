"""How often each caller may ask, and how often an address may present what proves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

_MOST_REMEMBERED = 10_000
_BURST_S = 2.0


class Rates:
    """What the callers of one process have asked lately; each has a measure of its own."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        burst_s: float = _BURST_S,
    ) -> None:
        """`burst_s`: the seconds whose whole measure may be used at once."""
        self._each_s = 1 / per_second
        self._clock = clock
        self._burst_s = max(burst_s, self._each_s)
        self._paid_until: dict[str, float] = {}
        """When what a caller has asked would be over, had it asked evenly."""

    def wait_s(self, caller: str) -> float:
        """Count a request: 0 where it may be now, else in how many seconds; then it is not counted.

        A caller that is silent for two seconds has its whole measure again.
        """
        now = self._clock()
        until = max(self._paid_until.get(caller, now), now) + self._each_s
        wait = until - now - self._burst_s
        if wait > 1e-9:  # what adding up has rounded
            return wait
        if len(self._paid_until) >= _MOST_REMEMBERED:
            self._paid_until = {one: end for one, end in self._paid_until.items() if end > now}
        self._paid_until[caller] = until
        return 0.0

    def left_s(self, caller: str) -> float:
        """Until when a request of this caller would have to wait; nothing is counted."""
        now = self._clock()
        until = max(self._paid_until.get(caller, now), now) + self._each_s
        return max(until - now - self._burst_s, 0.0)
