"""Additions to the OpenAPI description: examples, links, and the errors that routes return."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI

from shared.http.openapi_texts import describe as describe_operation
from shared.http.problems import (
    Problem,
    problems,
)


def example(body: object) -> dict[str, Any]:
    """The example of a response, for its route's OpenAPI description."""
    return {"content": {"application/json": {"example": body}}}


def links(*targets: str, **parameters: str) -> dict[str, Any]:
    """Links from a response to other routes, for its route's OpenAPI description.

    A target is a route, such as `GET /connections/{connection_id}`; a parameter's value is an
    OpenAPI runtime expression, such as `$response.body#/id`.
    """
    return {
        "links": {
            _link_name(target): {
                "operationRef": _reference(target),
                "parameters": dict(parameters),
            }
            for target in targets
        }
    }


def _link_name(target: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", target).strip("_").lower()


def _reference(target: str) -> str:
    method, _, path = target.partition(" ")
    return f"#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method.lower()}"


def describe_problems(app: FastAPI) -> None:
    """Add the Problem schema, which routes refer to, and the common errors to the description."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = describe()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        # A 422 is a Problem here, not FastAPI's default.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for operations in schema["paths"].values():
            for operation in operations.values():
                describe_operation(operation)
                if "security" in operation:
                    operation["responses"] |= _REFUSALS
                if "requestBody" in operation:
                    for status, answer in problems(400, 408, 413, 415, 422).items():
                        operation["responses"].setdefault(str(status), answer)
        return schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way


# 422 replaces FastAPI's default description; every route rejects unknown parameters.
_REFUSALS = {str(status): answer for status, answer in problems(401, 403, 422, 429).items()}
