"""Operations of the API: observe now, set the interval, and compare snapshots."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from services.schema_observer import claim_queries, drift_queries, observation_queries
from services.schema_observer.claim_queries import Asked
from services.schema_observer.drift_detection import difference, differing_streams
from services.schema_observer.scheduler import Scheduler
from services.schema_observer.schemas import ObservationContinues
from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.auth import label_limits
from shared.config import Settings
from shared.database import Database
from shared.discoveries import Discoveries
from shared.domain.catalog import StreamId
from shared.domain.drift import Change
from shared.errors import NotActive, Unavailable
from shared.http.diff_pages import DiffSummary, counted, window
from shared.models import Connection, ConnectionStatus, Snapshot

_JOINS_WITHIN: Final = timedelta(seconds=1)
"""An older running observation may have read the source before the change that the caller means."""
_FIRST_POLL_S: Final = 0.02
_SLOWEST_POLL_S: Final = 0.25


class Difference(msgspec.Struct, frozen=True):
    """The changes between two snapshots of a source."""

    before_snapshot_id: UUID
    after_snapshot_id: UUID
    changes: list[Change]
    next: str | None = None


class SchemaObserver:
    """Observes sources on request, and reports how they are observed."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, scheduling: Scheduler
    ) -> None:
        self._every = settings.observe_interval
        self._db = db
        self._discoveries = Discoveries(settings, db, airbyte)
        self._scheduling = scheduling

    async def observe(
        self, connection_id: UUID, *, accept_missing: bool, wait: float
    ) -> str | ObservationContinues:
        """Observe a connection's source now; return the result as JSON if it ends within `wait`.

        `wait` is in seconds. The observation runs in this process if the workspace has a free slot;
        otherwise the source is the next one to be observed. With `accept_missing`, its result is
        trusted, whatever is missing.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is not ACTIVE or HEALING, or is archived: its source is not observed.
            LabelLimited: `accept_missing`, and the source has a connection that the caller may not
                see.
            SyncRunning: a sync of the source is running, and its connector renews tokens.
            TooManyRequests: `discovery_quota`: the source's daily limit is reached.
            Unavailable: the registry is unavailable, or this process is stopping.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        source_id = _expect_watched(row)
        if accept_missing:
            await registry.expect_no_hidden_connection(self._db, source_id)
        with label_limits.registry_wide():  # a source may have other connections
            is_observed = await self._observe(
                row, source_id, accept_missing=accept_missing, wait=wait
            )
        if not is_observed:
            return ObservationContinues(
                connection_id=connection_id, source_id=source_id, status="observing"
            )
        async with self._db.read() as session:
            return await observation_queries.result_json(session, connection_id)

    async def _observe(
        self, row: Connection, source_id: UUID, *, accept_missing: bool, wait: float
    ) -> bool:
        """Request an observation; whether it has ended within `wait` seconds."""
        await self._discoveries.expect_observable(source_id, beside_sync=accept_missing)
        async with self._db.transaction() as session:
            asked = await claim_queries.ask_for_source(
                session, row, accepts_missing=accept_missing, joins_within=_JOINS_WITHIN
            )
            if accept_missing:
                change = {"accept_missing": True}
                await registry.record_setting_change(session, "observation", row.id, change)
        return await self._is_observed(source_id, asked, wait=wait, beside_sync=accept_missing)

    async def _is_observed(
        self, source_id: UUID, asked: Asked, *, wait: float, beside_sync: bool
    ) -> bool:
        """Whether an observation that satisfies the request has ended within `wait` seconds."""
        clock = asyncio.get_running_loop().time
        until, pause = clock() + wait, _FIRST_POLL_S
        while not await self._is_answered(source_id, asked):
            if self._scheduling.is_stopping:
                raise Unavailable("This process is stopping; another one observes the source.")
            task = await self._scheduling.observe_now(
                source_id, asked.workspace_id, unanswered_since=asked.since
            )
            left = until - clock()
            if left <= 0:
                return False
            if task is not None:
                await asyncio.wait({task}, timeout=left)
                if task.done() and not task.cancelled():
                    task.result()  # a bug in the observation fails the request
                if task.done() and not await self._is_answered(source_id, asked):
                    # It was postponed: raise why, unless only another discovery is in its way.
                    await self._discoveries.expect_observable(source_id, beside_sync=beside_sync)
                    await asyncio.sleep(min(_SLOWEST_POLL_S, left))
            else:
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _SLOWEST_POLL_S)
        return True

    async def _is_answered(self, source_id: UUID, asked: Asked) -> bool:
        async with self._db.read() as session:
            return await claim_queries.answered_since(session, source_id, asked.since)

    async def observation(self, connection_id: UUID, *, is_explained: bool) -> str:
        """A connection's observation status as JSON, with failure details if `is_explained`.

        Raises:
            NotFound: there is no such connection.
        """
        async with self._db.read() as session:
            return await observation_queries.observation_json(
                session, connection_id, every=self._every, is_explained=is_explained
            )

    async def observations(
        self, shown: observation_queries.ObservationFilter, *, limit: int
    ) -> str:
        """A page of sources with the state of their observation, as JSON."""
        async with self._db.read() as session:
            return await observation_queries.page_of_observations(
                session, shown, every=self._every, limit=limit
            )

    async def watch(self, connection_id: UUID, interval: timedelta | None) -> str:
        """Set how often a connection's source is observed; None restores the default.

        If several connections share a source, the shortest interval applies. Returns the new
        observation status as JSON.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived.
        """
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            await claim_queries.watch(session, connection_id, interval)
            seconds = None if interval is None else int(interval.total_seconds())
            change = {"interval_seconds": seconds}
            await registry.record_setting_change(session, "observation", row.id, change)
        if row.airbyte_source_id is not None:
            # A separate transaction: ending an observation locks the source before connections.
            with label_limits.registry_wide():  # the shortest interval of its connections applies
                async with self._db.transaction() as session:
                    await claim_queries.advance_source(
                        session, row.airbyte_source_id, every=self._every
                    )
        return await self.observation(connection_id, is_explained=True)

    async def diff(
        self,
        connection_id: UUID,
        before: UUID,
        after: UUID,
        *,
        only: StreamId | None = None,
        position: int = 0,
        limit: int | None = None,
    ) -> Difference:
        """The changes between two snapshots of a connection's source, or a page of them.

        `only` is the one stream to compare; `position` is the number of changes before the page.

        Raises:
            NotFound: there is no such connection, or its source has no such snapshot.
        """
        ours, theirs = await self._snapshots(connection_id, before, after)
        names = None if only is None else [only.name]
        changes = await difference(self._db, ours, theirs, names=names)
        if only is not None:
            changes = [change for change in changes if change.stream == only]
        listed, following = window(changes, after=position, limit=limit)
        return Difference(before, after, list(listed), following)

    async def diff_summary(
        self,
        connection_id: UUID,
        before: UUID,
        after: UUID,
        *,
        search: str | None,
        position: StreamId | None,
        limit: int,
    ) -> DiffSummary:
        """The number of changes of each stream, for a page of the streams that differ.

        Raises:
            NotFound: as `diff`.
        """
        ours, theirs = await self._snapshots(connection_id, before, after)
        part = (search or "").casefold()
        streams = [
            stream
            for stream in sorted(
                await differing_streams(self._db, ours, theirs), key=lambda one: one.order
            )
            if part in stream.name.casefold() or part in (stream.namespace or "").casefold()
            if position is None or stream.order > position.order
        ]
        listed = streams[:limit]
        names = {stream.name for stream in listed}
        changes = await difference(self._db, ours, theirs, names=names)
        return DiffSummary(
            items=counted(change for change in changes if change.stream in set(listed)),
            next=registry.stream_cursor(listed[-1]) if streams[limit:] else None,
        )

    async def _snapshots(
        self, connection_id: UUID, before: UUID, after: UUID
    ) -> tuple[Snapshot, Snapshot]:
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            return (
                await drift_queries.snapshot_of(session, row, before),
                await drift_queries.snapshot_of(session, row, after),
            )


def _expect_watched(row: Connection) -> UUID:
    """The connection's source, if it is observed.

    Raises:
        NotActive: the connection is archived, or neither ACTIVE nor HEALING.
    """
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    is_live = row.status in (ConnectionStatus.ACTIVE, ConnectionStatus.HEALING)
    if not is_live or row.airbyte_source_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; its source is not observed.")
    return row.airbyte_source_id
