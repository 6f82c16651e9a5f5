"""The reconciler: compares each ACTIVE connection with what Airbyte holds for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import reconciliation_queries
from services.orchestrator.reconciliation_queries import Head
from shared import batches, kept_state, outbox, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection
from shared.airbyte_reads import reading_back
from shared.batches import code_of
from shared.catalog_comparison import foreign_code, matches
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively
from shared.domain.destination import Naming
from shared.errors import (
    Conflict,
    NotActive,
    UpstreamConflict,
    UpstreamMismatch,
    UpstreamMissing,
    UpstreamUnknown,
)
from shared.models import Connection, ConnectionStatus
from shared.observability import logs
from shared.operations import HttpResult, Intent, Operation, Operations
from shared.outbox import EventType
from shared.saved_states.store import StateStore

log = logs.get(__name__)

_MAX_CONCURRENCY = 10
_PAGE = 200

Difference = Literal[
    "upstream_missing",
    "catalog_differs",
    "breaking_change",
    "paused",
    "resumed",
    "locked",
    "status_unknown",
]
"""The most severe one is reported. Airbyte sets `breakingChange` along with status inactive."""


class Compared(msgspec.Struct, frozen=True):
    """The result of a run."""

    dry_run: bool
    compared: int
    drifted: dict[UUID, str]
    """Connections for which Airbyte holds something else, with the difference."""
    unknown: dict[UUID, str]
    """Connections that could not be compared, with the error code."""


class Reapply(msgspec.Struct, frozen=True):
    """The catalog version that Airbyte must hold again."""

    airbyte_connection_id: UUID
    version: int
    fingerprint: str


class Reconciler:
    """Reports where Airbyte differs from the registry, and reapplies the catalog if configured."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, operations: Operations
    ) -> None:
        self._reapplies = settings.on_upstream_drift == "reapply"
        self._db = db
        self._airbyte = airbyte
        self._operations = operations

    async def reconcile(self, *, dry_run: bool) -> Compared:
        """Compare every ACTIVE connection by the fingerprint of its current catalog, in pages."""
        drifted: dict[UUID, str] = {}
        unknown: dict[UUID, str] = {}
        compared, after = 0, UUID(int=0)
        while heads := await self._heads(after):
            after = heads[-1].connection_id
            compared += len(heads)
            outcomes = await batches.each(
                heads,
                lambda head: self._reconciled(head, dry_run=dry_run),
                log_event="not_reconciled",
                fields=lambda head: {"connection": str(head.connection_id)},
                max_concurrency=_MAX_CONCURRENCY,
            )
            for outcome in outcomes:
                connection_id = outcome.item.connection_id
                if outcome.error is not None:
                    unknown[connection_id] = code_of(outcome.error)
                elif outcome.result is not None:
                    drifted[connection_id] = outcome.result
        return Compared(dry_run=dry_run, compared=compared, drifted=drifted, unknown=unknown)

    async def _heads(self, after: UUID) -> Sequence[Head]:
        async with self._db.read() as session:
            return await reconciliation_queries.heads(session, after=after, limit=_PAGE)

    async def _reconciled(self, head: Head, *, dry_run: bool) -> Difference | None:
        """How Airbyte differs; recorded unless `dry_run`.

        Raises:
            AamError: the difference could not be determined or recorded.
        """
        try:
            held = await self._airbyte.get_connection(head.airbyte_connection_id)
        except UpstreamMissing:
            held = None
        difference = "upstream_missing" if held is None else await _difference(held, head)
        if not dry_run:
            if held is not None:
                await self._note_naming(head, held)
            await self._settle(head, difference)
        return difference

    async def _note_naming(self, head: Head, held: AirbyteConnection) -> None:
        """Record how Airbyte names the connection's tables, if that is new."""
        naming = naming_in(held)
        if registry.read_naming(head.table_naming) == naming and head.table_naming is not None:
            return
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, head.connection_id, even_archived=True)
            if not await registry.is_busy(session, row.id):
                registry.save_naming(row, naming)

    async def _settle(self, head: Head, difference: Difference | None) -> None:
        """Record the result, unless the connection has changed in the meantime."""
        is_known = (difference is None) == (head.drifted_upstream_at is None)
        if is_known and difference == head.upstream_code:
            await self._put_back(head, difference)
            return
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, head.connection_id, even_archived=True)
            if not _is_still(row, head) or await registry.is_busy(session, row.id):
                return
            row.upstream_code = difference
            if difference is None:
                row.drifted_upstream_at = None
                outbox.record(session, EventType.CONNECTION_IN_STEP, row)
            else:
                row.drifted_upstream_at = row.drifted_upstream_at or await registry.now(session)
                outbox.record(session, EventType.CONNECTION_DRIFTED, row, code=difference)
                log.warning("drifted_upstream", connection=str(row.id), code=difference)
        await self._put_back(head, difference)

    async def _put_back(self, head: Head, difference: Difference | None) -> None:
        """Reapply the catalog if configured; a pause is left alone, as it may be intentional."""
        if difference == "catalog_differs" and self._reapplies:
            await self._reapply(head)

    async def _reapply(self, head: Head) -> None:
        """Put the newest version back, unless that needs a person's decision.

        A stream that was deselected in Airbyte and depends on a global (CDC) state would miss what
        changed meanwhile, so the connection stays reported.
        """
        if await self._would_leave_a_gap(head):
            log.warning("reapply_needs_decision", connection=str(head.connection_id))
            return

        async def take(session: AsyncSession, operation_id: UUID) -> HttpResult | None:
            row = await registry.lock_connection(session, head.connection_id)
            if not _is_still(row, head):
                raise NotActive(f"Connection {row.id} has changed in the meantime.")
            registry.begin_heal(row, operation_id)
            outbox.record(session, EventType.CATALOG_HEALING, row, ref=operation_id)
            return None

        order = Reapply(head.airbyte_connection_id, head.version, head.fingerprint)
        try:
            await self._operations.begin(Intent("reapply", head.connection_id, order), take)
        except Conflict as busy:
            log.info("reapply_failed", connection=str(head.connection_id), code=busy.code)

    async def _would_leave_a_gap(self, head: Head) -> bool:
        async with self._db.read() as session:
            version = await registry.read_version(session, head.connection_id, head.version)
        wanted = await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
        held = await kept_state.held_catalog(self._airbyte, head.airbyte_connection_id)
        added = kept_state.added_streams(wanted, held)
        again = await kept_state.with_state(self._airbyte, head.airbyte_connection_id, added)
        return bool(again.gapped)


def naming_in(held: AirbyteConnection) -> Naming:
    """How Airbyte names the tables of a connection."""
    settings = held.settings
    return Naming(settings.namespace_definition, settings.namespace_format, settings.prefix or None)


async def _difference(held: AirbyteConnection, head: Head) -> Difference | None:
    if held.status == "deprecated":
        return "upstream_missing"
    if not await matches(held, head.fingerprint):
        return "catalog_differs"
    if held.breaking_change:
        return "breaking_change"
    if held.status not in ("active", "inactive"):
        return foreign_code(held.status)
    if held.status == "active":
        # Outside of AAM, although a person had paused it here.
        return "resumed" if head.pause_requested_by is not None else None
    # A pause that a repair or a person requested of AAM matches the registry.
    is_known = head.paused_by is not None or head.pause_requested_by is not None
    return None if is_known else "paused"


def _is_still(row: Connection, head: Head) -> bool:
    return (
        row.archived_at is None
        and row.status is ConnectionStatus.ACTIVE
        and row.catalog_version == head.version
        and row.paused_by == head.paused_by
        and row.pause_requested_by == head.pause_requested_by
    )


class ReapplySaga:
    """Makes Airbyte hold the current catalog again; no new version is created."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._states = StateStore(settings, db, airbyte)

    async def run(self, operation: Operation) -> None:
        """Save Airbyte's state, update the connection, and check that Airbyte holds the catalog."""
        order = msgspec.json.decode(operation.request, type=Reapply)
        await self._states.save(
            operation, order.airbyte_connection_id, kind="heal", catalog_version=order.version
        )

        async def update() -> bool:
            async with self._db.read() as session:
                head = await registry.read_version(session, operation.connection_id, order.version)
            try:
                await self._airbyte.update_connection(
                    order.airbyte_connection_id, head.sync_catalog.encode()
                )
                return await self._holds(order)
            except (UpstreamUnknown, UpstreamConflict):
                if await self._holds(order):
                    return True
                raise

        async def took_effect() -> bool | None:
            return True if await self._holds(order) else None

        if not await operation.once("update", update, find=took_effect, within=3 * self._call_s):
            raise UpstreamMismatch("Airbyte accepted the catalog, but has a different one.")
        await self._end(operation, in_step=True)

    async def _holds(self, order: Reapply) -> bool:
        with reading_back():
            held = await self._airbyte.get_connection(order.airbyte_connection_id)
        return await matches(held, order.fingerprint)

    async def undo(self, operation: Operation) -> None:
        """Set ACTIVE as before, still marked as drifted; the next run compares again."""
        await self._end(operation, in_step=False)

    async def abandon(self, operation: Operation) -> None:
        """The same as `undo`."""
        await self._end(operation, in_step=False)

    async def _end(self, operation: Operation, *, in_step: bool) -> None:
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            registry.end_heal(row, operation.id, status=ConnectionStatus.ACTIVE)
            if in_step:
                row.drifted_upstream_at = row.upstream_code = None
            code = (operation.failure or {}).get("code")
            event = EventType.CONNECTION_IN_STEP if in_step else EventType.CATALOG_REFUSED
            outbox.record(session, event, row, ref=operation.id, code=code)
            await operation.finish(session, status=200, body="{}")
