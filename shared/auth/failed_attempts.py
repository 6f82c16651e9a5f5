"""Failed authentication attempts: limited per address, and logged at a limited rate."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import TooManyRequests
from shared.http.rate_limit import Rates
from shared.observability import logs

log = logs.get(__name__)

_MINUTE_S = 60.0
_LOGGED_PER_MINUTE = 30
"""Log lines about failed attempts, for all addresses together."""
_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 10_000


class Guesses:
    """Limits the failed authentication attempts of each address, within one process.

    An address over the limit gets 429 before any lookup. Credentials that were valid within the
    last ten minutes are still checked, so other callers behind the same address or proxy continue
    to work.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = Rates(per_minute / _MINUTE_S, clock, burst_s=_MINUTE_S)
        self._logged = Rates(_LOGGED_PER_MINUTE / _MINUTE_S, clock, burst_s=_MINUTE_S)
        self._proved: dict[bytes, float] = {}

    def expect_few(self, address: str, presented: str) -> None:
        """Check that an address is within its limit.

        Raises:
            TooManyRequests: it is over the limit, and the credential was not valid recently.
        """
        wait_s = self._failed.left_s(network(address))
        if wait_s and self._proved.get(_digest(presented), 0.0) <= self._clock():
            raise TooManyRequests(
                "Too many invalid credentials were sent from this address.",
                code="too_many_failures",
                wait_s=round(wait_s, 3),
            )

    def prove(self, presented: str) -> None:
        """Record that a credential was valid."""
        if len(self._proved) >= _MOST_REMEMBERED:
            self._proved.clear()
        self._proved[_digest(presented)] = self._clock() + _REMEMBERED_S

    def fail(self, address: str) -> None:
        """Count a failed attempt."""
        self._failed.wait_s(network(address))
        self._log(address)

    @contextmanager
    def attempt(self, address: str, *, failures: tuple[type[Exception], ...]) -> Iterator[None]:
        """Count the block from its start; it is taken back unless it ends with one of `failures`.

        For an attempt that costs others something, so that those at the same time count, too.

        Raises:
            TooManyRequests: the address is over the limit.
        """
        self.expect_few(address, "")
        self._failed.wait_s(network(address))
        try:
            yield
        except failures:
            self._log(address)
            raise
        except BaseException:
            self._failed.give_back(network(address))
            raise
        self._failed.give_back(network(address))

    def _log(self, address: str) -> None:
        if not self._logged.wait_s(""):
            log.warning("authentication_failed", address=network(address))


def _digest(presented: str) -> bytes:
    return hashlib.sha256(presented.encode()).digest()


def network(address: str) -> str:
    """The addresses of one caller: an IPv4 address, or an IPv6 /64 network.

    Anything else, which a proxy may have forwarded, is `unknown`.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
