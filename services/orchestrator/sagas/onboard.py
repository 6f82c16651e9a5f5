"""The onboarding saga: create the source, discover, create the connection, record version 1."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.orchestrator import credential_queries
from services.orchestrator.credentials import OrderNote
from services.orchestrator.destination_fit import (
    DestinationFit,
    expect_unclaimed,
    refused,
)
from services.orchestrator.source_configurations import SourceConfigurations
from shared import failpoints, outbox, registry, snapshots, source_types
from shared.airbyte_client import (
    AirbyteClient,
    Discovered,
    NewConnection,
    Schedule,
)
from shared.catalog_comparison import matches
from shared.config import Settings
from shared.connectors import Connectors
from shared.credential_digests import Digests
from shared.database import Database
from shared.discoveries import Begun, Discoveries
from shared.domain import catalog as catalogs
from shared.domain.cooperative import Steps, run_cooperatively
from shared.domain.destination import Naming
from shared.errors import (
    DiscoverFailed,
    Invalid,
    UpstreamMismatch,
    UpstreamMissing,
)
from shared.models import ConnectionStatus, VersionOrigin
from shared.operations import Operation
from shared.outbox import EventType
from shared.source_types import SourceType

_STORE_TIMEOUT_S = 60.0
"""Time allowed for storing a snapshot, beyond its discovery."""
_FOUND = "found"
"""Key among the step results: the connection was in Airbyte before this attempt."""
_MOST_NOTES = 200
"""Maximum notes of one onboarding; each is about one stream."""


class Wiring(msgspec.Struct, frozen=True):
    """What to create: the caller's order, and what was looked up before it was recorded."""

    name: str
    source_type: str
    credential_id: str | None
    streams: list[str] | None
    schedule: Schedule | None
    workspace_id: UUID
    destination_id: UUID
    destination_sync_modes: list[str]
    source_definition_id: UUID | None = None
    """None in an order that an earlier version of AAM recorded."""
    configuration: dict[str, Any] = {}
    """The part of the source's configuration that is not secret."""
    notes: list[OrderNote] = []
    """Notes for the caller about the order; part of the response."""
    naming: Naming = Naming()
    """How the tables are named."""


class OnboardSaga:
    """Connects a source to a destination in Airbyte and records it; every step can be resumed."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        configurations: SourceConfigurations,
        digests: Digests | None,
        fit: DestinationFit,
    ) -> None:
        self._fit = fit
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._discover_s = settings.discover_timeout.total_seconds()
        self._peer_s = settings.peer_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._configurations = configurations
        self._digests = digests
        self._discoveries = Discoveries(settings, db, airbyte)
        self._connectors = Connectors(settings, db, airbyte)

    async def run(self, operation: Operation) -> None:
        """Find or create the source, discover, find or create the connection, activate."""
        wiring = msgspec.json.decode(operation.request, type=Wiring)
        source_id = await self._source(operation, wiring)
        document = await self._choose(operation, wiring, source_id)
        fingerprint = await run_cooperatively(catalogs.document_fingerprint.steps(document))
        connection_id = await self._connection(operation, wiring, source_id, document)
        if not await self._holds(connection_id, fingerprint):
            document, fingerprint = await self._found(operation, connection_id)

        snapshot_id = UUID(operation.results["discover"]["snapshot_id"])
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, operation.connection_id)
            row.airbyte_source_id = source_id
            row.airbyte_connection_id = connection_id
            row.airbyte_workspace_id = wiring.workspace_id
            row.status = ConnectionStatus.ACTIVE
            registry.save_naming(row, wiring.naming)
            if "given" in operation.results:
                credential_queries.save_digests(row, operation.results["given"])
            registry.append_version(
                session,
                row,
                document,
                expected_version=0,
                fingerprint=fingerprint,
                origin=VersionOrigin.ONBOARD,
                snapshot_id=snapshot_id,
                requested_by=operation.requested_by,
            )
            outbox.record(session, EventType.CONNECTION_ONBOARDED, row, ref=snapshot_id)
            await session.flush()
            answer = await registry.connection_json(session, row.id)
            notes = [
                *msgspec.to_builtins(wiring.notes),
                *(operation.results["discover"].get("notes") or []),
            ]
            await operation.finish(session, status=201, body=_with_notes(answer, notes))

    async def _source(self, operation: Operation, wiring: Wiring) -> UUID:
        source_type = source_types.from_row(wiring.source_type, wiring.source_definition_id)

        async def create() -> str:
            configuration = await self._configuration(operation, source_type, wiring)
            source = await self._airbyte.create_source(
                wiring.workspace_id,
                configuration,
                name=f"{wiring.name} {operation.marker}",
                source_definition_id=source_type.definition_id,
            )
            if source.workspace_id != wiring.workspace_id:
                raise UpstreamMismatch("Airbyte created the source in another workspace.")
            return str(source.source_id)

        async def find() -> str | None:
            found = await self._sources_of(operation, wiring)
            if not found:
                # A rotation gives the source a marker of its own, but not the connection.
                listed = await self._airbyte.list_connections(wiring.workspace_id)
                found = [
                    one.source_id
                    for one in listed
                    if one.name.endswith(operation.marker) and one.status != "deprecated"
                ]
            return str(found[0]) if found else None

        within = self._peer_s + 6 * self._call_s
        return UUID(await operation.once("source", create, find=find, within=within))

    async def _configuration(
        self, operation: Operation, source_type: SourceType, wiring: Wiring
    ) -> dict[str, Any]:
        """The connector's configuration, with secrets; the operation stores only digests."""
        configuration = await self._configurations.fetched(
            source_type, wiring.configuration, wiring.credential_id, wiring.workspace_id
        )
        if self._digests is not None and wiring.credential_id is not None:
            operation.results["given"] = self._digests.of(wiring.credential_id, configuration)
        return configuration

    async def _choose(self, operation: Operation, wiring: Wiring, source_id: UUID) -> bytes:
        """Discover and select the streams to sync; the catalog becomes the operation's document."""
        if operation.document is not None:
            return operation.document
        chosen: list[bytes] = []

        async def discover() -> dict[str, Any]:
            discovered = await self._airbyte.discover_schema(source_id)
            snapshot_id = await store(self._db, source_id, discovered, self._connectors)
            if discovered.configuration_updated:
                await self._discoveries.record_renewal(source_id)
            async with self._db.read() as session:
                exclusions = await registry.exclusions_of(session, operation.connection_id)
            choice = await _checked(
                catalogs.choose_with_notes.steps(
                    discovered.catalog,
                    streams=wiring.streams,
                    destination_sync_modes=frozenset(wiring.destination_sync_modes),
                    exclusions=exclusions,
                )
            )
            choice = await self._fitted(operation, wiring, choice)
            chosen.append(catalogs.dump(choice.catalog))
            catalog_id = discovered.catalog_id
            return {
                "snapshot_id": str(snapshot_id),
                "catalog_id": str(catalog_id) if catalog_id else None,
                "notes": msgspec.to_builtins(choice.notes[:_MOST_NOTES]),
            }

        # A process that dies before the next step has stored no catalog, and discovers again.
        operation.forget("discover")
        within = self._discover_s + min(self._discover_s, _STORE_TIMEOUT_S)
        await operation.once("discover", discover, within=within)
        await self._claim(operation, wiring, chosen[0])
        operation.document = chosen[0]
        return chosen[0]

    async def _claim(self, operation: Operation, wiring: Wiring, document: bytes) -> None:
        """Store the catalog with the operation, so that no other one takes its tables meanwhile.

        Raises:
            Invalid: `destination_cannot_hold`; another operation has claimed one of them.
        """
        claim = await self._fit.claim(
            await run_cooperatively(catalogs.parse.steps(document)),
            connection_id=operation.connection_id,
            destination_id=wiring.destination_id,
            naming=wiring.naming,
        )
        failpoints.at("onboard.claim.before")
        async with self._db.transaction() as session:
            await expect_unclaimed(session, claim, within=timedelta(seconds=operation.age))
            await operation.write_document(session, document)
        failpoints.at("onboard.claim.after")

    async def _fitted(
        self, operation: Operation, wiring: Wiring, choice: catalogs.Chosen
    ) -> catalogs.Chosen:
        """The choice without what the destination cannot hold.

        Raises:
            Invalid: `destination_cannot_hold`.
        """
        try:
            return await self._fit.fitted(
                choice,
                connection_id=operation.connection_id,
                destination_id=wiring.destination_id,
                naming=wiring.naming,
                is_named=wiring.streams is not None,
            )
        except catalogs.InvalidCatalog as error:
            raise refused(error) from None

    async def _connection(
        self, operation: Operation, wiring: Wiring, source_id: UUID, document: bytes
    ) -> UUID:
        catalog_id = operation.results["discover"]["catalog_id"]

        async def create() -> str:
            made = await self._airbyte.create_connection(
                NewConnection(
                    name=f"{wiring.name} {operation.marker}",
                    source_id=source_id,
                    destination_id=wiring.destination_id,
                    sync_catalog=document,
                    source_catalog_id=UUID(catalog_id) if catalog_id else None,
                    schedule=wiring.schedule,
                    namespace_definition=wiring.naming.definition,
                    namespace_format=wiring.naming.format,
                    prefix=wiring.naming.prefix,
                )
            )
            if made.source_id != source_id:
                raise UpstreamMismatch("Airbyte created the connection for another source.")
            return str(made.connection_id)

        async def find() -> str | None:
            found = await self._airbyte.connections_of_source(source_id, wiring.workspace_id)
            for one in found:
                if one.name.endswith(operation.marker):
                    operation.results[_FOUND] = True
                    return str(one.connection_id)
            return None

        return UUID(await operation.once("connection", create, find=find, within=4 * self._call_s))

    async def _holds(self, connection_id: UUID, fingerprint: str) -> bool:
        """Whether Airbyte holds the connection with the catalog."""
        with suppress(UpstreamMissing):
            return await matches(await self._airbyte.get_connection(connection_id), fingerprint)
        return False

    async def _found(self, operation: Operation, connection_id: UUID) -> tuple[bytes, str]:
        """The other catalog that Airbyte holds for a connection that was there already.

        If the registry was restored from a backup, it may have been onboarded and repaired since.

        Raises:
            UpstreamMismatch: the connection was created just now, or its catalog is invalid.
        """
        if _FOUND in operation.results:
            with suppress(UpstreamMissing, catalogs.InvalidCatalog):
                document = (await self._airbyte.get_connection(connection_id)).sync_catalog
                return document, await run_cooperatively(
                    catalogs.document_fingerprint.steps(document)
                )
        raise UpstreamMismatch("Airbyte created the connection, but with different settings.")

    async def undo(self, operation: Operation) -> None:
        """Delete what was created, newest first, until Airbyte holds none of it."""
        wiring = msgspec.json.decode(operation.request, type=Wiring)

        async def delete() -> bool:
            for source_id in await self._sources_of(operation, wiring):
                await self._delete_connections(source_id, wiring.workspace_id, operation.marker)
                await self._airbyte.delete_source(source_id, workspace_id=wiring.workspace_id)
            return not await self._sources_of(operation, wiring)

        await operation.once("undo", delete, within=10 * self._call_s)
        if not operation.results["undo"]:
            operation.forget("undo")
            raise UpstreamMismatch("Airbyte reported the source as deleted, but still has it.")
        await self._record_failure(operation, left=None)

    async def abandon(self, operation: Operation) -> None:
        """Record the failure; the sweeper deletes what may be left in Airbyte."""
        source_id = operation.results.get("source")
        await self._record_failure(operation, left=UUID(source_id) if source_id else None)

    async def _record_failure(self, operation: Operation, *, left: UUID | None) -> None:
        failure = operation.failure or {}
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, operation.connection_id)
            row.status = ConnectionStatus.FAILED
            row.failure_code, row.failure_detail = failure.get("code"), failure.get("detail")
            row.airbyte_source_id = left
            outbox.record(session, EventType.CONNECTION_FAILED, row, code=row.failure_code)
            await operation.finish(session)

    async def _sources_of(self, operation: Operation, wiring: Wiring) -> list[UUID]:
        found = await self._airbyte.list_sources(wiring.workspace_id)
        return [one.source_id for one in found if one.name.endswith(operation.marker)]

    async def _delete_connections(self, source_id: UUID, workspace_id: UUID, marker: str) -> None:
        """Delete a source's connections if all of them belong to this operation.

        Raises:
            UpstreamMismatch: the source has a connection that this operation did not create, or
                that has synced.
        """
        for one in await self._airbyte.connections_of_source(source_id, workspace_id):
            if not one.name.endswith(marker):
                raise UpstreamMismatch(
                    "The source has a connection that this operation did not create: it is not "
                    "deleted."
                )
            if await self._airbyte.has_synced(one.connection_id):
                raise UpstreamMismatch("The connection has synced: it is not deleted.")
            await self._airbyte.delete_connection(one.connection_id, workspace_id=workspace_id)


async def store(
    db: Database, source_id: UUID, discovered: Discovered, connectors: Connectors
) -> UUID:
    """Store a discovered catalog; one that cannot be parsed is a failed discovery."""
    try:
        return await snapshots.store(db, source_id, discovered, read_connector=connectors.try_read)
    except catalogs.InvalidCatalog as error:
        raise unreadable(error) from None


async def store_discovered(
    db: Database,
    discoveries: Discoveries,
    begun: Begun,
    discovered: Discovered,
    connectors: Connectors,
) -> UUID:
    """Store the result of a recorded discovery, and record how the discovery ended.

    Raises:
        DiscoverFailed: the catalog cannot be parsed.
    """
    try:
        snapshot_id = await store(db, begun.source_id, discovered, connectors)
    except DiscoverFailed as error:
        await discoveries.fail(begun, error.code)
        raise
    await discoveries.end(begun, discovered, snapshot_id=snapshot_id)
    return snapshot_id


def unreadable(error: catalogs.InvalidCatalog) -> DiscoverFailed:
    """The error for a source whose discovered catalog is invalid."""
    code = error.code if error.code == snapshots.DUPLICATE_STREAM else DiscoverFailed.code
    return DiscoverFailed(f"The discovered catalog is invalid: {error}", code=code)


def _with_notes(connection: str, notes: list[dict[str, Any]]) -> str:
    """The response body, with notes for the caller on the selection of streams and fields."""
    if not notes:
        return connection
    encoded = msgspec.json.encode(notes).decode()
    return f'{connection.rstrip().removesuffix("}")}, "notes": {encoded}}}'


async def _checked(run: Steps[catalogs.Chosen]) -> catalogs.Chosen:
    """Run a step of the domain; an invalid catalog or selection becomes a 422."""
    try:
        return await run_cooperatively(run)
    except catalogs.InvalidCatalog as error:
        # caused by the source, not by the order
        if error.code in ("invalid_catalog", snapshots.DUPLICATE_STREAM):
            raise unreadable(error) from None
        raise Invalid(str(error), code=error.code) from None
