"""Verify an applied repair by a sync: it succeeds, and brings each stream's usual rows.

If it fails for a schema reason, the repair is rolled back; if it brings far fewer rows, by policy.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.repairs import queries, transitions
from services.drift_repair_agent.repairs.policy import Policy
from shared import failpoints, registry
from shared.database import Database
from shared.domain.volume import sentence
from shared.errors import AamError, Invalid, NotActive, SyncRunning, UpstreamRefused
from shared.models import Connection, JobHistory, Repair, RepairState
from shared.observability import logs
from shared.registry.job_kinds import SYNCING
from shared.service_clients import Orchestrator

log = logs.get(__name__)

SCHEMA_REASONS: Final = frozenset({"refresh_schema", "config_error", "system_error"})
"""Airbyte's failure types that a catalog may have caused; it cannot have caused the others."""


_MOST_STREAMS: Final = 10
"""The most suspicious streams that a repair's detail names."""


class StillRunning(AamError):
    """The sync that the verification waits for is still running."""

    code = "sync_running"


class Verification:
    """Verifies repairs in VERIFYING; each step starts from the repair's row."""

    def __init__(self, db: Database, orchestrator: Orchestrator) -> None:
        self._db = db
        self._orchestrator = orchestrator

    async def step(self, repair: Repair) -> None:
        """Start the sync, or check how it ended.

        Raises:
            AamError: the outcome is not known yet; the error's code says why.
        """
        if repair.job_id is None:
            await self._start(repair)
            return
        async with self._db.read() as session:
            job = await session.get(JobHistory, repair.job_id)
        if job is not None and job.ended_at is None:
            raise StillRunning(f"Job {job.id} is running.")
        if job is None:
            await self._inconclusive(repair)
        elif job.status == "succeeded":
            await self._settle_by_volume(repair, job)
        elif job.failure_code in SCHEMA_REASONS:
            await self._restore_previous(repair, job.failure_code)
        else:
            await self._inconclusive(repair)

    async def _start(self, repair: Repair) -> None:
        """Have the orchestrator start a sync, or use a running one that has the new catalog."""
        # The orchestrator stores a refusal under its key, so a later attempt needs another key.
        key = f"verify-{repair.id}-{repair.attempts}"
        try:
            job_id = await self._orchestrator.sync(repair.connection_id, key=key)
        except SyncRunning as running:
            found = await self._running(repair, running)
            if found is None:
                raise
            job_id = found
        except NotActive as refused:
            if refused.code != NotActive.code:
                raise
            await self._inconclusive(repair)
            return
        except (UpstreamRefused, Invalid):
            await self._inconclusive(repair)
            return
        failpoints.at("repair.sync_started")
        async with self._db.transaction() as session:
            await queries.verify_by_job(session, repair.id, job_id)
        raise StillRunning(f"Job {job_id} is running.")

    async def _running(self, repair: Repair, running: SyncRunning) -> UUID | None:
        """The running job, if it reads data and started with the version to verify."""
        found, kind = running.members.get("job_id"), running.members.get("job_kind", "sync")
        if not isinstance(found, str) or kind not in SYNCING:
            return None
        async with self._db.read() as session:
            job = await session.get(JobHistory, UUID(found))
        if job is None or job.catalog_version != repair.version_number:
            return None
        return job.id

    async def _settle_by_volume(self, repair: Repair, job: JobHistory) -> None:
        """End the repair as verified, unless a stream has far fewer rows since its version.

        Any stream of the connection counts, since the update wrote the whole catalog. One that was
        suspicious before does not, since the previous version would not bring its rows back. The
        orchestrator records the rows in the transaction that records the job's end.
        """
        async with self._db.read() as session:
            found = await queries.suspicious_streams(
                session, job.id, since_version=repair.version_number, limit=_MOST_STREAMS
            )
            policy = Policy.of(await registry.find_policy(session, repair.connection_id))
        if not found:
            await self._settle(repair, note=None)
        elif policy.on_suspicious_volume == "rollback":
            await self._restore_previous(repair, transitions.SUSPICIOUS_VOLUME)
        else:
            detail = "; ".join(
                f"{one.name}: {sentence(one.low, one.high, one.rows)}" for one in found
            )
            await self._settle(repair, note=transitions.SUSPICIOUS_VOLUME, detail=f"{detail}.")

    async def _inconclusive(self, repair: Repair) -> None:
        await self._settle(repair, note=transitions.INCONCLUSIVE)

    async def _settle(self, repair: Repair, *, note: str | None, detail: str | None = None) -> None:
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state == RepairState.VERIFYING:
                await transitions.mark_applied(session, row, held, note=note, detail=detail)

    async def _restore_previous(self, repair: Repair, code: str | None) -> None:
        """Have the previous version restored; at most once, since that ends the repair."""
        async with self._db.transaction() as session:
            row, held = await self._lock(session, repair)
            if held.state != RepairState.VERIFYING:
                return
            if row.catalog_version != held.version_number:
                # A newer catalog was applied in the meantime; it must not be rolled back.
                await transitions.mark_applied(session, row, held, note=transitions.INCONCLUSIVE)
                return
            transitions.start_rollback(held, code)
        log.warning("repair_rollback_started", repair=str(repair.id), code=code)
        failpoints.at("repair.taken_back")

    @staticmethod
    async def _lock(session: AsyncSession, repair: Repair) -> tuple[Connection, Repair]:
        row = await registry.lock_connection(session, repair.connection_id, even_archived=True)
        return row, await queries.find_repair(session, repair.id, lock=True)
