"""Validation of mappers against the catalog that a connection has."""

from __future__ import annotations

from typing import Any

from local.airbyte import mappers
from local.airbyte.api.backend import Backend
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import post
from local.airbyte.catalog import key_of, properties
from local.airbyte.errors import not_found, unreadable

Json = dict[str, Any]

_MESSAGES = {
    "FIELD_NOT_FOUND": "Field does not exist",
    "FIELD_ALREADY_EXISTS": "Field already exists",
}


@post("web_backend/mappers/validate", since=(1, 3))
async def validate(backend: Backend, body: Body) -> Json:
    """Apply draft mappers to a stream's stored fields, and say which of them are invalid."""
    held = backend.connection(body.id("connectionId"))
    wanted = body.required("streamDescriptor", dict)
    given = body.required("mappers", list)
    if not isinstance(wanted.get("name"), str):
        raise unreadable("streamDescriptor has no name.")
    for pair in held["syncCatalog"]["streams"]:
        if key_of(pair["stream"]) == key_of(wanted):
            break
    else:
        raise not_found("STREAM", wanted["name"])
    for mapper in given:
        mappers.require_readable(mapper, backend.release)
    fields = list(properties(pair["stream"]))
    types = {name: _type(of) for name, of in properties(pair["stream"]).items()}
    results: list[Json] = []
    before = fields
    for mapper, error, after in mappers.applied(given, fields, backend.release):
        result: Json = {
            "inputFields": [_spec(name, types, pair) for name in before],
            "outputFields": [_spec(name, types, pair) for name in after],
        }
        if "id" in mapper:
            result["id"] = mapper["id"]
        if error is not None:
            result["validationError"] = {"type": error, "message": _MESSAGES[error]}
        results.append(result)
        before = after
    return {
        "initialFields": [_spec(name, types, pair) for name in fields],
        "outputFields": [_spec(name, types, pair) for name in before],
        "mappers": results,
    }


def _spec(name: str, types: Json, pair: Json) -> Json:
    """Build a FieldSpec; a field that a mapper has made has an unknown type."""
    config = pair["config"]
    return {
        "name": name,
        "type": types.get(name, "UNKNOWN"),
        "isSelectedPrimaryKey": [name] in config["primaryKey"],
        "isSelectedCursor": config["cursorField"] == [name],
    }


def _type(schema: Any) -> str:
    stated = schema.get("type") if isinstance(schema, dict) else None
    basic = [one for one in (stated if isinstance(stated, list) else [stated]) if one != "null"]
    if len(basic) != 1 or not isinstance(basic[0], str):
        return "UNKNOWN" if len(basic) < 2 else "MULTI"
    return basic[0].upper()
