"""Follows up failures of sources: a new credential and one retry, or an observation at once.

Jobs only trigger it: the rows of job_history that are `due` are searched periodically, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import credential_queries, job_queries
from services.orchestrator.credential_queries import CredentialUse, Reaction
from services.orchestrator.job_history import FAILED_SYNC
from services.orchestrator.job_queries import FailedSync
from services.orchestrator.rotation import Rotator
from services.orchestrator.service import Orchestrator
from services.orchestrator.sync_after_heal import follow_up_of_observed
from shared import batches, outbox, registry
from shared.config import Settings
from shared.database import Database
from shared.discoveries import FAILED_DISCOVERY, OBSERVE_SOURCE
from shared.errors import (
    AamError,
    CheckFailed,
    Conflict,
    Invalid,
    OperationRunning,
)
from shared.failure_causes import Cause
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import Key
from shared.outbox import EventType
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_AT_ONCE: Final = 4
"""Maximum concurrent follow-ups over all replicas: each may start a connector for a check."""
_AGAIN_EVERY: Final = timedelta(seconds=30)
_LEFT_TO_ITS_JOB: Final = timedelta(minutes=1)
"""How long after its end the search leaves a failed sync to the job that was enqueued for it."""
_LONGEST: Final = timedelta(days=1)
"""A follow-up that has been impossible for this long is skipped."""
_BATCH: Final = 100
_PASSING: Final = frozenset(
    {
        Cause.NETWORK_FAILED,
        Cause.HOST_UNKNOWN,
        Cause.TLS_FAILED,
        Cause.QUOTA_EXCEEDED,
        Cause.SOURCE_UNAVAILABLE,
        Cause.OUT_OF_MEMORY,
        Cause.CANCELLED,
    }
)
"""Causes of a failed check that say nothing about the credential."""


class _Verdict(Enum):
    """What is known of a source's credential after a failure."""

    RENEWED = auto()
    """The source was given another one after the failed run began."""
    ACCEPTED = auto()
    REJECTED = auto()
    UNDECIDED = auto()
    """The check failed for another reason."""
    LATER = auto()
    """It cannot be decided now."""


class FollowUp:
    """Decides what follows from a failure whose origin is the source."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        rotator: Rotator,
        service: Orchestrator,
        jobs: Jobs,
    ) -> None:
        self._wait_s = settings.request_wait.total_seconds()
        self._db = db
        self._rotator = rotator
        self._service = service
        self._jobs = jobs
        self._under_way: set[UUID] = set()
        """Sources whose credential this process is deciding on; another failure waits."""
        self._compares = settings.rotation_digest_key is not None
        jobs.on(FAILED_SYNC, self._job_of_sync, at_once=_AT_ONCE)
        jobs.on(FAILED_DISCOVERY, self._job_of_discovery, at_once=_AT_ONCE)

    @property
    def periodic_task(self) -> PeriodicTask:
        """The search for follow-ups that are due, by one replica for all."""
        return PeriodicTask(self.resume, _AGAIN_EVERY, singleton_name="follow_up")

    async def resume(self) -> None:
        """Try again what could not be decided or was interrupted; skip what is a day old."""
        async with self._db.transaction() as session:
            await job_queries.skip_old_follow_ups(session, older_than=_LONGEST)
            due = await job_queries.due_follow_ups(
                session, ended_before=_LEFT_TO_ITS_JOB, limit=_BATCH
            )
        await batches.each(
            due,
            self._sync,
            log_event="sync_not_followed_up",
            fields=lambda job_id: {"job": str(job_id)},
            max_concurrency=_AT_ONCE,
        )

    async def _job_of_sync(self, payload: str) -> None:
        await self._sync(UUID(payload))

    async def _sync(self, job_id: UUID) -> None:
        async with self._db.read() as session:
            failed = await job_queries.failed_sync(session, job_id)
        if failed is None:
            return
        if not failed.is_newest:
            await self._end(failed, "skipped")
            return
        verdict = await self._verdict(failed.source_id, failed.started_at)
        if verdict is _Verdict.RENEWED:
            await self._end(failed, "retried" if await self._retry(failed) else "skipped")
        elif verdict is _Verdict.REJECTED:
            await self._end(failed, "rejected")
        elif verdict is _Verdict.UNDECIDED:
            await self._end(failed, "skipped")
        elif verdict is _Verdict.ACCEPTED:
            await self._end(failed, "observed")

    async def _end(self, failed: FailedSync, follow_up: job_queries.FollowedUp) -> None:
        async with self._db.transaction() as session:
            is_observed = follow_up == "observed"
            if is_observed:
                follow_up = await follow_up_of_observed(
                    session, failed.connection_id, started_at=failed.started_at
                )
            if not await job_queries.end_follow_up(session, failed.job_id, follow_up):
                return
            if is_observed:
                await self._observe(session, failed.source_id)
        log.info("sync_followed_up", job=str(failed.job_id), code=follow_up)

    async def _retry(self, failed: FailedSync) -> bool:
        """Start the sync once more; the key makes it once per failed job."""
        key = Key("AAM", "failed_sync", str(failed.job_id), failed.job_id.bytes)
        try:
            await self._service.sync(failed.connection_id, key=key, wait=0)
        except OperationRunning:
            return True
        except Conflict as error:
            log.info("sync_not_retried", connection=str(failed.connection_id), code=error.code)
            return False
        return True

    async def _observe(self, session: AsyncSession, source_id: UUID) -> None:
        await self._jobs.enqueue(session, OBSERVE_SOURCE, str(source_id), after=timedelta(0))

    async def _job_of_discovery(self, payload: str) -> None:
        async with self._db.read() as session:
            failed = await credential_queries.failed_discovery(session, UUID(payload))
        if failed is None or not failed.is_newest:
            return
        verdict = await self._verdict(failed.source_id, failed.started_at)
        if verdict is _Verdict.RENEWED:
            async with self._db.transaction() as session:
                await self._observe(session, failed.source_id)

    async def _verdict(self, source_id: UUID, since: datetime) -> _Verdict:
        """Read the source's credential again; what is known of it then.

        A source whose credential AAM does not have is not checked: an observation shows more.
        """
        async with self._db.read() as session:
            reference = await credential_queries.credential_of_source(session, source_id)
            if reference is None or not self._compares:
                return _Verdict.ACCEPTED
            uses = await credential_queries.credential_uses(session, reference)
            reactions = await credential_queries.reactions(session, uses)
        if source_id in self._under_way:
            return _Verdict.LATER
        self._under_way.add(source_id)
        try:
            return await self._decided(reference, source_id, since, uses, reactions)
        finally:
            self._under_way.discard(source_id)

    async def _decided(
        self,
        reference: str,
        source_id: UUID,
        since: datetime,
        uses: list[CredentialUse],
        reactions: Mapping[UUID, Reaction],
    ) -> _Verdict:
        if reactions.get(source_id) == "apply":
            applied = [use for use in uses if reactions.get(_source(use)) == "apply"]
            if not await self._is_compared(reference, source_id, applied):
                return _Verdict.LATER
        async with self._db.read() as session:
            if await credential_queries.was_given_since(session, source_id, since):
                return _Verdict.RENEWED
        ours = [use for use in uses if use.airbyte_source_id == source_id]
        return await self._checked(reference, source_id, ours)

    async def _is_compared(
        self, reference: str, source_id: UUID, uses: list[CredentialUse]
    ) -> bool:
        """Give the sources the credential if it changed; False if that cannot be done now.

        One that the watch has compared in vain is not checked with every source for each failure.
        """
        if await self._rotator.is_settled(reference):
            return True
        try:
            rotation = await self._rotator.rotated(reference, uses, wait=self._wait_s)
        except Invalid:
            return True  # the source keeps what it has
        outcomes = {
            one.outcome for one in rotation.connections if one.airbyte_source_id == source_id
        }
        return outcomes <= {"updated", "unchanged", "check_failed", "skipped"}

    async def _checked(
        self, reference: str, source_id: UUID, uses: list[CredentialUse]
    ) -> _Verdict:
        """Have Airbyte check what the source has, and record whether that is rejected."""
        try:
            renewed = await self._rotator.check_given(reference, source_id, uses)
        except CheckFailed as failed:
            if failed.cause in _PASSING:
                return _Verdict.UNDECIDED
            await self._reject(uses, failed.cause)
            return _Verdict.REJECTED
        except AamError as error:
            log.warning("credential_unchecked", source=str(source_id), code=error.code)
            return _Verdict.LATER
        async with self._db.transaction() as session:
            for use in sorted(uses, key=lambda use: use.connection_id):
                row = await registry.lock_connection(session, use.connection_id)
                row.credential_rejected_since = row.credential_rejected_cause = None
            if renewed:
                registry.record_discovery(session, source_id, "check", is_renewed=True)
        return _Verdict.ACCEPTED

    async def _reject(self, uses: list[CredentialUse], cause: str | None) -> None:
        """Record the rejection on each connection of the source; one event per episode."""
        async with self._db.transaction() as session:
            for use in sorted(uses, key=lambda use: use.connection_id):
                row = await registry.lock_connection(session, use.connection_id)
                if row.credential_rejected_since is not None:
                    continue
                row.credential_rejected_since = await registry.now(session)
                row.credential_rejected_cause = cause
                outbox.record(session, EventType.CREDENTIAL_REJECTED, row, code=cause)


def _source(use: CredentialUse) -> UUID:
    return use.airbyte_source_id or use.connection_id
