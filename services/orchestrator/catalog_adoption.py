"""Adopts the catalog that Airbyte holds for a connection as its next version.

Airbyte is only read. A connection that differs after an edit in Airbyte, or because the registry
was restored from a backup, is in step again without any change to its syncs.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from services.orchestrator.catalog_reconciler import naming_in
from services.orchestrator.catalog_schemas import Adopted
from services.orchestrator.destination_fit import DestinationFit
from services.orchestrator.importer import never_selected
from services.orchestrator.schemas import SelectedView
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection
from shared.auth import label_limits, scopes
from shared.catalog_comparison import matches
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively
from shared.errors import Invalid, NotActive, UpstreamMissing
from shared.models import Connection, ConnectionStatus, VersionOrigin
from shared.outbox import EventType

_CODE = "adopted"
_MOST_NOTES = 200


class CatalogAdoption:
    """Adopts catalogs."""

    def __init__(self, db: Database, airbyte: AirbyteClient, fit: DestinationFit) -> None:
        self._fit = fit
        self._db = db
        self._airbyte = airbyte

    async def adopt(self, connection_id: UUID) -> Adopted:
        """Record the catalog that Airbyte holds as the next version, unless it is the newest.

        Neither the destination nor the policy refuses anything of it, since Airbyte syncs with it
        already: the notes say what the destination does with the streams that changed, and
        `never_selected` has the fields that the policy never selects.

        Raises:
            NotFound: there is no such connection.
            NotActive: it is archived or not in Airbyte, or has an open operation.
            StaleCatalog: it got another version meanwhile.
            UpstreamMissing: Airbyte has no such connection any more.
            Invalid: Airbyte's catalog is invalid or selects no stream.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            base, airbyte_id = row.catalog_version, row.airbyte_connection_id
            if airbyte_id is None or row.archived_at is not None:
                raise NotActive(f"Connection {connection_id} does not exist in Airbyte.")
            known = await registry.head_fingerprint(session, row)
        held = await self._airbyte.get_connection(airbyte_id)
        if held.status == "deprecated":
            raise UpstreamMissing(f"Connection {connection_id} was deleted in Airbyte.")
        is_known = known is not None and await matches(held, known)
        fingerprint = known if known and is_known else await _fingerprint(held.sync_catalog)
        notes, excluded = await self._noted(row, held, is_known=is_known)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, connection_id)
            if await registry.is_busy(session, connection_id):
                raise NotActive(f"Connection {connection_id} is being changed: try again later.")
            is_changed = not is_known or row.status is not ConnectionStatus.ACTIVE
            if not is_known:
                registry.append_version(
                    session,
                    row,
                    held.sync_catalog,
                    expected_version=base,
                    fingerprint=fingerprint,
                    origin=VersionOrigin.IMPORT,
                    snapshot_id=None,
                    requested_by=scopes.requested_by(),
                )
            if is_changed or row.drifted_upstream_at is not None:
                row.status = ConnectionStatus.ACTIVE
                row.failure_code = row.failure_detail = None
                row.drifted_upstream_at = row.upstream_code = None
                outbox.record(session, EventType.CONNECTION_IN_STEP, row, code=_CODE)
            return Adopted(
                connection_id=connection_id,
                previous_version=base,
                version_number=row.catalog_version,
                changed=not is_known,
                notes=msgspec.to_builtins(notes[:_MOST_NOTES]),
                never_selected=excluded,
            )

    async def _noted(
        self, row: Connection, held: AirbyteConnection, *, is_known: bool
    ) -> tuple[Sequence[catalogs.Note], list[SelectedView]]:
        """Notes on how Airbyte's catalog differs from the head, and its excluded fields."""
        catalog = await run_cooperatively(catalogs.parse.steps(held.sync_catalog))
        head = catalogs.Catalog(())
        async with self._db.read() as session:
            exclusions = await registry.exclusions_of(session, row.id)
            if row.catalog_version and not is_known:
                version = await registry.read_version(session, row.id, row.catalog_version)
                head = await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
        excluded = await never_selected(catalog, exclusions)
        if is_known:
            return (), excluded
        with label_limits.registry_wide():
            notes = await self._fit.notes(
                catalog,
                head,
                connection_id=row.id,
                destination_id=row.airbyte_destination_id,
                naming=naming_in(held),
            )
        return notes, excluded


async def _fingerprint(document: bytes) -> str:
    """The fingerprint of a catalog.

    Raises:
        Invalid: it is invalid or selects no stream.
    """
    try:
        catalog = await run_cooperatively(catalogs.parse.steps(document))
        if not catalog.selected().streams:
            raise Invalid("Airbyte's catalog selects no stream.", code="no_selected_stream")
        return await run_cooperatively(catalogs.document_fingerprint.steps(document))
    except catalogs.InvalidCatalog as error:
        raise Invalid(str(error), code=error.code) from None
