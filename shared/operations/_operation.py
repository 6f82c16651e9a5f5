"""One operation as its owner runs it: steps, leases, and requests with unknown outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncSession

from shared import failpoints
from shared.database import Database
from shared.errors import (
    AamError,
    Unavailable,
    Upstream,
    UpstreamConflict,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.models import OperationStatus
from shared.observability import logs
from shared.operations import _sql as sql

log = logs.get(__name__)

FIRST_LEASE = timedelta(seconds=5)
"""The lease between claiming an operation and its first step; nothing is sent during it."""
MARGIN = timedelta(seconds=1)
"""How much longer a lease is than the time it covers."""

Result = Any
"""The result of a step: a small JSON value."""


@dataclass(frozen=True, slots=True)
class HttpResult:
    """The HTTP response to a request: a status and JSON text."""

    status: int
    body: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key with its scope (caller and route) and the hash of its request."""

    caller: str
    route: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Intent:
    """An operation to be started."""

    kind: str
    connection_id: UUID | None
    """The connection that it changes; None for the import of a workspace."""
    request: object
    """Everything that a process needs to take the operation over, as JSON, without secrets."""
    document: bytes | None = None
    key: Key | None = None
    id: UUID = field(default_factory=uuid4)


class Superseded(Exception):
    """Another owner has the operation, or it has ended: this process must write nothing more."""


class HandedOver(Exception):
    """The process is stopping; the operation was released for another process to continue."""


@dataclass(frozen=True, slots=True)
class Host:
    """What an operation needs from the process that runs it."""

    db: Database
    in_flight_window: timedelta
    stopping: asyncio.Event
    """Set when the process accepts no more work."""

    async def sleep(self, seconds: float) -> None:
        """Sleep, or return early if the process is stopping."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


class Operation:
    """One operation as its owner runs it."""

    def __init__(self, host: Host, row: Mapping[Any, Any], owner: UUID) -> None:
        self.id: UUID = row["id"]
        self.kind: str = row["kind"]
        self._connection_id: UUID | None = row["connection_id"]
        self.request: bytes = row["request"].encode()
        self.document: bytes | None = row["document"]
        self.request_id: str = row["request_id"]
        self.attempts: int = row["attempts"]
        """How many owners it has had, including this one."""
        self.requested_by: str | None = row["requested_by"]
        """The caller who requested it; None if AAM started it."""
        self.results: dict[str, Result] = msgspec.json.decode(row["steps"])
        self.failure: dict[str, Any] | None = (
            msgspec.json.decode(row["failure"]) if row["failure"] else None
        )
        self.answer: HttpResult | None = None
        """The result written by `finish`; valid once its transaction is committed."""
        self._host = host
        self._owner = owner
        clock: Callable[[], float] = asyncio.get_running_loop().time
        self._clock = clock
        self._begun_at: float = clock() - row["age"]
        self._deadline: float = clock() + row["deadline_in"]
        is_unsettled = row["in_flight_for"] is not None and row["step"] not in self.results
        self._unsettled: str | None = row["step"] if is_unsettled else None
        """The step whose request may have been sent, with an unknown outcome."""
        self._in_flight_until: float = clock() + (row["in_flight_for"] or 0.0)

    @property
    def has_connection(self) -> bool:
        """Whether it changes one connection, as all but the import of a workspace do."""
        return self._connection_id is not None

    @property
    def connection_id(self) -> UUID:
        """The connection that it changes.

        Raises:
            LookupError: it changes no single connection, as the import of a workspace.
        """
        if self._connection_id is None:
            raise LookupError(f"Operation {self.id} has no connection.")
        return self._connection_id

    @property
    def marker(self) -> str:
        """Identifies this operation's objects in Airbyte, where names are not unique."""
        return marker(self.id)

    @property
    def age(self) -> float:
        """Seconds since it was created."""
        return self._clock() - self._begun_at

    @property
    def deadline_passed(self) -> bool:
        """Whether the deadline of the whole operation has passed."""
        return self._clock() >= self._deadline

    async def once(
        self,
        step: str,
        make: Callable[[], Awaitable[Result]],
        *,
        within: float,
        find: Callable[[], Awaitable[Result | None]] | None = None,
    ) -> Result:
        """Run a step unless its result is recorded, and return the result.

        The step is recorded with a lease before `make` is called. After an attempt with an unknown
        outcome, it first waits until that request can no longer take effect, and then calls `find`,
        which returns the result if it did, else None. An operation that was taken over calls `find`
        in every step: in a registry that was restored from a backup, later steps are not recorded.
        `within` is the time limit in seconds for `find` and `make` together.

        Raises:
            Superseded: another owner has the operation.
            HandedOver: the process is stopping.
            UpstreamTimeout: the step took longer than `within`.
        """
        if step in self.results:
            return self.results[step]
        repeated = self._unsettled == step or self.attempts > 1
        await self.wait_out_in_flight()
        await self._begin(step, within)
        until = self._clock() + within
        self._at(step, "before")
        try:
            async with asyncio.timeout(within):
                result = None
                if repeated and find is not None:
                    # The in-flight window is over, and `find` sends nothing that could extend it.
                    until_then, self._in_flight_until = self._in_flight_until, self._clock()
                    result = await find()
                    self._in_flight_until = until_then
                if result is None:
                    result = await self._made(step, make, until=until)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The step {step} of operation {self.id} took more than {within:g} s."
            ) from None
        self._at(step, "after")
        self.results[step] = result
        self._unsettled = None
        return result

    async def _made(
        self, step: str, make: Callable[[], Awaitable[Result]], *, until: float
    ) -> Result:
        self._unsettled = step
        if self._clock() >= until:
            # After the process was suspended (SIGSTOP), the lease may be over: send nothing.
            raise UpstreamTimeout(f"The step {step} of operation {self.id} started too late.")
        window = self._host.in_flight_window
        try:
            result = await make()
        except AamError as error:
            if _is_settled(error):
                self._unsettled = None
            if isinstance(error, Upstream) and error.is_over:
                window = timedelta(0)
            raise
        else:
            self._unsettled = None
            return result
        finally:
            # The request has ended: its in-flight window starts now.
            over_at = self._clock() + window.total_seconds()
            self._in_flight_until = min(self._in_flight_until, over_at)

    def has_tried(self, step: str) -> bool:
        """Whether an earlier attempt of this step has an unknown outcome."""
        return self._unsettled == step

    async def write_document(self, session: AsyncSession, document: bytes) -> None:
        """Store a catalog and the results of the steps in the caller's transaction.

        Raises:
            Superseded: another owner has the operation.
        """
        values = {"id": self.id, "owner": self._owner, "steps": self._steps(), "document": document}
        if (await session.execute(sql.WRITE_DOCUMENT, values)).one_or_none() is None:
            raise Superseded

    def forget(self, *steps: str) -> None:
        """Discard the results of steps, because what they created no longer exists."""
        for step in steps:
            self.results.pop(step, None)

    async def finish(
        self, session: AsyncSession, *, status: int = 204, body: str | None = None
    ) -> None:
        """End the operation, in the transaction that commits its outcome.

        `status` and `body` are the HTTP result; for a failed operation, its problem replaces them.

        Raises:
            Superseded: another owner has it; the transaction must not be committed.
        """
        failed = self.failure is not None
        if self.failure is not None:
            status = int(self.failure["status"])
            body = msgspec.json.encode(self.failure).decode()
        found = await session.execute(
            sql.FINISH,
            {
                "id": self.id,
                "owner": self._owner,
                "status": OperationStatus.FAILED if failed else OperationStatus.DONE,
                "steps": self._steps(),
                "response_status": status,
                "response": body,
            },
        )
        if found.one_or_none() is None:
            raise Superseded
        self.answer = HttpResult(status, str(body or ""))
        self._at("finish", "before")

    async def fail(self, error: AamError) -> None:
        """Record the failure, before anything is undone."""
        connection = {} if self._connection_id is None else {"connection_id": self._connection_id}
        problem = {
            **connection,
            **error.problem(),
            "request_id": self.request_id,
            "operation_id": self.id,
        }
        failure = msgspec.json.encode(problem, enc_hook=str)
        await self._write(
            sql.FAIL, failure=failure.decode(), lease=FIRST_LEASE + self._in_flight_left()
        )
        self.failure = msgspec.json.decode(failure)
        log.warning("operation_failed", operation=str(self.id), kind=self.kind, code=error.code)

    async def wait(self, seconds: float, reason: str) -> None:
        """Sleep, and record the reason.

        Raises:
            HandedOver: the process is stopping.
        """
        # Another process may take over only after the sleep and the in-flight window.
        left = self._in_flight_left()
        lease = max(timedelta(seconds=seconds), left) + MARGIN
        await self._write(sql.WAIT, waits_for=reason, in_flight=left, lease=lease)
        await self._host.sleep(seconds)
        await self._hand_over_if_stopping()

    async def note(self, reason: str) -> None:
        """Record the current steps, and what it is about to do."""
        left = self._in_flight_left()
        await self._write(sql.WAIT, waits_for=reason, in_flight=left, lease=FIRST_LEASE + left)

    async def hand_over(self) -> None:
        """Release it for another process to continue, once its in-flight window is over."""
        await self._write(sql.HAND_OVER, lease=self._in_flight_left())

    async def wait_out_in_flight(self) -> None:
        """Wait until no sent request with an unknown outcome can still take effect."""
        left = self._in_flight_left().total_seconds()
        if left > 0:
            await self.wait(left, "in_flight_window")

    def _in_flight_left(self) -> timedelta:
        if self._unsettled is None:
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._in_flight_until - self._clock()))

    async def _begin(self, step: str, within: float) -> None:
        await self._hand_over_if_stopping()
        in_flight_for = timedelta(seconds=within) + self._host.in_flight_window
        await self._write(
            sql.BEGIN,
            step=step,
            in_flight=in_flight_for,
            lease=in_flight_for + MARGIN,
        )
        self._unsettled = step
        self._in_flight_until = self._clock() + in_flight_for.total_seconds()

    async def _write(self, statement: TextClause, **values: object) -> None:
        """Run one write that is fenced by the owner, with the current steps."""
        async with self._host.db.read() as session:
            found = await session.execute(
                statement,
                {"id": self.id, "owner": self._owner, "steps": self._steps(), **values},
            )
            if found.one_or_none() is None:
                raise Superseded

    async def _hand_over_if_stopping(self) -> None:
        if self._host.stopping.is_set():
            await self.hand_over()
            raise HandedOver

    def _steps(self) -> str:
        return msgspec.json.encode(self.results, enc_hook=str).decode()

    def _at(self, step: str, side: str) -> None:
        failpoints.at(f"{self.kind}.{step}.{side}")


class Saga(Protocol):
    """The implementation of one kind of operation. Each method may be run again from its start."""

    async def run(self, operation: Operation) -> None:
        """Do the work, and end with `operation.finish`; a permanent error leads to `undo`."""

    async def undo(self, operation: Operation) -> None:
        """Once `operation.failure` is set: delete what was created, and end with `finish`."""

    async def abandon(self, operation: Operation) -> None:
        """After the deadline: record that the outcome is unknown, and end; makes no external call.

        After repeated failures of this method, the operation ends without it, and the connection
        that it held becomes FAILED.
        """


def marker(operation_id: UUID) -> str:
    """The suffix of the names of an operation's objects in Airbyte."""
    return f"[aam:{operation_id}]"


def may_pass(error: AamError) -> bool:
    """Whether a retry may succeed; every other error is permanent."""
    # A bare Upstream is another service's 500, which may be transient.
    return type(error) is Upstream or isinstance(
        error, UpstreamUnknown | UpstreamConflict | UpstreamUnreachable | Unavailable
    )


def _is_settled(error: AamError) -> bool:
    """Whether the request certainly had, and will have, no effect."""
    return isinstance(error, UpstreamUnreachable) or not may_pass(error)
