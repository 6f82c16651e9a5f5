"""Imports connections that already exist in Airbyte, so that AAM tracks their schemas.

Airbyte is only read, never changed; version 1 is the catalog that it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from uuid import UUID, uuid4

from services.orchestrator import reconciliation_queries
from services.orchestrator.schemas import ImportedView, ImportOutcome, SelectedView
from shared import batches, outbox, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection, ListedConnection
from shared.auth import scopes
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively
from shared.errors import (
    Conflict,
    Invalid,
    Unavailable,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.models import Connection, ConnectionStatus, VersionOrigin
from shared.outbox import EventType

_MOST_NAMED = 200
"""Maximum streams of one connection whose fields the report lists."""

_AWAY = (UpstreamUnreachable, UpstreamUnknown, Unavailable)
_GIVE_UP_AFTER = 3
"""Consecutive reads that may fail because Airbyte or the registry is unavailable."""


class Importing:
    """Imports connections that were created in Airbyte outside AAM."""

    def __init__(
        self, db: Database, airbyte: AirbyteClient, *, within: timedelta = timedelta(minutes=30)
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._within_s = within.total_seconds()

    async def one(self, airbyte_connection_id: UUID, *, dry_run: bool) -> ImportedView:
        """Import a connection by Airbyte's id.

        Raises:
            Invalid: Airbyte has no such connection, or its catalog is invalid or selects nothing.
            Conflict: it is imported already, or its name is taken.
        """
        result = await self._import(airbyte_connection_id, dry_run=dry_run)
        if result.outcome == "already_managed":
            raise Conflict(
                f"Airbyte's connection {airbyte_connection_id} is already managed by AAM.",
                code="already_managed",
                connection_id=result.connection_id,
            )
        return result

    async def all_of(self, workspace_id: UUID, *, dry_run: bool) -> list[ImportedView]:
        """Import every connection of a workspace that can be; report the others with the reason.

        Connections not reached in time are reported as `skipped`. Another import continues with
        them, since skipping known connections is cheap.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + self._within_s
        listed = await self._airbyte.list_connections(workspace_id)
        away_in_a_row = 0

        async def run(one: ListedConnection) -> ImportedView:
            nonlocal away_in_a_row
            if away_in_a_row >= _GIVE_UP_AFTER or clock() >= until:
                return _outcome(one, "failed", code="skipped")
            try:
                known = await self._known(one.connection_id)
                if known is not None:
                    return _outcome(one, "already_managed", connection_id=known)
                result = await self._import(one.connection_id, dry_run=dry_run)
            except (Invalid, Conflict) as error:
                result = _outcome(one, "not_importable", code=error.code)
            except _AWAY:
                away_in_a_row += 1
                raise
            away_in_a_row = 0
            return result

        outcomes = await batches.each(
            [one for one in listed if one.status != "deprecated"],
            run,
            log_event="not_imported",
            fields=lambda one: {"id": str(one.connection_id)},
        )
        return [
            outcome.result
            or _outcome(
                outcome.item,
                "failed",
                code=None if outcome.error is None else batches.code_of(outcome.error),
            )
            for outcome in outcomes
        ]

    async def _import(self, airbyte_connection_id: UUID, *, dry_run: bool) -> ImportedView:
        known = await self._known(airbyte_connection_id)
        held = await self._held(airbyte_connection_id)
        if known is not None:
            return _outcome(held, "already_managed", connection_id=known)
        source = await self._airbyte.get_source(held.source_id)
        fingerprint, selected = await _read(held)
        if dry_run:
            return _outcome(held, "would_import", never_selected=selected)
        connection = Connection(
            id=uuid4(),
            name=held.name,
            source_type=source.source_name or str(source.source_definition_id),
            credential_id=None,
            airbyte_destination_id=held.destination_id,
            airbyte_source_id=held.source_id,
            airbyte_connection_id=airbyte_connection_id,
            imported=True,
        )
        async with self._db.transaction() as session:
            await registry.insert_pending(session, connection)
            row = await registry.lock_connection(session, connection.id)
            row.airbyte_source_id = held.source_id
            row.airbyte_connection_id = airbyte_connection_id
            row.airbyte_workspace_id = source.workspace_id
            row.imported = True
            registry.append_version(
                session,
                row,
                held.sync_catalog,
                expected_version=0,
                fingerprint=fingerprint,
                origin=VersionOrigin.IMPORT,
                snapshot_id=None,
                requested_by=scopes.requested_by(),
            )
            row.status = ConnectionStatus.ACTIVE
            outbox.record(session, EventType.CONNECTION_IMPORTED, row)
        return _outcome(held, "imported", connection_id=connection.id, never_selected=selected)

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


def _outcome(
    one: ListedConnection | AirbyteConnection,
    outcome: ImportOutcome,
    *,
    connection_id: UUID | None = None,
    code: str | None = None,
    never_selected: Sequence[SelectedView] = (),
) -> ImportedView:
    return ImportedView(
        airbyte_connection_id=one.connection_id,
        name=one.name,
        outcome=outcome,
        connection_id=connection_id,
        code=code,
        never_selected=list(never_selected),
    )


async def _read(held: AirbyteConnection) -> tuple[str, list[SelectedView]]:
    """The fingerprint of the catalog in Airbyte, and its fields that the default never selects."""
    exclusions = catalogs.Exclusions()
    try:
        catalog = await run_cooperatively(catalogs.parse.steps(held.sync_catalog))
        if not catalog.selected().streams:
            raise Invalid("It selects no stream.", code="no_selected_stream")
        fingerprint = await run_cooperatively(
            catalogs.document_fingerprint.steps(held.sync_catalog)
        )
        found = await run_cooperatively(exclusions.carried(catalog))
    except catalogs.InvalidCatalog as error:
        raise Invalid(str(error), code=error.code) from None
    selected = [
        SelectedView(
            stream={"namespace": stream.namespace, "name": stream.name}, fields=list(fields)
        )
        for stream, fields in islice(found.items(), _MOST_NAMED)
    ]
    return fingerprint, selected
