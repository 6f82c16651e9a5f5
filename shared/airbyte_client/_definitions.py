"""Destinations and connector definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from shared.airbyte_client import _definition_schemas as definition_shapes
from shared.airbyte_client import _schemas as shapes
from shared.airbyte_client._calls import Calls, expect_requested
from shared.airbyte_client._definition_schemas import Definition, SourceSpecification
from shared.airbyte_client._schemas import Destination
from shared.domain import destination as destinations

_DESTINATION = msgspec.json.Decoder(Destination)
_DESTINATIONS = msgspec.json.Decoder(shapes.DestinationPage)
_SOURCE_SPECIFICATION = msgspec.json.Decoder(SourceSpecification)
_SOURCE_DEFINITIONS = msgspec.json.Decoder(definition_shapes.SourceDefinitions)
_DESTINATION_DEFINITIONS = msgspec.json.Decoder(definition_shapes.DestinationDefinitions)
_DESTINATION_VERSION = msgspec.json.Decoder(definition_shapes.DestinationVersion)
_CONFIGURED_DESTINATION = msgspec.json.Decoder(definition_shapes.ConfiguredDestination)
_DESTINATION_SPECIFICATION = msgspec.json.Decoder(definition_shapes.DestinationSpecification)


class Definitions(Calls):
    """Destinations and connector definitions."""

    async def create_destination(
        self,
        workspace_id: UUID,
        configuration: Mapping[str, Any],
        *,
        name: str,
        destination_definition_id: UUID,
    ) -> Destination:
        """Create a destination.

        Endpoint: POST destinations/create
        Sends:    {"workspaceId", "destinationDefinitionId", "name", "connectionConfiguration"}
        Receives: {"destinationId": uuid, ...}, secrets masked
        """
        return await self._post(
            "destinations/create",
            {
                "workspaceId": workspace_id,
                "destinationDefinitionId": destination_definition_id,
                "name": name,
                "connectionConfiguration": configuration,
            },
            _DESTINATION,
        )

    async def get_destination(self, destination_id: UUID) -> Destination:
        """One destination.

        Endpoint: POST destinations/get
        Sends:    {"destinationId": uuid}
        """
        read = await self._post(
            "destinations/get", {"destinationId": destination_id}, _DESTINATION, repeat=True
        )
        expect_requested("destinations/get", read.destination_id, destination_id)
        return read

    async def list_destinations(self, workspace_id: UUID) -> list[Destination]:
        """All destinations of a workspace; pages as `list_sources`.

        Endpoint: POST destinations/list
        Receives: {"destinations": [{"destinationId", "name", "destinationDefinitionId",
                  "destinationName", ...}]}; their configurations are not decoded
        """
        return await self._all_pages(
            "destinations/list",
            workspace_id,
            _DESTINATIONS,
            lambda page: page.destinations,
            _destination_id,
        )

    async def destination_sync_modes(self, destination: Destination) -> frozenset[str]:
        """The sync modes that a destination supports, such as append, overwrite and append_dedup.

        Endpoint: POST destination_definition_specifications/get
        Sends:    {"destinationDefinitionId": uuid, "workspaceId": uuid}
        Receives: {"supportedDestinationSyncModes"?: [str], ...}; empty where Airbyte gives none
        """
        read = await self._post(
            "destination_definition_specifications/get",
            {
                "destinationDefinitionId": destination.destination_definition_id,
                "workspaceId": destination.workspace_id,
            },
            _DESTINATION_SPECIFICATION,
            repeat=True,
        )
        return frozenset(read.supported_destination_sync_modes or ())

    async def supports_refreshes(self, destination_id: UUID) -> bool:
        """Whether the destination's connector version can refresh single streams.

        Airbyte ignores a refresh for one that cannot.

        Endpoint: as `_destination_version`
        """
        return (await self._destination_version(destination_id)).supports_refreshes

    async def destination_rules(self, destination_id: UUID) -> destinations.Destination:
        """What a destination can hold, by its connector and the version that it runs.

        Endpoint: POST destinations/get, then as `_destination_version`
        Sends:    {"destinationId": uuid}
        Receives: {"destinationDefinitionId", "connectionConfiguration": {...}, ...}; of the
                  configuration only the default schema and the switch for raw tables are decoded
        Source:   airbyte-platform 0.63.19 to 310e6cb6ac, config.yaml

        Raises:
            UpstreamMissing: Airbyte has no such destination; some versions answer 403 or 500.
        """
        path = "destinations/get"
        held = await self._post(
            path, {"destinationId": destination_id}, _CONFIGURED_DESTINATION, repeat=True
        )
        expect_requested(path, held.destination_id, destination_id)
        version = await self._destination_version(destination_id)
        found = destinations.identify(
            held.destination_definition_id, version.docker_repository, version.docker_image_tag
        )
        member = destinations.DEFAULT_SCHEMA.get(found.kind)
        return replace(
            found, default_schema=held.default_schema(member), is_raw_only=held.is_raw_only
        )

    async def _destination_version(
        self, destination_id: UUID
    ) -> definition_shapes.DestinationVersion:
        """The version of its connector that a destination runs.

        Endpoint: POST actor_definition_versions/get_for_destination
        Sends:    {"destinationId": uuid}
        Receives: {"dockerRepository", "dockerImageTag", "supportsRefreshes": bool, ...}
        """
        return await self._post(
            "actor_definition_versions/get_for_destination",
            {"destinationId": destination_id},
            _DESTINATION_VERSION,
            repeat=True,
        )

    async def source_definitions(self, workspace_id: UUID) -> list[Definition]:
        """The source connectors a workspace can use.

        Endpoint: POST source_definitions/list_for_workspace
        Sends:    {"workspaceId": uuid}
        Receives: {"sourceDefinitions": [{"sourceDefinitionId", "name", "dockerImageTag",
                  "documentationUrl"?, "supportLevel"?, "custom"?, ...}]}, all at once; about
                  1 MB where it includes icons
        """
        read = await self._post(
            "source_definitions/list_for_workspace",
            {"workspaceId": workspace_id},
            _SOURCE_DEFINITIONS,
            repeat=True,
        )
        return [definition.to_domain() for definition in read.source_definitions]

    async def source_specification(
        self, definition_id: UUID, workspace_id: UUID
    ) -> SourceSpecification:
        """The JSON Schema (draft-07) of a source connector's configuration; no connector starts.

        Endpoint: POST source_definition_specifications/get
        Sends:    {"sourceDefinitionId": uuid, "workspaceId": uuid}
        Receives: {"sourceDefinitionId", "connectionSpecification": {...}, "documentationUrl"?}
        Source:   airbyte-platform 310e6cb6ac, ConnectorDefinitionSpecificationHandler

        Raises:
            UpstreamMissing: Airbyte has no such definition.
        """
        read = await self._post(
            "source_definition_specifications/get",
            {"sourceDefinitionId": definition_id, "workspaceId": workspace_id},
            _SOURCE_SPECIFICATION,
            repeat=True,
        )
        expect_requested(
            "source_definition_specifications/get", read.source_definition_id, definition_id
        )
        return read

    async def specification_of_source(self, source_id: UUID) -> SourceSpecification:
        """The specification of an existing source, in the version that the source is pinned to.

        Endpoint: POST source_definition_specifications/get_for_source
        Sends:    {"sourceId": uuid}
        Receives: as `source_specification`

        Raises:
            UpstreamMissing: Airbyte has no such source.
        """
        return await self._post(
            "source_definition_specifications/get_for_source",
            {"sourceId": source_id},
            _SOURCE_SPECIFICATION,
            repeat=True,
        )

    async def destination_definitions(self, workspace_id: UUID) -> list[Definition]:
        """The destination connectors a workspace can use.

        Endpoint: POST destination_definitions/list_for_workspace
        Sends:    {"workspaceId": uuid}
        """
        read = await self._post(
            "destination_definitions/list_for_workspace",
            {"workspaceId": workspace_id},
            _DESTINATION_DEFINITIONS,
            repeat=True,
        )
        return [definition.to_domain() for definition in read.destination_definitions]


def _destination_id(destination: Destination) -> UUID:
    return destination.destination_id
