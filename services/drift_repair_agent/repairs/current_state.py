"""A connection's current state: its head catalog, and what its source offers now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services.drift_repair_agent.healing import Healed, heal, plan_changes
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.planned_changes import PlannedChange, identity
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
from shared.domain.cooperative import run_cooperatively
from shared.domain.drift import Change, Verdict, names_at
from shared.errors import Conflict
from shared.models import Connection, Snapshot, SyncCatalogVersion


@dataclass(frozen=True, slots=True)
class CurrentState:
    """A snapshot of the state; before acting on it, compare its ids again under the row lock."""

    row: Connection
    head: SyncCatalogVersion
    configured: Catalog
    snapshot: Snapshot | None
    """What its source offers; None if it was never discovered."""
    offered: dict[StreamId, bytes]
    """The source's definitions of the configured streams and of those in `also`."""
    also: frozenset[StreamId]

    async def changes(self) -> list[tuple[Change, Verdict]]:
        """The differences between the source and the head, with a verdict on each."""
        return await run_cooperatively(plan_changes.steps(self.configured, self.offered.values()))

    def names_within(self, change: Change) -> Iterator[str]:
        """The names of all fields that a new or retyped field adds, at any depth.

        Includes name patterns, and names behind references. For a retyped field, only names that it
        did not have before; for other kinds of changes, none.
        """
        if change.kind not in ("field_added", "field_retyped") or change.stream not in self.offered:
            return
        yield from names_at(self.offered[change.stream], change.path) - self._known_at(change)

    def _known_at(self, change: Change) -> frozenset[str]:
        """The names within a field as the connection syncs it now."""
        configured = self.configured.by_id().get(change.stream)
        if change.kind == "field_added" or configured is None:
            return frozenset()
        return names_at(configured.raw, change.path)

    def can_leave_out(self, change: Change, exclusions: Exclusions) -> bool:
        """Whether Airbyte can exclude the never-selected fields of a new field or stream."""
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
        """Whether all of these changes still exist between the head and the source."""
        now = {identity(change) for change, _ in await self.changes()}
        return all(item.identity in now for item in items)

    async def healed(self, items: Sequence[PlannedChange], exclusions: Exclusions) -> Healed:
        """The catalog that results from the decided changes.

        Raises:
            InvalidCatalog: they lead to no catalog that Airbyte would accept.
        """
        decisions = changes_of.decisions(items)
        return await run_cooperatively(
            heal.steps(self.configured, self.offered.values(), decisions, exclusions=exclusions)
        )


async def read(
    db: Database,
    connection_id: UUID,
    *,
    also: Collection[StreamId] = (),
    is_trusted: bool = False,
    known: CurrentState | None = None,
) -> CurrentState:
    """Read a connection's current state, including the streams in `also` that it does not sync.

    By default the source's latest snapshot is used, whichever request discovered it. With
    `is_trusted` it is the snapshot of the connection's newest drift, if there is one, so that a
    discovery which the observer found suspicious is not acted on.

    `known` is a state read before: its catalog and definitions are used again if the connection's
    head and the snapshot are still the same.

    Raises:
        NotFound: there is no such connection, or it has no version yet.
        Conflict: the snapshot has a stream twice, so what the source offers is ambiguous.
    """
    async with db.read() as session:
        row = await registry.find_connection(session, connection_id)
        drift = await queries.newest_drift(session, connection_id) if is_trusted else None
        if drift is not None:
            snapshot: Snapshot | None = await registry.find_snapshot(
                session, drift.after_snapshot_id
            )
        elif row.airbyte_source_id is not None:
            snapshot = await registry.latest_snapshot(session, row.airbyte_source_id)
        else:
            snapshot = None
        if known is not None and _is_as_known(known, row, snapshot, also):
            return replace(known, row=row, snapshot=snapshot)
        head = await registry.read_version(session, connection_id, row.catalog_version)
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
    return CurrentState(row, head, configured, snapshot, offered, frozenset(also))


def _is_as_known(
    known: CurrentState, row: Connection, snapshot: Snapshot | None, also: Collection[StreamId]
) -> bool:
    """Whether a state read before has the catalog and the definitions that are wanted now."""
    return (
        (known.row.id, known.row.catalog_version) == (row.id, row.catalog_version)
        and _content_of(known.snapshot) == _content_of(snapshot)
        and known.also.issuperset(also)
    )


def _content_of(snapshot: Snapshot | None) -> tuple[UUID, bytes] | None:
    """A key that is equal for two reads of a snapshot if its streams are the same."""
    return None if snapshot is None else (snapshot.id, snapshot.stream_hashes)
