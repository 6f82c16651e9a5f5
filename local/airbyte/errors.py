"""Airbyte's error responses, by release.

Up to 1.8 an error body has its message and the name of an exception class. From 2.0.0 most have
only an id; a few "known" kinds still have their message. Problems (RFC 9457) and the answers of
Airbyte's web framework are the same in every release.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import uuid4

from local.airbyte.releases import ErrorStyle, Release

Json = dict[str, Any]

MOST_BODY_BYTES = 10 * 1024 * 1024

_COMMONS = "io.airbyte.commons.server.errors"
_EXCEPTIONS = {
    400: f"{_COMMONS}.BadRequestException",
    401: f"{_COMMONS}.AuthException",
    403: f"{_COMMONS}.OperationNotAllowedException",
    404: f"{_COMMONS}.IdNotFoundKnownException",
    409: f"{_COMMONS}.ValueConflictKnownException",
    422: "io.airbyte.validation.json.JsonValidationException",
    423: f"{_COMMONS}.SyncIsRunningException",
}
"""The exception class that a status usually comes from."""


class Refusal(Exception):
    """A refused request, and Airbyte's response to it.

    `exception` is the class that releases up to 1.8 name; None: the usual one of the status.
    """

    content_type = "application/json"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        exception: str | None = None,
        known: bool = True,
        **members: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.exception = exception or _EXCEPTIONS.get(status, "java.lang.RuntimeException")
        self.known = known
        self.members = members

    def body(self, release: Release, style: ErrorStyle | None = None) -> Json:
        """Build the response body; the style is the release's own unless one is given."""
        if (style or release.error_style) is ErrorStyle.ERROR_ID:
            identified: Json = {"errorId": str(uuid4())}
            return {"message": self.message, **identified} if self.known else identified
        content: Json = {"message": self.message, "exceptionClassName": self.exception}
        if not release.since(1):
            trace = f"{self.exception}: {self.message}"
            content["exceptionStack"] = [trace, "\tat io.airbyte.server.Handler(Handler.java:42)"]
        elif not release.since(1, 8):
            content |= {"exceptionStack": [], "rootCauseExceptionStack": []}
        return content | self.members


class Problem(Refusal):
    """A refusal that is an RFC 9457 problem in every release."""

    content_type = "application/problem+json"

    def __init__(self, status: int, kind: str, title: str, detail: str, **data: Any) -> None:
        super().__init__(status, detail)
        self._body: Json = {"status": status, "type": kind, "title": title, "detail": detail}
        if data:
            self._body["data"] = data

    def body(self, release: Release, style: ErrorStyle | None = None) -> Json:  # noqa: ARG002
        """Build the response body."""
        return self._body


class Micronaut(Refusal):
    """A refusal by Airbyte's web framework, before Airbyte's own code sees the request.

    `title` is the body's message; None: the phrase of the status.
    """

    def __init__(self, status: int, detail: str, path: str, *, title: str | None = None) -> None:
        super().__init__(status, title or HTTPStatus(status).phrase)
        self._body: Json = {
            "message": self.message,
            "_links": {"self": {"href": path, "templated": False}},
            "_embedded": {"errors": [{"message": detail, "_links": {}, "_embedded": {}}]},
        }

    def body(self, release: Release, style: ErrorStyle | None = None) -> Json:  # noqa: ARG002
        """Build the response body."""
        return self._body


def no_such_page(path: str) -> Micronaut:
    """Refuse a path that this release does not have."""
    return Micronaut(404, "Page Not Found", path)


def too_large(length: int, path: str) -> Micronaut:
    """Refuse a body of more than 10 MiB."""
    detail = (
        f"The content length [{length}] exceeds the maximum allowed content length "
        f"[{MOST_BODY_BYTES}]"
    )
    return Micronaut(413, detail, path, title="Request Entity Too Large")


def not_implemented(endpoint: str) -> Problem:
    """Refuse what a real Airbyte answers and this one does not."""
    return Problem(
        501,
        "error:not-implemented-locally",
        "Not implemented by the local Airbyte",
        f"The local Airbyte does not answer {endpoint}; a real Airbyte does.",
        endpoint=endpoint,
    )


def forbidden() -> Problem:
    """Refuse what the caller may not do; Airbyte answers this for many unknown ids, too."""
    return Problem(
        403,
        "https://reference.airbyte.com/reference/errors#forbidden",
        "forbidden",
        "Access to this resource is forbidden.",
        message="Forbidden",
    )


def not_found(kind: str, given: object) -> Refusal:
    """Refuse an unknown object; `kind` is Airbyte's name of its configuration type."""
    message = f"Internal Server Error: Could not find configuration for {kind}: {given}."
    return Refusal(404, message, known=False)


def unreadable(detail: str) -> Refusal:
    """Refuse a body that is not the JSON this endpoint expects."""
    return Refusal(
        422,
        f"Invalid json: {detail}",
        exception="com.fasterxml.jackson.databind.JsonMappingException",
        known=False,
    )


def missing(field: str) -> Refusal:
    """Refuse a body without a required property."""
    return Refusal(
        400,
        "Some properties contained invalid input.",
        exception="io.airbyte.server.errors.InvalidInputExceptionHandler",
        known=False,
        validationErrors=[{"propertyPath": field, "message": "must not be null"}],
    )


def uncaught(message: str, exception: str = "java.lang.IllegalStateException") -> Refusal:
    """Answer 500, for input that Airbyte does not handle."""
    return Refusal(500, f"Internal Server Error: {message}", exception=exception, known=False)


def sync_is_running(connection_id: str) -> Refusal:
    """Refuse a second job of a connection."""
    return Refusal(409, f"A sync is already running for: {connection_id}")


def state_is_locked(connection_id: str) -> Refusal:
    """Refuse to write the state of a connection that has an open job."""
    return Refusal(423, f"State cannot be modified while a sync is running for: {connection_id}")
