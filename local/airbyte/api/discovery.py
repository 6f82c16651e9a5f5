"""Synchronous discovery of a source's schema."""

from __future__ import annotations

from typing import Any

from local.airbyte.api import reads
from local.airbyte.api.actors import actor_of, run_read
from local.airbyte.api.backend import Backend
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post
from local.airbyte.errors import not_implemented

Json = dict[str, Any]


@post("sources/discover_schema")
async def discover_schema(backend: Backend, body: Body) -> Json:
    """Return the cached catalog, which has no age, or a new one; a failure has none."""
    source = actor_of(backend, "source", body)
    if body.get("connectionId") is not None:
        raise not_implemented("sources/discover_schema with a connectionId")
    catalog_id = None if body.optional("disable_cache", bool) else backend.cached_catalog(source)
    if catalog_id is None:
        outcome = await backend.discover(source)
        definition_id = source["sourceDefinitionId"]
        job = run_read(backend, "discover_schema", definition_id, outcome)
        catalog_id = outcome.catalog_id
    else:
        job = reads.no_job("discover_schema", backend.release)
    if catalog_id is None:
        return {"jobInfo": job}
    found = await backend.discovered(source, catalog_id)
    return {"catalog": found, "catalogId": catalog_id, "jobInfo": job}


@post("sources/most_recent_source_actor_catalog")
async def most_recent_catalog(backend: Backend, body: Body) -> Json:
    """Return the newest discovery's catalog as the connector wrote it; empty without any."""
    return backend.newest_discovery(actor_of(backend, "source", body))
