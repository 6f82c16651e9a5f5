"""The connectors of the fake Airbyte, with a small specification of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local.airbyte.api.backend import Definition, Kind

Json = dict[str, Any]

WORKSPACE_ID = "7c1f0d5e-2a53-4a0e-9b63-0a0a0a0a0a01"
SALESFORCE = "b117307c-14b6-41aa-9422-947e34922962"
HARDCODED_RECORDS = "084124ab-22db-4019-b36d-630418541bf7"
WIDGETS = "3b1a8f0e-6b7d-4a58-9f0c-5d2e7c1b9a44"
POSTGRES = "25c5221d-dce2-4163-ade9-739ef790f503"


def _definition(kind: Kind, definition_id: str, name: str, image: str, tag: str) -> Definition:
    return Definition(
        kind=kind,
        id=definition_id,
        name=name,
        repository=f"airbyte/{image}",
        tag=tag,
        documentation="https://docs.example.org/",
        support_level="certified",
    )


def _specification(
    *, required: Sequence[str], secret: Sequence[str], other: Json | None = None
) -> Json:
    properties: Json = {name: {"type": "string"} for name in (*required, *secret)}
    for name in secret:
        properties[name]["airbyte_secret"] = True
    return {
        "type": "object",
        "required": list(required),
        "properties": properties | (other or {}),
        "additionalProperties": True,
    }


WIDGET_SPECIFICATION: Json = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "title": "Widgets",
    "required": ["host", "port", "credentials", "tunnel"],
    "additionalProperties": True,
    "properties": {
        "host": {"type": "string", "pattern": "^[a-z0-9.-]+$"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 8443},
        "replication_slots": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "credentials": {
            "type": "object",
            "oneOf": [
                {
                    "title": "Password",
                    "required": ["auth_type", "username", "password"],
                    "properties": {
                        "auth_type": {"type": "string", "const": "password"},
                        "username": {"type": "string"},
                        "password": {"type": "string", "airbyte_secret": True, "minLength": 4},
                    },
                },
                {
                    "title": "Key",
                    "required": ["auth_type", "api_key"],
                    "properties": {
                        "auth_type": {"type": "string", "const": "key"},
                        "api_key": {"type": "string", "airbyte_secret": True},
                        "verify": {"type": "boolean"},
                    },
                },
            ],
        },
        "headers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "value"],
                "properties": {
                    "name": {"type": "string"},
                    "value": {"type": "string", "airbyte_secret": True},
                },
            },
        },
        "tunnel": {
            "type": "object",
            "required": ["method"],
            "properties": {"method": {"type": "string", "const": "none"}},
            "default": {"method": "none"},
            "airbyte_hidden": True,
        },
    },
}
"""Covers what a generic client must handle: variants, nested secrets, arrays, hidden defaults."""

DEFINITIONS: dict[Kind, list[Definition]] = {
    "source": [
        _definition("source", SALESFORCE, "Salesforce", "source-salesforce", "2.10.3"),
        _definition(
            "source", HARDCODED_RECORDS, "Hardcoded Records", "source-hardcoded-records", "0.0.48"
        ),
        _definition("source", WIDGETS, "Widgets", "source-widgets", "1.4.0"),
    ],
    "destination": [
        _definition("destination", POSTGRES, "Postgres", "destination-postgres", "3.0.14"),
    ],
}

SPECIFICATIONS: dict[str, Json] = {
    SALESFORCE: _specification(
        required=("client_id", "client_secret", "refresh_token"),
        secret=("client_secret", "refresh_token"),
        other={
            "auth_type": {"type": "string", "const": "Client"},
            "is_sandbox": {"type": "boolean", "default": False},
            "start_date": {
                "type": "string",
                "pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?)$",
                "format": "date-time",
            },
            "streams_criteria": {"type": "array"},
        },
    ),
    HARDCODED_RECORDS: {
        "type": "object",
        "properties": {"count": {"type": "integer", "minimum": 1, "default": 1000}},
        "additionalProperties": True,
    },
    WIDGETS: WIDGET_SPECIFICATION,
    POSTGRES: _specification(
        required=("host", "port", "username", "database", "schema"),
        secret=("password",),
        other={"port": {"type": "integer"}},
    ),
}
"""By definition id."""
