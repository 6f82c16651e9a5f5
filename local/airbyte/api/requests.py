"""A request's JSON object, and the refusals of what cannot be read in it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from local.airbyte.errors import missing, unreadable


class Body(dict[str, Any]):
    """A request's JSON object; refuses missing or mistyped properties as Airbyte does."""

    @classmethod
    def parsed(cls, content: bytes) -> Body:
        """Parse a request's body, which may be empty."""
        if not content:
            return cls()
        try:
            given = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise unreadable("the body is not JSON.") from error
        if not isinstance(given, dict):
            raise unreadable("the body is not an object.")
        return cls(given)

    def id(self, name: str) -> str:
        """Return a required id."""
        return uuid_of(self.required(name, str), name)

    def text(self, name: str) -> str:
        """Return a required string."""
        text: str = self.required(name, str)
        return text

    def required(self, name: str, kind: type[Any]) -> Any:
        """Return a required property of the given JSON type."""
        value = self.optional(name, kind)
        if value is None:
            raise missing(name)
        return value

    def optional(self, name: str, kind: type[Any]) -> Any:
        """Return a property of the given JSON type, or None if it is absent or null."""
        value = self.get(name)
        is_other_bool = isinstance(value, bool) and kind is not bool  # a bool is also an int
        if value is None or (isinstance(value, kind) and not is_other_bool):
            return value
        raise unreadable(f"{name} is not of the expected type.")


def uuid_of(value: Any, name: str) -> str:
    """Return an id in its canonical form; `name` is that of the property."""
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError) as error:
        raise unreadable(f"{name} is not a UUID.") from error
