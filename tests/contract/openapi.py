"""Validates requests and responses against Airbyte's own OpenAPI documents.

The documents are Airbyte's and not part of this project; `AIRBYTE_OPENAPI_DIR` is their path. They
are applied more strictly than OpenAPI requires: a property that a schema does not define is an
error, since a misspelt one would otherwise pass.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import yaml
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("AIRBYTE_OPENAPI_DIR") or ROOT / "../shared/airbyte/openapi").resolve()
VERSIONS = {"0.63.19": "config-v0.63.19", "2.0.0": "config-v2.0.0", "head": "config-head"}


@dataclass(frozen=True)
class Correction:
    """A correction of a schema that does not match Airbyte's behaviour."""

    schema: str
    change: Json
    reason: str
    versions: tuple[str, ...] = tuple(VERSIONS)

    def changes(self, version: str) -> bool:
        """Whether the correction changes the schema in this version."""
        schema = _read(VERSIONS[version])["components"]["schemas"].get(self.schema)
        return schema is not None and self.applied_to(schema) != schema

    def applied_to(self, schema: Json) -> Json:
        """Return the corrected schema; a name with a `+` is merged with the existing value."""
        change = {
            name.removeprefix("+"): {**schema.get(name[1:], {}), **value}
            if name.startswith("+")
            else value
            for name, value in self.change.items()
        }
        return {**schema, **change}


CORRECTIONS = (
    Correction(
        "AirbyteStream",
        {"required": ["name", "jsonSchema"]},
        "json_schema is required, and the property is called jsonSchema",
    ),
    Correction(
        "ConnectionStatusRead",
        {"required": ["connectionId", "isRunning", "isLastCompletedJobReset"]},
        "null properties are omitted: a connection that never synced has no last job, and a manual "
        "one no next sync",
        ("0.63.19",),
    ),
    Correction(
        "InvalidInputExceptionInfo",
        {"required": ["message"]},
        "only failed bean validations list validationErrors; a 422 of a handler has a message",
        ("0.63.19",),
    ),
    Correction(
        "InvalidInputExceptionInfo",
        {"required": ["errorId"], "+properties": {"errorId": {"type": "string"}}},
        "since 2.0 error bodies are an errorId, with the message only where it is meant for users",
        ("2.0.0", "head"),
    ),
    Correction(
        "MapperConfiguration",
        {
            "oneOf": [
                {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{kind}MapperConfiguration"}
                        for kind in (
                            "Hashing",
                            "FieldFiltering",
                            "FieldRenaming",
                            "RowFiltering",
                            "Encryption",
                        )
                    ]
                }
            ]
        },
        "every configuration with a targetField is also one of FieldFiltering",
        ("2.0.0", "head"),
    ),
    Correction(
        "NotFoundKnownExceptionInfo",
        {"required": ["errorId"]},
        "since 2.0 error bodies are an errorId",
        ("2.0.0", "head"),
    ),
)


@dataclass(frozen=True)
class Liberty:
    """A property that a document does not define and that Airbyte ignores."""

    version: str
    path: str
    name: str
    reason: str


LIBERTIES = tuple(
    Liberty("0.63.19", path, name, "ignored there; later versions answer 20 without it")
    for path in ("sources/list", "destinations/list", "web_backend/connections/list")
    for name in ("pageSize", "cursor")
)


@dataclass(frozen=True)
class Description:
    """One version of the Configuration API."""

    version: str

    @cached_property
    def _document(self) -> Json:
        document = _read(VERSIONS[self.version])
        schemas = document["components"]["schemas"]
        for correction in CORRECTIONS:
            if self.version in correction.versions and correction.schema in schemas:
                schema = schemas[correction.schema]
                schemas[correction.schema] = correction.applied_to(schema)
        composed = _composed(document, set())
        for name, schema in schemas.items():
            if name not in composed:
                _tighten(schema)
        for item in document["paths"].values():
            _tighten(item)
        return document

    @cached_property
    def _registry(self) -> Registry[Any]:
        resource = Resource.from_contents(self._document, default_specification=DRAFT7)
        described: Registry[Any] = Registry().with_resource(f"urn:airbyte:{self.version}", resource)
        return described

    def knows(self, path: str) -> bool:
        """Whether this version has a path, such as `sources/create`."""
        return f"/v1/{path}" in self._document["paths"]

    def about_request(self, method: str, path: str, body: object) -> list[str]:
        """Return the errors in a request body; empty if it is valid."""
        operation = self._operation(method, path)
        if operation is None:
            return [f"{method} {path} is not in {self.version}"]
        if "requestBody" not in operation:
            return [] if body in (None, {}) else [f"{path} takes no body"]
        if isinstance(body, dict):
            ignored = {
                liberty.name
                for liberty in LIBERTIES
                if (liberty.version, liberty.path) == (self.version, path)
            }
            body = {name: value for name, value in body.items() if name not in ignored}
        pointer = f"/paths/~1v1~1{path.replace('/', '~1')}/{method.lower()}/requestBody"
        return self._about(pointer, operation["requestBody"], body)

    def about_answer(self, method: str, path: str, status: int, body: object) -> list[str]:
        """Return the errors in a response; an undocumented status is not checked."""
        operation = self._operation(method, path)
        if operation is None:
            return [f"{method} {path} is not in {self.version}"]
        response = operation["responses"].get(str(status))
        if response is None:
            return [] if status >= 400 else [f"{path} does not answer {status}"]
        pointer = f"/paths/~1v1~1{path.replace('/', '~1')}/{method.lower()}/responses/{status}"
        if "$ref" in response:
            pointer = response["$ref"].removeprefix("#")
            response = self._document["components"]["responses"][pointer.rpartition("/")[2]]
        if "content" not in response:
            return [] if body is None else [f"{path} answers {status} without a body"]
        return self._about(pointer, response, body)

    def _operation(self, method: str, path: str) -> Json | None:
        item: Json = self._document["paths"].get(f"/v1/{path}", {})
        operation: Json | None = item.get(method.lower())
        return operation

    def _about(self, pointer: str, holder: Json, body: Any) -> list[str]:
        media = "application/json"
        if "schema" not in holder["content"].get(media, {}):
            return []
        validator = self._validator(f"{pointer}/content/{media.replace('/', '~1')}/schema")
        return [
            f"{'/'.join(map(str, error.absolute_path)) or '(whole)'}: {error.message[:300]}"
            for error in validator.iter_errors(body)
        ]

    @cache  # noqa: B019 - three descriptions live as long as the run
    def _validator(self, pointer: str) -> Validator:
        return jsonschema.Draft7Validator(
            {"$ref": f"urn:airbyte:{self.version}#{pointer}"},
            registry=self._registry,
            format_checker=jsonschema.FormatChecker(["uuid"]),
        )


@cache
def description(version: str) -> Description:
    """Return the OpenAPI document of one of `VERSIONS`."""
    return Description(version)


def _read(name: str) -> Json:
    """Read a document; cached as JSON, since parsing the YAML takes a second."""
    source = FOLDER / f"{name}.yaml"
    about = source.stat()
    cached = ROOT / ".pytest_cache" / "openapi" / f"{name}-{about.st_mtime_ns}-{about.st_size}.json"
    if not cached.is_file():
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        parsed = yaml.load(source.read_bytes(), Loader=loader)  # noqa: S506 - both are safe loaders
        cached.parent.mkdir(parents=True, exist_ok=True)
        fresh = cached.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(orjson.dumps(parsed, option=orjson.OPT_NON_STR_KEYS))
        fresh.replace(cached)
    document: Json = orjson.loads(cached.read_bytes())
    return document


def _composed(node: object, found: set[str]) -> set[str]:
    """Return the names of schemas used in compositions, which must allow further properties."""
    if isinstance(node, dict):
        for word in ("allOf", "oneOf", "anyOf"):
            for part in node.get(word, []):
                if "$ref" in part:
                    found.add(part["$ref"].rpartition("/")[2])
        for value in node.values():
            _composed(value, found)
    elif isinstance(node, list):
        for value in node:
            _composed(value, found)
    return found


def _tighten(node: object) -> None:
    """Disallow undefined properties of objects, and convert `nullable` to JSON Schema."""
    if isinstance(node, list):
        for value in node:
            _tighten(value)
    if not isinstance(node, dict):
        return
    if node.pop("nullable", False) is True and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
        if "enum" in node:
            node["enum"] = [*node["enum"], None]
    closes = isinstance(node.get("properties"), dict) and node.get("type", "object") == "object"
    if closes and not {"allOf", "oneOf", "anyOf"} & node.keys():
        node.setdefault("additionalProperties", False)
    for name, value in node.items():
        if name not in ("allOf", "oneOf", "anyOf", "example", "examples", "default"):
            _tighten(value)
