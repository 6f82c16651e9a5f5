"""Judges the rows that each sync brought, by stream, and lists them.

The job follower judges every sync that ended, whoever started it, and records the result in the
transaction that records the job's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import volume_queries, volume_states
from services.orchestrator.schemas import VolumePage, VolumeView
from services.orchestrator.volume_queries import Selected
from services.orchestrator.volume_states import Volume
from shared import batches, outbox, registry
from shared.airbyte_client import Job
from shared.database import Database
from shared.domain import volume
from shared.models import Connection, JobHistory
from shared.observability import logs
from shared.outbox import EventType
from shared.registry.job_kinds import SYNCING

log = logs.get(__name__)


class Volumes:
    """The rows that syncs brought, by stream."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def judge(self, connection_id: UUID, job_id: UUID, job: Job) -> Sequence[Volume]:
        """Compare what an ended job brought with each stream's history; nothing is recorded yet.

        Nothing is judged if the job read no data, or if Airbyte reports no counts. A failure is
        logged, and must not prevent the job's end from being recorded.
        """
        if job.ended_at is None or job.config_type not in SYNCING:
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
        async with self._db.read() as session:
            recorded = await volume_queries.histories(
                session,
                connection_id,
                ended_at=ended_at,
                within=volume.HISTORY,
                limit=volume.MOST,
            )
        return await asyncio.to_thread(volume_states.judge_all, volumes, recorded, version=version)

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
        if not volumes:
            return
        await volume_queries.save(
            session,
            connection.id,
            job.id,
            volume_states.encode(volumes),
            ended_at=volumes[0].ended_at,
            most=volume.MOST,
        )
        if (suspicious := volume_states.suspicious(volumes)) is not None:
            job.suspicious_streams = suspicious.decode()
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
            selected = await volume_queries.selected_streams(
                session, connection_id, after=after or 0
            )
            newest = await self._newest(session, connection_id, selected)
        found = [(one, *newest.get((one.namespace, one.name), (None, None))) for one in selected]
        if is_suspicious is not None:
            found = [
                (one, job_id, was)
                for one, job_id, was in found
                if (was is not None and was.suspicious_since is not None) == is_suspicious
            ]
        more = found[limit - 1][0].position if len(found) > limit else None
        return VolumePage(items=[_view(*one) for one in found[:limit]], next=more)

    async def _newest(
        self, session: AsyncSession, connection_id: UUID, selected: Sequence[Selected]
    ) -> dict[tuple[str, str], tuple[UUID, Volume]]:
        """The newest volume of each stream with its job; mostly, the newest job has them all."""
        missing = {(one.namespace, one.name) for one in selected}
        newest: dict[tuple[str, str], tuple[UUID, Volume]] = {}
        jobs = 0
        for count in (1, volume.MOST):
            if not missing:
                break
            recorded = await volume_queries.recorded(
                session, connection_id, after=jobs, limit=count
            )
            jobs += len(recorded)
            newest |= await asyncio.to_thread(volume_states.newest_of, recorded, missing)
            missing -= newest.keys()
        return newest


def _view(one: Selected, job_id: UUID | None, was: Volume | None) -> VolumeView:
    if was is None:
        return VolumeView(stream=one.name, namespace=one.namespace or None)
    summary = None
    if was.usual_low is not None and was.usual_high is not None:
        summary = volume.sentence(was.usual_low, was.usual_high, was.rows)
    return VolumeView(
        stream=one.name,
        namespace=one.namespace or None,
        rows=was.rows,
        bytes=was.bytes_,
        ended_at=was.ended_at,
        job_id=job_id,
        usual_low=was.usual_low,
        usual_high=was.usual_high,
        suspicious_since=was.suspicious_since,
        summary=summary,
    )
