"""Validates and records requests before their operations run; also discovery and catalog diffs."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.catalog_reconciler import ReapplySaga
from services.orchestrator.credentials import CredentialShared, expect_own_credential, expect_unused
from services.orchestrator.destination_fit import DestinationFit
from services.orchestrator.destinations import Destinations
from services.orchestrator.job_history import record_job
from services.orchestrator.preflight import answered_soon, nothing_recorded
from services.orchestrator.sagas.archive import ArchiveSaga
from services.orchestrator.sagas.onboard import OnboardSaga, Wiring, store_discovered, unreadable
from services.orchestrator.sagas.sync import SyncSaga, order_for
from services.orchestrator.schedule_validation import airbyte_schedule
from services.orchestrator.schemas import Onboard, SourceOrder
from services.orchestrator.source_configurations import SourceConfigurations
from services.orchestrator.source_definitions import SourceDefinitions
from services.orchestrator.workspaces import Workspaces
from shared import registry
from shared.airbyte_client import AirbyteClient, Destination
from shared.auth import label_limits
from shared.config import Settings
from shared.connectors import Connectors
from shared.credential_digests import Digests
from shared.database import Database
from shared.destinations import DestinationReader
from shared.discoveries import Begun, Discoveries, Recent
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively
from shared.domain.destination import Naming
from shared.errors import (
    Invalid,
    NotActive,
    SyncRunning,
    Unavailable,
)
from shared.models import Connection, ConnectionStatus, JobStarter
from shared.operations import HttpResult, Intent, Key, Operations
from shared.service_clients import AuthBroker
from shared.source_types import SourceType


class MergedOrder(msgspec.Struct, frozen=True):
    """A request body for apply_new_catalog, created from a discovery; `notes` are informational."""

    connection_id: UUID
    snapshot_id: UUID
    expected_version: int
    notes: tuple[catalogs.Note, ...]
    sync_catalog: msgspec.Raw


class Orchestrator:
    """Connects sources to destinations in Airbyte, and records them in the registry."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        operations: Operations,
        digests: Digests | None,
    ) -> None:
        self._settings = settings
        self._db = db
        self._airbyte = airbyte
        self._digests = digests
        self._operations = operations
        self._discoveries = Discoveries(settings, db, airbyte)
        self._connectors = Connectors(settings, db, airbyte)
        self.workspaces = Workspaces(settings, db, airbyte)
        self.definitions = SourceDefinitions(airbyte)
        self.destinations = Destinations(airbyte)
        self.configurations = SourceConfigurations(settings, airbyte, auth_broker, self.definitions)
        self.fit = DestinationFit(db, DestinationReader(airbyte))
        self._onboarding = OnboardSaga(
            settings, db, airbyte, self.configurations, digests, self.fit
        )
        operations.register("onboard", self._onboarding)
        operations.register("sync", SyncSaga(settings, db, airbyte))
        operations.register("archive", ArchiveSaga(settings, db, airbyte))
        operations.register("reapply", ReapplySaga(settings, db, airbyte))

    async def onboard(self, order: Onboard, *, key: Key | None, wait: float) -> HttpResult:
        """Connect a source to a destination in Airbyte and record its catalog as version 1.

        The source is created in the workspace of the destination. Checks that have no side effects
        run first.

        Raises:
            Invalid: the order is invalid.
            NameTaken: a live connection has this name.
            Conflict: `credential_used_up`: another source was given the credential, and its
                connector has renewed the token since.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        destination = await self._destination(order)
        workspace_id, destination_id = destination.workspace_id, destination.destination_id
        await expect_own_credential(self._db, order.credential_id)
        source_type = await self._expected_source(order, workspace_id)
        with nothing_recorded():
            modes = await self._airbyte.destination_sync_modes(destination)
        wiring = Wiring(
            name=order.connection_name,
            source_type=source_type.name,
            source_definition_id=source_type.definition_id,
            configuration=order.configuration,
            credential_id=order.credential_id,
            streams=order.streams,
            schedule=airbyte_schedule(order.schedule),
            workspace_id=workspace_id,
            destination_id=destination_id,
            destination_sync_modes=sorted(modes),
            naming=_naming(order),
        )
        connection = Connection(
            id=uuid4(),
            name=order.connection_name,
            source_type=source_type.name,
            source_definition_id=source_type.definition_id,
            source_configuration=msgspec.json.encode(order.configuration).decode(),
            credential_id=order.credential_id,
            airbyte_destination_id=destination_id,
            airbyte_workspace_id=workspace_id,
            labels=label_limits.to_json(label_limits.current()),
        )
        # No secret is read for an order that will be refused.
        with label_limits.registry_wide():
            async with self._db.read() as session:
                await registry.expect_free_name(session, order.connection_name)
        configuration = await self._expected_configuration(source_type, order, workspace_id)

        is_checked = not source_type.renewed_fields

        async def announce(session: AsyncSession, _operation_id: UUID) -> None:
            if await registry.insert_pending(session, connection) and not is_checked:
                raise CredentialShared("Another connection uses the credential.")

        try:
            begun = await self._operations.begin(
                Intent("onboard", connection.id, wiring, key=key), announce
            )
        except CredentialShared:
            # Nothing was recorded.
            notes = await expect_unused(
                self._db, self._digests, source_type, order.credential_id or "", configuration
            )
            is_checked = True
            begun = await self._operations.begin(
                Intent(
                    "onboard", connection.id, msgspec.structs.replace(wiring, notes=notes), key=key
                ),
                announce,
            )
        return await self._operations.outcome(begun, wait=wait)

    async def expected_configuration(
        self, order: SourceOrder, workspace_id: UUID
    ) -> tuple[SourceType, dict[str, Any]]:
        """The source type and the whole configuration of an order; it holds secrets.

        Raises:
            Invalid: the order or the credential is invalid.
            Unavailable: Airbyte or the auth_broker is unavailable; nothing was recorded.
        """
        await expect_own_credential(self._db, order.credential_id)
        source_type = await self._expected_source(order, workspace_id)
        configuration = await self._expected_configuration(source_type, order, workspace_id)
        if configuration is None:
            raise Unavailable(
                "The auth_broker is unavailable. Nothing was recorded.",
                code="auth_broker_unavailable",
            )
        return source_type, configuration

    async def _expected_source(self, order: SourceOrder, workspace_id: UUID) -> SourceType:
        """The source type of an order whose configuration is valid as far as it goes.

        Raises:
            Invalid: it is unknown or ambiguous, or the configuration is invalid.
            Unavailable: Airbyte is unavailable; nothing was recorded.
        """
        with nothing_recorded():
            source_type = await self.definitions.find(order.source_type, workspace_id)
            await self.configurations.expect_valid_order(
                source_type, order.configuration, order.credential_id, workspace_id
            )
        return source_type

    async def _expected_configuration(
        self, source_type: SourceType, order: SourceOrder, workspace_id: UUID
    ) -> dict[str, Any] | None:
        """The whole configuration, which fits the specification; None if that is not known yet.

        While the auth_broker is unavailable, the operation waits for it, and checks then.

        Raises:
            Invalid: the configuration does not fit, or there is no such credential.
            Unavailable: Airbyte is unavailable; nothing was recorded.
        """
        with nothing_recorded():
            return await self.configurations.expect_valid(
                source_type, order.configuration, order.credential_id, workspace_id
            )

    async def _destination(self, order: Onboard) -> Destination:
        """The destination that an order names by id or name, or else the default.

        Raises:
            Invalid: it names two or none, or an unknown or ambiguous one, or one of another
                workspace than the order's.
        """
        if order.destination is not None and order.destination_id is not None:
            raise Invalid.of(
                "destination",
                "Send `destination` or `destination_id`, but not both.",
                code="one_destination",
            )
        destination_id = order.destination_id or self._settings.airbyte_destination_id
        with nothing_recorded():
            if order.destination is not None:
                workspace_id = await self.workspaces.requested(order.workspace_id)
                found = await self.destinations.named(order.destination, workspace_id)
            elif destination_id is not None:
                found = await self.destinations.by_id(destination_id)
            else:
                raise Invalid.of(
                    "destination_id",
                    "No destination: send `destination` or `destination_id`, or set "
                    "AIRBYTE_DESTINATION_ID.",
                    code="destination_required",
                )
        if order.workspace_id not in (None, found.workspace_id):
            raise Invalid.of(
                "workspace_id",
                f"Destination {found.destination_id} is in workspace {found.workspace_id}, not in "
                f"{order.workspace_id}.",
                code="workspace_mismatch",
            )
        return found

    async def discover(
        self, connection_id: UUID, *, every_stream: bool, is_fresh: bool = False
    ) -> bytes:
        """Discover the source now, and merge the connection's current catalog with the result.

        Returns the request body for apply_new_catalog: JSON, up to tens of megabytes. A discovery
        that is running, or that was requested less than a minute ago, is reused, unless
        `is_fresh`.

        Raises:
            SyncRunning: a sync of the source is running, and its connector renews tokens.
            TooManyRequests: `discovery_quota`: the source's daily limit is reached.
            NotFound: there is no such connection.
            NotActive: the connection has no source, or is archived.
            DiscoverFailed: the connector could not list the source's schema.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            _expect_wired(row)
            head = await registry.read_version(session, connection_id, row.catalog_version)
            exclusions = await registry.exclusions_of(session, connection_id)
        if row.airbyte_source_id is None:
            raise NotActive(f"Connection {connection_id} has no source.")
        with label_limits.registry_wide():  # a source may have other connections
            snapshot_id, offered = await self._offered(row.airbyte_source_id, is_fresh=is_fresh)
        configured = await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))
        try:
            merged = await run_cooperatively(
                catalogs.merge.steps(
                    configured, offered, every_stream=every_stream, exclusions=exclusions
                )
            )
        except catalogs.InvalidCatalog as error:
            raise unreadable(error) from None
        return msgspec.json.encode(
            MergedOrder(
                connection_id=connection_id,
                snapshot_id=snapshot_id,
                expected_version=head.version_number,
                notes=merged.notes,
                sync_catalog=msgspec.Raw(merged.catalog),
            )
        )

    async def _offered(self, source_id: UUID, *, is_fresh: bool) -> tuple[UUID, bytes]:
        """The streams that a source offers: the snapshot's id and its catalog.

        Waits for a discovery that is already running, and reuses its result if it is of the same
        kind.
        """
        joined = False
        while True:
            begun = await self._discoveries.begin(source_id, is_fresh=is_fresh and not joined)
            if isinstance(begun, Recent):
                return begun.snapshot_id, await self._catalog_of(begun.snapshot_id)
            if isinstance(begun, Begun):
                discovered = await self._discoveries.run(begun)
                snapshot_id = await store_discovered(
                    self._db, self._discoveries, begun, discovered, self._connectors
                )
                return snapshot_id, discovered.catalog
            # With `is_fresh`, a discovery that began before this request may not be reused.
            joined = begun.purpose == "discover" and not is_fresh
            await self._discoveries.wait_for(begun)

    async def _catalog_of(self, snapshot_id: UUID) -> bytes:
        async with self._db.read() as session:
            snapshot = await registry.find_snapshot(session, snapshot_id)
            return catalogs.join(await registry.snapshot_streams(session, snapshot))

    async def sync(self, connection_id: UUID, *, key: Key | None, wait: float) -> HttpResult:
        """Start one sync job in Airbyte now; the job follower tracks it to its end.

        Raises:
            NotFound: there is no such connection.
            NotActive: its status does not allow a sync now.
            SyncRunning: a job is running already; the error's members identify it.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        airbyte_connection_id = expect_active(row)
        newest_job_id = await self.expect_no_job(connection_id, airbyte_connection_id)
        order = order_for(airbyte_connection_id, newest_job_id=newest_job_id)

        async def gate(session: AsyncSession, _operation_id: UUID) -> None:
            expect_active(await registry.lock_connection(session, connection_id))

        begun = await self._operations.begin(Intent("sync", connection_id, order, key=key), gate)
        return await self._operations.outcome(begun, wait=wait)

    async def expect_no_job(self, connection_id: UUID, airbyte_connection_id: UUID) -> int | None:
        """Check that no job of the connection is running; record one that was started elsewhere.

        Returns the Airbyte id of the connection's newest sync, or None where Airbyte gives none.
        """
        async with answered_soon():
            statuses = await self._airbyte.connection_statuses([airbyte_connection_id])
            status = statuses[0].status if statuses else None
            newest = []
            if statuses and statuses[0].is_working:
                newest = await self._airbyte.list_jobs(airbyte_connection_id, limit=5)
        if status == "paused":
            raise NotActive(f"Connection {connection_id} is not active in Airbyte.")
        job = next((job for job in newest if not job.ended), None)
        if job is None:
            return statuses[0].last_job_id if statuses else None
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            known = await record_job(
                session,
                row,
                job_id=uuid4(),
                airbyte_job_id=job.id,
                kind=job.config_type,
                status=job.status,
                started_by=JobStarter.AIRBYTE,
                started_at=job.created_at,
            )
        raise SyncRunning(
            f"A {job.config_type} of connection {connection_id} is already running.",
            job_id=known.id,
            airbyte_job_id=known.airbyte_job_id,
            job_kind=job.config_type,
        )

    async def archive(self, connection_id: UUID, *, wait: float) -> HttpResult:
        """Remove a connection from Airbyte, and its source where nothing else uses it.

        The registry keeps its history, and its name can be used again. Archiving twice has no
        further effect. For an imported connection, nothing in Airbyte is deleted.

        Raises:
            NotFound: there is no such connection.
            Conflict: the connection is being onboarded, healed or archived.
        """
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)

        async def gate(session: AsyncSession, _operation_id: UUID) -> HttpResult | None:
            row = await registry.lock_connection(session, connection_id, even_archived=True)
            if row.archived_at is not None:
                return HttpResult(204, "")
            return None

        begun = await self._operations.begin(Intent("archive", connection_id, {}), gate)
        return await self._operations.outcome(begun, wait=wait)


def _expect_wired(row: Connection) -> None:
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; it does not exist in Airbyte.")


def expect_active(row: Connection) -> UUID:
    """The id of the Airbyte connection to sync.

    Raises:
        NotActive: it is archived, not in Airbyte, or not ACTIVE.
    """
    _expect_wired(row)
    if row.status is ConnectionStatus.HEALING:
        raise NotActive(
            f"Connection {row.id} is HEALING; try again when it is ACTIVE.", code="healing"
        )
    if row.status is not ConnectionStatus.ACTIVE or row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; it must be ACTIVE.")
    return row.airbyte_connection_id


def _naming(order: Onboard) -> Naming:
    """How the tables of a new connection are named.

    Raises:
        Invalid: there is a format without the definition `customformat`, or the reverse.
    """
    if (order.namespace_definition == "customformat") is not (order.namespace_format is not None):
        raise Invalid.of(
            "namespace_format",
            "`namespace_format` and the `namespace_definition` `customformat` need each other.",
            code="namespace_format_not_used",
        )
    return Naming(order.namespace_definition, order.namespace_format, order.prefix or None)
