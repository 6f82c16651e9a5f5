"""Show the state of a connection: its streams and shapes, and when it was saved."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

from services.drift_repair_agent.states import queries
from services.drift_repair_agent.states.schemas import (
    SavedView,
    StateView,
    StreamName,
    StreamShape,
)
from services.drift_repair_agent.states.shapes import shape_of
from shared import registry
from shared.airbyte_client import AirbyteClient, ConnectionState
from shared.airbyte_reads import READ_FAILURES, nothing_recorded
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog
from shared.domain.cooperative import run_cooperatively
from shared.errors import NotActive, NotFound
from shared.saved_states.store import StateStore

_LARGE_BYTES: Final = 256 * 1024


class States:
    """Reads the states of connections from Airbyte, and shows them without values."""

    def __init__(self, db: Database, airbyte: AirbyteClient, store: StateStore) -> None:
        self._db = db
        self._airbyte = airbyte
        self._store = store

    async def view(self, connection_id: UUID) -> StateView:
        """What the connection's next sync resumes from, and when its state was last saved.

        Raises:
            NotFound: there is no such connection.
            NotActive: it does not exist in Airbyte.
            Unavailable: Airbyte or the registry is unavailable.
            UpstreamRefused: Airbyte does not return the state.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
            saved = await queries.newest(session, connection_id, only_saved=True)
            attempt = await queries.newest(session, connection_id)
        if row.airbyte_connection_id is None:
            raise NotActive(f"Connection {row.id} is {row.status}; it does not exist in Airbyte.")
        head = await self._head(row.id, row.catalog_version)
        try:
            state = await self._airbyte.connection_state(row.airbyte_connection_id)
        except READ_FAILURES as error:
            raise nothing_recorded(error) from None
        is_large = sum(map(len, state.streams.values())) + len(state.shared or b"") > _LARGE_BYTES
        streams, shared = (
            await asyncio.to_thread(_shapes, state, head) if is_large else _shapes(state, head)
        )
        not_saved = None if attempt is None else attempt.not_saved
        return StateView(
            connection_id=connection_id,
            type=state.type,
            shared=shared,
            streams=streams,
            orphaned=[one.stream for one in streams if not one.selected],
            saved=None
            if saved is None
            else SavedView(
                saved_at=saved.saved_at,
                kind=saved.kind,
                operation_id=saved.operation_id,
                catalog_version=saved.catalog_version,
                connector_version=saved.connector_version,
            ),
            not_saved=not_saved if self._store.is_able else "no_key",
        )

    async def _head(self, connection_id: UUID, number: int) -> Catalog:
        try:
            async with self._db.read() as session:
                head = await registry.read_version(session, connection_id, number)
        except NotFound:
            return Catalog(())  # before the first version
        return await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))


def _shapes(state: ConnectionState, head: Catalog) -> tuple[list[StreamShape], Any]:
    """The shapes of the streams' states, by name, and of the shared part."""
    selected = {stream.id: stream for stream in head.streams if stream.selected}
    shown = []
    for stream in sorted(state.streams, key=lambda one: one.order):
        value = state.of(stream)
        if value is None:
            continue
        known = selected.get(stream)
        fields = () if known is None else known.stream.fields() or ()
        shown.append(
            StreamShape(
                stream=StreamName.of(stream),
                selected=known is not None,
                shape=shape_of(value, fields=fields),
            )
        )
    return shown, None if state.shared is None else shape_of(state.shared)
