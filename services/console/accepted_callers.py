"""Remembers for a minute which credentials /whoami accepted, for live events.

These are not read with the person's own credential.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from services.console.api import Clients

_FRESH_S: Final = 60.0
_MOST: Final = 1_000


class AcceptedCallers:
    """Asks /whoami at most once a minute for each credential."""

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._clock = clock
        self._until: OrderedDict[bytes, tuple[float, frozenset[str]]] = OrderedDict()

    async def scopes(self, credential: str, *, address: str) -> frozenset[str]:
        """The scopes of a credential, which was sent from an address.

        Raises:
            SignedOut: it is no longer accepted.
            ApiProblem: the orchestrator cannot tell now.
        """
        key = hashlib.sha256(credential.encode()).digest()
        until, scopes = self._until.get(key, (0.0, frozenset()))
        if self._clock() < until:
            return scopes
        self._until.pop(key, None)
        api = self._clients.acting_with(credential, address=address)
        caller = await api.orchestrator.get("/whoami")
        found = frozenset(caller["scopes"])
        self._until[key] = (self._clock() + _FRESH_S, found)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)
        return found
