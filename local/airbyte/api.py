"""The part of Airbyte's Configuration API that AAM calls, under /api/v1: one handler per endpoint.

Unsupported endpoints answer 501 with their name; endpoints that the emulated release lacks answer
404, as that release would. Every response has the header `X-Airbyte-Local: true`. Null properties
are omitted, and times are in epoch seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.airbyte import DESTINATION_DEFINITION_ID, WORKSPACE_ID, reads, specification
from local.airbyte.errors import (
    MOST_BODY_BYTES,
    Micronaut,
    Refusal,
    missing,
    no_such_page,
    not_found,
    not_implemented,
    too_large,
    uncaught,
    unreadable,
)
from local.airbyte.jobs import failure_reason
from local.airbyte.metadata import Row
from local.airbyte.plane import (
    DESTINATION_SPECIFICATION,
    UNIT_SECONDS,
    Outcome,
    Plane,
    connector_of,
)
from local.airbyte.settings import Flavour, Settings
from local.airbyte.store import BY_DEFINITION, CONNECTORS, Connector
from local.airbyte.writer import DESTINATION_SYNC_MODES
from local.request_guard import Guard, token_of

NOBODY = "00000000-0000-0000-0000-000000000000"
CONFIG_TYPES = ("check_connection_source", "discover_schema", "get_spec", "sync")

Json = dict[str, Any]
Answer = Json | list[Any] | bytes | None
Handler = Callable[[Plane, "Body"], Awaitable[Answer]]

_posts: dict[str, tuple[Handler, Flavour | None]] = {}
_gets: dict[str, tuple[Handler, Flavour | None]] = {}


def _post(*paths: str, only: Flavour | None = None) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        _posts.update(dict.fromkeys(paths, (handler, only)))
        return handler

    return keep


def _get(path: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        _gets[path] = (handler, None)
        return handler

    return keep


class Body(dict[str, Any]):
    """A request's JSON object; refuses missing or mistyped properties as Airbyte does."""

    def uuid(self, name: str) -> UUID:
        """Return a required id."""
        try:
            return UUID(self.required(name, str))
        except ValueError as error:
            raise unreadable(f"{name} is not a UUID.") from error

    def text(self, name: str) -> str:
        """Return a required string."""
        text: str = self.required(name, str)
        return text

    def required(self, name: str, kind: type[Any]) -> Any:
        """Return a required property of the given JSON type."""
        value = self.optional(name, kind)
        if value is None:
            raise missing(name)
        return value

    def optional(self, name: str, kind: type[Any]) -> Any:
        """Return a property of the given JSON type, or None if it is absent or null."""
        value = self.get(name)
        is_truth = isinstance(value, bool) and kind is not bool  # in Python a bool is also an int
        if value is None or (isinstance(value, kind) and not is_truth):
            return value
        raise unreadable(f"{name} is not of the expected type.")


# Instance


@_get("health")
async def _health(_plane: Plane, _body: Body) -> Json:
    return {"available": True}


@_get("instance_configuration")
async def _instance_configuration(plane: Plane, _body: Body) -> Json:
    told: Json = {
        "edition": "community",
        "version": plane.settings.flavour.release.version,
        "airbyteUrl": f"http://127.0.0.1:{plane.settings.port}/",
        "auth": {"mode": "simple"},
        "initialSetupComplete": True,
        "defaultUserId": NOBODY,
        "defaultOrganizationId": NOBODY,
        "defaultOrganizationEmail": "local-plane@aam.invalid",
        "defaultWorkspaceId": str(WORKSPACE_ID),
        "trackingStrategy": "logging",
    }
    if plane.settings.flavour is Flavour.COMMANDS:
        told["licenseStatus"] = "pro"
    return told


@_post("workspaces/get")
async def _workspaces_get(_plane: Plane, body: Body) -> Json:
    _workspace(body)
    return _workspace_read()


@_post("workspaces/list", only=Flavour.SYNCHRONOUS)
async def _workspaces_list(_plane: Plane, _body: Body) -> Json:
    return {"workspaces": [_workspace_read()]}


def _workspace(body: Body) -> None:
    given = body.uuid("workspaceId")
    if given != WORKSPACE_ID:
        raise not_found("STANDARD_WORKSPACE", str(given))


def _workspace_read() -> Json:
    return {
        "workspaceId": str(WORKSPACE_ID),
        "customerId": NOBODY,
        "organizationId": NOBODY,
        "name": "Local workspace",
        "slug": "local-workspace",
        "initialSetupComplete": True,
    }


# Definitions


@_post("source_definitions/list", "source_definitions/list_for_workspace")
async def _source_definitions_list(_plane: Plane, _body: Body) -> Json:
    return {"sourceDefinitions": [_source_definition(each) for each in CONNECTORS]}


@_post("source_definitions/get")
async def _source_definitions_get(_plane: Plane, body: Body) -> Json:
    return _source_definition(connector_of(body.uuid("sourceDefinitionId")))


def _source_definition(connector: Connector) -> Json:
    return {
        "sourceDefinitionId": str(connector.definition_id),
        "name": connector.title,
        "dockerRepository": connector.repository,
        "dockerImageTag": connector.version,
        "documentationUrl": connector.documentation,
        "supportLevel": connector.support,
        "sourceType": "api",
        "custom": False,
    }


@_post("source_definition_specifications/get")
async def _source_specification(plane: Plane, body: Body) -> Json:
    _workspace(body)
    connector = connector_of(body.uuid("sourceDefinitionId"))
    return {
        "sourceDefinitionId": str(connector.definition_id),
        "documentationUrl": connector.documentation,
        "connectionSpecification": await plane.specification(connector),
        "jobInfo": reads.no_job(plane, "get_spec"),
    }


@_post("destination_definitions/list", "destination_definitions/list_for_workspace")
async def _destination_definitions_list(_plane: Plane, _body: Body) -> Json:
    return {"destinationDefinitions": [_destination_definition()]}


@_post("destination_definitions/get")
async def _destination_definitions_get(_plane: Plane, body: Body) -> Json:
    _writer_only(body.uuid("destinationDefinitionId"))
    return _destination_definition()


def _writer_only(definition_id: UUID) -> None:
    if definition_id != DESTINATION_DEFINITION_ID:
        raise not_found("STANDARD_DESTINATION_DEFINITION", str(definition_id))


def _destination_definition() -> Json:
    return {
        "destinationDefinitionId": str(DESTINATION_DEFINITION_ID),
        "name": "Postgres (local plane)",
        "dockerRepository": "aam/local-postgres",
        "dockerImageTag": "1",
        "documentationUrl": "https://www.postgresql.org/docs/",
        "supportLevel": "none",
        "custom": True,
    }


@_post("destination_definition_specifications/get")
async def _destination_specification(plane: Plane, body: Body) -> Json:
    _workspace(body)
    _writer_only(body.uuid("destinationDefinitionId"))
    return {
        "destinationDefinitionId": str(DESTINATION_DEFINITION_ID),
        "connectionSpecification": DESTINATION_SPECIFICATION,
        "supportedDestinationSyncModes": list(DESTINATION_SYNC_MODES),
        "jobInfo": reads.no_job(plane, "get_spec"),
    }


# Sources and destinations


@_post("sources/create")
async def _sources_create(plane: Plane, body: Body) -> Json:
    return await _create(plane, "source", body)


@_post("destinations/create")
async def _destinations_create(plane: Plane, body: Body) -> Json:
    return await _create(plane, "destination", body)


async def _create(plane: Plane, kind: str, body: Body) -> Json:
    _workspace(body)
    row = await plane.create_actor(
        kind,
        body.uuid(f"{kind}DefinitionId"),
        body.text("name"),
        body.required("connectionConfiguration", dict),
    )
    return await _actor(plane, row)


@_post("sources/get")
async def _sources_get(plane: Plane, body: Body) -> Json:
    return await _actor(plane, plane.actor("source", body.uuid("sourceId")))


@_post("destinations/get")
async def _destinations_get(plane: Plane, body: Body) -> Json:
    return await _actor(plane, plane.actor("destination", body.uuid("destinationId")))


@_post("sources/update")
async def _sources_update(plane: Plane, body: Body) -> Json:
    row = plane.actor("source", body.uuid("sourceId"))
    config = body.required("connectionConfiguration", dict)
    return await _actor(plane, await plane.update_actor(row, name=body.text("name"), config=config))


@_post("sources/partial_update")
async def _sources_partial_update(plane: Plane, body: Body) -> Json:
    row = plane.actor("source", body.uuid("sourceId"))
    config = body.optional("connectionConfiguration", dict)
    if config is not None:
        config = {**row["config"], **config}
    name = body.optional("name", str)
    return await _actor(plane, await plane.update_actor(row, name=name, config=config))


@_post("sources/delete")
async def _sources_delete(plane: Plane, body: Body) -> None:
    await plane.delete_actor(plane.actor("source", body.uuid("sourceId")))


@_post("destinations/delete")
async def _destinations_delete(plane: Plane, body: Body) -> None:
    await plane.delete_actor(plane.actor("destination", body.uuid("destinationId")))


@_post("sources/list")
async def _sources_list(plane: Plane, body: Body) -> Json:
    return await _list(plane, "source", body)


@_post("destinations/list")
async def _destinations_list(plane: Plane, body: Body) -> Json:
    return await _list(plane, "destination", body)


async def _list(plane: Plane, kind: str, body: Body) -> Json:
    """List all actors of a kind, or one page; the cursor is the last id of the previous page."""
    _workspace(body)
    rows = plane.metadata.all("SELECT * FROM actors WHERE kind = ? ORDER BY lower(name), id", kind)
    if plane.settings.flavour is Flavour.SYNCHRONOUS:
        return {f"{kind}s": [await _actor(plane, row) for row in rows]}
    rows = [row for row in rows if _wanted(row, kind, body.optional("filters", dict) or {})]
    if body.optional("sortKey", str) in {"actorName_desc", "actorDefinitionName_desc"}:
        rows.reverse()
    if body.get("cursor") is not None:
        cursor = str(body.uuid("cursor"))
        places = [place for place, row in enumerate(rows) if row["id"] == cursor]
        rows = rows[places[0] + 1 :] if places else []
    size = body.optional("pageSize", int) or plane.settings.page_size
    page = [await _actor(plane, row) for row in rows[:size]]
    return {f"{kind}s": page, "page_size": size}


def _wanted(row: Row, kind: str, filters: Mapping[str, Any]) -> bool:
    states = filters.get("states")
    if states and "active" not in states:
        return False
    term = str(filters.get("searchTerm") or "").lower()
    return term in row["name"].lower() or term in _definition_name(row, kind).lower()


def _definition_name(row: Row, kind: str) -> str:
    if kind == "destination":
        return "Postgres (local plane)"
    return BY_DEFINITION[UUID(row["definition_id"])].title


async def _actor(plane: Plane, row: Row) -> Json:
    kind = row["kind"]
    told: Json = {
        f"{kind}DefinitionId": row["definition_id"],
        f"{kind}Id": row["id"],
        "workspaceId": str(WORKSPACE_ID),
        "connectionConfiguration": specification.masked(row["config"], await plane.schema_of(row)),
        "name": row["name"],
        f"{kind}Name": _definition_name(row, kind),
        "status": "active",
    }
    if plane.settings.flavour is Flavour.COMMANDS:
        told["createdAt"] = row["created_at"]
    return told


# Synchronous check and discover


@_post("sources/check_connection")
async def _sources_check(plane: Plane, body: Body) -> Json:
    row = plane.actor("source", body.uuid("sourceId"))
    return _checked(plane, row, await plane.check(row))


@_post("sources/check_connection_for_update")
async def _sources_check_for_update(plane: Plane, body: Body) -> Json:
    row = plane.actor("source", body.uuid("sourceId"))
    body.text("name")
    config = body.required("connectionConfiguration", dict)
    return _checked(plane, row, await plane.check_update(row, config))


@_post("destinations/check_connection")
async def _destinations_check(plane: Plane, body: Body) -> Json:
    row = plane.actor("destination", body.uuid("destinationId"))
    return _checked(plane, row, await plane.check(row))


def _checked(plane: Plane, row: Row, outcome: Outcome) -> Json:
    kind = f"check_connection_{row['kind']}"
    told: Json = {"jobInfo": reads.job_info(plane, kind, row["definition_id"], outcome)}
    if outcome.check is not None:
        told["status"] = "succeeded" if outcome.check.succeeded else "failed"
        told["message"] = outcome.check.message
    return reads.present(told)


@_post("sources/discover_schema")
async def _sources_discover(plane: Plane, body: Body) -> Answer:
    row = plane.actor("source", body.uuid("sourceId"))
    if body.get("connectionId") is not None:
        raise not_implemented("sources/discover_schema with a connectionId")
    cached = None if body.optional("disable_cache", bool) else plane.cached_catalog(row)
    if cached is not None:
        job = reads.no_job(plane, "discover_schema")
        return _with_catalog(await plane.shown(row, cached), jobInfo=job, catalogId=cached)
    outcome = await plane.discover(row)
    job = reads.job_info(plane, "discover_schema", row["definition_id"], outcome)
    if outcome.catalog_id is None:
        return {"jobInfo": job}
    shown = await plane.shown(row, outcome.catalog_id)
    return _with_catalog(shown, jobInfo=job, catalogId=outcome.catalog_id)


@_post("sources/most_recent_source_actor_catalog")
async def _most_recent(plane: Plane, body: Body) -> Answer:
    row = plane.actor("source", body.uuid("sourceId"))
    newest = plane.metadata.one(
        "SELECT * FROM discoveries WHERE source_id = ?"
        " ORDER BY created_at DESC, rowid DESC LIMIT 1",
        row["id"],
    )
    if newest is None:
        return {}
    protocol = plane.metadata.catalog(newest["catalog_id"])
    return _with_catalog(protocol, updatedAt=newest["created_at"])


def _with_catalog(shown: bytes, **members: Any) -> bytes:
    """Build a JSON object around an already serialized catalog, which may be large."""
    return b"".join((orjson.dumps(members)[:-1], b',"catalog":', shown, b"}"))


# Commands


@_post("commands/run/discover", only=Flavour.COMMANDS)
async def _run_discover(plane: Plane, body: Body) -> Json:
    row = plane.actor("source", body.uuid("actor_id"))
    return _run(plane, body.text("id"), "discover", row["id"], plane.discover(row))


@_post("commands/run/check", only=Flavour.COMMANDS)
async def _run_check(plane: Plane, body: Body) -> Json:
    command_id = body.text("id")
    if body.get("actor_id") is None:
        definition = connector_of(body.uuid("actor_definition_id")).definition_id
        config = body.required("config", dict)
        return _run(plane, command_id, "check", None, plane.check_config(definition, config))
    row = plane.metadata.one("SELECT * FROM actors WHERE id = ?", str(body.uuid("actor_id")))
    if row is None:
        raise not_found("ACTOR", body.text("actor_id"))
    return _run(plane, command_id, "check", row["id"], plane.check(row))


def _run(plane: Plane, command_id: str, kind: str, actor_id: str | None, work: Any) -> Json:
    plane.run_command(command_id, kind, actor_id, work)
    return {"id": command_id}


@_post("commands/status", only=Flavour.COMMANDS)
async def _command_status(plane: Plane, body: Body) -> Json:
    row = plane.command(body.text("id"))
    return {"id": row["id"], "status": row["status"]}


@_post("commands/cancel", only=Flavour.COMMANDS)
async def _command_cancel(plane: Plane, body: Body) -> Json:
    await plane.cancel_command(body.text("id"))
    return {"id": body.text("id")}


@_post("commands/output/check", only=Flavour.COMMANDS)
async def _command_check_output(plane: Plane, body: Body) -> Json:
    return _output(plane, body, "check")


@_post("commands/output/discover", only=Flavour.COMMANDS)
async def _command_discover_output(plane: Plane, body: Body) -> Answer:
    told = _output(plane, body, "discover")
    catalog_id = told.get("catalogId")
    if catalog_id is None:
        return told
    source = plane.actor("source", UUID(plane.command(told["id"])["output"]["sourceId"]))
    return _with_catalog(await plane.shown(source, catalog_id), **told)


def _output(plane: Plane, body: Body, kind: str) -> Json:
    row = plane.command(body.text("id"))
    told: Json = {"id": row["id"], "status": "failed"}
    if row["kind"] != kind or row["status"] in {"pending", "running"}:
        still = f"{row['id']} is still running, try again later."
        return told | {"failureReason": failure_reason("airbyte_platform", "system_error", still)}
    output = row["output"]
    told["status"] = "succeeded" if output.get("succeeded") else "failed"
    members = ("message", "failureReason", "catalogId") + (
        ("connectorConfigurationUpdated",) if kind == "check" else ()
    )
    if output.get("jobId") is not None:
        told["logs"] = reads.command_logs(plane, output["jobId"])
    return reads.present(told | {name: output.get(name) for name in members})


# Connections

SETTINGS = {
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

ENUMS = {
    "status": {"active", "inactive", "deprecated", "locked"},
    "namespaceDefinition": {"source", "destination", "customformat"},
    "scheduleType": {"manual", "basic", "cron"},
    "nonBreakingChangesPreference": {"ignore", "disable", "propagate_columns", "propagate_fully"},
    "backfillPreference": {"enabled", "disabled"},
}

DEFAULTS: Json = {
    "namespaceDefinition": "source",
    "scheduleType": "manual",
    "breakingChange": False,
    "notifySchemaChanges": False,
    "notifySchemaChangesByEmail": False,
    "nonBreakingChangesPreference": "ignore",
    "backfillPreference": "disabled",
}


def _settings(body: Body) -> Json:
    given = {name: body.optional(name, kind) for name, kind in SETTINGS.items()}
    for name, values in ENUMS.items():
        if given[name] is not None:
            given[name] = given[name].lower()
            if given[name] not in values:
                raise unreadable(f"{name} has no such value.")
    basic = (given["scheduleData"] or {}).get("basicSchedule")
    if basic is not None and not (
        isinstance(basic, dict)
        and basic.get("timeUnit") in UNIT_SECONDS
        and type(basic.get("units")) is int
        and basic["units"] > 0
    ):
        raise unreadable("basicSchedule takes units, a whole number over 0, and a timeUnit.")
    return reads.present(given)


@_post("connections/create")
async def _connections_create(plane: Plane, body: Body) -> Json:
    source = plane.actor("source", body.uuid("sourceId"))
    destination = plane.actor("destination", body.uuid("destinationId"))
    body.text("status")
    name = f"{source['name']} → {destination['name']}"
    row = await plane.create_connection(
        source,
        destination,
        {**DEFAULTS, "name": name, **_settings(body)},
        body.optional("syncCatalog", dict) or {"streams": []},
    )
    return _connection(plane, row)


@_post("connections/update")
async def _connections_update(plane: Plane, body: Body) -> Json:
    row = plane.connection(body.uuid("connectionId"))
    if body.get("schedule") is not None:
        raise uncaught("Use scheduleType and scheduleData instead of schedule.")
    settings, sync_catalog = _settings(body), body.optional("syncCatalog", dict)
    return _connection(plane, await plane.update_connection(row, settings, sync_catalog))


@_post("connections/get")
async def _connections_get(plane: Plane, body: Body) -> Json:
    return _connection(plane, plane.connection(body.uuid("connectionId")))


@_post("connections/list")
async def _connections_list(plane: Plane, body: Body) -> Json:
    _workspace(body)
    rows = plane.metadata.all("SELECT * FROM connections ORDER BY created_at, id")
    return {"connections": [_connection(plane, row) for row in rows]}


@_post("web_backend/connections/list")
async def _connection_items_list(plane: Plane, body: Body) -> Json:
    """List connections without catalogs, as for Airbyte's web app; the newer release has pages."""
    _workspace(body)
    wanted = body.optional("sourceId", list)
    rows = [
        row
        for row in plane.metadata.all("SELECT * FROM connections ORDER BY created_at, id")
        if not wanted or row["source_id"] in wanted
    ]
    if plane.settings.flavour is Flavour.SYNCHRONOUS:
        return {"connections": [_connection_item(plane, row) for row in rows]}
    total, cursor = len(rows), body.optional("cursor", str)
    if cursor is not None:
        ids = [row["id"] for row in rows]
        if cursor not in ids:
            raise not_found("STANDARD_SYNC", cursor)
        rows = rows[ids.index(cursor) + 1 :]
    size = body.optional("pageSize", int) or plane.settings.page_size
    page = [_connection_item(plane, row) for row in rows[:size]]
    return {"connections": page, "page_size": size, "num_connections": total}


def _connection_item(plane: Plane, row: Row) -> Json:
    source = plane.actor("source", UUID(row["source_id"]))
    destination = plane.actor("destination", UUID(row["destination_id"]))
    connector, writer = connector_of(UUID(source["definition_id"])), _destination_definition()
    settings = row["settings"]
    status = reads.connection_status(plane, row)
    told: Json = {
        "connectionId": row["id"],
        "name": settings.get("name"),
        "status": settings["status"],
        "scheduleType": settings.get("scheduleType"),
        "scheduleData": settings.get("scheduleData"),
        "isSyncing": status.get("isRunning", status.get("connectionSyncStatus") == "running"),
        "schemaChange": "breaking" if settings.get("breakingChange") else "no_change",
        "source": {
            "sourceId": source["id"],
            "name": source["name"],
            "sourceDefinitionId": str(connector.definition_id),
            "sourceName": connector.title,
        },
        "destination": {
            "destinationId": destination["id"],
            "name": destination["name"],
            "destinationDefinitionId": writer["destinationDefinitionId"],
            "destinationName": writer["name"],
        },
        "sourceActorDefinitionVersion": _version(plane, connector.repository, connector.version),
        "destinationActorDefinitionVersion": _version(
            plane, writer["dockerRepository"], writer["dockerImageTag"]
        ),
    }
    if plane.settings.flavour is Flavour.COMMANDS:
        told["tags"] = []
    return reads.present(told)


def _version(plane: Plane, repository: str, tag: str) -> Json:
    told: Json = {
        "dockerRepository": repository,
        "dockerImageTag": tag,
        "supportsRefreshes": False,
        "supportState": "supported",
        "isVersionOverrideApplied": False,
    }
    if plane.settings.flavour is Flavour.COMMANDS:
        told |= {"supportsFileTransfer": False, "supportsDataActivation": False}
    return told


@_post("connections/delete")
async def _connections_delete(plane: Plane, body: Body) -> None:
    await plane.delete_connection(plane.connection(body.uuid("connectionId"))["id"])


@_post("connections/sync")
async def _connections_sync(plane: Plane, body: Body) -> Json:
    row = plane.connection(body.uuid("connectionId"))
    return reads.job_and_attempts(plane, plane.sync(row))


def _connection(plane: Plane, row: Row) -> Json:
    told: Json = {
        "connectionId": row["id"],
        "sourceId": row["source_id"],
        "destinationId": row["destination_id"],
        "syncCatalog": {"streams": row["streams"]},
        "workspaceId": str(WORKSPACE_ID),
        "created_at": row["created_at"],
        **row["settings"],
    }
    if plane.settings.flavour is Flavour.SYNCHRONOUS:
        told.pop("destinationCatalogId", None)
    return told


@_post("connections/status")
async def _connections_status(plane: Plane, body: Body) -> Answer:
    return [
        reads.connection_status(plane, plane.connection(_uuid(each, "connectionIds")))
        for each in body.required("connectionIds", list)
    ]


@_post("state/get")
async def _state_get(plane: Plane, body: Body) -> Json:
    row = plane.connection(body.uuid("connectionId"))
    states = plane.metadata.states(row["id"])
    told: Json = {"connectionId": row["id"], "stateType": "not_set"}
    streams = [
        {
            "streamDescriptor": reads.present(
                {"name": each["name"], "namespace": each["namespace"] or None}
            ),
            "streamState": each["state"],
        }
        for each in states
        if each["name"]
    ]
    shared = [each["state"] for each in states if not each["name"]]
    if not states:
        return told
    match states[0]["kind"]:
        case "stream":
            return told | {"stateType": "stream", "streamState": streams}
        case "global":
            whole = reads.present(
                {"shared_state": next(iter(shared), None), "streamStates": streams}
            )
            return told | {"stateType": "global", "globalState": whole}
    return told | {"stateType": "legacy", "state": shared[0]}


# Jobs


@_post("jobs/get")
async def _jobs_get(plane: Plane, body: Body) -> Json:
    return reads.job_and_attempts(plane, body.required("id", int))


@_post("jobs/get_without_logs")
async def _jobs_get_without_logs(plane: Plane, body: Body) -> Json:
    return reads.job_and_attempts(plane, body.required("id", int), with_logs=False)


@_post("jobs/get_light")
async def _jobs_get_light(plane: Plane, body: Body) -> Json:
    return {"job": reads.job_read(plane, reads.job_row(plane, body.required("id", int)))}


@_post("jobs/cancel")
async def _jobs_cancel(plane: Plane, body: Body) -> Json:
    job_id = body.required("id", int)
    reads.job_row(plane, job_id)
    if not await plane.jobs.cancel(job_id):
        raise uncaught("The job has ended and cannot be cancelled.")
    return reads.job_and_attempts(plane, job_id)


@_post("jobs/list")
async def _jobs_list(plane: Plane, body: Body) -> Json:
    kinds = body.required("configTypes", list)
    rows = plane.metadata.all("SELECT * FROM jobs ORDER BY id DESC") if "sync" in kinds else []
    if body.get("configId") is not None:
        rows = [row for row in rows if row["connection_id"] == body["configId"]]
    if body.optional("statuses", list):
        rows = [row for row in rows if row["status"] in body["statuses"]]
    if body.optional("orderByMethod", str) == "ASC":
        rows.reverse()
    pages = body.optional("pagination", dict) or {}
    offset, size = pages.get("rowOffset") or 0, pages.get("pageSize") or len(rows)
    return {
        "jobs": [
            {"job": reads.job_read(plane, row), "attempts": reads.attempts(plane, row["id"])}
            for row in rows[offset : offset + size]
        ],
        "totalJobCount": len(rows),
    }


def _uuid(value: Any, name: str) -> UUID:
    return Body({name: value}).uuid(name)


# Application


async def _answer(request: Request) -> Response:
    plane: Plane = request.app.state.plane
    try:
        handler, body = await _understood(plane, request)
        answer = await handler(plane, body)
    except Refusal as refusal:
        return _refused(refusal, plane.settings)
    if answer is None:
        return _response(204, b"", None)
    content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    return _response(200, content, "application/json")


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    settings = request.app.state.plane.settings
    if status == 404:
        return _refused(no_such_page(request.url.path), settings)
    return _refused(Micronaut(status, str(error), request.url.path), settings)


async def _broken(request: Request, error: Exception) -> Response:
    """Answer 500 for an unexpected exception; the server logs it after this response."""
    told = uncaught(f"the local plane has a fault ({type(error).__name__}).")
    return _refused(told, request.app.state.plane.settings)


def _refused(refusal: Refusal, settings: Settings) -> Response:
    told = refusal.body(settings.flavour.release, settings.error_style)
    return _response(refusal.status, orjson.dumps(told), refusal.content_type)


def _response(status: int, content: bytes, kind: str | None) -> Response:
    return Response(content, status, headers={"X-Airbyte-Local": "true"}, media_type=kind)


async def _understood(plane: Plane, request: Request) -> tuple[Handler, Body]:
    endpoint = request.path_params["endpoint"].strip("/")
    routes = _gets if request.method == "GET" else _posts
    if endpoint not in routes:
        raise not_implemented(f"{request.method} {endpoint}")
    handler, only = routes[endpoint]
    if only not in (None, plane.settings.flavour):
        raise no_such_page(request.url.path)
    content = await _content(request)
    if not content:
        return handler, Body()
    try:
        given = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise unreadable("the body is not JSON.") from error
    if not isinstance(given, dict):
        raise unreadable("the body is not an object.")
    return handler, Body(given)


async def _content(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    length = int(announced) if announced.isdecimal() else 0
    parts: list[bytes] = []
    received = 0
    async for part in request.stream():
        received += len(part)
        if max(length, received) > MOST_BODY_BYTES:
            raise too_large(max(length, received), request.url.path)
        parts.append(part)
    return b"".join(parts)


def app_of(settings: Settings) -> Starlette:
    """Build the application; the plane opens and closes with its lifespan."""

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        async with Plane.open(settings) as plane:
            app.state.plane = plane
            yield

    everything = Route("/api/v1/{endpoint:path}", _answer, methods=["GET", "POST"])
    guard = Middleware(
        Guard,
        token=token_of(settings.state_dir),
        refuse=lambda status, detail, path: _refused(Micronaut(status, detail, path), settings),
        open_paths=frozenset({"/api/v1/health", "/api/v1/health/"}),
    )
    return Starlette(
        routes=[everything],
        lifespan=live,
        middleware=[guard],
        exception_handlers={HTTPException: _no_such_route, Exception: _broken},
    )
