"""Errors as pages: a sentence, the code, the request's id, and what can be done next."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.console import csrf
from services.console.cookies import Cookies
from services.console.gate import BEFORE_SIGN_IN
from services.console.problems import ApiProblem, PageProblem, SignedOut
from services.console.rendering import is_fragment, render
from shared.errors import AamError
from shared.http.problems import answer_http
from shared.observability import logs

log = logs.get(__name__)

_LONGEST_NEXT: Final = 2_000
_NOT_AFTER_SIGN_IN: Final = frozenset({*BEFORE_SIGN_IN, "/logout"})
_TITLES: Final = {one.value: one.phrase for one in HTTPStatus} | {
    403: "Not allowed",
    404: "Not found",
    409: "This has changed",
    429: "Too many requests",
    503: "Not available now",
    504: "No answer in time",
}


class ErrorPages:
    """ASGI middleware that shows what a page raises as an error page, except below `/api/`."""

    def __init__(self, app: ASGIApp, *, cookies: Cookies, has_oidc_login: bool) -> None:
        self._app = app
        self._cookies = cookies
        self._has_oidc_login = has_oidc_login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        has_started = False

        async def started(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, started)
        except ClientDisconnect:
            raise
        except Exception as error:  # the outermost loop of a page: log and show the error page
            if has_started:
                raise
            if not isinstance(error, SignedOut | csrf.CrossSite | PageProblem | AamError):
                log.exception("bug")
            response = self._answered(Request(scope, receive), error)
            if scope["method"] not in csrf.SAFE_METHODS:
                response.headers["connection"] = "close"  # the body may not have been read
            await response(scope, receive, send)

    def _answered(self, request: Request, error: Exception) -> Response:
        if isinstance(error, SignedOut):
            return self._signed_out(request)
        if isinstance(error, csrf.CrossSite):
            # nosemgrep: logged-exception-text - one of four fixed words
            log.warning("cross_site_request", reason=str(error))
            return problem_page(request, _cross_site(str(error)))
        if isinstance(error, PageProblem):
            return problem_page(request, error)
        if isinstance(error, AamError):  # the limits that the console shares with the services
            wait_s = error.members.get("wait_s")
            limit = ApiProblem(
                error.status, error.code, error.detail, service="console", wait_s=wait_s
            )
            return problem_page(request, limit)
        return problem_page(request, _BUG)

    def _signed_out(self, request: Request) -> Response:
        """Redirect to the login page, which leads back, and delete the cookie of the ended session.

        If only the issuer's token has expired, redirect to the issuer, which may ask nothing.
        """
        is_silent = self._has_oidc_login and getattr(request.state, "only_token_expired", False)
        sign_in = silent_url if is_silent else login_url
        if is_fragment(request):
            where = request.headers.get("hx-current-url", "")
            response = Response(status_code=401, headers={"HX-Redirect": sign_in(_path(where))})
        elif request.method in csrf.SAFE_METHODS:
            where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            response = RedirectResponse(sign_in(where), status_code=303)
        else:
            response = render(request, "signed_out.j2", status=401)
        for cookie in self._cookies.delete_session():
            response.headers.append("set-cookie", cookie)
        return response


def problem_page(request: Request, problem: PageProblem, *, title: str | None = None) -> Response:
    """The page, or for htmx the notice, that shows a problem."""
    response = render(
        request,
        "problem.j2",
        status=problem.status,
        problem=problem,
        title=title or _TITLES.get(problem.status, "Error"),
        request_id=problem.request_id or logs.request_id(),
        retry_url=_retry_url(request, problem),
    )
    if problem.wait_s is not None:
        response.headers["Retry-After"] = f"{math.ceil(problem.wait_s)}"
    return response


def handle_http_errors(app: FastAPI) -> None:
    """Show error pages for addresses without a route, and for invalid parameters."""

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        if request.url.path.startswith("/api/"):
            return await answer_http(request, error)
        if error.status_code == 405:
            return problem_page(request, PageProblem(405, "method_not_allowed", _NO_PAGE))
        return problem_page(request, PageProblem(error.status_code, "not_found", _NO_PAGE))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if any(one["loc"][0] == "path" for one in error.errors()):
            return problem_page(request, PageProblem(404, "not_found", _NO_PAGE))
        sentence = "A parameter in this address is not valid."
        return problem_page(request, PageProblem(422, "invalid_request", sentence))


def own_path(given: str | None) -> str:
    """Where to go after signing in: a page of this console, or else the inbox.

    Anything that a browser could read as another origin is refused.
    """
    path = given or "/"
    if (
        len(path) > _LONGEST_NEXT
        or not path.startswith("/")
        or path.startswith(("//", "/api/", "/static/"))
        or "\\" in path
        or not path.isprintable()
        or path.partition("?")[0] in _NOT_AFTER_SIGN_IN
    ):
        return "/"
    return path


def login_url(then: str) -> str:
    """The login page that leads to a page of this console afterwards."""
    return _with_next("/login", then)


def oidc_url(then: str) -> str:
    """The address that leads to the issuer, and to a page of this console afterwards."""
    return _with_next("/login/oidc", then)


def silent_url(then: str) -> str:
    """The same, for people whom the issuer may sign in without asking."""
    return _with_next("/login/oidc", then, silent="1")


def _with_next(page: str, then: str, **query: str) -> str:
    path = own_path(then)
    given = query if path == "/" else {"next": path, **query}
    return f"{page}?{urlencode(given)}" if given else page


def _path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _retry_url(request: Request, problem: PageProblem) -> str | None:
    if not problem.is_retryable or request.method not in csrf.SAFE_METHODS:
        return None
    return own_path(request.url.path + (f"?{request.url.query}" if request.url.query else ""))


def _cross_site(reason: str) -> PageProblem:
    if reason == "token":
        sentence = (
            "This form belongs to another session, so nothing was done. Open the page again, and "
            "fill in the form again."
        )
    else:
        sentence = (
            "This form was not sent by a page of this console, so nothing was done. Open the "
            "console at the address that its setting CONSOLE_URL has."
        )
    return PageProblem(403, f"cross_site_{reason}", sentence)


_NO_PAGE: Final = "There is no such page."
_BUG: Final = PageProblem(
    500, "internal_error", "Unexpected error; the log has the details under this request id."
)
