"""The orchestrator's stories: onboard, discover, sync, archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.shapes import Cron, Onboard
from shared import events, logs, registry, snapshots, sources
from shared.airbyte_client import AirbyteClient, Discovered, Job, NewConnection, Schedule
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain import drift
from shared.domain.steps import Steps, in_slices
from shared.errors import (
    AamError,
    Conflict,
    DiscoverFailed,
    Invalid,
    NotActive,
    NotFound,
    SyncRunning,
    Unavailable,
    UpstreamConflict,
    UpstreamMissing,
    UpstreamUnknown,
)
from shared.events import EventType
from shared.models import Connection, ConnectionStatus, JobHistory, VersionOrigin
from shared.peers import AuthBroker
from shared.sources import SourceType

log = logs.get(__name__)

_CLOCKS_DIFFER_BY = timedelta(seconds=5)


class Difference(msgspec.Struct, frozen=True):
    """What changed between two catalog versions."""

    from_version: int
    to_version: int
    schema_changes: list[drift.Change]
    config_changes: list[drift.ConfigChange]


class MergedOrder(msgspec.Struct, frozen=True):
    """The order for apply_new_catalog that a discovery makes; `notes` are for the person."""

    connection_id: UUID
    snapshot_id: UUID
    expected_version: int
    notes: tuple[catalogs.Note, ...]
    sync_catalog: msgspec.Raw


@dataclass(frozen=True, slots=True)
class _Version:
    """A catalog that is to be recorded, and what it was made from."""

    sync_catalog: bytes
    fingerprint: str
    snapshot_id: UUID


class Orchestrator:
    """Wires sources to destinations in Airbyte, and keeps the registry's record of it."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, auth_broker: AuthBroker
    ) -> None:
        self._settings = settings
        self._db = db
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self._default_workspace: UUID | None = settings.airbyte_workspace_id

    async def onboard(self, order: Onboard) -> UUID:
        """Wire a source to a destination in Airbyte and record it as catalog version 1.

        Raises:
            Invalid: the order cannot be meant; nothing stays in Airbyte.
            NameTaken: a live connection has this name.
            UpstreamRefused: Airbyte said no; what was created in it is deleted again.
            UpstreamUnknown: nobody knows what happened; the undo was tried.
        """
        source_type = sources.find(order.source_type)
        _expect_credential(source_type, order.credential_id)
        destination_id = order.destination_id or self._settings.airbyte_destination_id
        if destination_id is None:
            raise Invalid(
                "No destination: name `destination_id`, or set AIRBYTE_DESTINATION_ID.",
                code="destination_required",
            )
        connection = Connection(
            id=uuid4(),
            name=order.connection_name,
            source_type=source_type.name,
            credential_id=order.credential_id,
            airbyte_destination_id=destination_id,
        )
        await self._announce(connection)
        try:
            await self._wire(connection, order, source_type)
        except AamError as error:
            await self._undo(connection, error)
            raise
        except BaseException:
            interrupted = UpstreamUnknown("Onboarding was interrupted.", code="interrupted")
            await self._undo(connection, interrupted)
            raise
        log.info("connection_onboarded", connection=str(connection.id))
        return connection.id

    async def _announce(self, connection: Connection) -> None:
        """Record what is about to be made; a commit whose answer was lost is looked after."""

        async def write(session: AsyncSession) -> None:
            await registry.insert_pending(session, connection)

        try:
            async with self._db.transaction() as session:
                await write(session)
        except UpstreamUnknown:
            await self._db.insist(write)

    async def _wire(self, connection: Connection, order: Onboard, source_type: SourceType) -> None:
        modes = await self._destination_sync_modes(connection.airbyte_destination_id)
        configuration = await self._configuration(source_type, order.credential_id)
        workspace_id = await self._workspace()

        source = await self._airbyte.create_source(
            workspace_id,
            configuration,
            name=marked(connection),
            source_definition_id=source_type.definition_id,
        )
        connection.airbyte_source_id = source.source_id
        discovered = await self._airbyte.discover_schema(source.source_id)
        snapshot_id = await self._keep(source.source_id, discovered)
        chosen = await _checked(
            catalogs.choose.steps(
                discovered.catalog, streams=order.streams, destination_sync_modes=modes
            )
        )
        sync_catalog = catalogs.dump(chosen)
        wired = await self._airbyte.create_connection(
            NewConnection(
                name=marked(connection),
                source_id=source.source_id,
                destination_id=connection.airbyte_destination_id,
                sync_catalog=sync_catalog,
                source_catalog_id=discovered.catalog_id,
                schedule=_schedule(order),
            )
        )
        await self._activate(
            connection.id,
            source.source_id,
            wired.connection_id,
            _Version(
                sync_catalog, await in_slices(catalogs.fingerprint_of.steps(chosen)), snapshot_id
            ),
        )

    async def _activate(
        self, connection_id: UUID, source_id: UUID, airbyte_connection_id: UUID, first: _Version
    ) -> None:
        """Record what is wired as ACTIVE at version 1."""

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, connection_id)
            if row.status is ConnectionStatus.ACTIVE:
                return  # an earlier commit, whose answer was lost
            row.airbyte_source_id = source_id
            row.airbyte_connection_id = airbyte_connection_id
            await registry.append_version(
                session,
                row,
                first.sync_catalog,
                expected_version=0,
                fingerprint=first.fingerprint,
                origin=VersionOrigin.ONBOARD,
                snapshot_id=first.snapshot_id,
            )
            row.status = ConnectionStatus.ACTIVE
            events.record(session, EventType.CONNECTION_ONBOARDED, row, ref=first.snapshot_id)

        try:
            await self._db.insist(write)
        except UpstreamUnknown:
            raise UpstreamUnknown(
                "Airbyte is wired, and nobody knows whether the registry recorded it.",
                code="activation_unknown",
            ) from None

    async def _keep(self, source_id: UUID, discovered: Discovered) -> UUID:
        """Store what a source offers; what nobody could read is a failed discovery."""
        try:
            return await snapshots.keep(self._db, source_id, discovered)
        except catalogs.InvalidCatalog as error:
            raise _unreadable(error) from None

    async def _destination_sync_modes(self, destination_id: UUID) -> frozenset[str]:
        try:
            return await self._airbyte.destination_sync_modes(destination_id)
        except UpstreamMissing:
            raise Invalid(
                f"Airbyte has no destination {destination_id}.", code="unknown_destination"
            ) from None

    async def _configuration(
        self, source_type: SourceType, credential_id: str | None
    ) -> dict[str, object]:
        if credential_id is None:
            return source_type.configuration().model_dump(exclude_none=True)
        try:
            return await self._auth_broker.connector_config(source_type.name, credential_id)
        except NotFound as error:
            raise Invalid(error.detail, code=error.code) from None

    async def _workspace(self) -> UUID:
        if self._default_workspace is None:
            instance = await self._airbyte.instance()
            self._default_workspace = instance.default_workspace_id
        if self._default_workspace is None:
            raise Unavailable("Airbyte names no default workspace: set AIRBYTE_WORKSPACE_ID.")
        return self._default_workspace

    async def _undo(self, connection: Connection, reason: AamError) -> None:
        """Leave nothing behind in Airbyte, the row FAILED, and its name free again."""
        reason.members["connection_id"] = connection.id
        if reason.code == "activation_unknown":
            # The connection may be ACTIVE: what it stands on is not taken away.
            reason.members["left_in_airbyte"] = marker(connection)
            return
        left: UUID | None = None
        detail = reason.detail
        try:
            await self._delete_made(connection, reason)
        except AamError as error:
            log.warning("undo_failed", connection=str(connection.id), code=error.code)
            left = connection.airbyte_source_id
            detail += f" The source marked {marker(connection)} may still be in Airbyte."
            reason.members["left_in_airbyte"] = marker(connection)

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, connection.id)
            if row.status is not ConnectionStatus.PENDING:
                return
            row.status = ConnectionStatus.FAILED
            row.failure_code, row.failure_detail = reason.code, detail
            row.airbyte_source_id = left
            events.record(session, EventType.CONNECTION_FAILED, row, code=reason.code)

        try:
            await self._db.insist(write)
        except (Unavailable, UpstreamUnknown) as error:
            log.warning("failure_not_recorded", connection=str(connection.id), code=error.code)

    async def _delete_made(self, connection: Connection, reason: AamError) -> None:
        """Delete the source, and with it, as Airbyte does, its connections."""
        source_ids = [connection.airbyte_source_id] if connection.airbyte_source_id else []
        if not source_ids and isinstance(reason, UpstreamUnknown | UpstreamConflict):
            found = await self._airbyte.list_sources(await self._workspace())
            source_ids = [one.source_id for one in found if one.name == marked(connection)]
        for source_id in source_ids:
            await self._airbyte.delete_source(source_id)

    async def discover(self, connection_id: UUID, *, every_stream: bool) -> bytes:
        """Ask the source what it offers now; the current catalog merged with it, ready to apply.

        Returns the body of an order for apply_new_catalog: JSON, up to tens of megabytes.

        Raises:
            NotFound: there is no such connection.
            NotActive: it has no source to ask, or is archived.
            DiscoverFailed: the connector could not list the source's schema.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            _expect_wired(row)
            head = await registry.read_version(session, connection_id, row.catalog_version)
        if row.airbyte_source_id is None:
            raise NotActive(f"Connection {connection_id} has no source.")
        discovered = await self._airbyte.discover_schema(row.airbyte_source_id)
        snapshot_id = await self._keep(row.airbyte_source_id, discovered)
        configured = await in_slices(catalogs.parse.steps(head.sync_catalog.encode()))
        try:
            merged = await in_slices(
                catalogs.merge.steps(configured, discovered.catalog, every_stream=every_stream)
            )
        except catalogs.InvalidCatalog as error:
            raise _unreadable(error) from None
        return msgspec.json.encode(
            MergedOrder(
                connection_id=connection_id,
                snapshot_id=snapshot_id,
                expected_version=head.version_number,
                notes=merged.notes,
                sync_catalog=msgspec.Raw(merged.catalog),
            )
        )

    async def sync(self, connection_id: UUID) -> JobHistory:
        """Have Airbyte move the data now, and record the job.

        Raises:
            NotFound: there is no such connection.
            NotActive: its status does not allow it now.
            SyncRunning: a sync runs already; the members name its job.
            UpstreamUnknown: it may have started; a later look at its jobs tells.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        _expect_wired(row)
        if row.status is not ConnectionStatus.ACTIVE or row.airbyte_connection_id is None:
            raise NotActive(f"Connection {connection_id} is {row.status}; it must be ACTIVE.")
        job = await self._trigger(connection_id, row.airbyte_connection_id)
        recorded, is_new = await self._record(connection_id, job)
        if not is_new:
            raise _sync_running(connection_id, recorded)
        return recorded

    async def _record(self, connection_id: UUID, job: Job) -> tuple[JobHistory, bool]:
        """The job's row, and whether this call made it; it is followed to its end from now on."""
        job_id = uuid4()

        async def write(session: AsyncSession) -> JobHistory:
            row = await registry.lock_connection(session, connection_id, even_archived=True)
            known = await registry.find_job(session, connection_id, job.id)
            if known is not None:
                return known
            recorded = JobHistory(
                id=job_id,
                connection_id=connection_id,
                airbyte_job_id=job.id,
                status=job.status,
                catalog_version=row.catalog_version,
                attempts=job.attempts,
            )
            session.add(recorded)
            events.record(
                session, EventType.SYNC_TRIGGERED, row, status=job.status, ref=recorded.id
            )
            return recorded

        recorded = await self._db.insist(write)
        return recorded, recorded.id == job_id

    async def _trigger(self, connection_id: UUID, airbyte_connection_id: UUID) -> Job:
        asked_at = datetime.now(UTC)
        try:
            return await self._airbyte.trigger_sync(airbyte_connection_id)
        except SyncRunning as error:
            airbyte_job_id = error.members.get("airbyte_job_id")
            if not isinstance(airbyte_job_id, int):
                raise
            # Also one that Airbyte started by itself, or whose record was lost, is followed.
            running = await self._airbyte.get_job(airbyte_job_id)
            recorded, _ = await self._record(connection_id, running)
            raise _sync_running(connection_id, recorded) from None
        except UpstreamUnknown:
            newest = await self._airbyte.list_jobs(airbyte_connection_id, limit=1)
            if not newest or newest[0].created_at < asked_at - _CLOCKS_DIFFER_BY:
                raise
            return newest[0]

    async def diff(self, connection_id: UUID, from_version: int, to_version: int) -> Difference:
        """What changed between two catalog versions, in the source's schema and in the settings.

        Raises:
            NotFound: the connection has no such version.
        """
        before = await self._catalog(connection_id, from_version)
        after = await self._catalog(connection_id, to_version)
        return Difference(
            from_version=from_version,
            to_version=to_version,
            schema_changes=await in_slices(drift.diff.steps(before, after)),
            config_changes=await in_slices(drift.diff_config.steps(before, after)),
        )

    async def _catalog(self, connection_id: UUID, version: int) -> catalogs.Catalog:
        async with self._db.read() as session:
            found = await registry.read_version(session, connection_id, version)
        return await in_slices(catalogs.parse.steps(found.sync_catalog.encode()))

    async def archive(self, connection_id: UUID) -> None:
        """Remove a connection from Airbyte, and its source where nothing else uses it.

        The registry keeps its history; its name is free again. Archiving twice changes nothing.

        Raises:
            NotFound: there is no such connection.
            Conflict: it is being onboarded or healed just now.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        if row.archived_at is not None:
            return
        if row.status in (ConnectionStatus.PENDING, ConnectionStatus.HEALING):
            raise Conflict(f"Connection {connection_id} is {row.status}: wait for its end.")
        if row.airbyte_connection_id is not None:
            await self._airbyte.delete_connection(row.airbyte_connection_id)
        if row.airbyte_source_id is not None:
            await self._delete_unused_source(row.airbyte_source_id)

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, connection_id, even_archived=True)
            if row.archived_at is not None:
                return
            if row.heal_id is not None:
                # A repair that began meanwhile finds its connection gone, and itself superseded.
                registry.end_heal(row, row.heal_id, status=ConnectionStatus.FAILED)
                row.failure_code = "archived"
            row.archived_at = datetime.now(UTC)
            await registry.end_running_jobs(session, connection_id, code="connection_archived")
            events.record(session, EventType.CONNECTION_ARCHIVED, row)

        await self._db.insist(write)

    async def _delete_unused_source(self, source_id: UUID) -> None:
        """Delete a source that AAM made, unless somebody has wired it elsewhere meanwhile."""
        try:
            source = await self._airbyte.get_source(source_id)
        except UpstreamMissing:
            return
        # Its own workspace, whatever today's setting is: another one would show no connections.
        wired = await self._airbyte.list_connections(source.workspace_id)
        if any(one.source_id == source_id for one in wired):
            log.warning("source_kept", source=str(source_id), reason="other connections use it")
            return
        await self._airbyte.delete_source(source_id)


def marker(connection: Connection) -> str:
    """What tells AAM's own objects in Airbyte, whose names are not unique there."""
    return f"[aam:{connection.id}]"


def marked(connection: Connection) -> str:
    """The name of a connection's objects in Airbyte: its own, and the marker."""
    return f"{connection.name} {marker(connection)}"


def _expect_credential(source_type: SourceType, credential_id: str | None) -> None:
    if source_type.needs_credential and credential_id is None:
        raise Invalid(f"{source_type.name} needs a `credential_id`.", code="credential_required")
    if not source_type.needs_credential and credential_id is not None:
        raise Invalid(f"{source_type.name} takes no `credential_id`.", code="credential_not_used")


def _expect_wired(row: Connection) -> None:
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; Airbyte does not hold it.")


def _schedule(order: Onboard) -> Schedule | None:
    if order.schedule is None:
        return None
    if isinstance(order.schedule, Cron):
        return Schedule(cron=order.schedule.cron, time_zone=order.schedule.time_zone)
    return Schedule(units=order.schedule.units, time_unit=order.schedule.time_unit)


def _sync_running(connection_id: UUID, job: JobHistory) -> SyncRunning:
    return SyncRunning(
        f"A sync of connection {connection_id} runs already.",
        job_id=job.id,
        airbyte_job_id=job.airbyte_job_id,
    )


def _unreadable(error: catalogs.InvalidCatalog) -> DiscoverFailed:
    return DiscoverFailed(f"What the source offers cannot be read: {error}")


async def _checked(run: Steps[catalogs.Catalog]) -> catalogs.Catalog:
    """Run a step of the domain; what it finds wrong with a catalog becomes a 422."""
    try:
        return await in_slices(run)
    except catalogs.InvalidCatalog as error:
        raise Invalid(str(error), code=error.code) from None
