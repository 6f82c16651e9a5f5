"""The Airbyte client: instance, credentials, destinations and definitions."""

from __future__ import annotations

import asyncio
import base64
import time
from uuid import UUID

import pytest

from shared.airbyte_client import AirbyteClient
from shared.errors import (
    UpstreamDenied,
)
from tests.fakes.airbyte_server import (
    POSTGRES,
    SALESFORCE,
    AirbyteServer,
)
from tests.integration.airbyte_client.stage import (
    WORKSPACE,
    client_of,
    create,
)

pytestmark = pytest.mark.exact


async def test_instance_and_health(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    instance = await client.instance()

    assert instance.version == airbyte.version
    assert instance.default_workspace_id == WORKSPACE
    assert await client.health()


async def test_instance_needs_no_token(newest: AirbyteServer, client: AirbyteClient) -> None:
    """A wrong client id does not hide what Airbyte answers without a login."""
    newest.client_secret = "AAMCANARY-changed"

    assert (await client.instance()).auth_mode == "simple"
    assert newest.called("applications/token") == []


async def test_token_is_renewed_before_it_expires(newest: AirbyteServer) -> None:
    newest.token_seconds = 2.0
    async with client_of(newest) as client:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            await client.list_sources(WORKSPACE)
            await asyncio.sleep(0.05)

    tokens = {
        request.headers["Authorization"]
        for request in newest.requests
        if request.path == "sources/list"
    }
    assert 3 <= len(newest.called("applications/token")) <= 8
    assert len(tokens) == len(newest.called("applications/token"))


async def test_revoked_token_is_replaced_once(newest: AirbyteServer, client: AirbyteClient) -> None:
    """Concurrent calls share a token; a 401 costs all of them one new token and one repetition."""
    await asyncio.gather(*(client.list_sources(WORKSPACE) for _ in range(20)))
    assert len(newest.called("applications/token")) == 1
    newest.revoke_tokens()

    await asyncio.gather(*(client.list_sources(WORKSPACE) for _ in range(10)))

    assert len(newest.called("applications/token")) == 2


async def test_second_401_is_a_denial(newest: AirbyteServer, client: AirbyteClient) -> None:
    """With a fresh token it is refused again: no third attempt."""
    newest.fault("sources/create", 401, times=None)

    with pytest.raises(UpstreamDenied):
        await create(client)

    assert len(newest.called("sources/create")) == 2
    assert newest.sources == {}


async def test_wrong_client_secret_is_a_denial(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers 400."""
    newest.client_secret = "AAMCANARY-changed"

    with pytest.raises(UpstreamDenied) as caught:
        await create(client)

    assert "CANARY" not in repr(caught.value)


async def test_slow_token_endpoint_is_called_again(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte gives itself one second for a token and answers 408 after it."""
    newest.fault("applications/token", 408)

    assert await client.list_sources(WORKSPACE) == []


async def test_bearer_key_takes_precedence(newest: AirbyteServer) -> None:
    """One header, and no token is requested."""
    async with client_of(newest, airbyte_api_key=newest.api_key) as client:
        await client.list_sources(WORKSPACE)

    assert newest.requests[0].headers["Authorization"] == f"Bearer {newest.api_key}"
    assert newest.called("applications/token") == []


async def test_basic_credentials_are_sent_with_every_call(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The compose release's proxy requires them, also for health."""
    await client.health()
    await client.list_sources(WORKSPACE)

    if airbyte.auth == "basic":
        encoded = base64.b64encode(f"{airbyte.username}:{airbyte.password}".encode()).decode()
        assert {request.headers["Authorization"] for request in airbyte.requests} == {
            f"Basic {encoded}"
        }
    else:
        assert "Authorization" not in airbyte.requests[0].headers


async def test_destinations_and_definitions(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    configuration = {
        "host": "localhost",
        "port": 5432,
        "username": "w",
        "password": "AAMCANARY",
        "database": "warehouse",
        "schema": "public",
    }
    created = await client.create_destination(
        WORKSPACE, configuration, name="Warehouse", destination_definition_id=UUID(POSTGRES)
    )

    assert await client.get_destination(created.destination_id) == created
    modes = await client.destination_sync_modes(created)
    assert modes == {"append", "overwrite", "append_dedup"}
    sources = await client.source_definitions(WORKSPACE)
    assert UUID(SALESFORCE) in {definition.definition_id for definition in sources}
    (postgres,) = await client.destination_definitions(WORKSPACE)
    assert (postgres.name, postgres.docker_repository) == (
        "Postgres",
        "airbyte/destination-postgres",
    )
