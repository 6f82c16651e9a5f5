"""Check and record a request to upgrade a connector."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying.preflight import expect_no_sync
from services.drift_repair_agent.connectors import queries
from services.drift_repair_agent.connectors.saga import ConnectorPinned, UpgradeOrder
from services.drift_repair_agent.connectors.schemas import Upgrade
from services.drift_repair_agent.repairs.queries import repair_in_progress
from shared import airbyte_reads, registry
from shared.airbyte_client import AirbyteClient
from shared.auth import scopes
from shared.config import Settings
from shared.connectors import Connectors
from shared.database import Database
from shared.domain.connector_versions import ConnectorVersion, Guide
from shared.errors import (
    Conflict,
    NotActive,
    StaleCatalog,
)
from shared.models import Connection, ConnectionStatus
from shared.operations import HttpResult, Intent, Key, Operations


class NothingToUpgrade(Conflict):
    """No newer version of the connector has a breaking change: Airbyte has nothing to upgrade."""

    code = "nothing_to_upgrade"


class Upgrades:
    """Starts upgrades of connectors."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, operations: Operations
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        self._connectors = Connectors(settings, db, airbyte)

    async def upgrade(
        self, connection_id: UUID, order: Upgrade, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Upgrade the connector of a connection's source, for all connections of that source.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is not ACTIVE, or another connection of the source is being healed.
            LabelLimited: the source has a connection that the caller may not see.
            NothingToUpgrade: no breaking change is ahead.
            ConnectorPinned: a user has pinned the source in Airbyte.
            SyncRunning: a connection of the source is syncing.
            Conflict: a repair of the connection is in progress.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            source_id, airbyte_connection_id = _expect_upgradable(row)
            others = await queries.connections_of_source(session, source_id)
        await registry.expect_no_hidden_connection(self._db, source_id)
        found = await self._version(source_id)
        _expect_upgrade(found, source_id)
        for one in others:
            if one.status is ConnectionStatus.HEALING:
                raise NotActive(f"Connection {one.id} is HEALING.", code="heal_in_progress")
            await expect_no_sync(self._airbyte, one.id, one.airbyte_connection_id)
        request = UpgradeOrder(
            airbyte_connection_id=airbyte_connection_id,
            source_id=source_id,
            version=found.tag,
            manifest=found.manifest,
            catalog_version=row.catalog_version,
            guides=tuple(Guide(one.version, one.guide) for one in found.upcoming),
            by=scopes.named(order.by),
            reason=order.reason,
        )

        async def take(session: AsyncSession, _operation_id: UUID) -> HttpResult | None:
            held = await registry.lock_connection(session, connection_id)
            _expect_upgradable(held)
            if held.catalog_version != request.catalog_version:
                raise StaleCatalog(
                    held.id, expected=request.catalog_version, current=held.catalog_version
                )
            repair = await repair_in_progress(session, held.id)
            if repair is not None:
                raise Conflict(
                    f"Repair {repair.id} of connection {held.id} is {repair.state}: wait until it "
                    "has ended.",
                    code="repair_in_progress",
                    repair_id=repair.id,
                )
            return None

        begun = await self._operations.begin(
            Intent("upgrade", connection_id, request, key=key), take
        )
        return await self._operations.outcome(begun, wait=wait)

    async def _version(self, source_id: UUID) -> ConnectorVersion:
        try:
            async with airbyte_reads.airbyte_answers_by(airbyte_reads.airbyte_deadline()):
                return await self._connectors.read(source_id)
        except airbyte_reads.READ_FAILURES as error:
            raise airbyte_reads.nothing_recorded(error) from None


def _expect_upgradable(row: Connection) -> tuple[UUID, UUID]:
    """The connection's source and connection in Airbyte."""
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.status is ConnectionStatus.HEALING:
        raise NotActive(f"Connection {row.id} is HEALING.", code="heal_in_progress")
    is_active = row.status is ConnectionStatus.ACTIVE
    if not is_active or row.airbyte_source_id is None or row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; it must be ACTIVE.")
    return row.airbyte_source_id, row.airbyte_connection_id


def _expect_upgrade(found: ConnectorVersion, source_id: UUID) -> None:
    if not found.upcoming:
        raise NothingToUpgrade(
            f"Source {source_id} runs version {found.tag} of its connector, and no newer version "
            "has a breaking change: Airbyte has nothing to upgrade."
        )
    if found.is_pinned:
        raise ConnectorPinned(
            f"Source {source_id} is pinned to version {found.tag} in Airbyte by a user: remove the "
            "pin there to upgrade it."
        )
