"""Save Airbyte's state of a connection before an operation changes it, and read what was saved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from shared.airbyte_client import AirbyteClient, ConnectionState, Job, read_state
from shared.config import Settings
from shared.database import Database
from shared.errors import (
    UpstreamConflict,
    UpstreamDenied,
    UpstreamRefused,
    UpstreamUnknown,
)
from shared.observability import logs
from shared.operations import Operation
from shared.saved_states import queries
from shared.saved_states.queries import Kind, NotSaved, ToSave
from shared.saved_states.sealing import MAX_BYTES, Sealer, StateUnreadable

log = logs.get(__name__)

STEP: Final = "state"
"""The step of an operation that saves the state; its result is `saved`, `reason` and `at`."""
_TRIES: Final = 3
"""Attempts to read a state before the operation goes on without it."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved state, decrypted, and what was current when it was saved."""

    catalog_version: int
    connector_version: str | None
    airbyte_job_id: int | None
    state: ConnectionState


class StateStore:
    """Saves states of connections, encrypted; values never leave it other than to Airbyte."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._sealer = Sealer(settings.state_encryption_keys)

    @property
    def is_able(self) -> bool:
        """Whether there is a key; without one, nothing is saved."""
        return self._sealer.is_able

    async def save(
        self,
        operation: Operation,
        airbyte_connection_id: UUID,
        *,
        kind: Kind,
        catalog_version: int,
    ) -> dict[str, Any]:
        """Save the state as a step of an operation, before anything else of it.

        A state that cannot be saved does not stop the operation: the result and the row have the
        reason. The row has the number of Airbyte's newest job that had ended, so that those which
        may change the state, or the rows that it is about, are recognized as later.

        Raises:
            UpstreamUnreachable, UpstreamUnknown, UpstreamConflict: Airbyte returned no state; the
                operation tries again.
        """

        async def saved() -> dict[str, Any]:
            job_id, state, reason = await self._read(operation, airbyte_connection_id)
            sealed = None
            if state is not None:
                sealed = await asyncio.to_thread(
                    self._sealer.seal,
                    state,
                    connection_id=operation.connection_id,
                    operation_id=operation.id,
                )
            row = ToSave(
                operation_id=operation.id,
                connection_id=operation.connection_id,
                kind=kind,
                catalog_version=catalog_version,
                airbyte_job_id=job_id,
                state=sealed,
                not_saved=reason,
            )
            async with self._db.transaction() as session:
                at = await queries.save(session, row)
            if reason not in (None, "no_state", "no_key"):
                connection = str(operation.connection_id)
                log.warning("state_not_saved", connection=connection, code=reason)
            return {"saved": reason is None, "reason": reason, "at": at.isoformat()}

        result: dict[str, Any] = await operation.once(STEP, saved, within=3 * self._call_s)
        return result

    async def _read(
        self, operation: Operation, airbyte_connection_id: UUID
    ) -> tuple[int | None, bytes | None, NotSaved | None]:
        """The newest job's number, and the state in Airbyte's form or the reason why none is saved.

        If that job has not ended, the number is the one before: the state is from before its end.
        """
        if not self._sealer.is_able:
            return None, None, "no_key"
        try:
            # The job first: one that starts in between is then recognized as a later one.
            jobs = await self._airbyte.list_jobs(airbyte_connection_id, limit=1)
            state = await self._airbyte.connection_state(airbyte_connection_id)
        except (UpstreamRefused, UpstreamDenied):
            return None, None, "unreadable"
        except (UpstreamUnknown, UpstreamConflict):
            missed = operation.results.get("state_missed", 0) + 1
            operation.results["state_missed"] = missed
            if missed < _TRIES:
                raise
            return None, None, "unreadable"
        job_id = _ended_by(jobs[0]) if jobs else None
        if state.type == "not_set":
            return job_id, None, "no_state"
        document = state.as_sent(airbyte_connection_id)
        if len(document) > MAX_BYTES:
            return job_id, None, "too_large"
        return job_id, document, None

    async def saved_ids(self, connection_id: UUID, *, limit: int) -> list[UUID]:
        """The newest saved states of a connection, newest first."""
        async with self._db.read() as session:
            return list(await queries.saved_ids(session, connection_id, limit=limit))

    async def read(self, saved_id: UUID) -> Saved | None:
        """A saved state; None if it was pruned, or no key decrypts it."""
        async with self._db.read() as session:
            row = await queries.find(session, saved_id)
        if row is None or row.state is None:
            return None
        try:
            document = await asyncio.to_thread(
                self._sealer.open,
                row.state,
                connection_id=row.connection_id,
                operation_id=row.operation_id,
            )
            state = read_state(document)
        except (StateUnreadable, msgspec.DecodeError):
            log.warning("state_not_decrypted", connection=str(row.connection_id))
            return None
        return Saved(row.catalog_version, row.connector_version, row.airbyte_job_id, state)


def _ended_by(newest: Job) -> int:
    """A number that the connection's newest job exceeds unless it has ended."""
    return newest.id if newest.ended else newest.id - 1
