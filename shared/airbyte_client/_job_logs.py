"""Airbyte's log of a job: the JSON structures, and the lines that they are read as.

These texts are a connector's, and may quote secrets and rows: they must be masked before they are
shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.airbyte_client._job_schemas import read_uuid
from shared.airbyte_client._schemas import JobId


class ConnectorError(msgspec.Struct, frozen=True):
    """A failure of an attempt with its messages, unmasked; only `stream` is a name."""

    failure_type: str | None
    origin: str | None
    stream: str | None
    message: str | None
    internal_message: str | None

    def __repr__(self) -> str:
        """Omit the messages, which may quote secrets."""
        return f"ConnectorError({self.failure_type!r}, {self.origin!r})"


class LoggedAttempt(msgspec.Struct, frozen=True):
    """One attempt of a job, numbered from 0, with its failures and its log, unmasked."""

    number: int
    status: str
    failures: list[ConnectorError]
    lines: list[str]

    def __repr__(self) -> str:
        """Omit the texts, which may quote secrets."""
        return f"LoggedAttempt({self.number}, {self.status!r})"


class LoggedJob(msgspec.Struct, frozen=True):
    """A job with the logs of its attempts, the first attempt first."""

    id: int
    connection_id: UUID | None
    status: str
    attempts: list[LoggedAttempt]


class _Stream(msgspec.Struct, frozen=True):
    name: str


class _Failure(msgspec.Struct, frozen=True, rename="camel"):
    failure_type: str | None = None
    failure_origin: str | None = None
    external_message: Any = None
    internal_message: Any = None
    stream_descriptor: _Stream | None = None


class _Failures(msgspec.Struct, frozen=True):
    failures: list[_Failure] | None = None


class _Attempt(msgspec.Struct, frozen=True, rename="camel"):
    id: int
    status: str
    failure_summary: _Failures | None = None


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    """A line of a structured log; `timestamp` is in milliseconds."""

    message: str
    timestamp: int | None = None
    level: str | None = None
    log_source: str | None = None
    stack_trace: str | None = None

    def lines(self) -> Iterator[str]:
        """The event as the lines of a formatted log."""
        head = " ".join(filter(None, (_moment(self.timestamp), self.level, self.log_source)))
        for text in (self.message, self.stack_trace):
            for line in (text or "").splitlines():
                yield f"{head} > {line}" if head else line


class _Logs(msgspec.Struct, frozen=True, rename="camel"):
    log_lines: list[str] | None = None
    events: list[_Event] | None = None


class _AttemptInfo(msgspec.Struct, frozen=True):
    attempt: _Attempt
    logs: _Logs | None = None


class _Job(msgspec.Struct, frozen=True, rename="camel"):
    id: JobId
    status: str
    config_id: str = ""


class JobWithLogs(msgspec.Struct, frozen=True):
    """Response of jobs/get; the log of an attempt is formatted lines or, since 1.6, events."""

    job: _Job
    attempts: list[_AttemptInfo] | None = None

    def to_domain(self) -> LoggedJob:
        """Convert to AAM's type."""
        attempts = [
            LoggedAttempt(
                info.attempt.id,
                info.attempt.status,
                [_error(one) for one in _failures(info.attempt)],
                _lines(info.logs or _Logs()),
            )
            for info in self.attempts or ()
        ]
        return LoggedJob(self.job.id, read_uuid(self.job.config_id), self.job.status, attempts)


def _failures(attempt: _Attempt) -> list[_Failure]:
    summary = attempt.failure_summary
    return (summary.failures if summary else None) or []


def _error(failure: _Failure) -> ConnectorError:
    return ConnectorError(
        failure.failure_type,
        failure.failure_origin,
        failure.stream_descriptor.name if failure.stream_descriptor else None,
        _text(failure.external_message),
        _text(failure.internal_message),
    )


def _lines(logs: _Logs) -> list[str]:
    if logs.events is not None:
        return [line for event in logs.events for line in event.lines()]
    return [part for line in logs.log_lines or () for part in line.splitlines()]


def _moment(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
