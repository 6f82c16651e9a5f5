"""Reads for the metrics what waits in the registry: one statement a backlog, every 15 seconds.

Each replica of a service reads for itself, and none reads where nobody could scrape it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from shared import registry
from shared.database import Database
from shared.errors import AamError, Unavailable
from shared.observability import metrics
from shared.periodic import Look

_EVERY: Final = timedelta(seconds=15)
_LONGEST_CHECK_S: Final = 5


class Gauges:
    """The backlogs of one service, named as in `metrics.BACKLOGS`."""

    def __init__(self, db: Database, *backlogs: str) -> None:
        self._db = db
        self._backlogs = backlogs

    @property
    def looks(self) -> Sequence[Look]:
        """The look that reads them; none where no metrics are kept."""
        return [Look(self.read, _EVERY)] if metrics.are_kept() else []

    async def read(self) -> None:
        """Read them; while the registry is away nothing is told, rather than what was."""
        for backlog in self._backlogs:
            try:
                async with self._db.read() as session:
                    rows = await registry.waiting(session, backlog)
            except Unavailable:
                rows = None
            metrics.BACKLOGS[backlog].tell(rows)


def watching_airbyte(health: Callable[[], Awaitable[bool]]) -> Sequence[Look]:
    """The look that asks whether Airbyte is healthy; none where no metrics are kept."""

    async def read() -> None:
        try:
            async with asyncio.timeout(_LONGEST_CHECK_S):
                is_up = await health()
        except (AamError, TimeoutError):
            is_up = False
        metrics.AIRBYTE_UP.tell({"": float(is_up)})

    return [Look(read, _EVERY)] if metrics.are_kept() else []
