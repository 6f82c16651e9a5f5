"""Airbyte's destinations: a list of them, and the one that a request names."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared.airbyte_client import AirbyteClient, Destination
from shared.domain.did_you_mean import did_you_mean
from shared.errors import Invalid, UpstreamForbidden, UpstreamMissing
from shared.http.paging import Page

_MOST_CANDIDATES = 20

DESTINATION: dict[str, Any] = {
    "id": "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a",
    "name": "Warehouse",
    "workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "definition_id": "25c5221d-dce2-4163-ade9-739ef790f503",
    "type": "Postgres",
    "version": "3.0.14",
}


class DestinationView(BaseModel):
    """A destination that connections can write to, without its configuration."""

    model_config = ConfigDict(json_schema_extra={"examples": [DESTINATION]})

    id: UUID
    name: str
    """Not unique in Airbyte."""
    workspace_id: UUID
    """The Airbyte workspace that it belongs to; sources are created in the same one."""
    definition_id: UUID
    type: str | None = None
    """The connector's name."""
    version: str | None = None
    """The connector's version; null where Airbyte does not report it, or the destination is pinned
    to another one."""


class Destinations:
    """Reads the destinations of workspaces; their configurations are never decoded."""

    def __init__(self, airbyte: AirbyteClient) -> None:
        self._airbyte = airbyte

    async def page(
        self, workspace_id: UUID, *, after: UUID | None, limit: int
    ) -> Page[DestinationView]:
        """A page of a workspace's destinations by name; `after` is the last id of the page before.

        Raises:
            Invalid: there is no destination `after`, or no longer.
            Upstream: Airbyte's destinations cannot be listed.
        """
        found = await self._sorted(workspace_id)
        start = 0
        if after is not None:
            ids = [one.destination_id for one in found]
            if after not in ids:
                raise Invalid("`after` is not a cursor of this list.", code="invalid_cursor")
            start = ids.index(after) + 1
        shown = found[start : start + limit]
        definitions = await self._airbyte.destination_definitions(workspace_id) if shown else []
        versions = {one.definition_id: one.docker_image_tag for one in definitions}
        items = [
            DestinationView(
                id=one.destination_id,
                name=one.name,
                workspace_id=one.workspace_id,
                definition_id=one.destination_definition_id,
                type=one.destination_name,
                version=None
                if one.is_version_override_applied
                else versions.get(one.destination_definition_id),
            )
            for one in shown
        ]
        is_last = start + limit >= len(found)
        return Page(items=items, next=None if is_last else str(items[-1].id))

    async def by_id(self, destination_id: UUID) -> Destination:
        """The destination with this id, in whatever workspace it is.

        Raises:
            Invalid: `unknown_destination`.
            Upstream: Airbyte's destination cannot be read.
        """
        try:
            return await self._airbyte.get_destination(destination_id)
        except UpstreamMissing:
            raise Invalid.of(
                "destination_id",
                f"Airbyte has no destination {destination_id}.",
                code="unknown_destination",
            ) from None

    async def named(self, given: str, workspace_id: UUID) -> Destination:
        """The destination with this id, or with this name, which must be unique in the workspace.

        The name's case matters only where two names differ in nothing else. An id is also found in
        other workspaces.

        Raises:
            Invalid: `unknown_destination`, with the most similar name; or
                `ambiguous_destination`, with the candidates.
            Upstream: Airbyte's destinations cannot be listed.
        """
        found = await self._sorted(workspace_id)
        given_id = _uuid(given)
        same = [one for one in found if one.destination_id == given_id]
        same = same or [one for one in found if one.name == given]
        same = same or [one for one in found if one.name.casefold() == given.casefold()]
        if not same and given_id is not None:
            with suppress(UpstreamMissing, UpstreamForbidden):
                return await self._airbyte.get_destination(given_id)
        if not same:
            nearest = did_you_mean(given, [one.name for one in found])
            raise Invalid.of(
                "destination",
                f"Airbyte has no such destination{nearest}",
                code="unknown_destination",
            )
        if len(same) > 1:
            error = Invalid.of(
                "destination",
                f"{len(same)} destinations have this name; give the id of one of them.",
                code="ambiguous_destination",
            )
            error.members["candidates"] = [
                {"id": one.destination_id, "name": one.name, "type": one.destination_name}
                for one in same[:_MOST_CANDIDATES]
            ]
            raise error
        return same[0]

    async def _sorted(self, workspace_id: UUID) -> list[Destination]:
        found = await self._airbyte.list_destinations(workspace_id)
        return sorted(found, key=lambda one: (one.name.casefold(), str(one.destination_id)))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
