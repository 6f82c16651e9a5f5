"""Judges the rows that each sync brought, by stream, and lists them.

The job follower judges every sync that ended, whoever started it, and records the result in the
transaction that records the job's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import volume_queries, volume_states
from services.orchestrator.schemas import VolumePage, VolumeView
from services.orchestrator.volume_queries import Listed
from services.orchestrator.volume_states import Recorded, Volume
from shared import batches, outbox, registry
from shared.airbyte_client import Job
from shared.database import Database
from shared.domain import volume
from shared.models import Connection, JobHistory
from shared.observability import logs
from shared.outbox import EventType

log = logs.get(__name__)

_READING_JOBS: Final = frozenset({"sync", "refresh"})
_BATCH_SIZE: Final = 200
"""How many streams' histories are read at once."""


_HISTORIES = msgspec.json.Decoder(list[list[Recorded]])


class Volumes:
    """The rows that syncs brought, by stream."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def judge(self, connection_id: UUID, job_id: UUID, job: Job) -> Sequence[Volume]:
        """Compare what an ended job brought with each stream's history; nothing is recorded yet.

        Nothing is judged if the job read no data, or if Airbyte reports no counts. A failure is
        logged, and must not prevent the job's end from being recorded.
        """
        if job.ended_at is None or job.config_type not in _READING_JOBS:
            return ()
        (outcome,) = await batches.each(
            [job],
            lambda one: self._judge(connection_id, job_id, one),
            log_event="volume_not_judged",
            fields=lambda _job: {"job": str(job_id), "connection": str(connection_id)},
        )
        return outcome.result or ()

    async def _judge(self, connection_id: UUID, job_id: UUID, job: Job) -> list[Volume]:
        ended_at = job.ended_at
        if ended_at is None:
            return []
        async with self._db.read() as session:
            version, streams = await volume_queries.streams_of_job(session, job_id)
        counts = job.counts(full_refresh={one.id for one in streams if one.is_full_refresh})
        # Counts of other names say nothing about these streams.
        if counts is None or (counts and not any(one.id in counts for one in streams)):
            return []
        volumes = list(volume_states.of_job(streams, job, counts, ended_at))
        judged: list[Volume] = []
        for start in range(0, len(volumes), _BATCH_SIZE):
            batch = volumes[start : start + _BATCH_SIZE]
            async with self._db.read() as session:
                histories = await volume_queries.histories(
                    session,
                    connection_id,
                    batch,
                    ended_at=ended_at,
                    within=volume.HISTORY,
                    limit=volume.MOST,
                )
            judged += await asyncio.to_thread(_judged, batch, histories, version)
        return judged

    async def save(
        self,
        session: AsyncSession,
        connection: Connection,
        job: JobHistory,
        volumes: Sequence[Volume],
    ) -> None:
        """Record the volumes of a job, in the transaction that records its end.

        One event for the streams that became suspicious with it. One that was suspicious before
        is recorded as such, and announced again only after a sync that was not suspicious.
        """
        await volume_queries.save(session, connection.id, job.id, volumes)
        began = [one for one in volumes if one.begins_episode]
        if not began:
            return
        outbox.record(
            session,
            EventType.SYNC_VOLUME_SUSPICIOUS,
            connection,
            status=job.status,
            ref=job.id,
            code="no_rows" if any(one.rows == 0 for one in began) else "fewer_rows",
        )
        log.warning("volume_suspicious", job=str(job.id), connection=str(connection.id))

    async def page(
        self, connection_id: UUID, *, is_suspicious: bool | None, after: int | None, limit: int
    ) -> VolumePage:
        """The streams that the connection syncs, in the order of its catalog.

        Raises:
            NotFound: there is no such connection.
        """
        async with self._db.read() as session:
            await registry.find_connection(session, connection_id)
            found = await volume_queries.page(
                session,
                connection_id,
                is_suspicious=is_suspicious,
                after=after or 0,
                limit=limit + 1,
            )
        more = found[limit - 1].position if len(found) > limit else None
        return VolumePage(items=[_view(one) for one in found[:limit]], next=more)


def _judged(volumes: Sequence[Volume], histories: str, version: int) -> list[Volume]:
    return [
        volume_states.judge(one, recorded, version=version)
        for one, recorded in zip(volumes, _HISTORIES.decode(histories), strict=True)
    ]


def _view(one: Listed) -> VolumeView:
    summary = None
    if one.rows is not None and one.usual_low is not None and one.usual_high is not None:
        summary = volume.sentence(one.usual_low, one.usual_high, one.rows)
    return VolumeView(
        stream=one.name,
        namespace=one.namespace or None,
        rows=one.rows,
        bytes=one.bytes_,
        ended_at=one.ended_at,
        job_id=one.job_id,
        usual_low=one.usual_low,
        usual_high=one.usual_high,
        suspicious_since=one.suspicious_since,
        summary=summary,
    )
