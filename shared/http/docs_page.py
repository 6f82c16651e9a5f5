"""The interactive API documentation: Swagger UI, served without any third-party origin.

Users paste API keys into it, so its scripts come from a pinned and hashed package, and its Content
Security Policy allows nothing else: no inline scripts, other origins or framing. Its URLs are
relative, so it works behind a proxy that serves it under a path prefix.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

PAGE = "/docs"
DESCRIPTION = "/openapi.json"
_START = f"{PAGE}/start.js"
_FILES = {
    f"{PAGE}/swagger-ui.css": ("swagger-ui.css", "text/css"),
    f"{PAGE}/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
    f"{PAGE}/favicon.png": ("favicon-32x32.png", "image/png"),
}
PATHS = frozenset({PAGE, DESCRIPTION, _START, *_FILES})
"""Every path of the documentation."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_SCRIPT = """"use strict";
// Calls go to where this page came from, also below a path that a proxy takes away.
const here = new URL(".", window.location.href).href;
const withServer = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (spec) => update({ servers: [{ url: here }], ...spec }),
      },
    },
  },
});
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  plugins: [withServer],
  validatorUrl: null,
});
"""


def package_folder() -> Path:
    """The folder of Swagger UI's files in the installed package."""
    found = importlib.util.find_spec("fastapi_swagger")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("The package fastapi-swagger is not installed.")
    return Path(found.submodule_search_locations[0]) / "resources"


@cache
def _content(name: str) -> tuple[bytes, str]:
    """A file of the package with its ETag, cached for the life of the process."""
    content = (package_folder() / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def add_docs(app: FastAPI) -> None:
    """Add the page and its files to an application that already serves its OpenAPI description."""
    page = _HTML.format(title=html.escape(app.title))

    def text(content: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_request: Request) -> Response:
            return Response(content, media_type=media_type, headers=HEADERS)

        return answer

    def file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            content, tag = _content(name)
            headers = HEADERS | {"ETag": tag}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            return Response(content, media_type=media_type, headers=headers)

        return answer

    answers = {
        PAGE: text(page, "text/html"),
        _START: text(_SCRIPT, "text/javascript"),
        **{path: file(*packaged) for path, packaged in _FILES.items()},
    }
    for path, answer in answers.items():
        app.add_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
