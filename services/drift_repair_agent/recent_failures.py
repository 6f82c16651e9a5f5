"""Batch items that failed recently and are skipped for a minute, so that others get their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from shared.batches import Outcome

_PAUSE = timedelta(minutes=1)


class Postponed:
    """The ids that this process skips for now; another process may try them."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}

    @property
    def ids(self) -> list[UUID]:
        """The ids to leave out of the next batch."""
        now = asyncio.get_running_loop().time()
        self._until = {id_: until for id_, until in self._until.items() if until > now}
        return list(self._until)

    def add_failed(self, outcomes: Iterable[Outcome[UUID, Any]]) -> None:
        """Postpone the items that failed."""
        until = asyncio.get_running_loop().time() + _PAUSE.total_seconds()
        self._until |= {one.item: until for one in outcomes if one.error is not None}
