"""The console in this process, before a double of the services on a real port."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket
from pydantic import SecretStr

from services.console import main, rendering
from services.console.api import SERVICES
from services.console.settings import ConsoleSettings
from tests import leaks
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.double import Double
from tests.given_settings import given
from tests.integration.conftest import serving


class CompiledTemplates(BytecodeCache):
    """Keeps compiled templates in memory: each test builds a console of its own."""

    def __init__(self) -> None:
        self._compiled: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Load a template that an earlier console has compiled."""
        if bucket.key in self._compiled:
            bucket.bytecode_from_string(self._compiled[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template."""
        self._compiled[bucket.key] = bucket.bytecode_to_string()


assert hasattr(rendering, "Environment")
rendering.Environment = partial(Environment, bytecode_cache=CompiledTemplates())

SESSION_KEY = secrets.token_urlsafe(32)

Console = Callable[..., FastAPI]


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """The four services, and `url_of` the double."""
    made = Double()
    async with serving(made) as url:
        made.url = url
        yield made


@pytest.fixture
def mesh(double: Double) -> Double:
    """The double with answers about one connection."""
    samples.answer(double)
    return double


def settings_for(url: str, **more: Any) -> ConsoleSettings:
    """Settings of a console before services at one address."""
    values: dict[str, Any] = {f"{name}_url": url for name in SERVICES}
    values |= {"console_session_keys": SecretStr(SESSION_KEY), "failed_keys_per_minute": 10_000}
    return given(ConsoleSettings, **(values | more))


@pytest.fixture
async def console(double: Double) -> AsyncIterator[Console]:
    """Builds consoles before the double; each is another replica."""
    async with AsyncExitStack() as running:
        built: list[FastAPI] = []

        def build(**more: Any) -> FastAPI:
            app = main.build(settings_for(double.url, **more))
            built.append(app)
            return app

        yield build
        for app in built:
            running.push_async_callback(app.state.clients.close)


@pytest.fixture
async def app(console: Console) -> FastAPI:
    """One console."""
    return console()


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[Browser]:
    """A browser that is not signed in."""
    made = Browser(app)
    yield made
    await made.client.aclose()


@pytest.fixture
async def signed_in(browser: Browser, double: Double) -> Browser:
    """A browser that is signed in."""
    page = await browser.sign_in(double.key)
    assert page.status == 303, page.text
    return browser


leaks.know("the key of sessions", SESSION_KEY)
