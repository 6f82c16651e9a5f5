"""Where a connection stands: its head catalog, and what its source offers of it now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from services.drift_repair_agent.healing import plan_changes
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.changes import PlannedChange, identity
from shared import registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import (
    DESTINATION_SYNC_MODES,
    NEVER_SELECTED,
    Catalog,
    Exclusions,
    InvalidCatalog,
    StreamId,
    distinct,
    read_stream,
)
from shared.domain.drift import Change, Verdict, names_at
from shared.domain.steps import run_cooperatively
from shared.errors import Conflict
from shared.models import Connection, Snapshot, SyncCatalogVersion


@dataclass(frozen=True, slots=True)
class CurrentState:
    """What was read, at one time; whoever acts on it compares ids again under the row's lock."""

    row: Connection
    head: SyncCatalogVersion
    configured: Catalog
    snapshot: Snapshot | None
    """What its source offers; None where nobody has looked at it."""
    offered: dict[StreamId, bytes]
    """What the source offers of the configured streams, and of those that were asked for."""

    async def changes(self) -> list[tuple[Change, Verdict]]:
        """How the source differs from the head, judged for this connection."""
        return await run_cooperatively(plan_changes.steps(self.configured, self.offered.values()))

    def names_within(self, change: Change) -> Iterator[str]:
        """The names of all fields that a new or retyped field brings, at any depth.

        Also patterns that names have, and names behind references. Of a retyped field only those
        that it did not have before; none for every other change.
        """
        if change.kind not in ("field_added", "field_retyped") or change.stream not in self.offered:
            return
        yield from names_at(self.offered[change.stream], change.path) - self._known_at(change)

    def _known_at(self, change: Change) -> frozenset[str]:
        """The names in a field as the connection syncs it now."""
        configured = self.configured.by_id().get(change.stream)
        if change.kind == "field_added" or configured is None:
            return frozenset()
        return names_at(configured.raw, change.path)

    def can_leave_out(self, change: Change, exclusions: Exclusions) -> bool:
        """Whether Airbyte can leave out of a new field or stream what is never selected."""
        body = self.offered.get(change.stream)
        if body is None:
            return True
        if change.kind == "field_added":
            return change.path[0] in (read_stream(body).stream.properties() or ())
        if change.kind == "stream_added":
            try:
                catalogs.choose(
                    catalogs.join([body]),
                    streams=None,
                    destination_sync_modes=DESTINATION_SYNC_MODES,
                    exclusions=exclusions,
                )
            except InvalidCatalog as error:
                return error.code != NEVER_SELECTED
        return True

    async def has_all(self, items: Iterable[PlannedChange]) -> bool:
        """Whether the source still differs from the head in these changes."""
        now = {identity(change) for change, _ in await self.changes()}
        return all(item.identity in now for item in items)


async def read(
    db: Database, connection_id: UUID, *, also: Collection[StreamId] = (), is_trusted: bool = False
) -> CurrentState:
    """Where a connection stands; of streams it does not sync, `also` these.

    Anybody's discovery is a snapshot. With `is_trusted` the source is taken as the connection's
    newest drift tells it: what the observer doubts is not acted on.

    Raises:
        NotFound: there is no such connection, or it has no version yet.
        Conflict: what was discovered has one stream twice, so that nobody can say what it offers.
    """
    async with db.read() as session:
        row = await registry.find_connection(session, connection_id)
        head = await registry.read_version(session, connection_id, row.catalog_version)
        drift = await queries.newest_drift(session, connection_id) if is_trusted else None
        if drift is not None:
            snapshot: Snapshot | None = await registry.find_snapshot(
                session, drift.after_snapshot_id
            )
        elif row.airbyte_source_id is not None:
            snapshot = await registry.latest_snapshot(session, row.airbyte_source_id)
        else:
            snapshot = None
    configured = await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))
    wanted = {stream.id for stream in configured.streams} | set(also)
    bodies: list[bytes] = []
    if snapshot is not None:
        async with db.read() as session:
            bodies = await registry.stream_bodies(
                session, snapshot, names=sorted({stream.name for stream in wanted})
            )
    try:
        ids = await run_cooperatively(distinct.steps(bodies))
    except InvalidCatalog as error:
        raise Conflict(str(error), code=error.code) from None
    offered = {stream: body for stream, body in zip(ids, bodies, strict=True) if stream in wanted}
    return CurrentState(row, head, configured, snapshot, offered)
