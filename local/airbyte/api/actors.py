"""Sources and destinations: their life cycle and the check of their configuration."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from local.airbyte import specification
from local.airbyte.api import reads
from local.airbyte.api.backend import Backend, Definition, Kind, Outcome
from local.airbyte.api.definitions import definition_of
from local.airbyte.api.instance import require_workspace
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post
from local.airbyte.errors import Refusal

Json = dict[str, Any]
KINDS: tuple[Kind, Kind] = ("source", "destination")


def actor_of(backend: Backend, kind: Kind, body: Body) -> Json:
    """Return the source or destination that a request names."""
    return backend.actor(kind, body.id(f"{kind}Id"))


async def schema_of(backend: Backend, kind: Kind, actor: Json) -> Json:
    """Return the specification of an actor's configuration."""
    definition = definition_of(backend, kind, actor[f"{kind}DefinitionId"])
    return await backend.specification(definition)


async def create(kind: Kind, backend: Backend, body: Body) -> Json:
    """Add a source or destination; the configuration is validated, but not checked."""
    workspace_id = require_workspace(backend, body)
    definition = definition_of(backend, kind, body.id(f"{kind}DefinitionId"))
    name, config = body.text("name"), body.required("connectionConfiguration", dict)
    _validate(backend, config, await backend.specification(definition))
    made = backend.create_actor(definition, name, config, workspace_id=workspace_id)
    return await masked(backend, kind, made)


async def get(kind: Kind, backend: Backend, body: Body) -> Json:
    """Read a source or destination."""
    return await masked(backend, kind, actor_of(backend, kind, body))


async def update(kind: Kind, backend: Backend, body: Body) -> Json:
    """Replace the name and the configuration; a masked value keeps the stored secret."""
    actor = actor_of(backend, kind, body)
    config = await _whole(backend, kind, actor, body.required("connectionConfiguration", dict))
    made = backend.update_actor(kind, actor, body.text("name"), config)
    return await masked(backend, kind, made)


async def partial_update(kind: Kind, backend: Backend, body: Body) -> Json:
    """Change the given members, also those of the configuration."""
    actor = actor_of(backend, kind, body)
    given = body.optional("connectionConfiguration", dict) or {}
    config = {**actor["connectionConfiguration"], **given}
    config = await _whole(backend, kind, actor, config)
    name = body.optional("name", str) or actor["name"]
    return await masked(backend, kind, backend.update_actor(kind, actor, name, config))


async def delete(kind: Kind, backend: Backend, body: Body) -> None:
    """Delete a source or destination and its connections."""
    await backend.delete_actor(kind, actor_of(backend, kind, body))


async def list_(kind: Kind, backend: Backend, body: Body) -> Json:
    """List all actors of a kind, or one page; the cursor is the last id of the previous page."""
    found = backend.list_actors(kind, require_workspace(backend, body))
    if not backend.release.since(1, 8):
        return {f"{kind}s": [await masked(backend, kind, actor) for actor in found]}
    filters = body.optional("filters", dict) or {}
    found = [actor for actor in found if _is_wanted(kind, actor, filters)]
    found.sort(key=lambda actor: (actor["name"].lower(), actor[f"{kind}Id"]))
    if body.optional("sortKey", str) in {"actorName_desc", "actorDefinitionName_desc"}:
        found.reverse()
    total = len(found)
    if body.get("cursor") is not None:
        cursor = body.id("cursor")
        places = [place for place, actor in enumerate(found) if actor[f"{kind}Id"] == cursor]
        found = found[places[0] + 1 :] if places else []
    size = body.optional("pageSize", int) or backend.page_size
    page = [await masked(backend, kind, actor) for actor in found[:size]]
    return {f"{kind}s": page, "page_size": size, "num_connections": total}


def _is_wanted(kind: Kind, actor: Json, filters: Json) -> bool:
    states = filters.get("states")
    if states and "active" not in states:
        return False
    like = re.compile(_ilike(str(filters.get("searchTerm") or "")), re.IGNORECASE | re.DOTALL)
    return bool(like.search(actor["name"]) or like.search(actor[f"{kind}Name"]))


def _ilike(term: str) -> str:
    """SQL's ILIKE '%term%', whose wildcards Airbyte does not escape."""
    wild = {"%": ".*", "_": "."}
    return "".join(wild.get(char, re.escape(char)) for char in term)


async def check(kind: Kind, backend: Backend, body: Body) -> Json:
    """Check the stored configuration."""
    actor = actor_of(backend, kind, body)
    return await _checked(backend, kind, actor, actor["connectionConfiguration"])


async def check_for_update(kind: Kind, backend: Backend, body: Body) -> Json:
    """Check a configuration before it is stored; a masked value means the stored secret."""
    actor = actor_of(backend, kind, body)
    body.text("name")
    config = await _whole(backend, kind, actor, body.required("connectionConfiguration", dict))
    return await _checked(backend, kind, actor, config)


async def _checked(backend: Backend, kind: Kind, actor: Json, config: Json) -> Json:
    definition = definition_of(backend, kind, actor[f"{kind}DefinitionId"])
    return await _verdict(backend, definition, actor, config)


async def _verdict(
    backend: Backend, definition: Definition, actor: Json | None, config: Json
) -> Json:
    outcome = await backend.check(definition, actor, config)
    job = run_read(backend, f"check_connection_{definition.kind}", definition.id, outcome)
    body: Json = {"jobInfo": job}
    if outcome.check is not None:
        body["status"] = "succeeded" if outcome.check.succeeded else "failed"
        body["message"] = outcome.check.message
    return reads.present(body)


@post("scheduler/sources/check_connection")
async def check_unsaved(backend: Backend, body: Body) -> Json:
    """Check a configuration that no source has; nothing is stored."""
    require_workspace(backend, body)
    definition = definition_of(backend, "source", body.id("sourceDefinitionId"))
    config = body.required("connectionConfiguration", dict)
    _validate(backend, config, await backend.specification(definition))
    return await _verdict(backend, definition, None, config)


def run_read(backend: Backend, kind: str, definition_id: str, outcome: Outcome) -> Json:
    """Build the job of a connector run, with its log."""
    lines = backend.log_lines(outcome.job_id)
    return reads.synchronous_job(kind, definition_id, outcome, lines, backend.release)


@post("sources/search")
async def search(_backend: Backend, _body: Body) -> Json:
    """Find nothing, as the real endpoint does according to its source code."""
    return {"sources": []}


async def masked(backend: Backend, kind: Kind, actor: Json) -> Json:
    """Return a source or destination with the secrets of its configuration masked."""
    schema = await schema_of(backend, kind, actor)
    config = specification.masked(actor["connectionConfiguration"], schema)
    support = reads.support(backend.actor_version(kind, actor), backend.release)
    return {**actor, **support, "connectionConfiguration": config}


async def _whole(backend: Backend, kind: Kind, actor: Json, config: Json) -> Json:
    schema = await schema_of(backend, kind, actor)
    whole: Json = specification.unmasked(config, actor["connectionConfiguration"], schema)
    _validate(backend, whole, schema)
    return whole


def _validate(backend: Backend, config: Json, schema: Json) -> None:
    faults = backend.config_faults(config, schema)
    if faults:
        raise Refusal(
            422,
            "The provided configuration does not fulfill the specification. "
            f"Errors: {', '.join(faults)}",
        )


_VERBS: dict[str, Callable[[Kind, Backend, Body], Awaitable[Any]]] = {
    "create": create,
    "get": get,
    "update": update,
    "partial_update": partial_update,
    "delete": delete,
    "list": list_,
    "check_connection": check,
    "check_connection_for_update": check_for_update,
}

for _kind in KINDS:
    for _verb, _handler in _VERBS.items():
        post(f"{_kind}s/{_verb}")(partial(_handler, _kind))
