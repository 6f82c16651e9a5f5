"""Airbyte's error responses, in the two styles of its releases.

Up to 1.8 an error body has its message. From 2.0.0 most have only an id; a few "known" kinds still
have their message. Neither style quotes the request.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from local.airbyte.settings import ErrorStyle

Json = dict[str, Any]


class Refusal(Exception):
    """A refused request, and Airbyte's response to it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        exception: str = "io.airbyte.commons.server.errors.KnownException",
        known: bool = True,
        **members: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.exception = exception
        self.known = known
        self.members = members

    def body(self, style: ErrorStyle) -> Json:
        """Build the response body."""
        if style is ErrorStyle.MESSAGE:
            return {
                "message": self.message,
                "exceptionClassName": self.exception,
                "exceptionStack": [],
                **self.members,
            }
        identified: Json = {"errorId": str(uuid4())}
        return {"message": self.message, **identified} if self.known else identified


class Problem(Refusal):
    """A refusal that is an RFC 9457 problem in both styles."""

    def __init__(self, status: int, kind: str, title: str, detail: str, **data: Any) -> None:
        super().__init__(status, detail)
        self.told = {"status": status, "type": kind, "title": title, "detail": detail}
        if data:
            self.told["data"] = data

    def body(self, style: ErrorStyle) -> Json:  # noqa: ARG002 - a problem looks the same in both
        """Build the response body."""
        return self.told


class Micronaut(Refusal):
    """A refusal by Airbyte's web framework, before Airbyte's own code sees the request."""

    def __init__(self, status: int, title: str, detail: str, path: str) -> None:
        super().__init__(status, title)
        self.told = {
            "message": title,
            "_links": {"self": [{"href": path, "templated": False}]},
            "_embedded": {"errors": [{"message": detail}]},
        }

    def body(self, style: ErrorStyle) -> Json:  # noqa: ARG002 - the framework has one style
        """Build the response body."""
        return self.told


def not_found(kind: str, given: str) -> Refusal:
    """Refuse an unknown object; `kind` is Airbyte's name of its configuration type."""
    return Refusal(
        404,
        f"Internal Server Error: Could not find configuration for {kind}: {given}.",
        exception="io.airbyte.commons.server.errors.IdNotFoundKnownException",
        known=False,
    )


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


def uncaught(message: str) -> Refusal:
    """Answer 500, for input that Airbyte does not handle."""
    return Refusal(
        500,
        f"Internal Server Error: {message}",
        exception="java.lang.IllegalStateException",
        known=False,
    )
