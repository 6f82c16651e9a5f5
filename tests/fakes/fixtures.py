"""Fixtures with scriptable Airbyte servers; `tests/conftest.py` imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.airbyte_server import AirbyteServer


@pytest.fixture
async def airbyte() -> AsyncIterator[AirbyteServer]:
    """A current Airbyte: tokens, commands, pages of 20, errors with only an id."""
    async with AirbyteServer(version="2.0.0", auth="token") as server:
        yield server


@pytest.fixture
async def airbyte_of_compose() -> AsyncIterator[AirbyteServer]:
    """The last release for docker compose: Basic auth, unpaged lists, stack traces in errors."""
    async with AirbyteServer(version="0.63.19", auth="basic") as server:
        yield server
