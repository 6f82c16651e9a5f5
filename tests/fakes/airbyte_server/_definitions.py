"""The connectors of the fake Airbyte, with a small specification of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jsonschema
import orjson

from local.airbyte.errors import Refusal

Json = dict[str, Any]

SALESFORCE = "b117307c-14b6-41aa-9422-947e34922962"
HARDCODED_RECORDS = "084124ab-22db-4019-b36d-630418541bf7"
POSTGRES = "25c5221d-dce2-4163-ade9-739ef790f503"
MASK = "**********"


def source_definition(definition_id: str, name: str, image: str, tag: str) -> Json:
    specifications: dict[str, Json] = {
        SALESFORCE: _specification(
            required=("client_id", "client_secret", "refresh_token"),
            secret=("client_secret", "refresh_token"),
        ),
        HARDCODED_RECORDS: {
            "type": "object",
            "properties": {"count": {"type": "integer", "minimum": 1}},
            "additionalProperties": True,
        },
    }
    return {
        "sourceDefinitionId": definition_id,
        "name": name,
        "dockerRepository": f"airbyte/{image}",
        "dockerImageTag": tag,
        "documentationUrl": "https://docs.example.org/",
        "supportLevel": "certified",
        "_specification": specifications[definition_id],
    }


def destination_definition(definition_id: str, name: str, image: str, tag: str) -> Json:
    return {
        "destinationDefinitionId": definition_id,
        "name": name,
        "dockerRepository": f"airbyte/{image}",
        "dockerImageTag": tag,
        "documentationUrl": "https://docs.example.org/",
        "supportLevel": "certified",
        "_specification": _specification(
            required=("host", "port", "username", "database", "schema"),
            secret=("password",),
            other={"port": {"type": "integer"}},
        ),
    }


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


def public(definition: Json) -> Json:
    return {name: value for name, value in definition.items() if name != "_specification"}


def masked(configuration: Json, specification: Json) -> Json:
    secret = _secrets(specification)
    return {name: MASK if name in secret else value for name, value in configuration.items()}


def unmasked(configuration: Json, kept: Json, specification: Json) -> Json:
    """Replace masks in secret fields by the stored secrets; elsewhere a mask is a plain value."""
    secret = _secrets(specification) & kept.keys()
    return {
        name: kept[name] if name in secret and value == MASK else value
        for name, value in configuration.items()
    }


def _secrets(specification: Json) -> set[str]:
    return {
        name
        for name, of in specification.get("properties", {}).items()
        if of.get("airbyte_secret") is True
    }


@cache
def _validator(specification: bytes) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(orjson.loads(specification))


def validate(configuration: Json, specification: Json) -> None:
    found = _validator(orjson.dumps(specification)).iter_errors(configuration)
    errors = sorted(error.message for error in found)
    if errors:
        raise Refusal(
            422,
            "The provided configuration does not fulfill the specification. "
            f"Errors: {', '.join(errors)} in {configuration}",
        )
