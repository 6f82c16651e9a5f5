"""A sample org on free ports, and its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from local.sample_org.server import Running, running
from tests.integration.local.org_client import FORM, client_of, settings


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One server on free ports."""
    async with running(settings(tmp_path_factory.mktemp("sample-org"))) as started:
        yield started


@pytest.fixture
def org(server: Running) -> Running:
    """An org as it was born."""
    server.live.reset()
    return server


@pytest.fixture
async def plain(org: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without an access token."""
    async with client_of(org) as client:
        yield client


@pytest.fixture
async def api(plain: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client that has logged in."""
    token = (await plain.post("/services/oauth2/token", data=FORM)).json()["access_token"]
    plain.headers["Authorization"] = f"Bearer {token}"
    return plain
