"""Leaves out events of connections that a caller limited by labels may not see.

Events come from Redis, so the registry's views do not apply to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from services.orchestrator.event_log import Event
from shared import registry
from shared.auth import label_limits
from shared.database import Database

T = TypeVar("T")


async def visible(db: Database, items: Sequence[T]) -> list[T]:
    """The items without the events that the current caller may not see.

    Raises:
        Unavailable: the registry is unavailable.
    """
    events = [item for item in items if isinstance(item, Event)]
    if not events or not label_limits.current():
        return list(items)
    async with db.read() as session:
        seen = {str(one) for one in await registry.connection_names(session, _ids(events))}
    return [item for item in items if not isinstance(item, Event) or item.connection_id in seen]


def _ids(events: Iterable[Event]) -> set[UUID]:
    return {UUID(event.connection_id) for event in events if event.connection_id}
