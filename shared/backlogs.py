"""Reads for the metrics what waits in the registry: one statement a backlog, every 15 seconds.

Each replica of a service reads for itself, and none reads where nobody could scrape it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import TextClause

from shared.database import Database
from shared.errors import AamError, Unavailable
from shared.observability import metrics
from shared.periodic import PeriodicTask

_EVERY: Final = timedelta(seconds=15)
_LONGEST_CHECK_S: Final = 5


AGE: Final = "CAST(coalesce(greatest(extract(epoch FROM now() - min({})), 0), 0) AS float8)"
"""For how many seconds the first has waited, by the column that says since when."""


class Gauges:
    """The backlogs of one service, named as in `metrics.BACKLOGS`.

    Each is one statement, by an index over what waits. For each name it answers how many there are
    and for how many seconds the first has waited; a name with nothing waiting may be absent.
    """

    def __init__(self, db: Database, backlogs: Mapping[str, TextClause]) -> None:
        self._db = db
        self._backlogs = backlogs

    @property
    def periodic_tasks(self) -> Sequence[PeriodicTask]:
        """The look that reads them; none where no metrics are kept."""
        return [PeriodicTask(self.read, _EVERY)] if metrics.are_kept() else []

    async def read(self) -> None:
        """Read them; while the registry is away nothing is told, rather than what was."""
        for backlog, statement in self._backlogs.items():
            try:
                async with self._db.read() as session:
                    rows = [tuple(row) for row in await session.execute(statement)]
            except Unavailable:
                rows = None
            metrics.BACKLOGS[backlog].tell(rows)


def watching_airbyte(health: Callable[[], Awaitable[bool]]) -> Sequence[PeriodicTask]:
    """The look that asks whether Airbyte is healthy; none where no metrics are kept."""

    async def read() -> None:
        try:
            async with asyncio.timeout(_LONGEST_CHECK_S):
                is_up = await health()
        except (AamError, TimeoutError):
            is_up = False
        metrics.AIRBYTE_UP.tell({"": float(is_up)})

    return [PeriodicTask(read, _EVERY)] if metrics.are_kept() else []
