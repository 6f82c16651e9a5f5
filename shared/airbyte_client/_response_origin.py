"""Finds the author of an error response: Airbyte, its web framework, or something in front of it.

A gateway, a login page or a load balancer answers with the same statuses as Airbyte but knows
nothing of Airbyte's objects. Only a response with Airbyte's signature is evidence about them. The
text of a response is used only to classify it, and is never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from shared.airbyte_client._refused_mappers import RefusedMapper, refused_mappers

UNSUPPORTED: Final = "upstream_unsupported"
"""Error code when this Airbyte has no such endpoint."""


class Author(StrEnum):
    """The author of an error response."""

    AIRBYTE = "airbyte"
    """Airbyte's own code, which has processed the request."""
    FRAMEWORK = "framework"
    """Micronaut inside Airbyte's server, instead of Airbyte's code; never evidence about an object.
    Its 404 ("Page Not Found") means that there is no such endpoint."""
    SOMETHING_ELSE = "something else"


class ErrorBody(msgspec.Struct, frozen=True):
    """A classified error response."""

    author: Author
    kind: str
    """A description for people: "a web page", "JSON", "broken JSON", "text" or "no body"."""
    part: str | None = None
    """The part of the request that is rejected, where recognized in Airbyte's message: schedule,
    streams, namespace, credential, destination or name."""
    is_locked: bool = False
    """Whether Airbyte has locked the connection, so that it rejects changes to it."""
    mappers: tuple[RefusedMapper, ...] | None = None
    """The refused mappers; None if the response is not about mappers."""


def classify(status: int, content: bytes | bytearray) -> ErrorBody:
    """Find the author of an error response by its body; the status alone is no evidence.

    Airbyte's signature is `exceptionClassName` (up to 1.8), a UUID as `errorId` (2.x), or the
    `type` of one of its problems (server-api/src/main/openapi/api-problems.yaml); for bean
    validation, the path of each property. Micronaut's JsonError has `_embedded`, and `_links` with
    the path.
    """
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody(Author.SOMETHING_ELSE, _kind(content))
    if not isinstance(body, dict):
        return ErrorBody(Author.SOMETHING_ELSE, "JSON")
    if _is_from_airbyte(body) or (
        status in _ORDERS_ARE_REFUSED_WITH and _has_airbyte_wording(body)
    ):
        is_locked = body.get("type") == "error:connection/locked"
        return ErrorBody(Author.AIRBYTE, "JSON", _part(body), is_locked, refused_mappers(body))
    author = Author.FRAMEWORK if _is_from_micronaut(body) else Author.SOMETHING_ELSE
    return ErrorBody(author, "JSON")


def _kind(content: bytes | bytearray) -> str:
    start = content[:64].lstrip()
    if not start:
        return "no body"
    if start[:1] in (b"{", b"["):
        return "broken JSON"
    return "a web page" if start[:1] == b"<" else "text"


_CLASS: Final = re.compile(r"[a-z]\w*(\.[\w$]+)+")
_PROBLEM: Final = re.compile(r"https://reference\.airbyte\.com/|error:[a-z0-9]")

_OF_OTHER_SERVERS: Final = frozenset(
    {"timestamp", "path", "status", "statusCode", "error", "errorCode", "errorSummary"}
)
"""Members of gateways' errors, some of which also contain an id or a class name.

Of Airbyte's own errors only problems have a `status`, and they are recognized by their `type`.
"""


def _is_from_airbyte(body: dict[str, Any]) -> bool:
    if isinstance(kind := body.get("type"), str) and _PROBLEM.match(kind):
        return True
    if not _OF_OTHER_SERVERS.isdisjoint(body):
        return False
    if isinstance(name := body.get("exceptionClassName"), str) and _CLASS.fullmatch(name):
        return True
    violations = body.get("validationErrors")
    if isinstance(violations, list) and "message" in body:
        return bool(violations) and all(_is_violation(one) for one in violations)
    return _is_uuid(body.get("errorId"))


_ORDERS_ARE_REFUSED_WITH: Final = frozenset({400, 422})


def _has_airbyte_wording(body: dict[str, Any]) -> bool:
    return any(_OWN_WORDS.match(text) for text in _texts(body))


def _is_violation(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("propertyPath"), str)


def _is_uuid(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False


def _is_from_micronaut(body: dict[str, Any]) -> bool:
    links, embedded = body.get("_links"), body.get("_embedded")
    if not isinstance(links, dict) or not isinstance(embedded, dict):
        return False
    own = links.get("self")
    own = own[0] if isinstance(own, list) and own else own
    href = own.get("href") if isinstance(own, dict) else None
    return isinstance(href, str) and href.startswith("/") and "/api/" in href


_PART_OF_PROBLEM: Final = {
    "error:cron-validation": "schedule",
    "error:basic-schedule-validation": "schedule",
    "error:mapper-validation": "streams",
    "error:connection-validation": "streams",
    "error:connection-conflicting-destination-stream": "streams",
    "error:connection/destination-catalog": "streams",
}
"""The part of the request, by the prefix of a problem's `type`."""

_PART_OF_TEXT: Final = tuple(
    (part, re.compile(pattern, re.IGNORECASE))
    for part, pattern in (
        (
            "streams",
            r"primary key for stream|duplicate stream|cursor field|field selection|selected field"
            r"|number of selected fields|\bsync ?mode|sync_?catalog",
        ),
        (
            "schedule",
            r"cron ?expression|cron ?time ?zone|\bcron must\b|cron data|time ?zone"
            r"|\bschedule(type|data)?\b|basic_?schedule",
        ),
        ("namespace", r"namespace_?(definition|format)"),
        (
            "credential",
            r"configuration does not fulfill the specification|json schema validation failed",
        ),
        ("destination", r"DESTINATION_CONNECTION|\bdestination_?id\b"),
        ("streams", r"\bstreams?\b"),
        ("name", r"\bname\b"),
    )
)
"""Patterns in Airbyte's messages, in the order in which they are tried.

From ConnectionsHandler, ConnectionScheduleHelper, CatalogConverter and JsonSchemaValidator.
"""

_OWN_WORDS: Final = re.compile(
    r"(the |invalid |the specified )?cron (expression|timezone)( is)? ?(invalid)?\b"
    r"|(the )?cron must specify|if schedule ?type is cron\b|etc/ timezones are not supported"
    r"|primary key for stream: |catalog contains duplicate stream names"
    r"|the provided configuration does not fulfill the specification",
    re.IGNORECASE,
)
"""Beginnings of messages that only Airbyte writes; some releases send them without a signature."""


def _part(body: dict[str, Any]) -> str | None:
    kind = body.get("type")
    if isinstance(kind, str):
        for start, part in _PART_OF_PROBLEM.items():
            if kind.startswith(start):
                return part
    text = " ".join(_texts(body))
    return next((part for part, pattern in _PART_OF_TEXT if pattern.search(text)), None)


def _texts(body: dict[str, Any]) -> Iterator[str]:
    data, violations = body.get("data"), body.get("validationErrors")
    texts = [body.get("message"), body.get("detail")]
    if isinstance(data, dict):
        texts.append(data.get("message"))
    if isinstance(violations, list):
        texts += [one.get("propertyPath") for one in violations if isinstance(one, dict)]
    return (one[:_READ_CHARACTERS] for one in texts if isinstance(one, str))


_READ_CHARACTERS: Final = 2000
