"""Signing in to the console at an OpenID Connect issuer, with a real orchestrator; and attacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from fastapi.responses import JSONResponse, Response

from services.console import main
from services.console.session import Sessions
from shared.auth import issuer_http
from tests import leaks
from tests.console.browser import Browser, Page
from tests.console.conftest import settings_for
from tests.fakes.oidc_issuer import (
    AUDIENCE,
    AUTHORIZE,
    CLIENT_ID,
    DISCOVERY,
    EC,
    RSA,
    TOKEN,
    Idp,
    Json,
)
from tests.integration.conftest import serving
from tests.security.conftest import build, close
from tests.waiting import until

CONSOLE = "http://localhost:8006"
CALLBACK = f"{CONSOLE}/login/callback"
SECRET = leaks.canary("the console's secret at the issuer")


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Idp]:
    """One issuer for this module."""
    issuer = Idp()
    async with serving(issuer.app) as url:
        issuer.url = url
        yield issuer


@pytest.fixture
def idp(issuer: Idp) -> Idp:
    """The issuer, which knows the console."""
    issuer.reset()
    issuer.client_secret = SECRET
    issuer.redirect_uris = {CALLBACK}
    return issuer


@pytest.fixture(scope="module")
async def orchestrator(issuer: Idp, registry_url: str) -> AsyncIterator[str]:
    """One orchestrator, which accepts the issuer's tokens."""
    app = build("orchestrator", registry_url, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)
    try:
        async with serving(app) as url:
            yield url
    finally:
        await close(app)


class Installation:
    """Consoles before the orchestrator."""

    def __init__(self, url: str, idp: Idp, running: AsyncExitStack) -> None:
        self._url = url
        self._idp = idp
        self._running = running

    def browser(self, **more: Any) -> Browser:
        """A browser at a console of its own; all have the same keys, as replicas have."""
        settings = {
            "oidc_issuer": self._idp.url,
            "oidc_audience": AUDIENCE,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": SECRET,
        }
        app = main.build(settings_for(self._url, **(settings | more)))
        self._running.push_async_callback(app.state.clients.close)
        browser = Browser(app)
        self._running.push_async_callback(browser.client.aclose)
        return browser


@pytest.fixture
async def installation(idp: Idp, orchestrator: str) -> AsyncIterator[Installation]:
    """The console, in as many replicas as a test opens."""
    async with AsyncExitStack() as running:
        yield Installation(orchestrator, idp, running)


@asynccontextmanager
async def _at_issuer(*, signed_in: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """The part of a browser that is at the issuer."""
    async with httpx.AsyncClient() as client:
        if signed_in:
            client.cookies.set("issuer-session", "ada")
        yield client


async def _allowed(url: str) -> str:
    """Sign in at the issuer; return where it leads back to."""
    async with _at_issuer(signed_in=False) as client:
        form = await client.get(url)
        assert form.status_code == 200, form.text
        assert "Continue as Ada" in form.text
        again = (await client.post(url)).headers["location"]
        assert url.endswith(again)
        back = await client.get(url)
        assert back.is_redirect, back.text
    return back.headers["location"]


async def _started(browser: Browser, then: str = "") -> str:
    """Begin to sign in; return the issuer's address that the console redirects to."""
    return (await browser.get(f"/login/oidc{then and '?' + urlencode({'next': then})}")).location


async def _signed_in(browser: Browser, then: str = "") -> Page:
    """Do all of it; return the console's last answer."""
    return await browser.get(await _back(await _started(browser, then)))


async def _back(url: str) -> str:
    """What the issuer answers to somebody whom it knows."""
    async with _at_issuer() as client:
        return (await client.get(url)).headers["location"]


def _changed(url: str, **query: str | None) -> str:
    """An address with other query parameters; None removes one."""
    given = dict(parse_qsl(urlsplit(url).query)) | query
    kept = {name: value for name, value in given.items() if value is not None}
    return f"{url.partition('?')[0]}?{urlencode(kept)}"


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def test_whole_journey(idp: Idp, installation: Installation) -> None:
    """From a page, over the issuer's form, back to that page; and out again."""
    browser = installation.browser()
    asked = await browser.get("/connections?q=a")
    login = await browser.get(asked.location)
    assert f"Sign in with {urlsplit(idp.url).netloc}" in login.text
    assert 'name="key"' in login.html
    start = "/login/oidc?next=%2Fconnections%3Fq%3Da"
    assert f'href="{start}"' in login.html

    started = await browser.get(start)
    query = _query(started.location)
    assert started.location.startswith(f"{idp.url}{AUTHORIZE}?")
    assert (query["scope"], query["audience"], query["redirect_uri"]) == (
        "openid email",
        AUDIENCE,
        CALLBACK,
    )
    cookie = started.response.headers["set-cookie"]
    assert cookie.startswith("aam-local-sign-in=")
    assert {"HttpOnly", "SameSite=Lax", "Max-Age=300", "Path=/"} <= set(cookie.split("; "))
    assert not any(query[name] in cookie for name in ("state", "nonce", "code_challenge"))

    done = await browser.get(await _allowed(started.location))

    assert (done.status, done.location) == (303, "/connections?q=a")
    assert set(browser.client.cookies) == {"aam-local"}
    page = await browser.get(done.location)
    assert page.status == 200
    assert "ada@example.com" in page.text
    assert "00u1a" not in page.text
    assert "Needs admin" in (await browser.get("/access")).text

    out = await browser.post("/logout")
    assert out.location == "/login"
    assert (await browser.get("/connections")).location == "/login?next=%2Fconnections"


@pytest.mark.parametrize(
    "discovery, secret",
    [
        ({"token_endpoint_auth_methods_supported": ["client_secret_post"]}, SECRET),
        ({"token_endpoint_auth_methods_supported": ["none"]}, None),
        ({"authorization_response_iss_parameter_supported": False}, SECRET),
    ],
    ids=["secret in the form", "public client", "without its name in the answer"],
)
async def test_other_kinds_of_issuers(
    idp: Idp, installation: Installation, discovery: Json, secret: str | None
) -> None:
    """Those that take the secret in the form, or have public clients, or do not name themselves."""
    idp.discovery, idp.client_secret = discovery, secret
    browser = installation.browser(oidc_client_secret=secret, aam_console_key_login="off")
    assert 'name="key"' not in (await browser.get("/login")).html

    back = await _back(await _started(browser))
    if not discovery.get("authorization_response_iss_parameter_supported", True):
        back = _changed(back, iss=None)

    assert (await browser.get(back)).location == "/"


async def test_https_console_has_a_bound_cookie(idp: Idp, installation: Installation) -> None:
    """No other host can set it."""
    idp.redirect_uris = {"https://aam.example/login/callback"}
    browser = installation.browser(console_url="https://aam.example")
    started = await browser.get("/login/oidc")

    assert started.response.headers["set-cookie"].startswith("__Host-aam-sign-in=")
    assert "; Secure" in started.response.headers["set-cookie"]
    assert (await _back(started.location)).startswith("https://aam.example/login/callback?code=")


async def test_any_replica_finishes_a_sign_in(installation: Installation) -> None:
    """Also one that has never asked the issuer."""
    first, second = installation.browser(), installation.browser()
    started = await _started(first)
    second.client.cookies = first.client.cookies

    assert (await second.get(await _back(started))).location == "/"


async def test_expired_token_is_renewed_without_a_question(
    idp: Idp, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By redirects alone while the issuer still knows the person; else there is the login page."""
    browser = installation.browser()
    await _signed_in(browser)
    now = time.time()
    sessions: Sessions = browser.client._transport.app.state.sessions  # type: ignore[attr-defined]
    monkeypatch.setattr(sessions, "_clock", lambda: now + 70)  # tokens are valid for 60 s
    fragment = {"HX-Request": "true", "HX-Current-URL": f"{CONSOLE}/connections?q=a"}
    again = "/login/oidc?next=%2Fconnections%3Fq%3Da&silent=1"
    cookies = dict(browser.client.cookies)

    assert (await browser.get("/connections?q=a", headers=fragment)).response.headers[
        "hx-redirect"
    ] == again
    browser.client.cookies.update(cookies)
    ended = await browser.get("/connections?q=a")
    assert ended.location == again
    silent = await browser.get(again)
    assert _query(silent.location)["prompt"] == "none"
    async with _at_issuer(signed_in=False) as client:
        unknown = (await client.get(silent.location)).headers["location"]
    assert _query(unknown)["error"] == "login_required"
    assert (await browser.get(unknown)).location == "/login?next=%2Fconnections%3Fq%3Da"
    # Not after its session would have ended, or after signing out.
    browser.client.cookies.update(cookies)
    monkeypatch.setattr(sessions, "_clock", lambda: now + 9 * 3600)
    assert (await browser.get("/connections")).location == "/login?next=%2Fconnections"
    monkeypatch.undo()
    silent = await browser.get(again)
    assert (await browser.get(await _back(silent.location))).location == "/connections?q=a"


@pytest.mark.parametrize(
    "then", ["https://evil.example/", "//evil.example", "/\\evil.example", "/login/oidc?next=/x"]
)
async def test_it_leads_to_pages_of_the_console_alone(
    installation: Installation, then: str
) -> None:
    """An open redirect would make the console's address a lure."""
    assert (await _signed_in(installation.browser(), then)).location == "/"


async def _refused(browser: Browser, url: str, code: str, *, status: int = 403) -> None:
    """The answer is a page with this code, and no session is made."""
    page = await browser.get(url)

    assert (page.status, code in page.text) == (status, True), page.text
    assert "aam-local=1." not in page.response.headers.get("set-cookie", "")
    assert (await browser.get("/connections")).status == 303


BACK: dict[str, tuple[Callable[[str], str], str]] = {
    "another state": (lambda url: _changed(url, state="x"), "sign_in_expired"),
    "no state": (lambda url: _changed(url, state=None), "sign_in_expired"),
    "another issuer": (lambda url: _changed(url, iss="https://evil.example"), "sign_in_mismatch"),
    "no issuer, though it names itself": (lambda url: _changed(url, iss=None), "sign_in_mismatch"),
    "another code": (lambda url: _changed(url, code="x"), "sign_in_code_refused"),
    "no code": (lambda url: _changed(url, code=None), "sign_in_code_refused"),
    "refused": (lambda url: _changed(url, code=None, error="access_denied"), "sign_in_refused"),
    "an unknown error": (lambda url: _changed(url, error="<b>" * 99), "sign_in_refused"),
    "must ask": (lambda url: _changed(url, error="login_required"), "sign_in_refused"),
}


@pytest.mark.parametrize("attack", BACK)
async def test_forged_answers_are_refused(
    idp: Idp, installation: Installation, attack: str
) -> None:
    """The cookie is used up, too: the right answer comes too late."""
    change, code = BACK[attack]
    browser = installation.browser()
    right = await _back(await _started(browser))

    await _refused(browser, change(right), code)
    await _refused(browser, right, "sign_in_expired")
    assert idp.asked.count(TOKEN) == (code == "sign_in_code_refused")


async def test_used_and_foreign_answers_are_refused(idp: Idp, installation: Installation) -> None:
    """Whoever stole the address, or the cookie with it, or sends another person their own code."""
    victim, thief = installation.browser(), installation.browser()
    started = await _started(victim)
    kept = dict(victim.client.cookies)
    back = await _back(started)
    await _refused(thief, back, "sign_in_expired")  # without the cookie
    assert (await victim.get(back)).status == 303
    thief.client.cookies.update(kept)
    await _refused(thief, back, "sign_in_code_refused")  # with it, but the code was used
    # Their own code under the victim's state: it was issued for another verifier.
    forced = installation.browser()
    own = _query(await _back(await _started(thief)))["code"]
    await _refused(
        forced, _changed(await _back(await _started(forced)), code=own), "sign_in_code_refused"
    )
    assert idp.asked.count(TOKEN) == 3


def _give_cookie(browser: Browser, name: str, value: str) -> None:
    browser.client.cookies.set(name, value, domain="localhost.local")


async def test_old_or_changed_cookie_is_refused(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five minutes; and a session is no sign-in, nor a sign-in a session."""
    browser = installation.browser()
    back = await _back(await _started(browser))
    sealed = browser.client.cookies["aam-local-sign-in"]
    login = browser.client._transport.app.state.oidc_login  # type: ignore[attr-defined]
    now = time.time()
    monkeypatch.setattr(login, "_clock", lambda: now + 301)
    await _refused(browser, back, "sign_in_expired")
    monkeypatch.undo()
    for other in ("x", sealed[:-2], f"{sealed}AA"):
        _give_cookie(browser, "aam-local-sign-in", other)
        await _refused(browser, back, "sign_in_expired")
    _give_cookie(browser, "aam-local", f"1.{sealed}")
    assert (await browser.get("/connections")).status == 303
    await _signed_in(browser)
    swapped = browser.client.cookies["aam-local"].removeprefix("1.")
    stranger = installation.browser()
    _give_cookie(stranger, "aam-local-sign-in", swapped)
    await _refused(stranger, back, "sign_in_expired")


TOKENS: dict[str, tuple[str, Json, str]] = {
    "nonce of another sign-in": ("id_token_claims", {"nonce": "x"}, "sign_in_mismatch"),
    "nonce is no text": ("id_token_claims", {"nonce": ["x"]}, "sign_in_mismatch"),
    "ID token for another client": ("id_token_claims", {"aud": "another"}, "sign_in_mismatch"),
    "ID token asked for by another client": (
        "id_token_claims",
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        "sign_in_mismatch",
    ),
    "ID token of another issuer": ("id_token_claims", {"iss": "https://x"}, "sign_in_mismatch"),
    "ID token has expired": ("id_token_claims", {"exp": 1}, "sign_in_mismatch"),
    "ID token of somebody else": ("id_token_claims", {"sub": "00u2b"}, "sign_in_mismatch"),
    "token for another audience": ("access_token_claims", {"aud": "x"}, "token_not_accepted"),
    "token has expired": ("access_token_claims", {"exp": 1}, "token_not_accepted"),
    "token without scopes": ("access_token_claims", {"scope": "openid"}, "no_scopes"),
}


@pytest.mark.parametrize("case", TOKENS)
async def test_wrong_tokens_are_refused(idp: Idp, installation: Installation, case: str) -> None:
    """Each with its own code, so that whoever runs the issuer can find the setting."""
    which, claims, code = TOKENS[case]
    setattr(idp, which, claims)
    browser = installation.browser()

    await _refused(browser, await _back(await _started(browser)), code)


async def _tokens(idp: Idp, **tokens: object) -> Response:
    return JSONResponse({"token_type": "Bearer", "access_token": idp.token(), **tokens})


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"id_token": 7},
        {"id_token": "a.b.c"},
        {"id_token": "é" * 9},
        {"id_token": EC, "access_token": "a\nb"},
        {"id_token": RSA, "access_token": "a" * 20_000},
        {"id_token": RSA, "access_token": None},
    ],
)
async def test_malformed_tokens_are_refused(
    idp: Idp, installation: Installation, tokens: Json
) -> None:
    """They reach neither a header nor a page."""
    browser = installation.browser()
    started = await _started(browser)
    if tokens.get("id_token") in (RSA, EC):
        claims = idp.claims(aud=CLIENT_ID, nonce=_query(started)["nonce"])
        tokens = tokens | {"id_token": idp.token(claims=claims)}
    idp.instead[TOKEN] = lambda: _tokens(idp, **tokens)

    await _refused(browser, await _back(started), "sign_in_mismatch")


async def _unavailable() -> Response:
    return Response(status_code=503)


async def _elsewhere() -> Response:
    return Response(status_code=307, headers={"location": "/elsewhere"})


async def _huge() -> Response:
    return Response('{"id_token": "' + "a" * 300_000 + '"}')


@pytest.mark.parametrize("answer", [_unavailable, None, _elsewhere, _huge])
async def test_issuer_away_while_a_code_is_exchanged(
    idp: Idp, installation: Installation, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """503, and the code is sent once; the client's secret goes to no other address.

    Without an answer, the issuer is silent until the console has given up.
    """
    browser = installation.browser()
    back = await _back(await _started(browser))
    given_up = asyncio.Event()

    async def silent() -> Response:
        await given_up.wait()
        return Response("{}")

    idp.instead[TOKEN] = answer or silent
    if answer is None:
        monkeypatch.setattr(issuer_http, "DEADLINE_S", 1.0)

    await _refused(browser, back, "issuer_unavailable", status=503)
    given_up.set()

    assert idp.asked.count(TOKEN) == 1
    assert "/elsewhere" not in idp.asked
    idp.instead.clear()
    monkeypatch.undo()
    assert (await _signed_in(browser)).status == 303


@pytest.mark.parametrize(
    "discovery",
    [
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"issuer": "https://evil.example"},
    ],
)
async def test_issuer_that_cannot_be_used(
    idp: Idp, installation: Installation, discovery: Json
) -> None:
    """The login page still works, and people with a key can sign in."""
    idp.discovery = discovery
    browser = installation.browser()

    await _refused(browser, "/login/oidc", "issuer_unavailable", status=503)
    assert 'name="key"' in (await browser.get("/login")).html
    assert set(idp.asked) <= {DISCOVERY, "/keys"}


def _refusing(status: int, body: str = '{"error": "invalid_grant"}') -> Callable[[], Any]:
    async def answer() -> Response:
        return Response(body, status_code=status)

    return answer


@pytest.mark.parametrize(
    "answer, status",
    [
        (None, 403),
        (_refusing(401), 403),
        (_refusing(403), 403),
        (_refusing(403, "<html>"), 503),
        (_refusing(429), 503),
        (_refusing(500), 503),
        (_unavailable, 503),
        (_elsewhere, 503),
        (_huge, 503),
    ],
)
async def test_failed_exchanges_are_limited(
    idp: Idp, installation: Installation, answer: Any, status: int
) -> None:
    """By address, whatever the issuer answers, so that the console cannot be used to flood it."""
    if answer is not None:
        idp.instead[TOKEN] = answer
    browser = installation.browser(failed_keys_per_minute=2)
    statuses = []
    for _ in range(4):
        back = await _back(await _started(browser))
        statuses.append((await browser.get(_changed(back, code="x"))).status)

    assert statuses == [status, status, 429, 429]
    assert idp.asked.count(TOKEN) == 2


async def test_exchanges_at_once_are_limited(idp: Idp, installation: Installation) -> None:
    """One cookie is enough for any number of requests before the first of them has failed."""
    goes_on = asyncio.Event()

    async def slow() -> Response:
        await goes_on.wait()
        return Response('{"error": "invalid_grant"}', status_code=400)

    idp.instead[TOKEN] = slow
    browser = installation.browser(failed_keys_per_minute=2)
    back = _changed(await _back(await _started(browser)), code="x")
    asked = [asyncio.create_task(browser.client.get(back)) for _ in range(6)]
    try:
        await until(lambda: sum(task.done() for task in asked) == 4, within=4)
    finally:
        goes_on.set()

    answers = await asyncio.gather(*asked)

    assert sorted(answer.status_code for answer in answers) == [403, 403, 429, 429, 429, 429]
    assert idp.asked.count(TOKEN) == 2


async def test_sign_ins_that_succeed_are_not_counted(idp: Idp, installation: Installation) -> None:
    """Nor those that never reach the issuer's tokens."""
    browser = installation.browser(failed_keys_per_minute=2)
    for _ in range(3):
        assert (await _signed_in(browser)).status == 303
        assert (await browser.get(CALLBACK)).status == 403


async def test_previews_use_nothing_up(idp: Idp, installation: Installation) -> None:
    """HEAD neither starts a sign-in nor finishes one."""
    browser = installation.browser()
    head = await browser.client.head("/login/oidc")
    assert (head.status_code, head.headers.get("set-cookie"), idp.asked) == (200, None, [])
    back = await _back(await _started(browser))
    assert (await browser.client.head(back)).status_code == 200

    assert (await browser.get(back)).status == 303


async def test_without_an_issuer_there_is_no_such_page(installation: Installation) -> None:
    """With OIDC_ISSUER for the services alone, people sign in with keys."""
    browser = installation.browser(oidc_client_id=None, oidc_client_secret=None)

    assert "Sign in with" not in (await browser.get("/login")).text
    for path in ("/login/oidc", "/login/callback?code=x&state=x"):
        await _refused(browser, path, "oidc_login_off", status=404)
