"""Scriptable Airbyte servers as fixtures; `tests/conftest.py` imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.airbyte_server import AirbyteServer


@pytest.fixture
async def airbyte() -> AsyncIterator[AirbyteServer]:
    """A present-day Airbyte: tokens, commands, pages of 20, opaque errors."""
    async with AirbyteServer(version="2.0.0", auth="token") as server:
        yield server


@pytest.fixture
async def airbyte_of_compose() -> AsyncIterator[AirbyteServer]:
    """The last release that ran under docker compose: Basic auth, whole lists, stack traces."""
    async with AirbyteServer(version="0.63.19", auth="basic") as server:
        yield server
