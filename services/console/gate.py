"""The gate before every page: who it is, and whether a form came from the console's own pages.

It stands before the routes, so that none can be written without it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.console import csrf, forms
from services.console.cookies import Cookies
from services.console.problems import SignedOut
from services.console.session import Session, Sessions

WITHOUT_SESSION: Final = ("/static/", "/api/")
"""Paths that use no session: files, and the API, which takes its own credential alone."""
BACKGROUND: Final = b"x-aam-background"
"""The header of requests that a page's script makes by itself."""
LIVE: Final = "/live"
CHECKS: Final = frozenset({"/health", "/ready"})
BEFORE_SIGN_IN: Final = frozenset({"/login", "/login/oidc", "/login/callback", "/sign-in"})
"""Pages for people without a session."""


class Gate:
    """ASGI middleware that sets `state.session` and, of a submitted form, `state.form`.

    `state.only_token_expired` is True if the session ended only because its issuer's token expired.

    Raises, for the error pages:
        SignedOut: a page other than those before signing in was asked for without a session.
        CrossSite: the request changes something, and was not made by a page of this session.
        PageProblem: its form is malformed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sessions: Sessions,
        cookies: Cookies,
        origins: frozenset[str],
        body_deadline: timedelta,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._cookies = cookies
        self._origins = origins
        self._body_deadline = body_deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSocket routes
            await send({"type": "websocket.close", "code": 1008})
            return
        state, path = scope.setdefault("state", {}), scope["path"]
        state["session"] = self._sessions.anonymous()
        if path.startswith(WITHOUT_SESSION) or path in CHECKS:
            await self._app(scope, receive, send)
            return
        sealed = self._cookies.session(Request(scope).cookies)
        session = self._sessions.open(sealed) if sealed else None
        if session is not None:
            state["session"] = session
        elif sealed:
            state["only_token_expired"] = self._sessions.only_token_expired(sealed)
        await self._check(scope, receive, session)
        written = self._to_write(path, session, sealed, state["session"])
        if session is not None and (path == LIVE or BACKGROUND in dict(scope["headers"])):
            written = None  # a page that is only open does not make its session last
        await self._app(scope, receive, send if written is None else self._adding(written, send))

    async def _check(self, scope: Scope, receive: Receive, session: Session | None) -> None:
        is_open = scope["path"] in BEFORE_SIGN_IN
        changes = scope["method"] not in csrf.SAFE_METHODS
        if changes:
            csrf.check_source(scope["headers"], self._origins)
        if not is_open and (session is None or not session.is_signed_in):
            raise SignedOut
        if changes:
            form = await forms.read(scope["headers"], receive, deadline=self._body_deadline)
            csrf.check_token(form.text(csrf.FIELD), scope["state"]["session"].csrf)
            scope["state"]["form"] = form

    def _to_write(
        self, path: str, session: Session | None, sealed: str | None, current: Session
    ) -> Session | None:
        """The session that the response must store: a new one, or a used one again."""
        if session is None or sealed is None:
            return current if path == "/login" else None
        return self._sessions.renewed(session, sealed)

    def _adding(self, session: Session, send: Send) -> Send:
        """Store a session with the response, unless the route itself stores or deletes one."""
        names = tuple(f"{name}=".encode() for name in self._cookies.session_names())

        async def added(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if not any(
                    name == b"set-cookie" and value.startswith(names) for name, value in headers
                ):
                    cookies = self._cookies.set_session(self._sessions.seal(session))
                    headers += [(b"set-cookie", one.encode()) for one in cookies]
                message = {**message, "headers": headers}
            await send(message)

        return added
