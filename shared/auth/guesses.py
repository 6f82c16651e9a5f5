"""Failed tries to prove who calls: limited per address, and logged with a bound."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable

from shared.errors import TooManyRequests
from shared.http.rate_limit import Rates
from shared.observability import logs

log = logs.get(__name__)

_MINUTE_S = 60.0
_LOGGED_PER_MINUTE = 30
"""Lines about failed tries, of all addresses together."""
_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 10_000


class Guesses:
    """The failed tries of each address; one process counts for itself.

    An address that fails too often is answered 429 before anything is looked up, until a minute's
    measure is free again. What proved a caller in the last ten minutes is let through to be checked
    as ever: others behind the same address, or the same proxy, go on working.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = Rates(per_minute / _MINUTE_S, clock, burst_s=_MINUTE_S)
        self._logged = Rates(_LOGGED_PER_MINUTE / _MINUTE_S, clock, burst_s=_MINUTE_S)
        self._proved: dict[bytes, float] = {}

    def expect_few(self, address: str, presented: str) -> None:
        """See that an address may try.

        Raises:
            TooManyRequests: it failed too often lately.
        """
        wait_s = self._failed.left_s(_network(address))
        if wait_s and self._proved.get(_digest(presented), 0.0) <= self._clock():
            raise TooManyRequests(
                "This address has presented too much that proves nothing.",
                code="too_many_failures",
                wait_s=round(wait_s, 3),
            )

    def prove(self, presented: str) -> None:
        """Remember that this proved a caller."""
        if len(self._proved) >= _MOST_REMEMBERED:
            self._proved.clear()
        self._proved[_digest(presented)] = self._clock() + _REMEMBERED_S

    def fail(self, address: str) -> None:
        """Count a failed try."""
        self._failed.wait_s(_network(address))
        if not self._logged.wait_s(""):
            log.warning("caller_not_proved", address=_network(address))


def _digest(presented: str) -> bytes:
    return hashlib.sha256(presented.encode()).digest()


def _network(address: str) -> str:
    """What one caller has of addresses: with IPv6 a whole /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
