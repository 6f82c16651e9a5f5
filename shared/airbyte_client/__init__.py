"""Airbyte's Configuration API, as far as AAM needs it; every failure is one of `shared.errors`."""

from shared.airbyte_client._client import AirbyteClient
from shared.airbyte_client._shapes import (
    AirbyteConnection,
    ConnectionStatus,
    Definition,
    Destination,
    Discovered,
    Instance,
    Job,
    ListedConnection,
    NewConnection,
    Schedule,
    Source,
)
from shared.airbyte_client._transport import ClientCredentials, Credentials

__all__ = [
    "AirbyteClient",
    "AirbyteConnection",
    "ClientCredentials",
    "ConnectionStatus",
    "Credentials",
    "Definition",
    "Destination",
    "Discovered",
    "Instance",
    "Job",
    "ListedConnection",
    "NewConnection",
    "Schedule",
    "Source",
]
