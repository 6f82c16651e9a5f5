"""Imports connections that already exist in Airbyte, so that AAM tracks their schemas.

Airbyte is only read, never changed; version 1 is the catalog that it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from itertools import islice
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import import_queries, reconciliation_queries
from services.orchestrator.catalog_reconciler import naming_in
from services.orchestrator.import_queries import PendingItem
from services.orchestrator.sagas.edit import MARKER
from services.orchestrator.schemas import (
    ImportedView,
    ImportOutcome,
    ImportReport,
    SelectedView,
    SharedTableView,
)
from shared import batches, outbox, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection
from shared.auth import scopes
from shared.config import Settings
from shared.database import Database
from shared.destinations import DestinationReader, shared_tables
from shared.domain import catalog as catalogs
from shared.domain.catalog import StreamId
from shared.domain.cooperative import run_cooperatively
from shared.domain.destination import tables
from shared.errors import (
    AamError,
    Conflict,
    Invalid,
    Unavailable,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.models import Connection, ConnectionStatus, OperationStatus, VersionOrigin
from shared.operations import HttpResult, Intent, Key, Operation, Operations
from shared.outbox import EventType

_MOST_NAMED = 200
"""Maximum streams of one connection whose fields the report lists."""

_AWAY = (UpstreamUnreachable, UpstreamUnknown, Unavailable)
_STEP_S = 10.0
"""How long one step processes items; between steps the lease is renewed."""
_AT_ONCE = 100
_FIRST_PAGE = 100


class _Imported(msgspec.Struct, frozen=True):
    """The stored result of an import; its report is read from the items."""

    operation_id: UUID


class ImportOrder(msgspec.Struct, frozen=True):
    """Which workspace an operation imports."""

    workspace_id: UUID
    dry_run: bool
    adopt: bool = False
    """Whether to import what AAM created, and nothing else, as connections of its own."""


class Importing:
    """Imports connections that were created in Airbyte outside AAM."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, operations: Operations
    ) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._destinations = DestinationReader(airbyte)
        self._operations = operations
        operations.register("import", self)

    async def one(
        self, airbyte_connection_id: UUID, *, dry_run: bool, adopt: bool = False
    ) -> ImportReport:
        """Import a connection by Airbyte's id.

        Raises:
            Invalid: Airbyte has no such connection, or its catalog is invalid or selects nothing.
            Conflict: it is imported already, or its name is taken.
        """
        known = await self._known(airbyte_connection_id)
        if known is not None:
            raise Conflict(
                f"Airbyte's connection {airbyte_connection_id} is already managed by AAM.",
                code="already_managed",
                connection_id=known,
            )
        result = await self._import(
            airbyte_connection_id,
            dry_run=dry_run,
            adopt=adopt,
            requested_by=scopes.requested_by(),
        )
        return ImportReport(
            dry_run=dry_run,
            status=OperationStatus.DONE,
            outcomes={result.outcome: 1},
            items=[result],
        )

    async def workspace(self, order: ImportOrder, *, key: Key | None, wait: float) -> HttpResult:
        """Import every connection of a workspace that can be, by an operation.

        The result is the first page of its report, or 202 while it runs.

        Raises:
            ImportRunning: the workspace is being imported already.
            Unavailable: the registry is unavailable; nothing was recorded.
        """
        begun = await self._operations.replayed(key) or await self._operations.begin(
            Intent("import", None, order, key=key), _nothing_else
        )
        ended = await self._operations.outcome(begun, wait=wait)
        if ended.status != HTTPStatus.OK:
            return ended
        operation_id = msgspec.json.decode(ended.body, type=_Imported).operation_id
        report = await self.report(operation_id, outcome=None, after=None, limit=_FIRST_PAGE)
        return HttpResult(ended.status, report, is_replay=ended.is_replay)

    async def report(
        self, operation_id: UUID, *, outcome: ImportOutcome | None, after: int | None, limit: int
    ) -> str:
        """An import's progress and a page of what it found, as JSON text.

        Raises:
            NotFound: there is no such import.
        """
        async with self._db.read() as session:
            return await import_queries.report(
                session, operation_id, outcome=outcome, after=after, limit=limit
            )

    # The operation

    async def run(self, operation: Operation) -> None:
        """List the workspace's connections once, then process each that has no outcome."""
        order = msgspec.json.decode(operation.request, type=ImportOrder)

        async def list_connections() -> dict[str, int]:
            listed = await self._airbyte.list_connections(order.workspace_id)
            listed = [one for one in listed if one.status != "deprecated"]
            async with self._db.transaction() as session:
                await import_queries.insert_items(session, operation.id, listed)
            return {"listed": len(listed)}

        async def process() -> bool:
            return await self._process(operation, order)

        await operation.once("list", list_connections, within=_STEP_S + 10 * self._call_s)
        while not await operation.once("items", process, within=_STEP_S + 5 * self._call_s):
            operation.forget("items")
        async with self._db.transaction() as session:
            body = msgspec.json.encode(_Imported(operation.id), enc_hook=str).decode()
            await operation.finish(session, status=HTTPStatus.OK, body=body)

    async def undo(self, operation: Operation) -> None:
        """End the operation; what was imported stays, and another import continues."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """End the operation; what was imported stays."""
        async with self._db.transaction() as session:
            await operation.finish(session)

    async def _process(self, operation: Operation, order: ImportOrder) -> bool:
        """Process items for a while; return whether all have an outcome.

        An item that fails is reported as such, unless Airbyte is unavailable for all.

        Raises:
            UpstreamUnreachable, UpstreamUnknown, Unavailable: Airbyte or the registry is
                unavailable; the remaining items are still pending.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + _STEP_S
        away: AamError | None = None

        async def run(item: PendingItem) -> None:
            nonlocal away
            if away is not None or clock() >= until:
                return
            try:
                await self._process_one(operation, item, order)
            except _AWAY:
                try:
                    await self._airbyte.health()
                except _AWAY as error:
                    away = error
                else:
                    raise

        async with self._db.read() as session:
            pending = await import_queries.pending_items(session, operation.id, limit=_AT_ONCE)
        outcomes = await batches.each(
            pending,
            run,
            log_event="not_imported",
            fields=lambda item: {"id": str(item.airbyte_connection_id)},
        )
        failed = [one for one in outcomes if one.error is not None]
        async with self._db.transaction() as session:
            for one in failed:
                code = batches.code_of(one.error) if one.error is not None else None
                result = _outcome(one.item, "failed", code=code)
                await import_queries.record_outcome(
                    session, operation.id, one.item.position, result
                )
        if away is not None:
            raise away
        return not pending

    async def _process_one(
        self, operation: Operation, item: PendingItem, order: ImportOrder
    ) -> None:
        """Import one connection, or find why it cannot be, and record the outcome.

        Raises:
            AamError: it could not be read or recorded now.
        """

        async def record(session: AsyncSession, result: ImportedView) -> bool:
            return await import_queries.record_outcome(session, operation.id, item.position, result)

        try:
            known = await self._known(item.airbyte_connection_id)
            result = (
                _outcome(item, "already_managed", connection_id=known)
                if known is not None
                else await self._import(
                    item.airbyte_connection_id,
                    dry_run=order.dry_run,
                    adopt=order.adopt,
                    requested_by=operation.requested_by,
                    record=record,
                )
            )
        except (Invalid, Conflict) as error:
            result = _outcome(item, "not_importable", code=error.code)
        if result.outcome != "imported":  # which is recorded with the connection
            async with self._db.transaction() as session:
                await record(session, result)

    async def _import(
        self,
        airbyte_connection_id: UUID,
        *,
        dry_run: bool,
        adopt: bool,
        requested_by: str | None,
        record: Callable[[AsyncSession, ImportedView], Awaitable[bool]] | None = None,
    ) -> ImportedView:
        """Import one connection; `record` is called in the transaction that inserts it.

        If `record` returns False, nothing is inserted.
        """
        held = await self._held(airbyte_connection_id)
        if adopt and MARKER.search(held.name) is None:
            raise Invalid("AAM did not create it.", code="not_created_by_aam")
        source = await self._airbyte.get_source(held.source_id)
        source_type = source.source_name or str(source.source_definition_id)
        async with self._db.read() as session:
            exclusions = await registry.exclusions_of_type(session, source_type)
        fingerprint, selected, streams = await _read(held, exclusions)
        shared = await self._shared_tables(held, streams)
        if dry_run:
            return _outcome(held, "would_import", never_selected=selected, shared_tables=shared)
        connection = Connection(
            id=uuid4(),
            name=MARKER.sub("", held.name) if adopt else held.name,
            source_type=source_type,
            source_definition_id=source.source_definition_id,
            credential_id=None,
            airbyte_destination_id=held.destination_id,
            airbyte_source_id=held.source_id,
            airbyte_connection_id=airbyte_connection_id,
            imported=not adopt,
        )
        result = _outcome(
            held,
            "imported",
            connection_id=connection.id,
            never_selected=selected,
            shared_tables=shared,
        )
        async with self._db.transaction() as session:
            if record is not None and not await record(session, result):
                return result
            await registry.insert_pending(session, connection)
            row = await registry.lock_connection(session, connection.id)
            row.airbyte_source_id = held.source_id
            row.airbyte_connection_id = airbyte_connection_id
            row.airbyte_workspace_id = source.workspace_id
            row.imported = not adopt
            row.labels = await registry.former_labels(session, row.id)
            registry.save_naming(row, naming_in(held))
            registry.append_version(
                session,
                row,
                held.sync_catalog,
                expected_version=0,
                fingerprint=fingerprint,
                origin=VersionOrigin.IMPORT,
                snapshot_id=None,
                requested_by=requested_by,
            )
            row.status = ConnectionStatus.ACTIVE
            outbox.record(session, EventType.CONNECTION_IMPORTED, row)
        return result

    async def _shared_tables(
        self, held: AirbyteConnection, streams: Sequence[StreamId]
    ) -> list[SharedTableView]:
        """The streams whose table a connection of AAM's writes already."""
        destination = await self._destinations.read(held.destination_id)
        made = tables(destination, streams, naming_in(held))
        found = await shared_tables(
            self._db, destination, held.destination_id, made, excluding=UUID(int=0)
        )
        return [
            SharedTableView(
                stream={"namespace": stream.namespace, "name": stream.name},
                message=judgement.message,
            )
            for stream, judgement in islice(found.items(), _MOST_NAMED)
        ]

    async def _known(self, airbyte_connection_id: UUID) -> UUID | None:
        """The AAM connection that already uses this Airbyte connection."""
        async with self._db.read() as session:
            known = await reconciliation_queries.connections_in_airbyte(
                session, [airbyte_connection_id]
            )
        return known.get(airbyte_connection_id)

    async def _held(self, airbyte_connection_id: UUID) -> AirbyteConnection:
        try:
            held = await self._airbyte.get_connection(airbyte_connection_id)
        except (UpstreamMissing, UpstreamForbidden):
            held = None
        if held is None or held.status == "deprecated":
            raise Invalid(
                f"Airbyte has no connection {airbyte_connection_id}.",
                code="unknown_airbyte_connection",
            )
        return held


async def _nothing_else(_session: AsyncSession, _operation_id: UUID) -> None:
    """Nothing is recorded with the operation itself."""


def _outcome(
    one: PendingItem | AirbyteConnection,
    outcome: ImportOutcome,
    *,
    connection_id: UUID | None = None,
    code: str | None = None,
    never_selected: Sequence[SelectedView] = (),
    shared_tables: Sequence[SharedTableView] = (),
) -> ImportedView:
    return ImportedView(
        airbyte_connection_id=(
            one.airbyte_connection_id if isinstance(one, PendingItem) else one.connection_id
        ),
        name=one.name,
        outcome=outcome,
        connection_id=connection_id,
        code=code,
        never_selected=list(never_selected),
        shared_tables=list(shared_tables),
    )


async def _read(
    held: AirbyteConnection, exclusions: catalogs.Exclusions
) -> tuple[str, list[SelectedView], list[StreamId]]:
    """The fingerprint of Airbyte's catalog, fields that are never selected, selected streams."""
    try:
        catalog = await run_cooperatively(catalogs.parse.steps(held.sync_catalog))
        if not catalog.selected().streams:
            raise Invalid("It selects no stream.", code="no_selected_stream")
        fingerprint = await run_cooperatively(
            catalogs.document_fingerprint.steps(held.sync_catalog)
        )
    except catalogs.InvalidCatalog as error:
        raise Invalid(str(error), code=error.code) from None
    selected = await never_selected(catalog, exclusions)
    return fingerprint, selected, [stream.id for stream in catalog.selected().streams]


async def never_selected(
    catalog: catalogs.Catalog, exclusions: catalogs.Exclusions
) -> list[SelectedView]:
    """The fields that a catalog of Airbyte's selects although the policy never does."""
    found = await run_cooperatively(exclusions.carried(catalog))
    return [
        SelectedView(
            stream={"namespace": stream.namespace, "name": stream.name}, fields=list(fields)
        )
        for stream, fields in islice(found.items(), _MOST_NAMED)
    ]
