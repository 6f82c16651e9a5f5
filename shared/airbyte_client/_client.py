"""The client for Airbyte, with one method per endpoint; paths are relative to AIRBYTE_API_URL.

Shapes and behaviour were read in airbyte-platform 310e6cb6ac (2.0) and cf2a081f52 (0.63.19),
server-api/.../config.yaml and the controllers behind it. Every method raises the `Upstream` errors
of `shared.errors`; a docstring lists only those with a specific meaning. `AirbyteClient` says which
calls are retried, and why.
"""

from shared.airbyte_client._connectors import Connectors
from shared.airbyte_client._definitions import Definitions
from shared.airbyte_client._discovery import Discovery
from shared.airbyte_client._jobs import Jobs
from shared.airbyte_client._sources import Sources
from shared.airbyte_client._workspaces import Workspaces


class AirbyteClient(Sources, Discovery, Jobs, Definitions, Connectors, Workspaces):
    """A client for one Airbyte; one per process, used by a single event loop.

    A call whose response is lost is retried within its deadline, up to five attempts in all, where
    that is safe:

    - every read, status and list, which change nothing;
    - deletions, which are idempotent;
    - `discover_schema`: a discovery changes nothing in Airbyte (no connection id is sent), and
      `commands/run/discover` is idempotent by the id that the client generates. It is not retried
      after an error written by Airbyte itself which means that the connector has run;
    - the exchange of the client id and secret for a token.

    The following are sent once; the caller checks what happened before sending again:
    `create_source`, `create_connection`, `create_destination` (names are not unique in Airbyte),
    `update_source`, `update_connection`, `update_settings`, `set_status`, `put_stream_states` (the
    last writer wins, and another client may have written in between), `trigger_sync`,
    `refresh_streams`, `cancel_job`, `upgrade_source_version` (it cannot be reversed), and the two
    checks `check_source_update` and `check_configuration` (they send secrets, and the first attempt
    uses up a single-use token among them).

    All timeouts are in seconds and total: from connecting to the last byte. At most `slow_calls`
    run at once of those that Airbyte runs on one small thread pool (check, discover, sync, create:
    25 threads, `SCHEDULER_TASK_EXECUTOR_THREADS`); a call that gets no slot was not sent.
    """
