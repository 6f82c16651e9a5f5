"""Pause a connection in Airbyte until a person decides, and resume it when nothing is open.

AAM only switches between `active` and `inactive`. Airbyte alone sets every other status: `locked`
(the connection is not covered by the customer's plan), `deprecated` (deleted), and any new ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from shared import outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import reading_back
from shared.catalog_comparison import foreign_code
from shared.config import Settings
from shared.database import Database
from shared.errors import UpstreamConflict, UpstreamMismatch, UpstreamMissing, UpstreamUnknown
from shared.models import Connection
from shared.operations import Operation
from shared.outbox import EventType
from shared.saved_states.store import StateStore

SET_BY_AAM: Final = frozenset({"active", "inactive"})
"""The statuses that AAM may set and may replace."""


class Pause(msgspec.Struct, frozen=True):
    """The status that the connection is to have in Airbyte, and the repair that caused it."""

    airbyte_connection_id: UUID
    status: Literal["active", "inactive"]
    repair_id: UUID | None
    catalog_version: int


class OnFailed(Protocol):
    """Has the connection with this id planned again: it could not be paused or resumed."""

    async def __call__(self, session: AsyncSession, connection_id: UUID, /) -> None: ...


class PauseSaga:
    """Saga that sets a connection's status in Airbyte; resumable at every line.

    A connection that was paused by a person or locked by Airbyte is left alone, and is not resumed
    later. A pause that Airbyte set along with its breaking-change flag becomes the repair's.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        states: StateStore,
        *,
        on_failed: OnFailed,
    ) -> None:
        self._on_failed = on_failed
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._states = states
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Read the status, set it, and record that AAM paused or resumed the connection.

        Before a pause, Airbyte's state of the connection is saved. Resuming clears Airbyte's
        breaking-change flag, since no open change requires a pause any more.
        """
        order = msgspec.json.decode(operation.request, type=Pause)

        async def look() -> dict[str, Any]:
            held = await self._airbyte.get_connection(order.airbyte_connection_id)
            return {"status": held.status, "breaking_change": held.breaking_change}

        async def set_() -> bool:
            try:
                await self._airbyte.set_status(
                    order.airbyte_connection_id, order.status, breaking_change=clears
                )
            except (UpstreamUnknown, UpstreamConflict):
                if not await is_set():
                    raise
            return await is_set()

        async def took_effect() -> bool | None:
            return True if await is_set() else None

        async def is_set() -> bool:
            with reading_back():
                held = await self._airbyte.get_connection(order.airbyte_connection_id)
            return held.status == order.status and not (clears is False and held.breaking_change)

        before: dict[str, Any] = await operation.once("look", look, within=self._call_s)
        clears = False if order.status == "active" and before["breaking_change"] else None
        is_foreign = before["status"] not in SET_BY_AAM
        is_ours = before["status"] != order.status and not is_foreign
        is_airbytes = before["status"] == "inactive" and before["breaking_change"]
        if is_ours and order.status == "inactive":
            await self._states.save(
                operation,
                order.airbyte_connection_id,
                kind="pause",
                catalog_version=order.catalog_version,
            )
        if is_ours and not await operation.once(
            "set", set_, find=took_effect, within=3 * self._call_s
        ):
            raise UpstreamMismatch(
                "Airbyte accepted the connection's status, but has a different one."
            )
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            if is_foreign:
                row.paused_by = None
                note_foreign(session, row, before["status"], at=await registry.now(session))
            elif order.status == "active":
                row.paused_by = None
                outbox.record(session, EventType.CONNECTION_RESUMED, row, ref=order.repair_id)
            elif is_ours or is_airbytes:
                row.paused_by = order.repair_id
                outbox.record(session, EventType.CONNECTION_PAUSED, row, ref=order.repair_id)
            await operation.finish(session)

    async def undo(self, operation: Operation) -> None:
        """End the operation; the connection keeps its status and the proposal stays open."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """End the operation, and have the connection planned again, unless Airbyte has none.

        The failed operation is on the connection's timeline and in the list of operations.
        """
        is_missing = (operation.failure or {}).get("code") == UpstreamMissing.code
        async with self._db.transaction() as session:
            if not is_missing:
                await self._on_failed(session, operation.connection_id)
            await operation.finish(session)


def note_foreign(session: AsyncSession, row: Connection, status: str, *, at: datetime) -> None:
    """Record that Airbyte gave the connection a status which AAM neither sets nor replaces."""
    code = foreign_code(status)
    if row.upstream_code != code:
        row.upstream_code = code
        row.drifted_upstream_at = row.drifted_upstream_at or at
        outbox.record(session, EventType.CONNECTION_DRIFTED, row, code=code)
