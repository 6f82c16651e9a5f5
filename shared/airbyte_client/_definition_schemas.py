"""Connector definitions, and the JSON that they are decoded from."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from shared.airbyte_client._schemas import NOTHING


class Definition(msgspec.Struct, frozen=True):
    """A connector that Airbyte can run."""

    definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str
    documentation_url: str | None = None
    support_level: str | None = None
    """`certified`, `community`, `archived` or `none`; None where this Airbyte does not give it."""
    is_custom: bool = False


class SourceSpecification(msgspec.Struct, frozen=True, rename="camel"):
    """Response of source_definition_specifications/get: the connector's JSON Schema, as bytes."""

    source_definition_id: UUID
    connection_specification: msgspec.Raw = NOTHING
    documentation_url: str | None = None


class SourceDefinitionRead(msgspec.Struct, frozen=True, rename="camel"):
    """An item of source_definitions/list_for_workspace."""

    source_definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str
    documentation_url: str | None = None
    support_level: str | None = None
    custom: bool | None = None

    def to_domain(self) -> Definition:
        """Convert to AAM's type."""
        return Definition(
            self.source_definition_id,
            self.name,
            self.docker_repository,
            self.docker_image_tag,
            self.documentation_url,
            self.support_level,
            bool(self.custom),
        )


class SourceDefinitions(msgspec.Struct, frozen=True, rename="camel"):
    """Response of source_definitions/list_for_workspace."""

    source_definitions: list[SourceDefinitionRead]


class DestinationDefinitionRead(msgspec.Struct, frozen=True, rename="camel"):
    """An item of destination_definitions/list_for_workspace."""

    destination_definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str

    def to_domain(self) -> Definition:
        """Convert to AAM's type."""
        return Definition(
            self.destination_definition_id,
            self.name,
            self.docker_repository,
            self.docker_image_tag,
        )


class DestinationDefinitions(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destination_definitions/list_for_workspace."""

    destination_definitions: list[DestinationDefinitionRead]


class DestinationSpecification(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destination_definition_specifications/get."""

    destination_definition_id: UUID
    supported_destination_sync_modes: list[str] | None = None


class DestinationVersion(msgspec.Struct, frozen=True, rename="camel"):
    """Response of actor_definition_versions/get_for_destination."""

    docker_repository: str | None = None
    docker_image_tag: str | None = None
    """The one that runs: pins are applied."""
    supports_refreshes: bool = False


class _PlainSettings(msgspec.Struct, frozen=True):
    """The members of a destination's configuration that say where it writes; the rest is skipped.

    The same member has other types in other connectors.
    """

    schema: Any = None
    dataset_id: Any = None
    database: Any = None
    disable_type_dedupe: Any = None
    legacy_raw_tables_only: Any = None


class ConfiguredDestination(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destinations/get, with those members of its configuration alone."""

    destination_id: UUID
    destination_definition_id: UUID
    connection_configuration: _PlainSettings = _PlainSettings()

    def default_schema(self, member: str | None) -> str | None:
        """The schema, dataset or database in this member; None if it is not set."""
        value = None if member is None else getattr(self.connection_configuration, member, None)
        return value if isinstance(value, str) and value else None

    @property
    def is_raw_only(self) -> bool:
        """Whether it is configured to write raw tables alone."""
        settings = self.connection_configuration
        return settings.disable_type_dedupe is True or settings.legacy_raw_tables_only is True
