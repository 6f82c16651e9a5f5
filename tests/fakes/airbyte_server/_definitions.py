"""The connectors of the fake Airbyte, with a small specification of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local.airbyte.api.backend import Definition, Kind

Json = dict[str, Any]

WORKSPACE_ID = "7c1f0d5e-2a53-4a0e-9b63-0a0a0a0a0a01"
SALESFORCE = "b117307c-14b6-41aa-9422-947e34922962"
HARDCODED_RECORDS = "084124ab-22db-4019-b36d-630418541bf7"
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


DEFINITIONS: dict[Kind, list[Definition]] = {
    "source": [
        _definition("source", SALESFORCE, "Salesforce", "source-salesforce", "2.10.3"),
        _definition(
            "source", HARDCODED_RECORDS, "Hardcoded Records", "source-hardcoded-records", "0.0.48"
        ),
    ],
    "destination": [
        _definition("destination", POSTGRES, "Postgres", "destination-postgres", "2.4.0"),
    ],
}

SPECIFICATIONS: dict[str, Json] = {
    SALESFORCE: _specification(
        required=("client_id", "client_secret", "refresh_token"),
        secret=("client_secret", "refresh_token"),
    ),
    HARDCODED_RECORDS: {
        "type": "object",
        "properties": {"count": {"type": "integer", "minimum": 1}},
        "additionalProperties": True,
    },
    POSTGRES: _specification(
        required=("host", "port", "username", "database", "schema"),
        secret=("password",),
        other={"port": {"type": "integer"}},
    ),
}
"""By definition id."""
