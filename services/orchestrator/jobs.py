"""Single jobs of a connection: reads their logs, cancels them, and refreshes streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import job_queries
from services.orchestrator.credentials import OrderNote
from services.orchestrator.job_history import expect_own
from services.orchestrator.job_schemas import FailureView, JobLogView, Refresh, RefreshedStream
from services.orchestrator.log_masking import masked
from services.orchestrator.preflight import answered_soon
from services.orchestrator.sagas.cancel import Cancel, CancelSaga
from services.orchestrator.sagas.refresh import RefreshOrder, RefreshSaga
from services.orchestrator.service import Orchestrator, expect_active
from services.orchestrator.volumes import Volumes
from shared import registry
from shared.airbyte_client import AirbyteClient, ConnectorError, LoggedAttempt
from shared.auth import scopes
from shared.auth.scopes import Scope
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, ConfiguredStream, InvalidCatalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.domain.did_you_mean import did_you_mean
from shared.errors import Conflict, Invalid, NotActive
from shared.models import Connection
from shared.operations import HttpResult, Intent, Key, Operations

_MOST_FAILURES: Final = 20
_MOST_NAMED: Final = 10
"""The most streams that an effect names."""
REFRESH_UNSUPPORTED: Final = "refresh_unsupported"


class Jobs:
    """What callers can do with single jobs."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        operations: Operations,
        service: Orchestrator,
        volumes: Volumes,
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        self._service = service
        self.volumes = volumes
        operations.register("cancel", CancelSaga(settings, db, airbyte, volumes))
        operations.register("refresh", RefreshSaga(settings, db, airbyte))

    async def log(
        self,
        connection_id: UUID,
        job_id: UUID,
        *,
        attempt: int | None,
        before: int | None,
        limit: int,
    ) -> JobLogView:
        """The last lines of an attempt's log, masked, with the connector's errors.

        `attempt` is its number, from 0; None for the last one. `before` is the number of the line
        that follows the page; None for the end of the log.

        Raises:
            NotFound: the connection has no such job, or Airbyte has another one by its id.
            Invalid: the job has no such attempt.
            Upstream: Airbyte is unavailable, or no longer has the job.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            recorded = await job_queries.job_of(session, connection_id, job_id)
            airbyte_job_id = recorded.airbyte_job_id
        job = await self._airbyte.get_job_with_logs(airbyte_job_id)
        expect_own(job, row)
        chosen = _attempt(job.attempts, attempt)
        names = await self._names(row)
        lines = [] if chosen is None else chosen.lines
        end = len(lines) if before is None else min(before, len(lines))
        start = max(end - limit, 0)
        return JobLogView(
            job_id=job_id,
            airbyte_job_id=airbyte_job_id,
            status=job.status,
            attempt=None if chosen is None else chosen.number,
            attempts=len(job.attempts),
            failures=[
                _failure(one, names)
                for one in ([] if chosen is None else chosen.failures[:_MOST_FAILURES])
            ],
            items=[masked(line, names) for line in lines[start:end]],
            next=str(start) if start else None,
        )

    async def _names(self, row: Connection) -> frozenset[str]:
        """The names of the connection's streams and fields, which its catalog shows anyway."""
        catalog = await self._catalog(row)
        words = await asyncio.to_thread(lambda: frozenset(_words(catalog)))
        return words | {
            str(one)
            for one in (
                row.airbyte_connection_id,
                row.airbyte_source_id,
                row.airbyte_destination_id,
            )
        }

    async def _catalog(self, row: Connection) -> Catalog:
        """The connection's newest catalog; an empty one before the first version."""
        if row.catalog_version == 0:
            return Catalog(streams=())
        async with self._db.read() as session:
            head = await registry.read_version(session, row.id, row.catalog_version)
        return await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))

    async def cancel(
        self, connection_id: UUID, job_id: UUID, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Cancel a job that has not ended.

        Raises:
            NotFound: the connection has no such job, or Airbyte has another one by its id.
            Conflict: `job_ended`; `job_status` is how it ended.
            NotActive: the connection is busy with another operation.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            recorded = await job_queries.job_of(session, connection_id, job_id)
            airbyte_job_id, status = recorded.airbyte_job_id, recorded.status
            has_ended = recorded.ended_at is not None
        if not has_ended:
            async with answered_soon():
                job = await self._airbyte.get_job(airbyte_job_id)
            expect_own(job, row)
            has_ended, status = job.ended, job.status
        if has_ended:
            raise _ended(job_id, status)
        order = Cancel(job_id, airbyte_job_id)

        async def gate(session: AsyncSession, _operation_id: UUID) -> None:
            await registry.lock_connection(session, connection_id, even_archived=True)
            now = await job_queries.job_of(session, connection_id, job_id)
            if now.ended_at is not None:
                raise _ended(job_id, now.status)

        begun = await self._operations.begin(Intent("cancel", connection_id, order, key=key), gate)
        return await self._operations.outcome(begun, wait=wait)

    async def refresh(
        self, connection_id: UUID, order: Refresh, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Start one job that reads streams again from their start; it is followed to its end.

        Raises:
            NotFound: there is no such connection.
            Forbidden: it removes rows, and the caller may not change connections.
            Invalid: it does not sync such a stream incrementally, or the destination does not
                support refreshes.
            NotActive: its status does not allow a sync now, or it is paused.
            SyncRunning: a job is running already.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        if order.mode == "truncate":
            scopes.require(Scope.CONNECTIONS_WRITE)
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        airbyte_connection_id = expect_active(row)
        streams, effects = _refreshed(await self._catalog(row), order)
        async with answered_soon():
            status = (await self._airbyte.get_connection(airbyte_connection_id)).status
            is_supported = await self._airbyte.supports_refreshes(row.airbyte_destination_id)
        if status != "active":
            raise NotActive(f"Connection {connection_id} is not active in Airbyte.")
        if not is_supported:
            raise Invalid(
                f"The destination of connection {connection_id} does not support refreshes.",
                code=REFRESH_UNSUPPORTED,
            )
        newest_job_id = await self._service.expect_no_job(connection_id, airbyte_connection_id)
        request = RefreshOrder(
            airbyte_connection_id=airbyte_connection_id,
            asked_at=datetime.now(UTC),
            newest_job_id=newest_job_id,
            streams=streams,
            mode="Truncate" if order.mode == "truncate" else "Merge",
            effects=effects,
        )

        async def gate(session: AsyncSession, _operation_id: UUID) -> None:
            now = await registry.lock_connection(session, connection_id)
            expect_active(now)
            if now.catalog_version != row.catalog_version:
                raise Conflict(
                    f"Connection {connection_id} got another catalog in the meantime: try again.",
                    code="changed_meanwhile",
                )

        begun = await self._operations.begin(
            Intent("refresh", connection_id, request, key=key), gate
        )
        return await self._operations.outcome(begun, wait=wait)


def _attempt(attempts: Sequence[LoggedAttempt], number: int | None) -> LoggedAttempt | None:
    if number is None:
        return attempts[-1] if attempts else None
    for one in attempts:
        if one.number == number:
            return one
    raise Invalid(f"The job has {len(attempts)} attempts, numbered from 0.", code="unknown_attempt")


def _failure(error: ConnectorError, names: frozenset[str]) -> FailureView:
    def shown(text: str | None) -> str | None:
        return None if text is None else masked(" ".join(text.split()), names)

    return FailureView(
        type=shown(error.failure_type),
        origin=shown(error.origin),
        stream=shown(error.stream),
        message=shown(error.message),
        internal_message=shown(error.internal_message),
    )


def _words(catalog: Catalog) -> Iterable[str]:
    for stream in catalog.streams:
        yield stream.stream.name
        if stream.stream.namespace:
            yield stream.stream.namespace
        with suppress(InvalidCatalog):
            yield from stream.stream.fields() or ()


def _ended(job_id: UUID, status: str) -> Conflict:
    return Conflict(f"Job {job_id} has ended: it is {status}.", code="job_ended", job_status=status)


def _find(catalog: Catalog, wanted: RefreshedStream, number: int) -> ConfiguredStream:
    """The stream that a request names; its namespace may be left out if the name is unique.

    Raises:
        Invalid: the connection syncs no such stream, or several.
    """
    found = [
        one
        for one in catalog.streams
        if one.stream.name == wanted.name and wanted.namespace in (None, one.stream.namespace)
    ]
    if len(found) > 1:
        raise Invalid.of(
            f"streams.{number}",
            f"{len(found)} streams have this name; give the `namespace` of one.",
            code="ambiguous_stream",
        )
    if not found:
        nearest = did_you_mean(wanted.name, [one.stream.name for one in catalog.streams])
        raise Invalid.of(
            f"streams.{number}",
            f"The connection syncs no such stream{nearest}",
            code="unknown_stream",
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _refreshed(catalog: Catalog, order: Refresh) -> tuple[list[StreamId], list[OrderNote]]:
    """The streams to refresh, each of which must be synced incrementally, and the effects.

    Raises:
        Invalid: the connection does not sync such a stream, or not incrementally.
    """
    chosen: list[StreamId] = []
    appended: list[str] = []
    for number, one in enumerate(order.streams):
        configured = _find(catalog, one, number)
        if configured.config.sync_mode != "incremental":
            raise Invalid.of(
                f"streams.{number}",
                f"Stream {configured.stream.name} is read as a whole by each sync, so it needs no "
                "refresh.",
                code="stream_not_incremental",
            )
        chosen.append(configured.id)
        if configured.config.destination_sync_mode == "append":
            appended.append(configured.stream.name)
    names = _listed([one.name for one in chosen])
    effects = [
        OrderNote(
            code="streams_read_again",
            message=f"The job reads {names} from the start, and syncs the other streams as usual.",
        )
    ]
    if order.mode == "truncate":
        effects.append(
            OrderNote(
                code="older_rows_removed",
                message=f"When the job has succeeded, the tables of {names} have only the rows "
                "that it read: the rows of all earlier syncs are removed.",
            )
        )
    elif appended:
        effects.append(
            OrderNote(
                code="rows_twice",
                message=f"Rows of {_listed(appended)} are appended to those that are there, so "
                "rows that were synced before occur twice.",
            )
        )
    return list(dict.fromkeys(chosen)), effects
