"""The client as a service makes it, and what is in Airbyte already."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from shared.airbyte_client import AirbyteClient, NewConnection, Source
from shared.config import Settings
from tests.fakes.airbyte_server import (
    SALESFORCE,
    WORKSPACE_ID,
    AirbyteServer,
    catalog,
    stream,
)

WORKSPACE = UUID(WORKSPACE_ID)
CONFIGURATION = {
    "client_id": "consumer-key",
    "client_secret": "AAMCANARY-client-secret",
    "refresh_token": "AAMCANARY-refresh-token",
}


def client_of(airbyte: AirbyteServer, **settings: Any) -> AirbyteClient:
    """The client as a service makes it from its environment."""
    environment = {name.lower(): value for name, value in airbyte.environment.items()}
    return AirbyteClient.from_settings(
        Settings(
            _env_file=None,
            supabase_db_url="postgresql://u:p@localhost/aam",
            **{"airbyte_timeout": "5", **environment, **settings},
        )
    )


def source_of(airbyte: AirbyteServer, name: str = "Salesforce") -> UUID:
    """A source that is there already."""
    return UUID(airbyte.add_source(name, **CONFIGURATION)["sourceId"])


async def connection_of(airbyte: AirbyteServer, client: AirbyteClient) -> UUID:
    """A connection of two streams that is there already."""
    connection = await client.create_connection(
        NewConnection(
            name="prod",
            source_id=source_of(airbyte),
            destination_id=UUID(airbyte.add_destination()["destinationId"]),
            sync_catalog=selected("Account", "Contact"),
        )
    )
    return connection.connection_id


def selected(*names: str) -> bytes:
    """A catalog of selected streams, as JSON."""
    pairs = catalog(*(stream(name) for name in names))
    for pair in pairs["streams"]:
        pair["config"]["selected"] = True
    return json.dumps(pairs).encode()


async def create(client: AirbyteClient) -> Source:
    """A source with secrets in its configuration."""
    return await client.create_source(
        WORKSPACE, CONFIGURATION, name="Salesforce", source_definition_id=UUID(SALESFORCE)
    )
