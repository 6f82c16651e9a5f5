"""Queries on Airbyte jobs and their recorded state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import NotFound
from shared.models import Connection, JobHistory, JobStarter


class RunningJob(NamedTuple):
    """A job that has not ended, as last seen, and its connection in Airbyte."""

    id: UUID
    connection_id: UUID
    airbyte_connection_id: UUID | None
    airbyte_job_id: int
    status: str
    attempts: int
    records: int | None
    bytes_: int | None


async def running_jobs(session: AsyncSession) -> Sequence[RunningJob]:
    """The jobs that have not ended, oldest first."""
    rows = await session.execute(
        select(
            JobHistory.id,
            JobHistory.connection_id,
            Connection.airbyte_connection_id,
            JobHistory.airbyte_job_id,
            JobHistory.status,
            JobHistory.attempts,
            JobHistory.records,
            JobHistory.bytes_,
        )
        .join(Connection, Connection.id == JobHistory.connection_id)
        .where(JobHistory.ended_at.is_(None))
        .order_by(JobHistory.started_at)
    )
    return [RunningJob(*row) for row in rows]


async def jobs_started_by_aam(
    session: AsyncSession, connection_id: UUID, airbyte_job_ids: Sequence[int]
) -> set[int]:
    """Which of these Airbyte jobs are recorded as started by AAM."""
    rows = await session.scalars(
        select(JobHistory.airbyte_job_id).where(
            JobHistory.connection_id == connection_id,
            JobHistory.airbyte_job_id.in_(airbyte_job_ids),
            JobHistory.started_by == JobStarter.AAM,
        )
    )
    return set(rows)


async def end_running_jobs(
    session: AsyncSession, connection_id: UUID, *, code: str
) -> Sequence[UUID]:
    """End a connection's jobs that can no longer be followed; the ids of those still running."""
    ended = await session.scalars(
        update(JobHistory)
        .where(JobHistory.connection_id == connection_id, JobHistory.ended_at.is_(None))
        .values(ended_at=func.now(), status="cancelled", failure_code=code)
        .returning(JobHistory.id)
    )
    return ended.all()


async def job_of(session: AsyncSession, connection_id: UUID, job_id: UUID) -> JobHistory:
    """A connection's job by AAM's id.

    Raises:
        NotFound: the connection has no such job.
    """
    job = await session.get(JobHistory, job_id, populate_existing=True)
    if job is None or job.connection_id != connection_id:
        raise NotFound(f"Connection {connection_id} has no job {job_id}.")
    return job


async def find_job(
    session: AsyncSession, connection_id: UUID, airbyte_job_id: int
) -> JobHistory | None:
    """A connection's job by Airbyte's id; None when it is not recorded."""
    return await session.scalar(
        select(JobHistory).where(
            JobHistory.connection_id == connection_id, JobHistory.airbyte_job_id == airbyte_job_id
        )
    )
