"""Protects a loopback server: only programs of this machine that have its token may call it.

Loopback excludes other machines but not web pages: a browser on this machine sends what any page
asks it to send, and by DNS rebinding to 127.0.0.1 a page may even read the responses. So a request
must name this server as its host, must not come from another origin, must carry the token, and
must have a content type that needs a CORS preflight. No response allows another origin.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_FROM_HERE = frozenset({b"same-origin", b"none"})
"""The `Sec-Fetch-Site` values of browsers for a server's own pages and for typed addresses."""

_READS = frozenset({"GET", "HEAD"})
_ON_EVERY_ANSWER = {
    b"cache-control": b"no-store",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}

Refuse = Callable[[int, str, str], Response]
"""Makes the response from a status, a sentence with the reason, and the requested path."""


class Refused(Exception):
    """The request is rejected; the message says why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def token_file(folder: Path) -> Path:
    """The token file of the server whose state is in `folder`, in the format of `curl -H @`."""
    return folder / "auth"


def token_of(folder: Path) -> str:
    """The token of the server whose state is in `folder`, generated at the first use.

    The file is readable only by its owner and is created atomically.
    """
    file = token_file(folder)
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"Authorization: Bearer {secrets.token_urlsafe(32)}\n")
        try:
            os.link(draft, file)  # unlike a rename, this preserves the token of a faster process
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text().strip().rpartition(" ")[2]


class Guard:
    """ASGI middleware that protects one server's application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        refuse: Refuse,
        open_paths: frozenset[str] = frozenset(),
        own_login: str | None = None,
        own_hosts: str | None = None,
        forms: frozenset[str] = frozenset(),
    ) -> None:
        """Protect `app`.

        Reading `open_paths` needs no token. Paths below `own_login` have their own login, so they
        need no token either, and their host may also match the pattern `own_hosts`. The paths of
        `forms` take a form instead of JSON.
        """
        self._app = app
        self._token = token.encode()
        self._refuse = refuse
        self._open_paths = open_paths
        self._own_login = own_login
        self._own_hosts = re.compile(own_hosts or r"(?!)", re.IGNORECASE)
        self._forms = forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it before its body is read."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [pair for pair in _ON_EVERY_ANSWER.items() if pair[0] not in given]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            self._require(scope)
        except Refused as error:
            response = self._refuse(error.status, error.detail, scope["path"])
            response.headers["connection"] = "close"  # its body is not read
            if error.status == 401:
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _require(self, scope: Scope) -> None:
        """Check that the request may pass.

        Raises:
            Refused: it may not.
        """
        path, method = scope["path"], scope["method"]
        has_login = self._own_login is not None and path.startswith(self._own_login)
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._is_host(hosts[0], scope, has_login=has_login):
            raise Refused(421, "The Host header does not name this server.")
        if any(origin != b"http://" + hosts[0] for origin in _values(scope, b"origin")):
            raise Refused(403, "A page of another origin must not call this server.")
        if any(site not in _FROM_HERE for site in _values(scope, b"sec-fetch-site")):
            raise Refused(403, "A page of another site must not call this server.")
        if method == "OPTIONS":
            raise Refused(405, "This server has no OPTIONS.")
        is_open = has_login or (method in _READS and path in self._open_paths)
        if not is_open and not self._is_known(_values(scope, b"authorization")):
            raise Refused(401, "This needs the token of the server's `auth` file: curl -H @<file>.")
        self._require_type(scope, FORM if path in self._forms else JSON)

    def _is_host(self, host: bytes, scope: Scope, *, has_login: bool) -> bool:
        given = host.decode("latin-1").lower()
        _, port = scope["server"]
        own = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        return given in own or (has_login and self._own_hosts.fullmatch(given) is not None)

    def _is_known(self, given: Sequence[bytes]) -> bool:
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)

    def _require_type(self, scope: Scope, wanted: str) -> None:
        lengths = _values(scope, b"content-length")
        has_body = bool(_values(scope, b"transfer-encoding")) or any(
            length.strip() != b"0" for length in lengths
        )
        types = _values(scope, b"content-type")
        if not has_body and (scope["method"] in _READS or not types):
            return
        given = [one.partition(b";")[0].strip().lower().decode("latin-1") for one in types]
        if given != [wanted]:
            raise Refused(415, f"A body here is {wanted}, and its Content-Type says so.")


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for given, value in scope["headers"] if given.lower() == name]
