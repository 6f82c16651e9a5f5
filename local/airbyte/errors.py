"""Airbyte's refusals, in the two styles its releases have.

Up to 1.8 an error tells its message. From 2.0.0 most tell only an id; a few kinds, the "known"
ones, still tell their message. Neither style quotes what was submitted.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from local.airbyte.settings import ErrorStyle

Json = dict[str, Any]


class Refusal(Exception):
    """A request that is not done, and what Airbyte would answer."""

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
        """The answer's body."""
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
    """A refusal that Airbyte words as RFC 9457 in either style."""

    def __init__(self, status: int, kind: str, title: str, detail: str, **data: Any) -> None:
        super().__init__(status, detail)
        self.told = {"status": status, "type": kind, "title": title, "detail": detail}
        if data:
            self.told["data"] = data

    def body(self, style: ErrorStyle) -> Json:  # noqa: ARG002 - a problem looks the same in both
        """The answer's body."""
        return self.told


class Micronaut(Refusal):
    """A refusal by Airbyte's web framework, before Airbyte's own code has seen the request."""

    def __init__(self, status: int, title: str, detail: str, path: str) -> None:
        super().__init__(status, title)
        self.told = {
            "message": title,
            "_links": {"self": [{"href": path, "templated": False}]},
            "_embedded": {"errors": [{"message": detail}]},
        }

    def body(self, style: ErrorStyle) -> Json:  # noqa: ARG002 - the framework has one style
        """The answer's body."""
        return self.told


def not_found(kind: str, given: str) -> Refusal:
    """There is no such object; `kind` is Airbyte's name of its configuration."""
    return Refusal(
        404,
        f"Internal Server Error: Could not find configuration for {kind}: {given}.",
        exception="io.airbyte.commons.server.errors.IdNotFoundKnownException",
        known=False,
    )


def unreadable(detail: str) -> Refusal:
    """The body is not the JSON this endpoint takes."""
    return Refusal(
        422,
        f"Invalid json: {detail}",
        exception="com.fasterxml.jackson.databind.JsonMappingException",
        known=False,
    )


def missing(field: str) -> Refusal:
    """A required property is not there."""
    return Refusal(
        400,
        "Some properties contained invalid input.",
        exception="io.airbyte.server.errors.InvalidInputExceptionHandler",
        known=False,
        validationErrors=[{"propertyPath": field, "message": "must not be null"}],
    )


def uncaught(message: str) -> Refusal:
    """What Airbyte does not expect, though its users do: a 500."""
    return Refusal(
        500,
        f"Internal Server Error: {message}",
        exception="java.lang.IllegalStateException",
        known=False,
    )
