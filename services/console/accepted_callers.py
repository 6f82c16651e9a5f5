"""Remembers for a minute which credentials /whoami accepted, for live updates.

The console reads live events with its own token, so it has to check a person's credential itself.
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
    """What /whoami says about a caller."""

    scopes: frozenset[str]
    is_limited: bool
    """Whether the caller sees only connections with certain labels."""


class AcceptedCallers:
    """Asks /whoami at most once a minute for each credential."""

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._clock = clock
        self._until: OrderedDict[bytes, tuple[float, Accepted]] = OrderedDict()

    async def accepted(self, credential: str, *, address: str) -> Accepted:
        """The caller with this credential; `address` is the IP address that it was sent from.

        Raises:
            SignedOut: the credential is no longer accepted.
            ApiProblem: the orchestrator did not answer, or refused for another reason.
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
