"""The table of endpoints, which each module of endpoints fills."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from local.airbyte.api.backend import Backend
from local.airbyte.api.requests import Body
from local.airbyte.releases import Release

Handler = Callable[[Backend, Body], Awaitable[Any]]
"""Answers with what orjson serializes, or with None: 204 without a body."""

Version = tuple[int, int]


@dataclass(frozen=True)
class Route:
    """An endpoint and the releases that have it: from `since` on, before `until`."""

    handler: Handler
    since: Version
    until: Version | None

    def is_in(self, release: Release) -> bool:
        """Whether a release has this endpoint."""
        return release.since(*self.since) and not (self.until and release.since(*self.until))


ROUTES: dict[tuple[str, str], Route] = {}
"""Endpoints by method and path below /api/v1."""


def post(
    *paths: str, since: Version = (0, 0), until: Version | None = None
) -> Callable[[Handler], Handler]:
    """Register a handler of POST requests."""

    def register(handler: Handler) -> Handler:
        for path in paths:
            ROUTES["POST", path] = Route(handler, since, until)
        return handler

    return register


def get(path: str) -> Callable[[Handler], Handler]:
    """Register a handler of GET requests."""

    def register(handler: Handler) -> Handler:
        ROUTES["GET", path] = Route(handler, (0, 0), None)
        return handler

    return register
