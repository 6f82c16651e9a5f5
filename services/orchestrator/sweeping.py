"""The sweeper: deletes from Airbyte what ended operations left there, and nothing else.

It names, and never touches, what carries a marker this registry does not know: another
installation's, or that of an operation younger than a backup this registry was restored from.
"""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import msgspec

from shared import logs, registry
from shared.airbyte_client import AirbyteClient
from shared.database import Database

log = logs.get(__name__)

AT_MOST = 10
"""Deletions a run; more left-overs than that want a person's look first."""
_MARKER = re.compile(r"\[aam:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\]$")


class Found(msgspec.Struct, frozen=True):
    """A marked object of Airbyte's that no live connection stands on."""

    kind: str
    """`connection` or `source`."""
    id: UUID
    operation_id: UUID


class Swept(msgspec.Struct, frozen=True):
    """What a run did, or in a dry run would do."""

    dry_run: bool
    deleted: list[Found]
    left: list[Found]
    """What is over the limit of a run."""
    unknown: list[Found]
    """What carries the marker of no operation of this registry; it is never deleted."""


class Sweeper:
    """Looks through one workspace, and at most `AT_MOST` objects the worse for it."""

    def __init__(self, db: Database, airbyte: AirbyteClient, *, grace: timedelta) -> None:
        self._db = db
        self._airbyte = airbyte
        self._grace = grace

    async def sweep(self, workspace_id: UUID, *, dry_run: bool) -> Swept:
        """Delete what is marked, known, over, older than the grace time, and unused.

        Raises:
            Upstream: Airbyte refused, or cannot be asked; what was deleted stays deleted.
        """
        connections = await self._airbyte.list_connections(workspace_id)
        sources = await self._airbyte.list_sources(workspace_id)
        marked = [
            *(
                Found("connection", one.connection_id, marker)
                for one in connections
                if one.status != "deprecated" and (marker := _marked(one.name))
            ),
            *(
                Found("source", one.source_id, marker)
                for one in sources
                if (marker := _marked(one.name))
            ),
        ]
        async with self._db.read() as session:
            known = await registry.operations_over(
                session, {one.operation_id for one in marked}, before=self._grace
            )
            used = await registry.used_in_airbyte(session, {one.id for one in marked})
        orphans = [one for one in marked if known.get(one.operation_id) and one.id not in used]
        going = {one.id for one in orphans}
        # Airbyte deletes a source's connections with it: only where all of them go, too.
        wired = {
            one.source_id
            for one in connections
            if one.status != "deprecated" and one.connection_id not in going
        }
        orphans = [one for one in orphans if one.kind == "connection" or one.id not in wired]
        now, left = orphans[:AT_MOST], orphans[AT_MOST:]
        if not dry_run:
            for one in now:
                await self._delete(one, workspace_id)
        if left:
            log.error("sweep_left_some", left=len(left), deleted=len(now))
        return Swept(
            dry_run=dry_run,
            deleted=now,
            left=left,
            unknown=[one for one in marked if one.operation_id not in known],
        )

    async def _delete(self, one: Found, workspace_id: UUID) -> None:
        if one.kind == "connection":
            await self._airbyte.delete_connection(one.id, workspace_id=workspace_id)
        else:
            await self._airbyte.delete_source(one.id, workspace_id=workspace_id)
        log.warning("swept", kind=one.kind, id=str(one.id), operation=str(one.operation_id))


def _marked(name: str) -> UUID | None:
    found = _MARKER.search(name)
    return UUID(found[1]) if found else None
