"""The versions of connectors that sources run: read, upgraded, and their manifests listed."""

from __future__ import annotations

from typing import Any

from local.airbyte.api import reads
from local.airbyte.api.actors import actor_of
from local.airbyte.api.backend import Backend
from local.airbyte.api.definitions import definition_of
from local.airbyte.api.instance import require_workspace
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post
from local.airbyte.errors import uncaught

Json = dict[str, Any]


@post("actor_definition_versions/get_for_source")
async def get_for_source(backend: Backend, body: Body) -> Json:
    """Read the version that a source runs."""
    source = actor_of(backend, "source", body)
    definition = definition_of(backend, "source", source["sourceDefinitionId"])
    return reads.actor_version(definition, backend.actor_version("source", source), backend.release)


@post("sources/upgrade_version")
async def upgrade(backend: Backend, body: Body) -> None:
    """Remove the pin that keeps a source below a breaking change; any other pin is a 500.

    Without a pin nothing happens (ActorDefinitionVersionUpdater of 310e6cb6ac).
    """
    source = actor_of(backend, "source", body)
    pinned_by = backend.actor_version("source", source).pinned_by
    if pinned_by not in (None, "breaking_change"):
        raise uncaught(
            "This source is manually pinned to a version, and therefore cannot be upgraded."
        )
    if pinned_by is not None:
        backend.unpin_source(source)


@post("declarative_source_definitions/list_manifests")
async def list_manifests(backend: Backend, body: Body) -> Json:
    """List the manifests of a connector that was made in the connector builder."""
    require_workspace(backend, body)
    definition = definition_of(backend, "source", body.id("sourceDefinitionId"))
    manifests = backend.manifests(definition)
    if manifests is None:
        raise backend.unknown("DECLARATIVE_MANIFEST", definition.id)
    return {"manifestVersions": list(manifests)}
