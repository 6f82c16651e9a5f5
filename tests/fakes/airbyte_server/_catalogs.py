"""Builders of the catalogs that sources offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from local.airbyte import catalog as catalogs
from local.airbyte.connector import PINNED
from local.airbyte.releases import Release

Json = dict[str, Any]


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
    oldest = Release("0.63.19")
    return {
        "streams": [
            {"stream": one, "config": proposed(one, streams, oldest)["config"]} for one in streams
        ]
    }


def proposed(offered: Json, streams: Sequence[Json], release: Release) -> Json:
    """Pair one of the streams with the configuration that Airbyte proposes for it."""
    suggested = len(streams) == 1 or offered["name"] in _SALESFORCE.suggested_streams
    return catalogs.proposed(offered, selected=suggested, release=release)


_SALESFORCE = PINNED["source-salesforce"]


DEFAULT_CATALOG = catalog(
    stream("Account", {"Id": "string", "Name": "string", "AnnualRevenue": "number"}),
    stream("Contact", ("Id", "AccountId", "Email", "LastName")),
    stream("Opportunity", {"Id": "string", "Amount": "number", "IsClosed": "boolean"}),
    stream("Case", ("Id", "Subject", "Status")),
    stream("Describe", ("name", "label"), cursor=None, key=None),
)
