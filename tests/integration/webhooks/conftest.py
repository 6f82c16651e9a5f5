"""A receiver, a replica and the whole service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from services.drift_repair_agent import main as drift_repair_agent
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import as_service, settings_for
from tests.integration.receivers import KEY, Receiver, receiving
from tests.integration.webhooks.stage import (
    Replica,
)
from tests.pools import Sql


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """One receiver."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def replica(registry_url: str, sql: Sql) -> AsyncIterator[Replica]:
    """One replica, which delivers when the test says so."""
    async with Replica(registry_url).running() as replica:
        yield replica


@pytest.fixture
async def agent(
    airbyte: AirbyteServer, registry_url: str, redis_url: str, sql: Sql
) -> AsyncIterator[httpx.AsyncClient]:
    """The whole service, looking by itself."""
    settings = settings_for(airbyte, registry_url, redis_url, webhook_signing_key=KEY)
    app = drift_repair_agent.build(as_service(settings, "drift_repair_agent"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        yield await stack.enter_async_context(access.client(transport=transport, timeout=30))
