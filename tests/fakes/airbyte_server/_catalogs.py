"""Catalogs as Airbyte builds and stores them: discovered ones and those of connections."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.airbyte_server._answers import Refused

Json = dict[str, Any]
Release = tuple[int, ...]

MAX_FIELDS = 20_000
SUGGESTED = frozenset(
    {"Account", "Contact", "Lead", "Opportunity", "OpportunityStage", "Stage", "Task", "User"}
)
"""The Salesforce connector's suggested streams, which a discovery returns selected."""


def stream(
    name: str,
    fields: Mapping[str, str | Json] | Sequence[str] = ("Id", "Name"),
    *,
    cursor: str | None = "SystemModstamp",
    key: str | None = "Id",
    namespace: str | None = None,
) -> Json:
    """Build a stream as a connector offers it; a field without a type is a nullable string."""
    typed = fields if isinstance(fields, Mapping) else dict.fromkeys(fields, "string")
    properties: Json = {
        field: of if isinstance(of, dict) else {"type": [of, "null"]} for field, of in typed.items()
    }
    if cursor is not None:
        properties.setdefault(cursor, {"type": ["string", "null"], "format": "date-time"})
    offered: Json = {
        "name": name,
        "jsonSchema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "additionalProperties": True,
            "properties": properties,
        },
        "supportedSyncModes": ["full_refresh", *(["incremental"] if cursor else [])],
        "sourceDefinedCursor": cursor is not None,
        "defaultCursorField": [cursor] if cursor else [],
        "sourceDefinedPrimaryKey": [[key]] if key else [],
        "isResumable": cursor is not None,
    }
    if namespace is not None:
        offered["namespace"] = namespace
    return offered


def catalog(*streams: Json) -> Json:
    """Build a source's catalog, with the configuration Airbyte proposes for each stream."""
    return {
        "streams": [
            {"stream": one, "config": proposed(one, only=len(streams) == 1)} for one in streams
        ]
    }


def proposed(offered: Json, *, only: bool) -> Json:
    cursor = offered.get("defaultCursorField") or []
    key = offered.get("sourceDefinedPrimaryKey") or []
    modes = offered.get("supportedSyncModes") or ["full_refresh"]
    sync_mode, destination_mode = "full_refresh", "overwrite"
    if offered.get("sourceDefinedCursor") and key and "incremental" in modes:
        sync_mode, destination_mode = "incremental", "append_dedup"
    elif offered.get("sourceDefinedCursor") and "full_refresh" not in modes:
        sync_mode, destination_mode = "incremental", "append"
    suggested = only or offered["name"] in SUGGESTED
    return {
        "syncMode": sync_mode,
        "cursorField": cursor,
        "destinationSyncMode": destination_mode,
        "primaryKey": key,
        "aliasName": alias(offered["name"]),
        "selected": suggested,
        "suggested": suggested,
        "fieldSelectionEnabled": False,
        "selectedFields": [],
    }


def alias(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name)


DEFAULT_CATALOG = catalog(
    stream("Account", {"Id": "string", "Name": "string", "AnnualRevenue": "number"}),
    stream("Contact", ("Id", "AccountId", "Email", "LastName")),
    stream("Opportunity", {"Id": "string", "Amount": "number", "IsClosed": "boolean"}),
    stream("Case", ("Id", "Subject", "Status")),
    stream("Describe", ("name", "label"), cursor=None, key=None),
)


_CONFIG_OF_0_63 = frozenset(
    {
        "syncMode",
        "cursorField",
        "destinationSyncMode",
        "primaryKey",
        "aliasName",
        "selected",
        "suggested",
        "fieldSelectionEnabled",
        "selectedFields",
    }
)


def played(offered: Json, release: Release) -> Json:
    told = {name: value for name, value in offered.items() if value is not None}
    told.setdefault("defaultCursorField", [])
    told.setdefault("sourceDefinedPrimaryKey", [])
    if release >= (2, 0):
        told.setdefault("isFileBased", False)
    else:
        told.pop("isFileBased", None)
    return told


def configured(config: Json, release: Release) -> Json:
    told = {name: value for name, value in config.items() if value is not None}
    if release >= (2, 0):
        told.setdefault("hashedFields", [])
        told.setdefault("mappers", [])
        return told
    known = _CONFIG_OF_0_63
    return {name: value for name, value in told.items() if name in known}


def kept_of(given: Json, release: Release) -> Json:
    """Reduce a catalog to what Airbyte stores: selected streams with their selected fields."""
    pairs, names, fields = [], [], 0
    for pair in given.get("streams", []):
        if "selected" not in pair["config"]:
            raise Refused(500, "Internal Server Error: getSelected() is null")
        if not pair["config"]["selected"]:
            continue
        kept = _kept_stream(pair["stream"], pair["config"], release)
        fields += len(kept["stream"].get("jsonSchema", {}).get("properties", {}))
        names.append((pair["stream"].get("namespace"), pair["stream"]["name"]))
        pairs.append(kept)
    doubled = [name for (_, name), times in Counter(names).items() if times > 1]
    if doubled:
        raise Refused(
            500, f"Internal Server Error: Catalog contains duplicate stream names: {doubled}"
        )
    if fields > MAX_FIELDS:
        raise Refused(
            400,
            f"Total number of selected fields ({fields}) is greater than the limit "
            f"({MAX_FIELDS}) configured for this workspace.",
            known=True,
        )
    return {"streams": pairs}


def _kept_stream(offered: Json, config: Json, release: Release) -> Json:
    offered = played(offered, release)
    kept = configured(
        {
            "syncMode": config["syncMode"],
            "destinationSyncMode": config["destinationSyncMode"],
            "cursorField": config.get("cursorField") or [],
            "primaryKey": config.get("primaryKey") or [],
            "aliasName": alias(offered["name"]),
            "selected": True,
            "suggested": False,
            "fieldSelectionEnabled": bool(config.get("fieldSelectionEnabled")),
            "selectedFields": [],
            **{
                name: config.get(name)
                for name in ("mappers", "includeFiles", "destinationObjectName", "namespace")
            },
        },
        release,
    )
    if kept["fieldSelectionEnabled"]:
        names = _selected_names(offered, config)
        schema = offered["jsonSchema"]
        properties = {name: of for name, of in schema["properties"].items() if name in set(names)}
        offered = {**offered, "jsonSchema": {**schema, "properties": properties}}
        kept["selectedFields"] = [{"fieldPath": [name]} for name in names]
    return {"stream": offered, "config": kept}


def _selected_names(offered: Json, config: Json) -> list[str]:
    if config.get("selectedFields") is None:
        raise Refused(422, "Requested field selection but no selected fields provided", known=True)
    if "properties" not in offered.get("jsonSchema", {}):
        raise Refused(422, "Requested field selection but no node properties found", known=True)
    names = []
    for selected in config["selectedFields"]:
        path = selected.get("fieldPath") or []
        if not path:
            raise Refused(422, "Selected field path cannot be empty", known=True)
        if len(path) > 1:
            raise Refused(500, "Internal Server Error: Nested field selection not supported")
        names.append(path[0])
    cursor = config.get("cursorField") or []
    if config["syncMode"] == "incremental" and cursor and cursor[0] not in names:
        message = "Cursor field cannot be de-selected in INCREMENTAL syncs"
        raise Refused(422, message, known=True)
    dedup = config["destinationSyncMode"].endswith("_dedup")
    if dedup and any(path[0] not in names for path in config.get("primaryKey") or []):
        message = "Primary key field cannot be de-selected in DEDUP mode"
        raise Refused(422, message, known=True)
    return names
