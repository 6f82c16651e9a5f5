"""The sweeper: deletes what ended operations and previews left in Airbyte, and nothing else.

Objects whose marker is unknown to this registry are reported but never deleted: they belong to
another installation, or to an operation newer than the backup this registry was restored from. So
are connections that have synced, whose operation may have succeeded after that backup.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from services.orchestrator import reconciliation_queries, trial_queries, workspace_queries
from shared import batches
from shared.airbyte_client import AirbyteClient, ListedConnection
from shared.database import Database
from shared.observability import logs

log = logs.get(__name__)

AT_MOST = 10
"""Maximum deletions per run; more leftovers than that should be reviewed by a person first."""
_FIRST_WAIT_S = 300.0
_LONGEST_WAIT_S = 24 * 3600.0
"""A failed deletion is retried after five minutes, with the wait doubling up to a day."""
_MARKER = re.compile(r"\[aam:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\]$")


class Found(msgspec.Struct, frozen=True):
    """An object in Airbyte that has AAM's marker and that no live connection uses."""

    kind: str
    """`connection` or `source`."""
    id: UUID
    workspace_id: UUID
    operation_id: UUID
    """The operation, or the trial, that created it."""


class Swept(msgspec.Struct, frozen=True):
    """The result of a run; of a dry run, what it would have done."""

    dry_run: bool
    deleted: list[Found]
    failed: list[Found]
    """Objects that could not be read or deleted; others are tried before these are retried."""
    synced: list[Found]
    """Connections of failed operations that have synced; never deleted: import or delete them."""
    left: list[Found]
    """Objects over the limit of a run, or whose retry is not yet due."""
    unknown: list[Found]
    """Objects not in use whose marker names no operation of this registry; never deleted."""
    unlisted: list[UUID]
    """Workspaces whose objects could not be listed."""


class _Listed(msgspec.Struct, frozen=True):
    """What one workspace has: its connections, and what has AAM's marker."""

    connections: list[ListedConnection]
    marked: list[Found]


class Sweeper:
    """Sweeps every workspace that AAM has used, deleting at most `AT_MOST` objects per run."""

    def __init__(
        self,
        db: Database,
        airbyte: AirbyteClient,
        *,
        grace: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._grace = grace
        self._clock = clock
        self._failed: dict[UUID, tuple[int, float]] = {}
        """Objects that could not be deleted: consecutive failures, and when to retry."""

    async def sweep(self, default: UUID, *, dry_run: bool) -> Swept:
        """Delete marked objects whose operation ended longer ago than the grace time.

        The workspaces are `default` and those in which the registry has created something. Objects
        in use are skipped. A workspace that cannot be listed, or a deletion that fails, is logged
        and does not stop the others, in this run or the next.

        Raises:
            Upstream: the objects of no workspace can be listed.
        """
        async with self._db.read() as session:
            used_workspaces = await workspace_queries.used_workspaces(session)
        outcomes = await batches.each(
            sorted({default, *used_workspaces}),
            self._list,
            log_event="workspace_not_swept",
            fields=lambda workspace_id: {"workspace": str(workspace_id)},
        )
        errors = [one.error for one in outcomes if one.error is not None]
        if len(errors) == len(outcomes):
            raise errors[0]
        listed = [one.result for one in outcomes if one.result is not None]
        connections = [one for each in listed for one in each.connections]
        marked = [one for each in listed for one in each.marked]
        async with self._db.read() as session:
            known = await reconciliation_queries.operations_over(
                session, {one.operation_id for one in marked}, before=self._grace
            )
            used = await reconciliation_queries.used_in_airbyte(session, {one.id for one in marked})
        orphans = [one for one in marked if known.get(one.operation_id) and one.id not in used]
        synced, unclear = await self._synced(orphans)
        orphans = [one for one in orphans if one not in synced and one not in unclear]
        going = {one.id for one in orphans}
        # Airbyte deletes a source's connections with it: delete it only if all of them go, too.
        wired = {
            one.source_id
            for one in connections
            if one.status != "deprecated" and one.connection_id not in going
        }
        orphans = [one for one in orphans if one.kind == "connection" or one.id not in wired]
        now = self._due(orphans)[:AT_MOST]
        left = [one for one in orphans if one not in now]
        deleted, failed = (now, []) if dry_run else await self._delete_each(now)
        failed = [*unclear, *failed]
        if left or failed:
            log.error("sweep_incomplete", left=len(left), failed=len(failed), deleted=len(deleted))
        return Swept(
            dry_run=dry_run,
            deleted=deleted,
            failed=failed,
            synced=synced,
            left=left,
            unknown=[one for one in marked if one.operation_id not in known and one.id not in used],
            unlisted=[one.item for one in outcomes if one.error is not None],
        )

    async def _list(self, workspace_id: UUID) -> _Listed:
        connections = await self._airbyte.list_connections(workspace_id)
        sources = await self._airbyte.list_sources(workspace_id)
        return _Listed(
            connections,
            [
                *(
                    Found("connection", one.connection_id, workspace_id, marker)
                    for one in connections
                    if one.status != "deprecated" and (marker := _marked(one.name))
                ),
                *(
                    Found("source", one.source_id, workspace_id, marker)
                    for one in sources
                    if (marker := _marked(one.name))
                ),
            ],
        )

    async def _synced(self, orphans: Sequence[Found]) -> tuple[list[Found], list[Found]]:
        """The connections that have synced, and those for which Airbyte does not say."""
        outcomes = await batches.each(
            [one for one in orphans if one.kind == "connection"],
            lambda one: self._airbyte.has_synced(one.id),
            log_event="not_swept",
            fields=lambda one: {"kind": one.kind, "id": str(one.id)},
        )
        synced = [one.item for one in outcomes if one.result]
        for one in synced:
            log.warning("leftover_has_synced", id=str(one.id), operation=str(one.operation_id))
        return synced, [one.item for one in outcomes if one.error is not None]

    def _due(self, orphans: Sequence[Found]) -> list[Found]:
        """The objects due now: those that never failed first, then those waiting the longest."""
        self._failed = {one.id: self._failed[one.id] for one in orphans if one.id in self._failed}
        now = self._clock()
        due = [one for one in orphans if self._failed.get(one.id, (0, now))[1] <= now]
        return sorted(due, key=lambda one: self._failed.get(one.id, (0, 0.0)))

    async def _delete_each(self, found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
        """The objects that were deleted, and those that could not be."""
        outcomes = await batches.each(
            found,
            self._delete,
            log_event="not_swept",
            fields=lambda one: {"kind": one.kind, "id": str(one.id)},
        )
        for outcome in outcomes:
            if outcome.error is None:
                self._failed.pop(outcome.item.id, None)
            else:
                times = self._failed.get(outcome.item.id, (0, 0.0))[0] + 1
                wait_s = min(_FIRST_WAIT_S * 2 ** (times - 1), _LONGEST_WAIT_S)
                self._failed[outcome.item.id] = (times, self._clock() + wait_s)
        return (
            [outcome.item for outcome in outcomes if outcome.error is None],
            [outcome.item for outcome in outcomes if outcome.error is not None],
        )

    async def _delete(self, one: Found) -> None:
        if one.kind == "connection":
            await self._airbyte.delete_connection(one.id, workspace_id=one.workspace_id)
        else:
            await self._airbyte.delete_source(one.id, workspace_id=one.workspace_id)
            async with self._db.transaction() as session:
                await trial_queries.mark_deleted(session, one.operation_id)
        log.warning(
            "leftover_deleted", kind=one.kind, id=str(one.id), operation=str(one.operation_id)
        )


def _marked(name: str) -> UUID | None:
    found = _MARKER.search(name)
    return UUID(found[1]) if found else None
