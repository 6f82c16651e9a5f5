"""Headers that every response carries: what a page may load, and who may embed or store it."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS: Final = (
    (b"content-security-policy", CSP.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_HTTPS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
_NOT_STORED: Final = (b"cache-control", b"no-store")


class SecurityHeaders:
    """The outermost middleware; a response may only choose its own Cache-Control."""

    def __init__(self, app: ASGIApp, *, is_secure: bool) -> None:
        self._app = app
        self._added = [*_ALWAYS, *([_HTTPS_ONLY] if is_secure else [])]
        self._names = {name for name, _ in self._added}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [pair for pair in message["headers"] if pair[0] not in self._names]
                stored = [] if any(name == b"cache-control" for name, _ in own) else [_NOT_STORED]
                message = {**message, "headers": [*own, *self._added, *stored]}
            await send(message)

        await self._app(scope, receive, secured if scope["type"] == "http" else send)
