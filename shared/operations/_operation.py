"""One operation in the hands of its owner: steps, leases, and what an unknown outcome means."""

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
"""How long an owner has between taking an operation and its first step; nothing is sent in it."""
MARGIN = timedelta(seconds=1)
"""How much longer a lease is than the wait it covers."""

Result = Any
"""What a step leaves: small, and JSON."""


@dataclass(frozen=True, slots=True)
class HttpResult:
    """What a request is answered: a status, and JSON text."""

    status: int
    body: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key with what it is scoped to, and the hash of the request it came with."""

    caller: str
    route: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be begun."""

    kind: str
    connection_id: UUID
    request: object
    """Everything a process that takes over must know; it becomes JSON, and holds no secret."""
    document: bytes | None = None
    key: Key | None = None
    id: UUID = field(default_factory=uuid4)


class Superseded(Exception):
    """Another owner has the operation, or it has ended: whoever sees this writes nothing more."""


class HandedOver(Exception):
    """The process stops: the operation was given back for another to go on with."""


@dataclass(frozen=True, slots=True)
class Host:
    """What an operation needs of the process that runs it."""

    db: Database
    quiet_time: timedelta
    stopping: asyncio.Event
    """Set when the process takes no more work."""

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the process stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


class Operation:
    """One operation in the hands of its owner."""

    def __init__(self, host: Host, row: Mapping[Any, Any], owner: UUID) -> None:
        self.id: UUID = row["id"]
        self.kind: str = row["kind"]
        self.connection_id: UUID = row["connection_id"]
        self.request: bytes = row["request"].encode()
        self.document: bytes | None = row["document"]
        self.request_id: str = row["request_id"]
        self.attempts: int = row["attempts"]
        """How often it was taken, by its first owner and by those who took it over."""
        self.asked_by: str | None = row["asked_by"]
        """Who had it begun; None where AAM did by itself."""
        self.results: dict[str, Result] = msgspec.json.decode(row["steps"])
        self.failure: dict[str, Any] | None = (
            msgspec.json.decode(row["failure"]) if row["failure"] else None
        )
        self.answer: HttpResult | None = None
        """What `finish` wrote; it is true once its transaction is committed."""
        self._unwritten: bytes | None = None
        self._host = host
        self._owner = owner
        clock: Callable[[], float] = asyncio.get_running_loop().time
        self._clock = clock
        self._begun_at: float = clock() - row["age"]
        self._deadline: float = clock() + row["deadline_in"]
        is_unsettled = row["quiet_in"] is not None and row["step"] not in self.results
        self._unsettled: str | None = row["step"] if is_unsettled else None
        """The step whose request may have been sent, and whose outcome nobody has seen."""
        self._quiet_at: float = clock() + (row["quiet_in"] or 0.0)

    @property
    def marker(self) -> str:
        """What tells this operation's objects in Airbyte, whose names are not unique there."""
        return marker(self.id)

    @property
    def age(self) -> float:
        """For how many seconds it has been under way, whoever had it."""
        return self._clock() - self._begun_at

    @property
    def deadline_passed(self) -> bool:
        """Whether the time for the whole of it is over."""
        return self._clock() >= self._deadline

    async def once(
        self,
        step: str,
        make: Callable[[], Awaitable[Result]],
        *,
        within: float,
        look: Callable[[], Awaitable[Result | None]] | None = None,
    ) -> Result:
        """Run a step unless it is done, and return its result.

        The step is written down with a lease before `make` is called. After a try whose outcome
        nobody saw, nothing is made before that request can take effect no more, and `look` says
        whether it did: None means that it did not. `within` is the deadline in seconds of `look`
        and `make` together.

        Raises:
            Superseded: another owner has the operation.
            HandedOver: the process stops.
            UpstreamTimeout: the step took longer than `within`.
        """
        if step in self.results:
            return self.results[step]
        repeated = self._unsettled == step
        await self.wait_out_in_flight()
        await self._begin(step, within)
        until = self._clock() + within
        self._at(step, "before")
        try:
            async with asyncio.timeout(within):
                result = None
                if repeated and look is not None:
                    # It is quiet already, and a look that fails sends nothing to wait for.
                    quiet_at, self._quiet_at = self._quiet_at, self._clock()
                    result = await look()
                    self._quiet_at = quiet_at
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
            # A process that was stopped, and is told nothing of it, must not send anything now.
            raise UpstreamTimeout(f"The step {step} of operation {self.id} began too late.")
        quiet = self._host.quiet_time
        try:
            result = await make()
        except AamError as error:
            if _is_settled(error):
                self._unsettled = None
            if isinstance(error, Upstream) and error.is_over:
                quiet = timedelta(0)
            raise
        else:
            self._unsettled = None
            return result
        finally:
            # Nobody waits for the answer any more: from now on it is the quiet time that counts.
            self._quiet_at = min(self._quiet_at, self._clock() + quiet.total_seconds())

    def has_tried(self, step: str) -> bool:
        """Whether the outcome of an earlier try of this step is not known."""
        return self._unsettled == step

    def keep(self, document: bytes) -> None:
        """Keep a catalog with the operation; it is written down with the next step."""
        self.document = self._unwritten = document

    def forget(self, *steps: str) -> None:
        """Take steps as not done: what they left turned out not to be there."""
        for step in steps:
            self.results.pop(step, None)

    async def finish(
        self, session: AsyncSession, *, status: int = 204, body: str | None = None
    ) -> None:
        """End the operation, in the transaction that makes its outcome true.

        `body` is the answer. After a failure it is the failure's problem, whatever is given here.

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
                "answer_status": status,
                "answer": body,
            },
        )
        if found.one_or_none() is None:
            raise Superseded
        self.answer = HttpResult(status, str(body or ""))
        self._at("finish", "before")

    async def fail(self, error: AamError) -> None:
        """Write down why it is to be undone, before anything is."""
        problem = {
            "connection_id": self.connection_id,
            **error.problem(),
            "request_id": self.request_id,
            "operation_id": self.id,
        }
        failure = msgspec.json.encode(problem, enc_hook=str)
        await self._write(
            sql.FAIL, failure=failure.decode(), lease=FIRST_LEASE + self._until_quiet()
        )
        self.failure = msgspec.json.decode(failure)
        log.warning("operation_failed", operation=str(self.id), kind=self.kind, code=error.code)

    async def wait(self, seconds: float, reason: str) -> None:
        """Do nothing for a while, and say why.

        Raises:
            HandedOver: the process stops.
        """
        # Whoever takes it over does so when the wait is over, and what was sent is quiet.
        lease = max(timedelta(seconds=seconds), self._until_quiet()) + MARGIN
        await self._write(sql.WAIT, waits_for=reason, quiet=self._until_quiet(), lease=lease)
        await self._host.sleep(seconds)
        await self._hand_over_if_stopping()

    async def note(self, reason: str) -> None:
        """Write down the steps as they are known now, and what it is about to try."""
        lease = FIRST_LEASE + self._until_quiet()
        await self._write(sql.WAIT, waits_for=reason, quiet=self._until_quiet(), lease=lease)

    async def hand_over(self) -> None:
        """Give it back, so that another process goes on at once, or when it is quiet."""
        await self._write(sql.HAND_OVER, lease=self._until_quiet())

    async def wait_out_in_flight(self) -> None:
        """Wait until nothing that was sent, and whose outcome nobody saw, can take effect."""
        left = self._until_quiet().total_seconds()
        if left > 0:
            await self.wait(left, "quiet_time")

    def _until_quiet(self) -> timedelta:
        if self._unsettled is None:
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._quiet_at - self._clock()))

    async def _begin(self, step: str, within: float) -> None:
        await self._hand_over_if_stopping()
        quiet_in = timedelta(seconds=within) + self._host.quiet_time
        await self._write(
            sql.BEGIN,
            step=step,
            document=self._unwritten,
            quiet=quiet_in,
            lease=quiet_in + MARGIN,
        )
        self._unwritten = None
        self._unsettled = step
        self._quiet_at = self._clock() + quiet_in.total_seconds()

    async def _write(self, statement: TextClause, **values: object) -> None:
        """One fenced write, with the steps as they are known now."""
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
    """What an operation of one kind does. Each method may be run again from its start."""

    async def run(self, operation: Operation) -> None:
        """Do it, and end it with `operation.finish`; an error that is for good leads to `undo`."""

    async def undo(self, operation: Operation) -> None:
        """After `operation.failure`: take back what was made, and end it with `finish`."""

    async def abandon(self, operation: Operation) -> None:
        """After the deadline: record that nobody knows, and end it; calls nothing outside.

        One that fails again and again is called no more: the operation then ends without it, and
        the connection that it held is FAILED.
        """


def marker(operation_id: UUID) -> str:
    """What the names of an operation's objects in Airbyte end with."""
    return f"[aam:{operation_id}]"


def may_pass(error: AamError) -> bool:
    """Whether trying again may help; every other error is for good."""
    # A bare Upstream is a peer's 500: it may be a bug of a moment.
    return type(error) is Upstream or isinstance(
        error, UpstreamUnknown | UpstreamConflict | UpstreamUnreachable | Unavailable
    )


def _is_settled(error: AamError) -> bool:
    """Whether it is known that the request did, and will do, nothing."""
    return isinstance(error, UpstreamUnreachable) or not may_pass(error)
