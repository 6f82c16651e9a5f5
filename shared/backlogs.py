"""Reads the backlogs in the registry for the metrics: one statement each, every 15 seconds.

Each replica of a service reads them itself, if it serves metrics. A statement that is slow in a
large registry is read less often, so that it takes at most 2 % of the time.
"""

from __future__ import annotations

import asyncio
import time
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
_PAUSE_RATIO: Final = 50
"""A statement is not read again before this many times as long as it took."""


AGE: Final = "CAST(coalesce(greatest(extract(epoch FROM now() - min({})), 0), 0) AS float8)"
"""SQL for the age in seconds of the oldest item; the placeholder is its timestamp column."""


class Gauges:
    """The backlogs of one service, named as in `metrics.BACKLOGS`.

    Each is one statement that uses an index of the waiting rows. It returns for each label value
    the number of rows and the age of the oldest in seconds; values without rows may be absent.
    """

    def __init__(self, db: Database, backlogs: Mapping[str, TextClause]) -> None:
        self._db = db
        self._backlogs = backlogs
        self._next_at_s = dict.fromkeys(backlogs, 0.0)

    @property
    def periodic_tasks(self) -> Sequence[PeriodicTask]:
        """The task that reads them; empty if no metrics are served."""
        return [PeriodicTask(self.read, _EVERY)] if metrics.are_kept() else []

    async def read(self) -> None:
        """Read them; while the registry is unavailable, they are unknown instead of outdated."""
        for backlog, statement in self._backlogs.items():
            began_s = time.monotonic()
            if began_s < self._next_at_s[backlog]:
                continue
            try:
                async with self._db.read() as session:
                    rows = [tuple(row) for row in await session.execute(statement)]
            except Unavailable:
                rows = None
            metrics.BACKLOGS[backlog].set(rows)
            if rows is not None:
                ended_s = time.monotonic()
                pause_s = _PAUSE_RATIO * (ended_s - began_s)
                if pause_s > _EVERY.total_seconds():
                    self._next_at_s[backlog] = ended_s + pause_s


def watching_airbyte(health: Callable[[], Awaitable[bool]]) -> Sequence[PeriodicTask]:
    """The task that checks Airbyte's health; empty if no metrics are served."""

    async def read() -> None:
        try:
            async with asyncio.timeout(_LONGEST_CHECK_S):
                is_up = await health()
        except (AamError, TimeoutError):
            is_up = False
        metrics.AIRBYTE_UP.set({"": float(is_up)})

    return [PeriodicTask(read, _EVERY)] if metrics.are_kept() else []
