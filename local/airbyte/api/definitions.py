"""The connectors: source and destination definitions and their specifications."""

from __future__ import annotations

from typing import Any

from local.airbyte.api import reads
from local.airbyte.api.backend import Backend, Definition, Kind
from local.airbyte.api.instance import require_workspace
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post

Json = dict[str, Any]


def definition_of(backend: Backend, kind: Kind, definition_id: str) -> Definition:
    """Return a definition.

    Raises:
        Refusal: no definition has this id.
    """
    for definition in backend.definitions(kind):
        if definition.id == definition_id:
            return definition
    raise backend.unknown(f"STANDARD_{kind.upper()}_DEFINITION", definition_id)


@post("source_definitions/list")
async def list_sources(backend: Backend, _body: Body) -> Json:
    """List all source definitions."""
    return _list(backend, "source")


@post("source_definitions/list_for_workspace")
async def list_sources_for_workspace(backend: Backend, body: Body) -> Json:
    """List the source definitions of a workspace."""
    require_workspace(backend, body)
    return _list(backend, "source")


@post("source_definitions/get")
async def get_source(backend: Backend, body: Body) -> Json:
    """Read a source definition."""
    return _get(backend, "source", body)


@post("source_definition_specifications/get")
async def get_source_specification(backend: Backend, body: Body) -> Json:
    """Read the specification of a source definition."""
    return await _specification(backend, "source", body)


@post("source_definition_specifications/get_for_source")
async def get_specification_of_source(backend: Backend, body: Body) -> Json:
    """Read the specification of the version that a source runs with."""
    source = backend.actor("source", body.id("sourceId"))
    definition = definition_of(backend, "source", source["sourceDefinitionId"])
    return await _read(backend, definition)


@post("destination_definitions/list")
async def list_destinations(backend: Backend, _body: Body) -> Json:
    """List all destination definitions."""
    return _list(backend, "destination")


@post("destination_definitions/list_for_workspace")
async def list_destinations_for_workspace(backend: Backend, body: Body) -> Json:
    """List the destination definitions of a workspace."""
    require_workspace(backend, body)
    return _list(backend, "destination")


@post("destination_definitions/get")
async def get_destination(backend: Backend, body: Body) -> Json:
    """Read a destination definition."""
    return _get(backend, "destination", body)


@post("destination_definition_specifications/get")
async def get_destination_specification(backend: Backend, body: Body) -> Json:
    """Read the specification of a destination definition, and its sync modes."""
    definition = definition_of(backend, "destination", body.id("destinationDefinitionId"))
    modes = backend.destination_sync_modes(definition)
    specification = await _specification(backend, "destination", body)
    return {**specification, "supportedDestinationSyncModes": modes}


@post("actor_definition_versions/get_for_destination")
async def get_destination_version(backend: Backend, body: Body) -> Json:
    """Read the connector version that a destination uses."""
    actor = backend.actor("destination", body.id("destinationId"))
    definition = definition_of(backend, "destination", actor["destinationDefinitionId"])
    version = backend.actor_version("destination", actor)
    return reads.actor_version(definition, version, backend.release)


def _list(backend: Backend, kind: Kind) -> Json:
    return {f"{kind}Definitions": [reads.definition(each) for each in backend.definitions(kind)]}


def _get(backend: Backend, kind: Kind, body: Body) -> Json:
    return reads.definition(definition_of(backend, kind, body.id(f"{kind}DefinitionId")))


async def _specification(backend: Backend, kind: Kind, body: Body) -> Json:
    require_workspace(backend, body)
    return await _read(backend, definition_of(backend, kind, body.id(f"{kind}DefinitionId")))


async def _read(backend: Backend, definition: Definition) -> Json:
    schema = await backend.specification(definition)
    # Again, since a connector's first specification also has its documentation.
    definition = definition_of(backend, definition.kind, definition.id)
    return {
        f"{definition.kind}DefinitionId": definition.id,
        "documentationUrl": definition.documentation,
        "connectionSpecification": schema,
        "jobInfo": reads.no_job("get_spec", backend.release),
    }
