"""Responses of the fake Airbyte: results, refusals, and bodies shared by several routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

Json = dict[str, Any]

MAX_BODY_BYTES = 10 * 1024 * 1024


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


_COMMONS = "io.airbyte.commons.server.errors"
_EXCEPTIONS = {
    400: f"{_COMMONS}.BadRequestException",
    401: "io.airbyte.commons.server.errors.AuthException",
    403: f"{_COMMONS}.OperationNotAllowedException",
    404: f"{_COMMONS}.IdNotFoundKnownException",
    409: f"{_COMMONS}.ValueConflictKnownException",
    422: "io.airbyte.validation.json.JsonValidationException",
    423: f"{_COMMONS}.SyncIsRunningException",
}


class Refused(Exception):
    """Airbyte refuses a request; `known` errors have their message even in 2.0 and later."""

    def __init__(self, status: int, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.known = status, message, known

    @property
    def exception(self) -> str:
        """The exception class that Airbyte up to 1.8 names."""
        return _EXCEPTIONS.get(self.status, "java.lang.RuntimeException")


class Forbidden(Exception):
    pass


def need(body: Json, name: str) -> Any:
    if body.get(name) is None:
        raise Refused(422, f"Internal Server Error: Required field {name} is absent.")
    return body[name]


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


def micronaut(status: int, title: str, detail: str, path: str) -> Answer:
    links = {"self": {"href": path, "templated": False}}
    embedded = {"errors": [{"message": detail, "_links": {}, "_embedded": {}}]}
    return Answer(status, {"message": title, "_links": links, "_embedded": embedded})


def no_such_page(path: str) -> Answer:
    """Answer as Micronaut does when Airbyte has no such endpoint."""
    return micronaut(404, "Not Found", "Page Not Found", path)


def too_large(length: int, path: str) -> Answer:
    detail = (
        f"The content length [{length}] exceeds the maximum allowed content length "
        f"[{MAX_BODY_BYTES}]"
    )
    return micronaut(413, "Request Entity Too Large", detail, path)


def problem(status: int, name: str, detail: str) -> Answer:
    body = {
        "status": status,
        "type": f"https://reference.airbyte.com/reference/errors#{name}",
        "title": name,
        "detail": detail,
    }
    return Answer(status, body, "application/problem+json")
