"""What is asked of the observer: look now, how often, and what differs between two looks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from services.schema_observer import drift_queries, observation_queries
from services.schema_observer.comparison import difference
from services.schema_observer.observation_queries import Asked
from services.schema_observer.scheduler import Scheduler
from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.discoveries import Discoveries
from shared.domain.drift import Change
from shared.errors import NotActive, Unavailable
from shared.models import Connection, ConnectionStatus

_JOINS_WITHIN: Final = timedelta(seconds=1)
"""A look under way for longer may have read the source before what the caller asks about."""
_FIRST_POLL_S: Final = 0.02
_SLOWEST_POLL_S: Final = 0.25


class Difference(msgspec.Struct, frozen=True):
    """What a source offered differently at two times."""

    before_snapshot_id: UUID
    after_snapshot_id: UUID
    changes: list[Change]


class StillLooking(msgspec.Struct, frozen=True):
    """The look that was asked for goes on."""

    connection_id: UUID
    source_id: UUID
    status: str = "observing"


class SchemaObserver:
    """Looks at sources when asked, and tells how they are looked at."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, scheduling: Scheduler
    ) -> None:
        self._every = settings.observe_interval
        self._db = db
        self._discoveries = Discoveries(settings, db, airbyte)
        self._scheduling = scheduling

    async def observe(
        self, connection_id: UUID, *, believe: bool, wait: float
    ) -> str | StillLooking:
        """Look at a connection's source now; what was found, as JSON, or that it takes longer.

        Here, if the workspace has a slot free; else the source is the next that anybody looks at.
        With `believe` the look that begins now is trusted, whatever is missing.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is not ACTIVE or HEALING, or is archived: its source is not looked at.
            SyncRunning: a sync of the source runs, and its connector renews tokens.
            TooManyRequests: `discovery_quota`: the source's daily limit is reached.
            Unavailable: the registry is away, or this process ends.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        source_id = _expect_watched(row)
        await self._discoveries.expect_observable(source_id, beside_sync=believe)
        async with self._db.transaction() as session:
            asked = await observation_queries.ask_for_source(
                session, row, is_believed=believe, joins_within=_JOINS_WITHIN
            )
            if believe:
                change = {"believe": True}
                await registry.record_setting_change(session, "observation", row.id, change)
        if not await self._is_looked_at(source_id, asked, wait=wait, beside_sync=believe):
            return StillLooking(connection_id, source_id)
        async with self._db.read() as session:
            return await observation_queries.look_json(session, connection_id)

    async def _is_looked_at(
        self, source_id: UUID, asked: Asked, *, wait: float, beside_sync: bool
    ) -> bool:
        """Whether a look that answers the question has ended within the time."""
        clock = asyncio.get_running_loop().time
        until, pause = clock() + wait, _FIRST_POLL_S
        while not await self._is_answered(source_id, asked):
            if self._scheduling.is_stopping:
                raise Unavailable("This process ends; another one looks at the source.")
            task = await self._scheduling.look_now(
                source_id, asked.workspace_id, unanswered_since=asked.since
            )
            left = until - clock()
            if left <= 0:
                return False
            if task is not None:
                await asyncio.wait({task}, timeout=left)
                if task.done() and not task.cancelled():
                    task.result()  # a bug is the caller's to see
                if task.done() and not await self._is_answered(source_id, asked):
                    # It was put off, for one of these reasons or another discovery.
                    await self._discoveries.expect_observable(source_id, beside_sync=beside_sync)
                    await asyncio.sleep(min(_SLOWEST_POLL_S, left))
            else:
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _SLOWEST_POLL_S)
        return True

    async def _is_answered(self, source_id: UUID, asked: Asked) -> bool:
        async with self._db.read() as session:
            return await observation_queries.answered_since(session, source_id, asked.since)

    async def observation(self, connection_id: UUID, *, is_explained: bool) -> str:
        """How a connection's source is looked at, as JSON; why it failed where `is_explained`.

        Raises:
            NotFound: there is no such connection.
        """
        async with self._db.read() as session:
            return await observation_queries.observation_json(
                session, connection_id, every=self._every, is_explained=is_explained
            )

    async def watch(self, connection_id: UUID, interval: timedelta | None) -> str:
        """Say how often a connection's source is looked at; None for the default. The new state.

        A source is looked at as often as the most impatient of its connections wants.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived.
        """
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            await observation_queries.watch(session, connection_id, interval)
            seconds = None if interval is None else int(interval.total_seconds())
            change = {"interval_seconds": seconds}
            await registry.record_setting_change(session, "observation", row.id, change)
        if row.airbyte_source_id is not None:
            # Apart: the end of a look locks the source before its connections.
            async with self._db.transaction() as session:
                await observation_queries.hurry_source(
                    session, row.airbyte_source_id, every=self._every
                )
        return await self.observation(connection_id, is_explained=True)

    async def diff(self, connection_id: UUID, before: UUID, after: UUID) -> Difference:
        """What a connection's source offered differently at two times.

        Raises:
            NotFound: there is no such connection, or its source has no such snapshot.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            ours = await drift_queries.snapshot_of(session, row, before)
            theirs = await drift_queries.snapshot_of(session, row, after)
        return Difference(before, after, await difference(self._db, ours, theirs))


def _expect_watched(row: Connection) -> UUID:
    """The source to look at."""
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    is_live = row.status in (ConnectionStatus.ACTIVE, ConnectionStatus.HEALING)
    if not is_live or row.airbyte_source_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; its source is not looked at.")
    return row.airbyte_source_id
