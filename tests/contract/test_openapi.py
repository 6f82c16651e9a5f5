"""Each service has a valid OpenAPI 3.1 document, with examples that match its schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI
from pydantic import Secret
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from services.auth_broker import main as auth_broker
from services.auth_broker.settings import BrokerSettings
from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from services.rag_engine import main as rag_engine
from services.schema_observer import main as schema_observer
from shared.config import RagEngineSettings, RegistrySettings, Settings
from tests import access

Json = dict[str, Any]
Build = Callable[..., FastAPI]
METHODS = ("get", "post", "put", "patch", "delete")


SERVICES: dict[str, Build] = {
    "orchestrator": orchestrator.build,
    "auth_broker": auth_broker.build,
    "drift_repair_agent": drift_repair_agent.build,
    "schema_observer": schema_observer.build,
    "rag_engine": rag_engine.build,
}


SETTINGS: dict[str, type[RegistrySettings]] = {
    "auth_broker": BrokerSettings,
    "rag_engine": RagEngineSettings,
}


@pytest.fixture(scope="module", params=list(SERVICES))
def document(request: pytest.FixtureRequest) -> Json:
    """A service's /openapi.json, built without any connection."""
    kind = SETTINGS.get(request.param, Settings)
    registry = Secret("postgresql://nobody:x@127.0.0.1:1/aam")
    settings = kind(supabase_db_url=registry, _env_file=None, **access.service_keys())
    description: Json = SERVICES[request.param](settings).openapi()
    return description


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def _contents(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield every documented body, with its location."""
    for name, operation in _operations(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} body {kind}", media
        for status, response in operation["responses"].items():
            for kind, media in response.get("content", {}).items():
                yield f"{name} {status} {kind}", media


def _examples(document: Json, holder: Json) -> list[Any]:
    """Return the examples: next to the schema, in it, or in the schema it references."""
    found = [of["value"] for of in holder.get("examples", {}).values()]
    found += [holder["example"]] if "example" in holder else []
    schema = holder.get("schema", {})
    found += schema.get("examples", [])
    if "$ref" in schema:
        named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        found += named.get("examples", [])
    return found


def test_document_is_whole(document: Json) -> None:
    """It has a version and a title, and unique ids and descriptions of operations."""
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"].startswith("AAM ")
    assert document["info"]["description"]
    operations = dict(_operations(document))
    assert {"GET /health", "GET /ready"} <= operations.keys()
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(ids) == len(set(ids))
    for name, operation in operations.items():
        assert operation.get("description") or operation.get("summary"), name
        assert any(status.startswith("2") for status in operation["responses"]), name
        placed = {of["name"] for of in operation.get("parameters", []) if of["in"] == "path"}
        assert all(f"{{{one}}}" in name for one in placed), name
        assert name.count("{") == len(placed), name


def test_schemas_are_valid(document: Json) -> None:
    """Each is valid JSON Schema 2020-12, and its references resolve."""
    for schema in document.get("components", {}).get("schemas", {}).values():
        jsonschema.Draft202012Validator.check_schema(schema)
    named = document.get("components", {}).get("schemas", {})
    assert {one.removeprefix("#/components/schemas/") for one in _references(document)} <= set(
        named
    )


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_every_operation_has_an_example(document: Json) -> None:
    """Both the request body and the successful response have one."""
    missing = []
    for name, operation in _operations(document):
        body = operation.get("requestBody", {}).get("content", {})
        if body and not any(_examples(document, media) for media in body.values()):
            missing.append(f"{name}: request")
        well = [
            media
            for status, response in operation["responses"].items()
            if status.startswith("2")
            for media in response.get("content", {}).values()
        ]
        if well and not any(_examples(document, media) for media in well):
            missing.append(f"{name}: response")
    assert missing == []


def test_examples_are_true(document: Json) -> None:
    """Each example is valid against its own schema."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:aam", resource)
    wrong = {}
    for where, media in _contents(document):
        if "$ref" not in media.get("schema", {}):
            continue
        schema = {"$ref": f"urn:aam{media['schema']['$ref']}"}
        validator = jsonschema.Draft202012Validator(schema, registry=registry)
        for example in _examples(document, media):
            found = [error.message[:200] for error in validator.iter_errors(example)]
            if found:
                wrong[where] = found
    assert wrong == {}
