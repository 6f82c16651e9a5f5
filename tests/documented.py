"""Decode an answer by the class that its route documents for it, with no member that it lacks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter


def routes_of(app: FastAPI) -> Iterator[APIRoute]:
    """The routes of an application that are in its description."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            yield route


def name_of(route: APIRoute) -> str:
    """Its method and path, as `GET /connections/{connection_id}`."""
    return f"{next(iter(route.methods or ()))} {route.path_format}"


def classes_of(route: APIRoute) -> dict[int, Any]:
    """The class of each answer that a route documents by one, by its status."""
    found = {
        int(status): one["model"]
        for status, one in route.responses.items()
        if "model" in one and str(status).startswith("2")
    }
    if route.response_model is not None:
        found.setdefault(route.status_code or 200, route.response_model)
    return found


def makes_its_own(route: APIRoute) -> bool:
    """Whether its function returns a response, which FastAPI does not make by the class."""
    returned = inspect.signature(route.endpoint, eval_str=True).return_annotation
    return returned is Response and route.response_model is not None


def decode(app: FastAPI, answer: httpx.Response) -> str | None:
    """Decode an answer by its class, and return the name of its route.

    None where no class documents the answer.

    Raises:
        ValidationError: a member is missing, of another type, or not in the class.
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
