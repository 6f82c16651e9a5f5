"""Connections: their settings, their catalogs, their syncs and what state they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from local.airbyte.api import defaults, reads
from local.airbyte.api.actors import KINDS, masked
from local.airbyte.api.backend import Backend, Kind, Refresh
from local.airbyte.api.definitions import definition_of
from local.airbyte.api.instance import require_workspace
from local.airbyte.api.jobs import job_info
from local.airbyte.api.requests import Body, uuid_of
from local.airbyte.api.routes import post
from local.airbyte.catalog import key_of
from local.airbyte.errors import (
    Refusal,
    not_implemented,
    state_is_locked,
    uncaught,
    unreadable,
)

Json = dict[str, Any]

SETTINGS: Mapping[str, type[Any]] = {
    "name": str,
    "status": str,
    "namespaceDefinition": str,
    "namespaceFormat": str,
    "prefix": str,
    "operationIds": list,
    "scheduleType": str,
    "scheduleData": dict,
    "sourceCatalogId": str,
    "destinationCatalogId": str,
    "breakingChange": bool,
    "notifySchemaChanges": bool,
    "notifySchemaChangesByEmail": bool,
    "nonBreakingChangesPreference": str,
    "backfillPreference": str,
    "resourceRequirements": dict,
}
"""The accepted connection properties besides the catalog; others are ignored."""

_NOT_IN_WHOLE = frozenset({"created_at", "workspaceId", "breakingChange", "sourceCatalogId"})
"""Members that a ConnectionRead has and a WebBackendConnectionRead does not."""

ENUMS = {
    "status": {"active", "inactive", "deprecated", "locked"},
    "namespaceDefinition": {"source", "destination", "customformat"},
    "scheduleType": {"manual", "basic", "cron"},
    "nonBreakingChangesPreference": {"ignore", "disable", "propagate_columns", "propagate_fully"},
    "backfillPreference": {"enabled", "disabled"},
}


@post("connections/create")
async def create(backend: Backend, body: Body) -> Json:
    """Connect a source to a destination."""
    source = backend.actor("source", body.id("sourceId"), with_deleted=True)
    destination = backend.actor("destination", body.id("destinationId"))
    _expect_same_workspace(source, destination)
    body.text("status")
    if body.get("schedule") is not None and body.get("scheduleType") is not None:
        raise Refusal(422, "Use either schedule or scheduleType, not both.")
    name = defaults.connection_name(source["name"], destination["name"])
    settings = {"name": name, **defaults.connection(backend.release), **_settings(backend, body)}
    sync_catalog = body.optional("syncCatalog", dict) or {"streams": []}
    made = await backend.create_connection(source, destination, settings, sync_catalog)
    return reads.connection_read(made)


def _expect_same_workspace(source: Json, destination: Json) -> None:
    """Refuse actors of two workspaces, as ConnectionHelper.validateWorkspace does: with a 500.

    Raises:
        Refusal: they are in different workspaces.
    """
    if source["workspaceId"] != destination["workspaceId"]:
        raise uncaught(
            "Source and destination do not belong to the same workspace. "
            f"Source id: {source['sourceId']}, Source workspace id: {source['workspaceId']}, "
            f"Destination id: {destination['destinationId']}, "
            f"Destination workspace id: {destination['workspaceId']}",
            "java.lang.IllegalArgumentException",
        )


@post("connections/update")
async def update(backend: Backend, body: Body) -> Json:
    """Change the given settings; a catalog, when given, replaces the whole one."""
    held = backend.connection(body.id("connectionId"))
    if body.get("schedule") is not None:
        raise uncaught("schedule is deprecated.")
    settings, sync_catalog = _settings(backend, body), body.optional("syncCatalog", dict)
    if settings.get("scheduleType") == "manual":
        settings["scheduleData"] = None
    changed = await backend.update_connection(held, settings, sync_catalog)
    return reads.connection_read(changed)


def _settings(backend: Backend, body: Body) -> Json:
    given = {name: body.optional(name, kind) for name, kind in SETTINGS.items()}
    if backend.release.since(1):
        given["tags"] = body.optional("tags", list)
    for name, values in ENUMS.items():
        if given[name] is not None:
            given[name] = given[name].lower()
            if given[name] not in values:
                raise unreadable(f"{name} has no such value.")
    basic = (given["scheduleData"] or {}).get("basicSchedule")
    if basic is not None and not (
        isinstance(basic, dict)
        and basic.get("timeUnit") in defaults.UNIT_SECONDS
        and type(basic.get("units")) is int
        and basic["units"] > 0
    ):
        raise unreadable("basicSchedule takes units, a whole number over 0, and a timeUnit.")
    return reads.present(given)


@post("connections/get")
async def get(backend: Backend, body: Body) -> Json:
    """Read a connection; a deleted one is deprecated."""
    held = backend.connection(body.id("connectionId"), with_deleted=True)
    return reads.connection_read(held)


@post("connections/list")
async def list_(backend: Backend, body: Body) -> Json:
    """List all connections of a workspace."""
    found = backend.list_connections(require_workspace(backend, body))
    return {"connections": [reads.connection_read(held) for held in found]}


@post("web_backend/connections/list")
async def list_items(backend: Backend, body: Body) -> Json:
    """List connections without catalogs, as for Airbyte's web app; paged since 1.8."""
    listed = backend.list_connections(require_workspace(backend, body))
    wanted = body.optional("sourceId", list)
    found = [held for held in listed if not wanted or held["sourceId"] in wanted]
    if not backend.release.since(1, 8):
        return {"connections": [_item(backend, held) for held in found]}
    found.sort(key=lambda held: (held["name"].lower(), held["connectionId"]))
    total = len(found)
    if body.get("cursor") is not None:
        cursor = body.id("cursor")
        ids = [held["connectionId"] for held in found]
        if cursor not in ids:
            raise backend.unknown("STANDARD_SYNC", cursor)
        found = found[ids.index(cursor) + 1 :]
    size = body.optional("pageSize", int) or backend.page_size
    page = [_item(backend, held) for held in found[:size]]
    return {"connections": page, "page_size": size, "num_connections": total}


def _item(backend: Backend, held: Json) -> Json:
    actors = {}
    for kind in KINDS:
        actor = _actor(backend, held, kind)
        actors[kind] = actor, definition_of(backend, kind, actor[f"{kind}DefinitionId"])
    jobs = backend.list_jobs(held["connectionId"])
    return reads.connection_item(held, actors, jobs, backend.release)


@post("web_backend/connections/get")
async def get_whole(backend: Backend, body: Body) -> Json:
    """Read a connection with its source, its destination and every stream of the source."""
    held = backend.connection(body.id("connectionId"))
    if body.optional("withRefreshedCatalog", bool):
        raise not_implemented("web_backend/connections/get with a refreshed catalog")
    item = _item(backend, held)
    actors: Json = {
        kind: await masked(backend, kind, _actor(backend, held, kind)) for kind in KINDS
    }
    source = _actor(backend, held, "source")
    whole: Json = {
        **reads.connection_read(held),
        **item,
        **actors,
        "syncCatalog": await _offered_and_configured(backend, held, source),
        "operations": [],
        "createdAt": held["created_at"],
        "catalogId": held.get("sourceCatalogId"),
    }
    return {name: one for name, one in reads.present(whole).items() if name not in _NOT_IN_WHOLE}


def _actor(backend: Backend, held: Json, kind: Kind) -> Json:
    return backend.actor(kind, held[f"{kind}Id"], with_deleted=True)


async def _offered_and_configured(backend: Backend, held: Json, source: Json) -> Json:
    """Pair the streams of the connection's discovery with their configuration in the connection."""
    configured: Json = held["syncCatalog"]
    if held.get("sourceCatalogId") is None:
        return configured
    offered = await backend.discovered(source, held["sourceCatalogId"])
    if isinstance(offered, orjson.Fragment):
        offered = orjson.loads(orjson.dumps(offered))
    configs: dict[tuple[str | None, str], Json] = {
        key_of(pair["stream"]): pair["config"] for pair in configured["streams"]
    }
    pairs = [
        {
            "stream": pair["stream"],
            "config": configs.get(key_of(pair["stream"]), {**pair["config"], "selected": False}),
        }
        for pair in offered["streams"]
    ]
    return {"streams": pairs}


@post("connections/search")
async def search(_backend: Backend, _body: Body) -> Json:
    """Find nothing, as the real endpoint does according to its source code."""
    return {"connections": []}


@post("connections/delete")
async def delete(backend: Backend, body: Body) -> None:
    """Delete a connection."""
    await backend.delete_connection(backend.connection(body.id("connectionId")))


@post("connections/sync")
async def sync(backend: Backend, body: Body) -> Json:
    """Start a sync of an active connection."""
    held = backend.connection(body.id("connectionId"))
    if held["status"] != "active":
        raise uncaught("Can only sync an active connection")
    return job_info(backend, backend.job(backend.start_sync(held)))


REFRESH_MODES = {"Merge", "Truncate"}


@post("connections/refresh")
async def refresh(backend: Backend, body: Body) -> Json:
    """Read streams from their start again; without streams, all of them.

    Answers without a job where the destination supports no refreshes, and where none was started.
    """
    held = backend.connection(body.id("connectionId"))
    mode = body.text("refreshMode")
    if mode not in REFRESH_MODES:
        raise unreadable("refreshMode has no such value.")
    streams = [_descriptor(each) for each in body.optional("streams", list) or []]
    if not streams:
        streams = [reads.descriptor(pair["stream"]) for pair in held["syncCatalog"]["streams"]]
    destination = backend.actor("destination", held["destinationId"])
    definition = definition_of(backend, "destination", destination["destinationDefinitionId"])
    job_id = None
    if definition.supports_refreshes:
        job_id = backend.refresh(held, Refresh(streams, mode))
    if not backend.release.since(1):
        return {"value": definition.supports_refreshes}
    return {} if job_id is None else {"job": backend.job(job_id)}


def _descriptor(stream: Any) -> Json:
    if not isinstance(stream, dict) or not isinstance(stream.get("streamName"), str):
        raise unreadable("a stream has no streamName.")
    return reads.descriptor(
        {"name": stream["streamName"], "namespace": stream.get("streamNamespace")}
    )


@post("connections/status")
async def statuses(backend: Backend, body: Body) -> list[Json]:
    """Return what state connections are in."""
    ids = [uuid_of(each, "connectionIds") for each in body.required("connectionIds", list)]
    return [_status(backend, backend.connection(each)) for each in ids]


def _status(backend: Backend, held: Json) -> Json:
    for job in backend.list_jobs(held["connectionId"]):
        backend.before_read(job)
    jobs = backend.list_jobs(held["connectionId"])
    attempts = backend.list_attempts(jobs[0]["id"]) if jobs else []
    return reads.connection_status(held, jobs, attempts, backend.release)


@post("state/get")
async def get_state(backend: Backend, body: Body) -> Json:
    """Read the state that the next sync starts from."""
    held = backend.connection(body.id("connectionId"))
    return {"connectionId": held["connectionId"], **backend.state(held["connectionId"])}


@post("state/create_or_update_safe")
async def put_state(backend: Backend, body: Body) -> Json:
    """Write the given streams' state, unless a job is open; other streams keep theirs.

    A global state is replaced in its shared part, and a type can only be changed once nothing of
    another type is stored.
    """
    held = backend.connection(body.id("connectionId"))
    connection_id: str = held["connectionId"]
    given = Body(body.required("connectionState", dict))
    kind = given.text("stateType")
    whole: Json = given.optional("globalState", dict) or {}
    streams = (given.optional("streamState", list) or []) + (whole.get("streamStates") or [])
    if any(reads.is_open(job) for job in backend.list_jobs(connection_id)):
        raise state_is_locked(connection_id)
    stored = backend.state(connection_id)["stateType"]
    if stored not in ("not_set", kind):
        raise uncaught(f"Unexpected type change from {stored} to {kind}")
    states: dict[tuple[str | None, str], Any] = {
        key_of(each["streamDescriptor"]): each.get("streamState") for each in streams
    }
    if kind == "global":
        states[None, ""] = whole.get("shared_state")
    elif kind == "legacy":
        states[None, ""] = given.get("state")
    backend.put_states(connection_id, kind, states)
    return {"connectionId": connection_id, **backend.state(connection_id)}
