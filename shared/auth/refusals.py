"""Counts what the gate refuses, and records the counts every few seconds.

A refusal adds one in memory and waits for nothing. Memory and rows are limited, whatever is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final

from shared import registry
from shared.database import Database
from shared.errors import Unavailable, UpstreamUnknown
from shared.observability import logs
from shared.registry import Count, Refused

log = logs.get(__name__)

_EVERY_S: Final = 5.0
_LAST_WITHIN_S: Final = 2.0
"""The service still has work to hand over when its process stops."""
_MOST_PENDING: Final = 1_000
"""What is counted separately until it is recorded."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Refusals:
    """The refusals of one process that are not recorded yet."""

    def __init__(
        self,
        db: Database,
        service: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._db = db
        self._service = service
        self._clock = clock
        self._pending: dict[Refused, Count] = {}

    def add(self, caller: str, *, method: str, route: str, status: int, code: str) -> None:
        """Count a refusal; `caller` is an id or an address, and never a credential."""
        now = self._clock()
        minute = now.replace(second=0, microsecond=0)
        method = method if method in _METHODS else "-"
        self._count(Refused(minute, caller, method, route, status, code), Count(1, now, now))

    def _count(self, refused: Refused, count: Count) -> None:
        if refused not in self._pending and len(self._pending) >= _MOST_PENDING:
            refused = registry.among_others(refused)
        if refused in self._pending:
            self._pending[refused].add(count)
        else:
            self._pending[refused] = count

    async def record(self) -> None:
        """Record what is pending; if that fails, it is recorded later, and may be counted twice.

        Raises:
            Unavailable: the registry is unavailable.
            UpstreamUnknown: the response to the commit was lost.
        """
        counts, self._pending = self._pending, {}
        if not counts:
            return
        is_recorded = False
        try:
            async with self._db.transaction() as session:
                await registry.add_refusals(session, self._service, counts)
            is_recorded = True
        finally:
            if not is_recorded:  # also if the process stops meanwhile
                for refused, count in counts.items():
                    self._count(refused, count)

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """Record regularly within the block, and once more at its end, unless that takes long."""
        task = asyncio.create_task(self._record_regularly())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            with suppress(Unavailable, UpstreamUnknown, TimeoutError):
                async with asyncio.timeout(_LAST_WITHIN_S):
                    await self.record()

    async def _record_regularly(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.record()
            except (Unavailable, UpstreamUnknown) as error:
                log.warning("refusals_not_recorded", code=error.code)
