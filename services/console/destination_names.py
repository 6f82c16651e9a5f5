"""Names of destinations, which the list of connections only has the ids of.

They come from Airbyte, so they are waited for only briefly, and remembered for each caller.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from services.console.api import Api
from services.console.problems import PageProblem

_FRESH_S: Final = 60.0
_RETRY_S: Final = 10.0
_WITHIN_S: Final = 1.0
_MOST_CALLERS: Final = 500


class DestinationNames:
    """The names of the default workspace's destinations, by id; one per process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Mapping[str, str]]] = OrderedDict()

    def remembered(self, caller_id: str) -> Mapping[str, str]:
        """The names that were read last for a caller, without waiting for Airbyte."""
        return self._known.get(caller_id, (0.0, {}))[1]

    def remember(self, caller_id: str, names: Mapping[str, str]) -> None:
        """Add names that were read for a caller elsewhere."""
        until, known = self._known.get(caller_id, (0.0, {}))
        self._save(caller_id, until, {**known, **names})

    async def of(self, api: Api, caller_id: str) -> Mapping[str, str]:
        """The names that a caller may see; older ones, or fewer, while Airbyte does not answer.

        Raises:
            SignedOut: the caller's credential is no longer accepted.
        """
        until, names = self._known.get(caller_id, (0.0, {}))
        if self._clock() < until:
            return names
        try:
            async with asyncio.timeout(_WITHIN_S):
                page = await api.orchestrator.get("/destinations", limit=100)
        except (TimeoutError, PageProblem):
            fresh_s = _RETRY_S
        else:
            fresh_s = _FRESH_S
            names = {one["id"]: one["name"] for one in page["items"]}
        self._save(caller_id, self._clock() + fresh_s, names)
        return names

    def _save(self, caller_id: str, until: float, names: Mapping[str, str]) -> None:
        self._known[caller_id] = (until, names)
        self._known.move_to_end(caller_id)
        while len(self._known) > _MOST_CALLERS:
            self._known.popitem(last=False)
