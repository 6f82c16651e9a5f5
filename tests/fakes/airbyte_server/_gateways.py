"""Gateways in front of Airbyte that answer in its place, each with its own error bodies."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import orjson

from local.airbyte.api.dispatch import Answer


def _json(status: int, body: object) -> Answer:
    return Answer(status, orjson.dumps(body))


def _text(status: int, text: str) -> Answer:
    return Answer(status, text, "text/plain; charset=utf-8")


def _page(status: int, text: str) -> Answer:
    return Answer(status, text, "text/html")


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


GATEWAYS: dict[str, Callable[[int], Answer]] = {
    "google_api_gateway": lambda status: _json(
        status, {"message": "The current request is not defined by this API.", "code": status}
    ),
    "aws_api_gateway": lambda status: _json(status, {"message": "Missing Authentication Token"}),
    "aws_alb": lambda status: _page(
        status,
        f"<html>\r\n<head><title>{status} {_phrase(status)}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {_phrase(status)}</h1></center>\r\n</body>\r\n</html>\r\n",
    ),
    "nginx": lambda status: _page(
        status,
        f"<html>\r\n<head><title>{status} {_phrase(status)}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {_phrase(status)}</h1></center>\r\n"
        "<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n",
    ),
    "ingress_default_backend": lambda status: _text(status, f"default backend - {status}"),
    "kong": lambda status: _json(
        status, {"message": "no Route matched with those values", "request_id": "a" * 32}
    ),
    "traefik": lambda status: _text(status, f"{status} page not found\n"),
    "envoy": lambda status: Answer(status, b""),
    "envoy_text": lambda status: _text(
        status, "upstream connect error or disconnect/reset before headers"
    ),
    "spring": lambda status: _json(
        status,
        {
            "timestamp": "2026-11-28T10:00:00.000+00:00",
            "status": status,
            "error": _phrase(status),
            "path": "/api/v1/connections/delete",
        },
    ),
    "hal": lambda status: _json(
        status,
        {"message": _phrase(status), "_links": {"self": {"href": "https://gateway.example/"}}},
    ),
    "rfc_9457": lambda status: _json(
        status, {"type": "about:blank", "title": _phrase(status), "status": status}
    ),
    "public_api": lambda status: _json(status, {"type": "about:blank", "status": status}),
    "okta": lambda status: _json(
        status,
        {
            "errorCode": "E0000007",
            "errorSummary": "Not found: Resource not found",
            "errorLink": "E0000007",
            "errorId": "oaeHfmOAx1iRLa0H10DeMz5fQ",
            "errorCauses": [],
        },
    ),
    "error_message": lambda status: _json(status, {"error": {"message": _phrase(status)}}),
    "title": lambda status: _json(status, {"title": _phrase(status), "detail": "No such route."}),
    "list": lambda status: _json(status, [{"message": _phrase(status)}]),
    "login_page": lambda status: _page(
        status,
        "<!DOCTYPE html><html><title>Sign in</title><form action=/oauth2/start></form></html>",
    ),
}
"""Maps a gateway's name to a function that builds its answer for a status."""
