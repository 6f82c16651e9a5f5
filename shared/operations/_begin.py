"""Records new operations, each in one transaction and at most once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from shared import failpoints
from shared.auth import scopes
from shared.database import Database
from shared.errors import (
    Conflict,
    ImportRunning,
    KeyReused,
    NotActive,
    OperationRunning,
    SyncRunning,
    Unavailable,
    UpstreamUnknown,
)
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import _sql as sql
from shared.operations._operation import FIRST_LEASE, MARGIN, HttpResult, Intent, Key

_Recorded: TypeAlias = Literal["ours", "taken_over"]
"""Whether an operation without a result is this process's to run, or another owner has taken it
over, because its lease ended before the commit was known."""


class Recorder:
    """Records operations, and the results of those that end at once."""

    def __init__(self, db: Database, jobs: Jobs, *, entrypoint: str, deadline: timedelta) -> None:
        self._db = db
        self._jobs = jobs
        self._entrypoint = entrypoint
        """The job that takes an operation over once its first lease has expired."""
        self._deadline = deadline

    async def replayed(self, key: Key | None) -> HttpResult | None:
        """The recorded result of this Idempotency-Key; None if the key is new.

        Raises:
            KeyReused: the key was used for a different request.
            OperationRunning: its operation has not ended.
            Unavailable: the registry is unavailable.
        """
        if key is None:
            return None
        async with self._db.read() as session:
            return await self._known(session, key)

    async def _record(
        self, intent: Intent, write: Callable[[AsyncSession, UUID], Awaitable[HttpResult | None]]
    ) -> HttpResult | dict[str, Any] | None:
        """Record an operation in one transaction with `write`, and the job that takes it over.

        Returns the operation's row, with its owner; None if another owner has taken it over, which
        is possible if the answer to the commit was lost. If `write` returns a result, that is
        recorded if the operation has a key, and returned; so is an earlier result of the same key.

        Raises:
            KeyReused, OperationRunning, Conflict, Unavailable, UpstreamUnknown: as
                `Operations.begin`.
        """
        owner = uuid4()
        row = _columns(intent) | {"document": intent.document}

        async def record(session: AsyncSession) -> HttpResult | _Recorded:
            return await self._insert(session, intent, owner, write)

        try:
            async with self._db.transaction() as session:
                answer = await record(session)
        except UpstreamUnknown:
            try:
                answer = await self._db.retry_until_committed(record)
            except (Unavailable, UpstreamUnknown):
                raise UpstreamUnknown(
                    "It is unknown whether the registry recorded the operation.",
                    code="commit_unknown",
                    operation_id=intent.id,
                ) from None
        if isinstance(answer, HttpResult):
            return answer
        if answer == "taken_over":
            return None
        return row | {
            "owner": owner,
            "steps": "{}",
            "attempts": 1,
            "failure": None,
            "step": "intent",
            "age": 0.0,
            "in_flight_for": None,
            "deadline_in": self._deadline.total_seconds(),
        }

    async def rehearse(
        self,
        intent: Intent,
        write: Callable[[AsyncSession, UUID], Awaitable[HttpResult | None]] | None = None,
    ) -> HttpResult | None:
        """What `begin` would return at once, for a dry run; None if the operation would run.

        Its transaction is rolled back, and nothing is started.

        Raises:
            Conflict, Unavailable: as `Operations.begin`.
        """
        async with self._db.rehearsal() as session:
            answer = await self._insert(session, intent, uuid4(), write or _nothing)
        return answer if isinstance(answer, HttpResult) else None

    async def _insert(
        self,
        session: AsyncSession,
        intent: Intent,
        owner: UUID,
        write: Callable[[AsyncSession, UUID], Awaitable[HttpResult | None]],
    ) -> HttpResult | _Recorded:
        """Insert an operation and the job that takes it over; the result if it has ended already.

        Raises:
            KeyReused, OperationRunning, Conflict: as `Operations.begin`.
        """
        values = {
            **_columns(intent),
            "document": intent.document,
            "owner": owner,
            "lease": FIRST_LEASE,
            "deadline": self._deadline,
            **_key_columns(intent.key),
        }
        while (await session.execute(sql.INSERT, values)).one_or_none() is None:
            taken = await self._taken(session, intent, owner)
            if taken is not None:
                return taken
        answer = await write(session, intent.id)
        if answer is not None:
            if intent.key is None:
                await session.execute(sql.DELETE, {"id": intent.id})
            else:
                await _end(session, intent.id, answer)
            return answer
        await self._jobs.enqueue(
            session, self._entrypoint, str(intent.id), after=FIRST_LEASE + MARGIN
        )
        failpoints.at(f"{intent.kind}.intent.before")
        return "ours"

    async def at_once(
        self,
        intent: Intent,
        write: Callable[[AsyncSession], Awaitable[HttpResult]],
        *,
        until_committed: bool = False,
    ) -> HttpResult:
        """Run `write` in one transaction, and record its result if the intent has a key.

        Such an operation has ended when it is recorded, so another one may be open meanwhile. With
        `until_committed`, an intent with a key is retried while the registry is unavailable: see
        `Database.retry_until_committed`.

        Raises:
            KeyReused: the key was used for a different request.
            Unavailable: nothing was recorded.
            UpstreamUnknown: it may have been recorded; retry with the same key.
        """

        async def record(session: AsyncSession) -> HttpResult:
            if intent.key is None:
                return await write(session)
            values = _columns(intent) | _key_columns(intent.key)
            while (await session.execute(sql.INSERT_ENDED, values)).one_or_none() is None:
                known = await self._known(session, intent.key)
                if known is not None:
                    return known
            answer = await write(session)
            await _end(session, intent.id, answer)
            return answer

        if until_committed and intent.key is not None:
            return await self._db.retry_until_committed(record)
        async with self._db.transaction() as session:
            return await record(session)

    async def _taken(
        self, session: AsyncSession, intent: Intent, owner: UUID
    ) -> HttpResult | _Recorded | None:
        """Find why the row could not be inserted; None if the conflicting operation has ended.

        It may be recorded already, by an earlier commit whose confirmation was lost. If the key has
        an earlier result, that is returned.
        """
        earlier = (await session.execute(sql.OWN, {"id": intent.id, "owner": owner})).one_or_none()
        if earlier is not None and earlier.is_ours:
            return "ours"
        if earlier is not None and (intent.key is None or not earlier.has_ended):
            return "taken_over"
        known = None if intent.key is None else await self._known(session, intent.key)
        if known is not None:
            return known
        if intent.connection_id is None:
            request = _columns(intent)["request"]
            open_one = (await session.execute(sql.OPEN_IMPORT, {"request": request})).one_or_none()
            if open_one is None:
                return None
            raise ImportRunning(
                f"Operation {open_one.id} is importing this workspace.", operation_id=open_one.id
            )
        open_one = (
            await session.execute(sql.OPEN_OF, {"connection_id": intent.connection_id})
        ).one_or_none()
        if open_one is None:
            return None
        raise busy_with(open_one.kind, intent.connection_id, operation_id=open_one.id)

    async def _known(self, session: AsyncSession, key: Key) -> HttpResult | None:
        found = (
            await session.execute(
                sql.BY_KEY, {"caller": key.caller, "route": key.route, "key": key.key}
            )
        ).one_or_none()
        if found is None:
            return None
        if found.expired:
            await session.execute(sql.FREE_KEY, {"id": found.id})
            return None
        if found.fingerprint != key.fingerprint:
            raise KeyReused("This Idempotency-Key was already used for another request.")
        if found.response_status is None:
            raise OperationRunning(
                f"Operation {found.id}, started with this key, has not ended.",
                operation_id=found.id,
            )
        return HttpResult(found.response_status, found.response, is_replay=True)


async def _nothing(_session: AsyncSession, _operation_id: UUID) -> None:
    """Write nothing beside the operation."""


def busy_with(kind: str, connection_id: UUID, *, operation_id: UUID) -> Conflict:
    """The conflict error for a request while an operation of this kind is open."""
    if kind == "sync":
        return SyncRunning(
            f"A sync of connection {connection_id} is being started.", operation_id=operation_id
        )
    if kind == "refresh":
        return SyncRunning(
            f"A refresh of connection {connection_id} is being started.", operation_id=operation_id
        )
    code = {
        "apply": "heal_in_progress",
        "archive": "archiving",
        "cancel": "cancelling",
        "edit": "editing",
        "rotate": "rotating",
        "upgrade": "upgrading",
    }.get(kind, NotActive.code)
    state = {
        "apply": "HEALING",
        "archive": "being archived",
        "cancel": "having a job cancelled",
        "edit": "being edited",
        "rotate": "being given its credential",
        "upgrade": "getting another version of its connector",
    }.get(kind, "PENDING")
    return NotActive(
        f"Connection {connection_id} is {state}: wait for the end of operation {operation_id}.",
        code=code,
        operation_id=operation_id,
    )


async def _end(session: AsyncSession, operation_id: UUID, answer: HttpResult) -> None:
    values = {"id": operation_id, "status": answer.status, "response": answer.body}
    await session.execute(sql.END_UNOWNED, values)


def _columns(intent: Intent) -> dict[str, Any]:
    return {
        "id": intent.id,
        "kind": intent.kind,
        "connection_id": intent.connection_id,
        "request": msgspec.json.encode(intent.request, enc_hook=str).decode(),
        "request_id": logs.request_id(),
        "requested_by": scopes.requested_by(),
    }


def _key_columns(key: Key | None) -> dict[str, object]:
    if key is None:
        return dict.fromkeys(("caller", "route", "key", "fingerprint"))
    return {
        "caller": key.caller,
        "route": key.route,
        "key": key.key,
        "fingerprint": key.fingerprint,
    }
