"""Failures of connectors that tests script."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.airbyte.api import reads

Json = dict[str, Any]


@dataclass
class Failure:
    """A connector failure; `job` means that Airbyte could not even run it."""

    failure_type: str
    message: str
    retryable: bool | None
    times: int | None
    job: bool = True


def reason(failure: Failure) -> Json:
    """Build the FailureReason of a failure."""
    return reads.failure_reason(
        "source",
        failure.failure_type,
        failure.message,
        internal=f"Traceback: {failure.message}",
        retryable=failure.retryable,
        stacktrace="at io.airbyte.workers.Discover(Discover.java:1)",
    )


def epoch_now() -> int:
    """Return the time in whole seconds, as Airbyte's API does."""
    return int(datetime.now(UTC).timestamp())
