"""Validation errors in plain words: which parameter or member, and what was probably meant.

A member's name is quoted only if it is a plain word; values are never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args
from weakref import WeakKeyDictionary

import msgspec
from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from shared.domain.did_you_mean import did_you_mean
from shared.errors import Invalid
from shared.http.authentication import OPEN
from shared.http.strict_json import place

_WORD = re.compile(r"(?=.{1,40}$)([A-Za-z]\w*|[a-z]+(-[a-z]+)+)(\[\])?", re.ASCII)
"""A name that may be quoted: any usual style of member names, too short to be a secret key."""
_MOST_LISTED = 3
"""Errors that the sentence names; `fields` has them all."""

# Messages of these types come from the schema alone; others may quote the input.
_SAFE_MESSAGES = frozenset(
    {
        "bool_parsing",
        "bool_type",
        "datetime_type",
        "dict_type",
        "enum",
        "finite_number",
        "float_parsing",
        "float_type",
        "greater_than",
        "greater_than_equal",
        "int_type",
        "less_than",
        "less_than_equal",
        "list_type",
        "literal_error",
        "missing",
        "string_pattern_mismatch",
        "string_too_long",
        "string_too_short",
        "string_type",
        "timezone_aware",
        "too_long",
        "too_short",
    }
)
_MESSAGES = {
    "uuid_parsing": "Input should be a UUID",
    "uuid_type": "Input should be a UUID",
    "int_parsing": "Input should be a whole number",
    "int_parsing_size": "Input should be a smaller number",
    "int_from_float": "Input should be a whole number",
    "model_attributes_type": "Input should be a JSON object",
    "model_type": "Input should be a JSON object",
    "json_invalid": "Input should be JSON",
}

_queries: WeakKeyDictionary[Callable[..., Any], dict[str, bool]] = WeakKeyDictionary()
"""Query parameters by the route's endpoint function."""


def invalid(request: Request, error: RequestValidationError) -> Invalid:
    """Convert FastAPI's validation error; `fields` has each error with its location."""
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    body = None if field is None else field.field_info.annotation
    fields = [_field(fault, body) for fault in error.errors()]
    described = [
        f"{field['field']}: {field['message'].rstrip('.')}" for field in fields[:_MOST_LISTED]
    ]
    more = f"; and {len(fields) - _MOST_LISTED} more" if len(fields) > _MOST_LISTED else ""
    return Invalid(f"{'; '.join(described)}{more}.".replace("?.", "?"), fields=fields)


def _field(fault: ErrorDetails | Mapping[str, Any], body: object) -> dict[str, str]:
    kind, location = fault["type"], place(fault["loc"])
    if kind == "extra_forbidden":
        known = _members(body, fault["loc"][1:-1])
        name, message = unknown("member", location.pop(), known)
        location += [name] if name else []
    elif kind in _SAFE_MESSAGES or kind.startswith("aam_"):
        message = fault["msg"]
    else:
        message = _MESSAGES.get(kind, "Input is invalid")
    shown = (part if part.isdecimal() or _WORD.fullmatch(part) else "…" for part in location)
    return {"field": ".".join(shown), "type": kind, "message": message}


def unknown(what: str, name: str, known: Sequence[str]) -> tuple[str, str]:
    """An unknown name (empty if it must not be quoted), and the sentence about it."""
    if not _WORD.fullmatch(name):
        return "", (
            f"Unknown {what}; known values are {', '.join(known)}"
        ) if known else f"Unknown {what}"
    return name, f"Unknown {what} '{name}'{did_you_mean(name, known)}"


def _members(body: object, location: Sequence[str | int]) -> list[str]:
    """The members that the models at a location in the body accept."""
    models = list(_models(body))
    for part in location:
        inner = [
            field.annotation
            for model in models
            for name, field in model.model_fields.items()
            if part in (name, field.alias)
        ]
        # An index, a key or the tag of a union does not lead to other models.
        if inner:
            models = [model for annotation in inner for model in _models(annotation)]
    return sorted(
        {field.alias or name for one in models for name, field in one.model_fields.items()}
    )


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


async def expect_known(request: Request) -> None:
    """Reject parameters and bodies that a route does not read, and repeated query parameters.

    The members of a body are checked by its model; this checks routes that take no body.

    Raises:
        Invalid: there are any; `fields` names each.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.path in OPEN:
        return
    fields = _unknown_parameters(request, route)
    if route.body_field is None and "requestBody" not in (route.openapi_extra or {}):
        fields += _unread(await request.body(), _query_of(route))
    if fields:
        sentences = [field["message"].rstrip(".") for field in fields[:_MOST_LISTED]]
        raise Invalid(f"{'; '.join(sentences)}.".replace("?.", "?"), fields=fields)


def _unread(body: bytes, parameters: Mapping[str, bool]) -> list[dict[str, str]]:
    """Errors for a non-empty body sent to a route that takes none."""
    sent = msgspec.json.decode(body) if body else None
    if not sent:
        return []
    fields = []
    for name in sent if isinstance(sent, dict) else [""]:
        word = name if _WORD.fullmatch(name) else ""
        message = f"Unknown member '{word}': this route takes no body" if word else _NO_BODY
        if word in parameters:
            message += f"; '{word}' is a query parameter"
        field = f"body.{word}" if word else "body"
        fields.append({"field": field, "type": "extra_forbidden", "message": message})
    return fields


_NO_BODY = "This route takes no body"


def _unknown_parameters(request: Request, route: APIRoute) -> list[dict[str, str]]:
    given = request.query_params
    known = _query_of(route) if given else {}
    fields = []
    for name in dict.fromkeys(given.keys()):
        if name not in known:
            shown, message = unknown("query parameter", name, sorted(known))
            fields.append(_fault(shown, "unknown_parameter", message))
        elif not known[name] and len(given.getlist(name)) > 1:
            message = f"Query parameter '{name}' is given more than once"
            fields.append(_fault(name, "repeated_parameter", message))
    return fields


def _fault(name: str, kind: str, message: str) -> dict[str, str]:
    return {
        "field": f"query.{name}" if name else "query",
        "type": kind,
        "message": message.rstrip("."),
    }


def _query_of(route: APIRoute) -> dict[str, bool]:
    """The query parameters that a route reads, and whether each may be given more than once."""
    known = _queries.get(route.endpoint)
    if known is None:
        known = _queries[route.endpoint] = {
            field.alias: _takes_several(field.field_info.annotation)
            for field in get_flat_params(route.dependant)
            if isinstance(field.field_info, params.Query)
        }
    return known


def _takes_several(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is list or any(
        _takes_several(argument) for argument in get_args(annotation)
    )
