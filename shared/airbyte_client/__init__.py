"""Client for the parts of Airbyte's Configuration API that AAM uses; raises `shared.errors`."""

from shared.airbyte_client._access_tokens import ClientCredentials, Credentials
from shared.airbyte_client._client import AirbyteClient
from shared.airbyte_client._connections import schedule_members
from shared.airbyte_client._definition_schemas import Definition, SourceSpecification
from shared.airbyte_client._job_logs import ConnectorError, LoggedAttempt, LoggedJob
from shared.airbyte_client._job_schemas import Job, StreamCount, StreamCounts
from shared.airbyte_client._response_origin import UNSUPPORTED
from shared.airbyte_client._schemas import (
    MASK,
    AirbyteConnection,
    ConfiguredSource,
    ConnectionSettings,
    ConnectionStatus,
    Destination,
    Discovered,
    Instance,
    ListedConnection,
    NewConnection,
    Schedule,
    Source,
    Workspace,
)
from shared.airbyte_client._state import ConnectionState, read_state
