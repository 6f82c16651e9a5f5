"""Validate responses against the models that their routes document; unknown members are errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter


def routes_of(app: FastAPI) -> Iterator[APIRoute]:
    """Yield the application's routes that are in its OpenAPI document."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            yield route


def name_of(route: APIRoute) -> str:
    """Return a route's method and path, such as `GET /connections/{connection_id}`."""
    return f"{next(iter(route.methods or ()))} {route.path_format}"


def classes_of(route: APIRoute) -> dict[int, Any]:
    """Return the documented response models of a route, by status; 2xx only."""
    found = {
        int(status): one["model"]
        for status, one in route.responses.items()
        if "model" in one and str(status).startswith("2")
    }
    if route.response_model is not None:
        found.setdefault(route.status_code or 200, route.response_model)
    return found


def makes_its_own(route: APIRoute) -> bool:
    """Whether the endpoint builds its own response, which FastAPI does not validate."""
    returned = inspect.signature(route.endpoint, eval_str=True).return_annotation
    return returned is Response and route.response_model is not None


def decode(app: FastAPI, answer: httpx.Response) -> str | None:
    """Validate a response against its documented model, and return the name of its route.

    None if no model is documented for its status.

    Raises:
        ValidationError: a member is missing, of another type, or not in the model.
    """
    route = next(
        route
        for route in routes_of(app)
        if answer.request.method in (route.methods or ())
        and route.path_regex.fullmatch(answer.request.url.path)
    )
    documented = classes_of(route).get(answer.status_code)
    if documented is None:
        return None
    TypeAdapter(documented).validate_json(answer.content, extra="forbid")
    return name_of(route)


def example_of(document: dict[str, Any], operation: dict[str, Any]) -> Any:
    """Return the first example of an operation's body; None if it has no body."""
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return None
    if "example" in media:
        return media["example"]
    for schema in [media["schema"], *media["schema"].get("anyOf", ())]:
        if "examples" in schema:
            return schema["examples"][0]
        if "$ref" in schema:
            named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            return named["examples"][0]
    raise AssertionError("The body has no example.")
