"""Sessions: what opens a cookie, when it ends, and what it shows to whoever reads it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr

from services.console.cookies import PART_CHARS, Cookies, CookieTooLarge
from services.console.session import Session, Sessions
from tests.console.browser import Browser
from tests.console.conftest import SESSION_KEY, Console
from tests.console.double import Double, page

OLD, NEW = "the key of yesterday, long enough as it is", "the key of today, long enough as well"
SECRET = "aam_test_abcd1234_the-secret-part-of-it"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def sessions(keys: str = NEW, clock: Callable[[], float] | None = None) -> Sessions:
    """Sessions of one replica."""
    return Sessions(
        SecretStr(keys),
        idle=timedelta(hours=8),
        lifetime=timedelta(hours=24),
        clock=clock or Clock(),
    )


def of_ada(made: Sessions, *, expires_at: int | None = None, credential: str = SECRET) -> Session:
    """A session with a credential."""
    return made.signed_in(
        "key",
        credential,
        caller_id="key:abcd1234",
        owner="ada@example.com",
        scopes=("connections:read",),
        expires_at=expires_at,
    )


def test_another_replica_opens_it() -> None:
    """Nothing but the key is needed."""
    one, other = sessions(), sessions()
    session = of_ada(one)

    assert other.open(one.seal(session)) == session


def test_it_shows_nothing() -> None:
    """Neither the credential nor its owner is readable, and no two cookies are equal."""
    one = sessions()
    session = of_ada(one)
    sealed = one.seal(session)
    raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))

    assert one.seal(session) != sealed
    for text in (SECRET, "ada", "connections", "csrf"):
        assert text not in sealed
        assert text.encode() not in raw
    assert SECRET not in repr(session)


def test_changed_byte_is_refused() -> None:
    """Wherever it is."""
    one = sessions()
    sealed = one.seal(of_ada(one))
    raw = bytearray(base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4)))

    for at in range(len(raw)):
        raw[at] ^= 1
        assert one.open(base64.urlsafe_b64encode(bytes(raw)).decode()) is None
        raw[at] ^= 1
    for text in ("", "a", "%%%%", sealed[:-4], sealed[:20], f"{sealed}AAAA", "é"):
        assert one.open(text) is None


def test_rotation_of_keys() -> None:
    """The first key seals, every key opens, and a cookie under an older one is written again."""
    before, between, after = sessions(OLD), sessions(f"{NEW}, {OLD}"), sessions(NEW)
    session = of_ada(before)
    sealed = before.seal(session)

    assert between.open(sealed) == session
    assert after.open(sealed) is None
    assert before.renewed(session, sealed) is None
    renewed = between.renewed(session, sealed)
    assert renewed is not None
    assert after.open(between.seal(renewed)) == renewed


def test_ends() -> None:
    """After eight hours without a request, after a day, and with the credential itself."""
    clock = Clock()
    one = sessions(clock=clock)
    start = clock.now
    sealed = one.seal(of_ada(one))
    ending = one.seal(of_ada(one, expires_at=int(start) + 60))

    clock.now = start + 59
    assert one.open(ending) is not None
    clock.now = start + 60
    assert one.open(ending) is None
    clock.now = start + 8 * 3600 - 1
    session = one.open(sealed)
    assert session is not None
    for hour in range(9, 24, 4):
        renewed = one.renewed(session, sealed)
        assert renewed is not None
        session, sealed = renewed, one.seal(renewed)
        clock.now = start + hour * 3600
        assert one.open(sealed) is not None
    clock.now = start + 24 * 3600
    assert one.open(one.seal(session)) is None


def test_long_credential_is_split() -> None:
    """Over two cookies, which belong together; more is refused."""
    one, cookies = sessions(), Cookies(is_secure=True)
    long = one.seal(of_ada(one, credential="x" * 4_000))
    first, second = cookies.set_session(long)
    given = {line.split("=")[0]: line.split("=")[1].split(";")[0] for line in (first, second)}

    assert given.keys() == {"__Host-aam", "__Host-aam-2"}
    assert all(len(value) <= PART_CHARS + 2 for value in given.values())
    assert cookies.session(given) == long
    assert one.open(cookies.session({**given, "__Host-aam-2": "AAAA"}) or "") is None
    with pytest.raises(CookieTooLarge):
        cookies.set_session("x" * (2 * PART_CHARS + 1))
    short = one.seal(of_ada(one))
    assert cookies.session({"__Host-aam": f"1.{short}", "__Host-aam-2": "AAAA"}) == short


async def test_two_replicas(double: Double, console: Console) -> None:
    """A person signs in at one, and goes on at the other."""
    double.answers["GET /connections"] = page()
    one, other = Browser(console()), Browser(console())
    await one.sign_in(double.key)
    other.client.cookies = one.client.cookies

    assert (await other.get("/connections")).status == 200
    await one.client.aclose()
    await other.client.aclose()


async def test_cookie_over_https(double: Double, console: Console) -> None:
    """`__Host-`, Secure, HttpOnly and SameSite=Lax."""
    browser = Browser(console(console_url="https://aam.example"), "https://aam.example")
    page = await browser.sign_in(double.key)
    (cookie,) = [
        value
        for value in page.response.headers.get_list("set-cookie")
        if value.startswith("__Host-aam=")
    ]

    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    assert "strict-transport-security" in page.response.headers
    await browser.client.aclose()


async def test_revoked_key_ends_the_session(signed_in: Browser, double: Double) -> None:
    """At the next page, which is offered again after signing in."""
    double.is_revoked = True
    shown = await signed_in.get("/connections?q=a")

    assert shown.status == 303
    assert shown.location == "/login?next=%2Fconnections%3Fq%3Da"
    assert "aam-local=;" in shown.response.headers["set-cookie"]
    fragment = await signed_in.get(
        "/connections",
        headers={"HX-Request": "true", "HX-Current-URL": "http://localhost:8006/connections?q=b"},
    )
    assert fragment.status == 401
    assert fragment.response.headers["hx-redirect"] == "/login?next=%2Fconnections%3Fq%3Db"


async def test_signing_out(signed_in: Browser, double: Double) -> None:
    """The cookie is gone, and with it the session."""
    double.answers["GET /connections"] = page()
    await signed_in.get("/connections")
    out = await signed_in.post("/logout")

    assert (out.status, out.location) == (303, "/login")
    assert (await signed_in.get("/connections")).location == "/login?next=%2Fconnections"


async def test_session_key_must_be_long(console: Console) -> None:
    """A short one could be guessed from a cookie."""
    with pytest.raises(ValueError, match="32 characters"):
        console(console_session_keys=SecretStr(f"{SESSION_KEY},short"))
