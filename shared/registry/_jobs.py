"""Airbyte's jobs, as they are followed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import JobHistory, JobStarter


async def running_jobs(session: AsyncSession) -> Sequence[JobHistory]:
    """The jobs that have not ended, oldest first."""
    rows = await session.scalars(
        select(JobHistory).where(JobHistory.ended_at.is_(None)).order_by(JobHistory.started_at)
    )
    return rows.all()


async def jobs_started_by_aam(
    session: AsyncSession, connection_id: UUID, airbyte_job_ids: Sequence[int]
) -> set[int]:
    """Which of these jobs of Airbyte's are recorded as AAM's own."""
    rows = await session.scalars(
        select(JobHistory.airbyte_job_id).where(
            JobHistory.connection_id == connection_id,
            JobHistory.airbyte_job_id.in_(airbyte_job_ids),
            JobHistory.started_by == JobStarter.AAM,
        )
    )
    return set(rows)


async def end_running_jobs(session: AsyncSession, connection_id: UUID, *, code: str) -> None:
    """End a connection's jobs that nobody can follow any more."""
    await session.execute(
        update(JobHistory)
        .where(JobHistory.connection_id == connection_id, JobHistory.ended_at.is_(None))
        .values(ended_at=func.now(), status="cancelled", failure_code=code)
    )


async def find_job(
    session: AsyncSession, connection_id: UUID, airbyte_job_id: int
) -> JobHistory | None:
    """A connection's job by Airbyte's id; None when it was not recorded here."""
    return await session.scalar(
        select(JobHistory).where(
            JobHistory.connection_id == connection_id, JobHistory.airbyte_job_id == airbyte_job_id
        )
    )
