"""Reads for the metrics what waits in the registry: one statement a backlog, every 15 seconds.

Each replica of a service reads for itself, and none reads where nobody could scrape it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from shared import metrics, registry
from shared.background import Look
from shared.database import Database
from shared.errors import Unavailable

_EVERY: Final = timedelta(seconds=15)


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
