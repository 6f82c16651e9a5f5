"""Rebuilds the projection of the health of connections, in pages.

Every transaction refreshes what it changes. This corrects what no transaction did: rows that an
older release of a service wrote during an upgrade, and counts of failed syncs whose jobs were
pruned.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from shared import registry
from shared.database import Database
from shared.observability import logs
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_EVERY: Final = timedelta(hours=1)
_PAGE: Final = 200


class Rebuilt(msgspec.Struct, frozen=True):
    """The result of a run."""

    connections: int
    corrected: int
    """How many of them had another health than their facts say, or none."""


async def rebuild(db: Database) -> Rebuilt:
    """Derive the health of every connection, each page in a transaction of its own.

    Raises:
        Unavailable: the registry is unavailable; the pages before are corrected.
    """
    connections = corrected = 0
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with db.transaction() as session:
            after, read, differed = await registry.rebuild_health(session, after=after, limit=_PAGE)
        connections, corrected = connections + read, corrected + differed
    if corrected:
        log.info("health_corrected", rows=corrected)
    return Rebuilt(connections, corrected)


def periodic_task(db: Database) -> PeriodicTask:
    """The task that rebuilds it every hour."""

    async def run() -> None:
        await rebuild(db)

    return PeriodicTask(run, _EVERY, singleton_name="health")
