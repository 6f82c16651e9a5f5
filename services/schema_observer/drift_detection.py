"""Compares each connection of a source with its newest snapshot, and records drifts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.schema_observer import comparison_queries, drift_queries
from services.schema_observer.comparison_queries import Uncompared
from services.schema_observer.lapsed_mappers import Lapses, find_lapses, severity_of_lapses
from shared import batches, failpoints, outbox, registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain import drift
from shared.domain.catalog import Catalog, StreamId
from shared.domain.connector_versions import Step
from shared.domain.cooperative import run_cooperatively
from shared.domain.drift import Change, Verdict
from shared.job_queue import Jobs
from shared.models import ConnectionStatus, Drift, Snapshot
from shared.observability import logs
from shared.outbox import EventType

log = logs.get(__name__)

MOST_CHANGES: Final = 2_000
"""Maximum per drift, those that concern the connection first; the snapshots' diff has all."""

_PLAN: Final = "plan"
"""Entrypoint of the drift_repair_agent's jobs; the payload is the connection's id."""


class Compared(msgspec.Struct, frozen=True):
    """The result of comparing the connections of a source."""

    drifts: int = 0
    is_complete: bool = True
    """False where a connection is or was being healed: it is compared at the next observation."""


class Comparison:
    """Compares the connections of a source with a trusted snapshot."""

    def __init__(self, db: Database, jobs: Jobs) -> None:
        self._db = db
        self._jobs = jobs

    async def compare(self, source_id: UUID, snapshot_id: UUID) -> Compared:
        """Record a drift for each connection that has one, and how far each has been compared.

        It works from the stored rows, so the next observation completes what a process left
        unfinished, also for a snapshot that another service took.
        """
        async with self._db.read() as session:
            waiting = await comparison_queries.uncompared(session, source_id, snapshot_id)
            if not waiting:
                return Compared()
            after = await registry.find_snapshot(session, snapshot_id)
        known: dict[UUID, list[Change]] = {}
        active = [one for one in waiting if one.status is ConnectionStatus.ACTIVE]

        async def compare(one: Uncompared) -> Drift | bool | None:
            judged = await self._judged(one, after, known)
            lapses = Lapses()
            if one.has_mappers:
                lapses = await find_lapses(self._db, one.connection_id, one.catalog_version, after)
                judged = [*judged, *lapses.new(one.lapsed_mappers)]
            step = await self._connector_step(one, snapshot_id) if judged else None
            found = await self._record(one, snapshot_id, judged, lapses, step)
            failpoints.at("observe.compared")
            return found

        outcomes = await batches.each(
            active,
            compare,
            log_event="connection_not_compared",
            fields=lambda one: {"connection": str(one.connection_id)},
        )
        batches.raise_if_unavailable(outcomes)
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors and len(errors) == len(outcomes):
            raise errors[0]  # the discovered catalog must be the cause, not a connection's catalog
        is_complete = len(active) == len(waiting) and not errors
        return Compared(
            sum(bool(outcome.result) for outcome in outcomes),
            is_complete and all(outcome.result is not None for outcome in outcomes),
        )

    async def _judged(
        self, one: Uncompared, after: Snapshot, known: dict[UUID, list[Change]]
    ) -> list[tuple[Change, Verdict]]:
        """The changes with their severity for the connection; equal snapshot diffs are reused."""
        if one.before_snapshot_id is None:
            return await self._against_head(one, after)
        if one.before_snapshot_id not in known:
            known[one.before_snapshot_id] = await self._changes(one.before_snapshot_id, after)
        changes = known[one.before_snapshot_id]
        if not changes:
            return []
        head = (await self._head(one, {change.stream.name for change in changes})).by_id()
        changes = drift.with_conflicts(changes, head)
        return [(change, drift.severity(change, head.get(change.stream))) for change in changes]

    async def _changes(self, before_id: UUID, after: Snapshot) -> list[Change]:
        async with self._db.read() as session:
            before = await registry.find_snapshot(session, before_id)
            old, new = await _differing(session, before, after)
        return await run_cooperatively(drift.diff.steps(old, new))

    async def _against_head(self, one: Uncompared, after: Snapshot) -> list[tuple[Change, Verdict]]:
        """Compare with the catalog of a connection whose source was never observed before.

        Airbyte reduces a catalog to the selected fields, so only changes that concern the
        connection count.
        """
        head = await self._head(one)
        streams = head.by_id()
        hashes = list(registry.split_hashes(after.stream_hashes))
        async with self._db.read() as session:
            rows = await comparison_queries.stream_schemas(
                session, hashes, names={stream.name for stream in streams}
            )
        offered = [r.body.encode() for r in rows if StreamId(r.namespace, r.name) in streams]
        changes = await run_cooperatively(drift.diff.steps(head, offered))
        changes = drift.with_conflicts(changes, streams)
        judged = [(change, drift.severity(change, streams[change.stream])) for change in changes]
        return [(change, verdict) for change, verdict in judged if verdict.affects_sync]

    async def _head(self, one: Uncompared, names: Collection[str] | None = None) -> Catalog:
        """The connection's configured catalog, or only its streams of these names."""
        async with self._db.read() as session:
            slices = await comparison_queries.configured_streams(
                session, one.connection_id, one.catalog_version, names=names
            )
        return await run_cooperatively(catalogs.parse.steps(catalogs.join(slices)))

    async def _connector_step(self, one: Uncompared, snapshot_id: UUID) -> Step | None:
        """The change of the connector's version since the snapshot that it is compared with."""
        if one.before_snapshot_id is None:
            return None
        async with self._db.read() as session:
            return await registry.connector_step(session, one.before_snapshot_id, snapshot_id)

    async def _record(
        self,
        one: Uncompared,
        snapshot_id: UUID,
        judged: Sequence[tuple[Change, Verdict]],
        lapses: Lapses,
        step: Step | None,
    ) -> Drift | bool | None:
        """The drift; False without one; None where the connection has changed in the meantime.

        A drift that does not concern the connection is recorded without an event or a plan.
        """
        found = _drift(one, snapshot_id, judged, step) if judged else None
        async with self._db.transaction() as session:
            row = await registry.lock_connection(session, one.connection_id, even_archived=True)
            compared = await comparison_queries.compared_snapshot(session, row.id)
            if compared == snapshot_id != one.compared_snapshot_id:
                return False
            if (
                row.archived_at is not None
                or (row.status, row.catalog_version) != (one.status, one.catalog_version)
                or compared != one.compared_snapshot_id
            ):
                return None
            await comparison_queries.record_compared(
                session,
                row.id,
                snapshot_id,
                mappers_version=row.catalog_version,
                lapsed_mappers=lapses.stored,
            )
            if found is None or not await drift_queries.insert_drift(session, found):
                return False
            if found.affects_sync:
                if step is not None:
                    outbox.record(
                        session,
                        EventType.CONNECTOR_CHANGED,
                        row,
                        ref=found.id,
                        code=step.in_words,
                    )
                outbox.record(
                    session, EventType.DRIFT_DETECTED, row, ref=found.id, code=found.severity
                )
                lapsed = severity_of_lapses(judged)
                if lapsed is not None:
                    outbox.record(session, EventType.MAPPER_LAPSED, row, ref=found.id, code=lapsed)
                await self._jobs.enqueue(session, _PLAN, str(row.id), after=timedelta(0))
        log.info(
            "drift_recorded",
            connection=str(one.connection_id),
            drift=str(found.id),
            changes=len(judged),
            severity=found.severity,
        )
        return found


def _drift(
    one: Uncompared,
    snapshot_id: UUID,
    judged: Sequence[tuple[Change, Verdict]],
    step: Step | None,
) -> Drift:
    recorded = judged
    if len(judged) > MOST_CHANGES:
        recorded = sorted(judged, key=lambda pair: not pair[1].affects_sync)[:MOST_CHANGES]
    changes = msgspec.json.encode([drift.written(*pair) for pair in recorded]).decode()
    return Drift(
        id=uuid4(),
        connection_id=one.connection_id,
        before_snapshot_id=one.before_snapshot_id,
        after_snapshot_id=snapshot_id,
        head_version=one.catalog_version if one.compared_snapshot_id == snapshot_id else 0,
        severity=drift.worst(verdict.severity for _, verdict in judged),
        affects_sync=any(verdict.affects_sync for _, verdict in judged),
        # Postgres cannot store a NUL character in JSON; a field's name may contain one.
        changes=changes.replace("\\u0000", "\\ufffd"),
        connector_step=registry.write_step(step),
    )


async def difference(
    db: Database, before: Snapshot, after: Snapshot, *, names: Collection[str] | None = None
) -> list[Change]:
    """The changes between two snapshots of a source; only streams that differ are read.

    With `names`, only of the streams with these names.
    """
    async with db.read() as session:
        old, new = await _differing(session, before, after, names=names)
    return await run_cooperatively(drift.diff.steps(old, new))


async def differing_streams(db: Database, before: Snapshot, after: Snapshot) -> set[StreamId]:
    """The streams that differ between two snapshots."""
    async with db.read() as session:
        names = await comparison_queries.stream_names(session, _unequal(before, after))
    return {StreamId(namespace, name) for namespace, name in names}


def _unequal(before: Snapshot, after: Snapshot) -> set[bytes]:
    """The hashes of the streams that only one of the snapshots has."""
    ours, theirs = (
        set(registry.split_hashes(snapshot.stream_hashes)) for snapshot in (before, after)
    )
    return ours ^ theirs


async def _differing(
    session: AsyncSession,
    before: Snapshot,
    after: Snapshot,
    *,
    names: Collection[str] | None = None,
) -> tuple[list[bytes], list[bytes]]:
    """The streams of each snapshot that the other lacks; only those in `names` if given."""
    ours = set(registry.split_hashes(before.stream_hashes))
    either = await comparison_queries.stream_schemas(session, _unequal(before, after), names=names)
    return (
        [row.body.encode() for row in either if row.hash in ours],
        [row.body.encode() for row in either if row.hash not in ours],
    )
