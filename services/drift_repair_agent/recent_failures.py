"""Batch items that failed recently and are skipped for a while, so that others get their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from shared.batches import Outcome

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 60.0
_REMEMBERED_S: Final = 60.0


class Postponed:
    """The ids that this process skips for now; another process may try them.

    An id is skipped for 5 seconds, and for twice as long after each further failure, up to
    `longest_s`. It starts anew after a success, or if it has not failed for a minute after its
    pause.
    """

    def __init__(self, *, longest_s: float = _LONGEST_PAUSE_S) -> None:
        self._longest_s = longest_s
        self._pauses: dict[UUID, tuple[float, float]] = {}
        """When the pause of each id ends, and how long it is, in seconds."""

    @property
    def ids(self) -> list[UUID]:
        """The ids to leave out of the next batch."""
        now = asyncio.get_running_loop().time()
        self._pauses = {
            id_: pause for id_, pause in self._pauses.items() if pause[0] + _REMEMBERED_S > now
        }
        return [id_ for id_, (until, _) in self._pauses.items() if until > now]

    def add_failed(self, outcomes: Iterable[Outcome[UUID, Any]]) -> None:
        """Postpone the items that failed, and forget those that succeeded."""
        for one in outcomes:
            if one.error is None:
                self._pauses.pop(one.item, None)
            else:
                self.add(one.item)

    def add(self, id_: UUID) -> None:
        """Postpone an item that failed."""
        _, last_s = self._pauses.get(id_, (0.0, 0.0))
        pause_s = min(max(_FIRST_PAUSE_S, 2 * last_s), self._longest_s)
        self._pauses[id_] = (asyncio.get_running_loop().time() + pause_s, pause_s)
