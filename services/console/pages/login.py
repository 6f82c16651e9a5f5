"""Signing in with an API key, at the OIDC issuer or with a one-time link, and signing out."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import sign_in_links
from services.console.api import Clients, address_of
from services.console.cookies import Cookies, CookieTooLarge
from services.console.error_pages import login_url, oidc_url, own_path, problem_page
from services.console.forms import SubmittedForm
from services.console.oidc_login import CALLBACK, ExchangeFailed, NeedsAPerson, OidcLogin
from services.console.problems import PageProblem, SignedOut
from services.console.rendering import render
from services.console.session import Sessions
from services.console.settings import ConsoleSettings
from shared.auth.failed_attempts import Guesses
from shared.http.request_log import is_head
from shared.observability import logs

log = logs.get(__name__)

router = APIRouter()

_KEY: Final = re.compile(r"aam_[A-Za-z0-9_-]{8,200}")
_NOT_ACCEPTED: Final = (
    "AAM does not accept the issuer's token: it must be a JWT whose audience is OIDC_AUDIENCE."
)
_REJECTED: Final = "This key is not valid: it was revoked, has expired, or is mistyped."


@router.get("/login")
async def login(
    request: Request, then: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """Show the form, or go on where there is a session already."""
    if request.state.session.is_signed_in:
        return RedirectResponse(own_path(then), status_code=303)
    return _form(request, then)


@router.post("/login")
async def sign_in(request: Request, form: SubmittedForm) -> Response:
    """Sign in with an API key."""
    settings: ConsoleSettings = request.app.state.settings
    then, key = form.text("next"), form.text("key")
    if settings.aam_console_key_login == "off":
        raise PageProblem(403, "key_login_off", "Signing in with an API key is switched off here.")
    if not _KEY.fullmatch(key):
        return _form(request, then, error="An API key starts with aam_. Paste the whole key.")
    guesses: Guesses = request.app.state.guesses
    address = address_of(request)
    guesses.expect_few(address, key)
    try:
        response = await _with_session(request, "key", key, then)
    except SignedOut:
        guesses.fail(address)
        return _form(request, then, error=_REJECTED)
    guesses.prove(key)
    return response


@router.get("/sign-in")
async def sign_in_by_link(
    request: Request, token: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Sign in by a one-time link, which works once and for a minute.

    Where there is a session already, a used link just leads to the inbox. HEAD, as programs that
    preview links send it, uses nothing up.
    """
    if is_head(request):
        return Response()
    settings: ConsoleSettings = request.app.state.settings
    key = await sign_in_links.redeemed(settings.console_sign_in_dir, token)
    if key is None and request.state.session.is_signed_in:
        return RedirectResponse("/", status_code=303)
    if key is None:
        sentence = "This link was used, or is older than a minute. Run make sign-in for a new one."
        raise PageProblem(403, "sign_in_link_used", sentence)
    return await _with_session(request, "key", key, "/")


@router.get("/login/oidc")
async def sign_in_at_issuer(
    request: Request,
    then: Annotated[str | None, Query(alias="next")] = None,
    silent: Annotated[Literal["1"] | None, Query()] = None,
) -> Response:
    """Go to the issuer, and come back to the callback."""
    if is_head(request):
        return Response()
    cookies: Cookies = request.app.state.cookies
    url, sealed = await _oidc(request).start(own_path(then), is_silent=silent is not None)
    response = RedirectResponse(url, status_code=303)
    response.headers.append("set-cookie", cookies.set_sign_in(sealed))
    return response


@router.get(CALLBACK)
async def come_back_from_issuer(request: Request) -> Response:
    """Finish signing in: the issuer leads here, with a code or an error.

    The cookie of the sign-in is deleted whatever comes of it.
    """
    if is_head(request):
        return Response()
    cookies: Cookies = request.app.state.cookies
    sealed = cookies.sign_in(request.cookies)
    try:
        response = await _finished(request, sealed)
    except PageProblem as problem:
        response = problem_page(request, problem, title="You are not signed in")
    if sealed is not None:
        response.headers.append("set-cookie", cookies.set_sign_in(None))
    return response


async def _finished(request: Request, sealed: str | None) -> Response:
    guesses: Guesses = request.app.state.guesses
    try:
        with guesses.attempt(address_of(request), failures=(SignedOut, ExchangeFailed)):
            found = await _oidc(request).finish(sealed, request.query_params)
            return await _with_session(
                request, "oidc", found.access_token, found.then, subject=found.subject
            )
    except NeedsAPerson as asked:
        return RedirectResponse(login_url(asked.then), status_code=303)
    except SignedOut:
        raise PageProblem(403, "token_not_accepted", _NOT_ACCEPTED) from None


def _oidc(request: Request) -> OidcLogin:
    found: OidcLogin | None = request.app.state.oidc_login
    if found is None:
        raise PageProblem(404, "oidc_login_off", "Signing in at an issuer is switched off here.")
    return found


@router.post("/logout")
async def log_out(request: Request, form: SubmittedForm) -> Response:
    """End the session in this browser; the key itself stays valid."""
    del form
    cookies: Cookies = request.app.state.cookies
    response = RedirectResponse("/login", status_code=303)
    for cookie in cookies.delete_session():
        response.headers.append("set-cookie", cookie)
    log.info("signed_out", caller=request.state.session.caller_id)
    return response


async def _with_session(
    request: Request,
    kind: Literal["key", "oidc"],
    credential: str,
    then: str,
    *,
    subject: str | None = None,
) -> Response:
    """Go on with a new session, after asking the orchestrator whose credential it is.

    Raises:
        SignedOut: it is not valid.
        PageProblem: it is not that of `subject`, allows nothing, or is too long.
        ApiProblem: the orchestrator cannot tell now.
    """
    clients: Clients = request.app.state.clients
    sessions: Sessions = request.app.state.sessions
    cookies: Cookies = request.app.state.cookies
    api = clients.acting_with(credential, address=address_of(request))
    caller = await api.orchestrator.get("/whoami")
    if kind == "oidc":
        _check_oidc_caller(caller, subject)
    session = sessions.signed_in(
        kind,
        credential,
        caller_id=caller["id"],
        owner=caller.get("owner") or caller["name"].removesuffix(f" (oidc {caller['id']})"),
        scopes=tuple(caller["scopes"]),
        expires_at=_end(caller),
    )
    response = RedirectResponse(own_path(then), status_code=303)
    try:
        stored = cookies.set_session(sessions.seal(session))
    except CookieTooLarge:
        sentence = "This credential is too long for a session in the browser."
        raise PageProblem(422, "credential_too_long", sentence) from None
    for cookie in stored:
        response.headers.append("set-cookie", cookie)
    log.info("signed_in", caller=session.caller_id, kind=session.kind)
    return response


def _check_oidc_caller(caller: dict[str, Any], subject: str | None) -> None:
    if caller["id"] != subject:
        sentence = "The issuer's two tokens are of different people."
        raise PageProblem(403, "sign_in_mismatch", sentence)
    if not caller["scopes"]:
        raise PageProblem(
            403,
            "no_scopes",
            f"You are {caller['name']}, but your token has no scope of AAM in the claim that "
            "OIDC_SCOPE_CLAIM names. The issuer's administrators can grant one.",
        )


def _end(caller: dict[str, Any]) -> int | None:
    given = caller.get("expires_at")
    return None if given is None else int(datetime.fromisoformat(given).timestamp())


def _form(request: Request, then: str | None, *, error: str | None = None) -> Response:
    settings: ConsoleSettings = request.app.state.settings
    oidc: OidcLogin | None = request.app.state.oidc_login
    path = own_path(then)
    return render(
        request,
        "login.j2",
        status=200 if error is None else 422,
        next_path=path,
        error=error,
        issuer=None if oidc is None else oidc.issuer_name,
        oidc_url=oidc_url(path),
        takes_keys=settings.aam_console_key_login == "on",
    )
