"""Responses of the fake Airbyte: results, refusals, and bodies shared by several routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

Json = dict[str, Any]


@dataclass
class Answer:
    """A route's response; `body` None is an empty body, bytes are sent unchanged."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Failure:
    """A connector failure; `job` means that Airbyte could not even run it."""

    failure_type: str
    message: str
    retryable: bool | None
    times: int | None
    job: bool = True


def epoch_now() -> int:
    return int(datetime.now(UTC).timestamp())


def job_info(config_type: str, *, succeeded: bool, failure: Failure | None = None) -> Json:
    now = epoch_now()
    info: Json = {
        "id": str(uuid4()),
        "configType": config_type,
        "configId": "NoConfiguration",
        "createdAt": now,
        "endedAt": now,
        "succeeded": succeeded,
        "connectorConfigurationUpdated": False,
        "logs": {"logLines": []},
    }
    if failure is not None:
        info["failureReason"] = reason(failure)
    return info


def reason(failure: Failure) -> Json:
    told: Json = {
        "timestamp": epoch_now() * 1000,
        "failureOrigin": "source",
        "failureType": failure.failure_type,
        "externalMessage": failure.message,
        "internalMessage": f"Traceback: {failure.message}",
        "stacktrace": "at io.airbyte.workers.Discover(Discover.java:1)",
    }
    if failure.retryable is not None:
        told["retryable"] = failure.retryable
    return told


def html(status: int, title: str) -> Answer:
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>nginx/1.25.3</body>\r\n</html>"
    return Answer(status, page, "text/html")
