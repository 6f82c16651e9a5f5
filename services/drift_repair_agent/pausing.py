"""Pausing a connection in Airbyte until a person decides, and resuming it when nothing is open."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec

from shared import events, registry
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.errors import UpstreamConflict, UpstreamMismatch, UpstreamUnknown, UpstreamUnreachable
from shared.events import EventType
from shared.operations import Operation


class Pause(msgspec.Struct, frozen=True):
    """What the connection is to be in Airbyte, and the repair that is the reason."""

    airbyte_connection_id: UUID
    status: Literal["active", "inactive"]
    repair_id: UUID | None


class Pausing:
    """Sets a connection's status in Airbyte; resumable at every line.

    A connection that a person has paused is none of AAM's: it stays, and is not resumed later.
    """

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte

    async def run(self, operation: Operation) -> None:
        """Look how it is, set it, and note that it was AAM."""
        order = msgspec.json.decode(operation.request, type=Pause)

        async def found() -> str:
            return await self._status(order)

        async def set_() -> bool:
            try:
                await self._airbyte.set_status(order.airbyte_connection_id, order.status)
            except (UpstreamUnknown, UpstreamConflict):
                if await self._status(order) != order.status:
                    raise
            return await self._status(order) == order.status

        async def look() -> bool | None:
            return True if await self._status(order) == order.status else None

        before = await operation.once("found", found, within=self._call_s)
        is_ours = before != order.status
        if is_ours and not await operation.once("set", set_, look=look, within=3 * self._call_s):
            raise UpstreamMismatch("Airbyte accepted the connection's status and has another.")
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            if order.status == "active":
                row.paused_by = None
                events.record(session, EventType.CONNECTION_RESUMED, row, ref=order.repair_id)
            elif is_ours:
                row.paused_by = order.repair_id
                events.record(session, EventType.CONNECTION_PAUSED, row, ref=order.repair_id)
            await operation.finish(session)

    async def undo(self, operation: Operation) -> None:
        """End it: the connection is as Airbyte has it, and the proposal stands all the same."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """The same: what Airbyte holds is found by whoever looks next."""
        async with self._db.transaction() as session:
            await operation.finish(session)

    async def _status(self, order: Pause) -> str:
        try:
            return (await self._airbyte.get_connection(order.airbyte_connection_id)).status
        except UpstreamUnreachable:
            raise UpstreamUnknown("Airbyte went away before it could be looked at.") from None
