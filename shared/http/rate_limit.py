"""Rate limits by key, for example a caller or a network address."""

from __future__ import annotations

import time
from collections.abc import Callable

_MOST_REMEMBERED = 10_000
_BURST_S = 2.0


class Rates:
    """A token bucket for each caller, in the memory of one process."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        burst_s: float = _BURST_S,
    ) -> None:
        """`burst_s`: the bucket's size, as seconds of requests at the full rate."""
        self._each_s = 1 / per_second
        self._clock = clock
        self._burst_s = max(burst_s, self._each_s)
        self._paid_until: dict[str, float] = {}
        """For each caller, when its bucket is full again."""

    def wait_s(self, caller: str) -> float:
        """Count a request and return 0; if over the limit, return the seconds to wait, uncounted.

        After `burst_s` without requests, a caller can use its whole burst again.
        """
        now = self._clock()
        until = max(self._paid_until.get(caller, now), now) + self._each_s
        wait = until - now - self._burst_s
        if wait > 1e-9:  # rounding of the sums
            return wait
        if len(self._paid_until) >= _MOST_REMEMBERED:
            self._paid_until = {one: end for one, end in self._paid_until.items() if end > now}
        self._paid_until[caller] = until
        return 0.0

    def give_back(self, caller: str) -> None:
        """Take one counted request of this caller back."""
        if caller in self._paid_until:
            self._paid_until[caller] -= self._each_s

    def left_s(self, caller: str) -> float:
        """How many seconds a request of this caller would have to wait; nothing is counted."""
        now = self._clock()
        until = max(self._paid_until.get(caller, now), now) + self._each_s
        return max(until - now - self._burst_s, 0.0)
