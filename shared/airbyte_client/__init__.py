"""Client for the parts of Airbyte's Configuration API that AAM uses; raises `shared.errors`."""

from shared.airbyte_client._client import AirbyteClient
from shared.airbyte_client._credentials import ClientCredentials, Credentials
from shared.airbyte_client._response_origin import UNSUPPORTED
from shared.airbyte_client._schemas import (
    MASK,
    AirbyteConnection,
    ConfiguredSource,
    ConnectionState,
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
