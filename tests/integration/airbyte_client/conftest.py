"""An Airbyte of each kind, and its client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.airbyte_client import AirbyteClient
from shared.observability import logs
from tests.fakes.airbyte_server import (
    AirbyteServer,
    Auth,
)
from tests.integration.airbyte_client.stage import (
    client_of,
)


@pytest.fixture(params=["0.63.19", "2.0.0"])
async def airbyte(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteServer]:
    """An Airbyte of each kind."""
    auth: Auth = "basic" if request.param == "0.63.19" else "token"
    async with AirbyteServer(version=request.param, auth=auth) as server:
        yield server


@pytest.fixture
async def newest() -> AsyncIterator[AirbyteServer]:
    """A present-day Airbyte alone."""
    async with AirbyteServer(version="2.0.0", auth="token") as server:
        yield server


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteClient]:
    """The client of `airbyte`, or of `newest` where a test asks for that; its logs are captured."""
    logs.set_up("test", level="DEBUG")
    name = "newest" if "newest" in request.fixturenames else "airbyte"
    async with client_of(request.getfixturevalue(name)) as client:
        yield client
