"""The releases of Airbyte to behave as, and what each of them has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

MOST_STREAMS = 1000
"""The most streams on Airbyte Cloud. Source: docs.airbyte.com, Airbyte Cloud limits."""


class ErrorStyle(StrEnum):
    """What an error body carries: a message up to Airbyte 1.8, mostly an id from 2.0.0."""

    MESSAGE = "message"
    ERROR_ID = "error_id"


@dataclass(frozen=True)
class Release:
    """A release by its version, such as 0.63.19; `head` is what comes after the newest one.

    `cloud` is Airbyte Cloud as far as it is documented: `head` with other permissions and limits.
    """

    version: str

    @cached_property
    def _number(self) -> tuple[int, ...]:
        if self.is_head:
            return (999,)
        return tuple(int(part) for part in self.version.split(".")[:2])

    def since(self, major: int, minor: int = 0) -> bool:
        """Whether this release is that one or a later one."""
        return self._number >= (major, minor)

    @property
    def is_head(self) -> bool:
        """Whether this is what comes after the newest release."""
        return self.version == "head" or self.is_cloud

    @property
    def is_cloud(self) -> bool:
        """Whether this is Airbyte Cloud.

        Its users are not administrators of the instance, it has no default workspace, and a
        connection or a discovery has at most `MOST_STREAMS` streams.
        """
        return self.version == "cloud"

    @property
    def error_style(self) -> ErrorStyle:
        """The style of its error bodies."""
        return ErrorStyle.ERROR_ID if self.since(2) else ErrorStyle.MESSAGE
