"""Remembers for a minute which credentials /whoami accepted, for live events.

These are not read with the person's own credential.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.console.api import Clients

_FRESH_S: Final = 60.0
_MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is known of a caller."""

    scopes: frozenset[str]
    is_limited: bool
    """Whether it sees only connections with certain labels."""


class AcceptedCallers:
    """Asks /whoami at most once a minute for each credential."""

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._clock = clock
        self._until: OrderedDict[bytes, tuple[float, Accepted]] = OrderedDict()

    async def accepted(self, credential: str, *, address: str) -> Accepted:
        """The caller of a credential, which was sent from an address.

        Raises:
            SignedOut: it is no longer accepted.
            ApiProblem: the orchestrator cannot tell now.
        """
        key = hashlib.sha256(credential.encode()).digest()
        until, known = self._until.get(key, (0.0, None))
        if known is not None and self._clock() < until:
            return known
        self._until.pop(key, None)
        api = self._clients.acting_with(credential, address=address)
        caller = await api.orchestrator.get("/whoami")
        found = Accepted(frozenset(caller["scopes"]), bool(caller.get("labels")))
        self._until[key] = (self._clock() + _FRESH_S, found)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)
        return found
