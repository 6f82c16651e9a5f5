"""Where a connection stands: its head catalog, and what its source offers of it now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from services.drift_repair_agent.items import Item, identity
from shared import registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId, identify
from shared.domain.drift import ITEM, Change, Verdict
from shared.domain.repair import plan_changes
from shared.domain.steps import in_slices
from shared.models import Connection, Snapshot, SyncCatalogVersion


@dataclass(frozen=True, slots=True)
class Situation:
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
        return await in_slices(plan_changes.steps(self.configured, self.offered.values()))

    def names_within(self, change: Change) -> Iterator[str]:
        """The names of all fields in a new field, at any depth; none for every other change."""
        if change.kind == "field_added" and change.stream in self.offered:
            schema = msgspec.json.decode(self.offered[change.stream])["stream"].get("jsonSchema")
            for step in change.path:
                schema = _within(schema).get(step)
            yield from _names(schema)

    async def has_all(self, items: Iterable[Item]) -> bool:
        """Whether the source still differs from the head in these changes."""
        now = {identity(change) for change, _ in await self.changes()}
        return all(item.identity in now for item in items)


def _within(schema: Any) -> dict[str, Any]:
    """The schemas in one by the step that leads to each; branches have no step of their own."""
    if not isinstance(schema, dict):
        return {}
    found = dict(schema.get("properties") or {})
    if isinstance(schema.get("items"), dict):
        found[ITEM] = schema["items"]
    for keyword in ("oneOf", "anyOf", "allOf"):
        for branch in schema.get(keyword) or ():
            found |= _within(branch)
    return found


def _names(schema: Any) -> Iterator[str]:
    for step, inner in _within(schema).items():
        if step != ITEM:
            yield step
        yield from _names(inner)


async def read(
    db: Database, connection_id: UUID, *, also: Collection[StreamId] = (), is_trusted: bool = False
) -> Situation:
    """Where a connection stands; of streams it does not sync, `also` these.

    Anybody's discovery is a snapshot. With `is_trusted` the source is taken as the connection's
    newest drift tells it: what the observer doubts is not acted on.

    Raises:
        NotFound: there is no such connection, or it has no version yet.
    """
    async with db.read() as session:
        row = await registry.find_connection(session, connection_id)
        head = await registry.read_version(session, connection_id, row.catalog_version)
        drift = await registry.newest_drift(session, connection_id) if is_trusted else None
        if drift is not None:
            snapshot: Snapshot | None = await registry.find_snapshot(
                session, drift.after_snapshot_id
            )
        elif row.airbyte_source_id is not None:
            snapshot = await registry.latest_snapshot(session, row.airbyte_source_id)
        else:
            snapshot = None
    configured = await in_slices(catalogs.parse.steps(head.sync_catalog.encode()))
    wanted = {stream.id for stream in configured.streams} | set(also)
    bodies: list[bytes] = []
    if snapshot is not None:
        async with db.read() as session:
            bodies = await registry.stream_bodies(
                session, snapshot, names=sorted({stream.name for stream in wanted})
            )
    by_id = {identify(body, position)[0]: body for position, body in enumerate(bodies)}
    offered = {stream: body for stream, body in by_id.items() if stream in wanted}
    return Situation(row, head, configured, snapshot, offered)
