"""Guessing API keys: rate limit per address, bounded logging, no timing side channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI

from services.console import main
from shared import registry
from shared.auth.api_keys import KeyRing, new_key
from shared.auth.failed_attempts import Guesses
from shared.auth.forwarded_addresses import HEADER, forwarded_address, signed
from shared.auth.scopes import KEY_SCOPES
from shared.auth.service_tokens import Verifier
from tests import access
from tests.console.browser import Browser
from tests.console.conftest import settings_for
from tests.integration.conftest import serving
from tests.pools import Sql
from tests.security.conftest import ask, bearer, build, close, insert_key


@pytest.fixture
async def app(registry_url: str, sql: Sql) -> AsyncIterator[FastAPI]:
    """A service that allows three failed authentications per minute and address."""
    app = build("rag_engine", registry_url, failed_keys_per_minute=3)
    yield app
    await close(app)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The key ids that are looked up in the registry."""
    queried: list[str] = []
    find = registry.find_key

    async def counted(session: Any, id_: str) -> Any:
        queried.append(id_)
        return await find(session, id_)

    monkeypatch.setattr(registry, "find_key", counted)
    return queried


async def test_address_with_too_many_failures_is_answered_429(
    app: FastAPI, sql: Sql, queries: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Before any lookup; recently authenticated keys still work, even from that address."""
    caplog.set_level("WARNING")
    known, other = [await insert_key(sql, *KEY_SCOPES) for _ in range(2)]
    assert (await ask(app, "GET", "/knowledge", [bearer(known.key)])).status == 200

    seen = [await ask(app, "GET", "/knowledge", [bearer(new_key("test").key)]) for _ in range(50)]

    assert [answer.status for answer in seen] == [401] * 3 + [429] * 47
    assert seen[-1].json()["code"] == "too_many_failures"
    assert 1 <= int(seen[-1].headers["retry-after"]) <= 20
    assert len(queries) == 4
    assert caplog.text.count("authentication_failed") == 3
    for key, client, status in (
        (known.key, "127.0.0.1", 200),
        (other.key, "127.0.0.1", 429),
        (other.key, "127.0.0.2", 200),
        (other.key, "127.0.0.1", 200),
    ):
        answer = await ask(app, "GET", "/knowledge", [bearer(key)], client=client)
        assert answer.status == status, (key == known.key, client)
    assert (await ask(app, "GET", "/knowledge")).status == 401
    assert (await ask(app, "GET", "/health")).status == 200


async def test_everybody_behind_the_console_has_a_limit_of_their_own(
    registry_url: str, sql: Sql
) -> None:
    """One person's bad keys stop neither others' sign-ins nor the console's other calls."""
    app = build("orchestrator", registry_url, failed_keys_per_minute=2)
    known = await insert_key(sql, *KEY_SCOPES)
    async with AsyncExitStack() as running:
        running.push_async_callback(close, app)
        # As under compose and Kubernetes: the services trust no forwarded address.
        url = await running.enter_async_context(serving(app, forwarded_allow_ips=""))
        keys = access.service_keys()["service_private_key_dir"]
        console = main.build(settings_for(url, service_private_key_dir=keys))
        running.push_async_callback(console.state.clients.close)
        attacker, api, other = (Browser(console, address=f"192.0.2.{at}") for at in range(3))
        for browser in (attacker, api, other):
            running.push_async_callback(browser.client.aclose)

        wrong = [await attacker.sign_in(new_key("test").key) for _ in range(4)]
        keyed = [
            (await api.client.get("/api/jobs", headers=dict([bearer(new_key("test").key)])))
            for _ in range(4)
        ]

        assert [page.status for page in wrong] == [422, 422, 429, 429]
        assert [answer.status_code for answer in keyed] == [401, 401, 429, 429]
        assert (await other.sign_in(known.key)).status == 303


@pytest.mark.parametrize(
    "forged",
    [
        lambda: "192.0.2.1",
        lambda: "a.b.c",
        lambda: access.signer("console").token("orchestrator", "", client="192.0.2.1"),
        lambda: access.signer("drift_repair_agent").token("rag_engine", "", client="192.0.2.1"),
        lambda: access.signer("console").token("rag_engine", ""),
    ],
    ids=["an address", "no token", "for another service", "not the console's", "names no address"],
)
async def test_forged_addresses_are_not_counted(app: FastAPI, forged: Callable[[], str]) -> None:
    """Only what the console has signed for this service."""

    async def status(client: str, *headers: str) -> int:
        given = [bearer(new_key("test").key), *((HEADER.lower(), one) for one in headers)]
        return (await ask(app, "GET", "/knowledge", given, client=client)).status

    assert [await status("192.0.2.9", forged()) for _ in range(4)] == [401, 401, 401, 429]
    assert await status("192.0.2.1") == 401
    valid = signed(access.signer("console"), "rag_engine", "192.0.2.1")
    assert await status("192.0.2.9", valid) == 401
    assert await status("192.0.2.9", valid, valid) == 429


@pytest.mark.parametrize(
    "address, counted",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%" + "x" * 100, "unknown"),
        ("a" * 9000, "unknown"),
        ("<script>", "unknown"),
    ],
)
def test_console_signs_addresses_alone(address: str, counted: str) -> None:
    """A proxy in front of the console may have forwarded anything."""
    token = signed(access.signer("console"), "rag_engine", address)
    verifier = Verifier("rag_engine", access.service_keys()["service_public_keys_dir"])

    assert forwarded_address(verifier, [(HEADER.lower().encode(), token.encode())]) == counted


async def test_wrong_secret_costs_as_much_as_an_unknown_id(
    app: FastAPI, sql: Sql, queries: list[str]
) -> None:
    """Each takes one query, even if a key with that id was just accepted."""
    key, revoked = await insert_key(sql, "admin"), await insert_key(sql, "admin", is_revoked=True)
    ring = KeyRing(app.state.db)
    assert await ring.caller(key.key) is not None
    tail = "A" if key.key[-1] != "A" else "B"
    wrong = [key.key[:-1] + tail, revoked.key[:-1] + tail, revoked.key, new_key("test").key]
    queries.clear()

    for presented in wrong * 3:
        before = len(queries)
        assert await ring.caller(presented) is None
        assert len(queries) == before + 1
    assert await ring.caller(key.key) is not None
    assert len(queries) == len(wrong) * 3


def test_ipv6_is_counted_by_network() -> None:
    """An IPv6 client has 2**64 addresses; all notations of an IPv4 address count as one."""
    now = 0.0
    guesses = Guesses(2, clock=lambda: now)
    for address in ("2001:db8::1", "2001:db8::2:1"):
        guesses.fail(address)

    with pytest.raises(Exception, match="Too many invalid credentials"):
        guesses.expect_few("2001:db8::ffff", "x")
    guesses.expect_few("2001:db8:0:1::1", "x")
    for address in ("10.0.0.7", "::ffff:10.0.0.7"):
        guesses.fail(address)
    with pytest.raises(Exception, match="Too many invalid credentials"):
        guesses.expect_few("10.0.0.7", "x")
    now = 31.0
    guesses.expect_few("10.0.0.7", "x")


def test_log_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Independent of the number of addresses."""
    caplog.set_level("WARNING")
    guesses = Guesses(1000, clock=lambda: 0.0)
    for number in range(500):
        guesses.fail(f"10.0.{number // 250}.{number % 250}")

    assert caplog.text.count("authentication_failed") == 30
