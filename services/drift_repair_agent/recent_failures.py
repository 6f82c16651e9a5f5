"""Batch items that failed recently and are skipped for a while, so that others get their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from shared.batches import Outcome

_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 60.0


class Postponed:
    """The ids that this process skips for now; another process may try them.

    An id is skipped for 5 seconds, and for twice as long after each further failure, up to a
    minute. It starts anew after a success, or if it has not failed for a minute after its pause.
    """

    def __init__(self) -> None:
        self._pauses: dict[UUID, tuple[float, float]] = {}
        """When the pause of each id ends, and how long it is, in seconds."""

    @property
    def ids(self) -> list[UUID]:
        """The ids to leave out of the next batch."""
        now = asyncio.get_running_loop().time()
        self._pauses = {
            id_: pause for id_, pause in self._pauses.items() if pause[0] + _LONGEST_PAUSE_S > now
        }
        return [id_ for id_, (until, _) in self._pauses.items() if until > now]

    def add_failed(self, outcomes: Iterable[Outcome[UUID, Any]]) -> None:
        """Postpone the items that failed, and forget those that succeeded."""
        now = asyncio.get_running_loop().time()
        for one in outcomes:
            _, last_s = self._pauses.pop(one.item, (0.0, 0.0))
            if one.error is not None:
                pause_s = min(max(_FIRST_PAUSE_S, 2 * last_s), _LONGEST_PAUSE_S)
                self._pauses[one.item] = (now + pause_s, pause_s)
