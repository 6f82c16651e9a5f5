"""The calls AAM makes, one method each; paths are relative to AIRBYTE_API_URL.

Shapes and behaviour were read in airbyte-platform 310e6cb6ac (2.0) and cf2a081f52 (0.63.19),
server-api/.../config.yaml and the controllers behind it. Every method raises the `Upstream` errors
of `shared.errors`; a docstring names those with a meaning of their own. Which calls are repeated,
and why, stands at `AirbyteClient`.
"""

from shared.airbyte_client._definitions import Definitions
from shared.airbyte_client._discovery import Discovery
from shared.airbyte_client._jobs import Jobs
from shared.airbyte_client._sources import Sources


class AirbyteClient(Sources, Discovery, Jobs, Definitions):
    """One Airbyte, as AAM uses it; one client per process, used by one event loop.

    A call whose answer is lost is repeated within its deadline, up to five times in all, where
    asking again does no harm:

    - every read, status and list: they change nothing;
    - deletions: what is deleted already is deleted;
    - `discover_schema`: a discovery changes nothing in Airbyte (no connection id goes along), and
      `commands/run/discover` is idempotent by the id that is made here;
    - `check_source`: it tries the configuration that Airbyte holds. Of these two an error that
      Airbyte itself has written is not asked for again where it means that the connector has run;
    - the exchange of the client id and secret for a token.

    Sent once, and settled by whoever called, who looks before sending again: `create_source`,
    `create_connection`, `create_destination` (names are not unique in Airbyte), `update_source`,
    `update_connection`, `set_status` (the last writer wins, and somebody else may have written in
    between), `trigger_sync`, `cancel_job`, and `check_source_update` (it brings secrets along, and
    a token in them that can be used once is used up by the first try).

    All timeouts are seconds, and total: from connecting to the last byte. At most `slow_calls` of
    those that Airbyte runs on one small pool of threads (check, discover, sync, create: 25 of them,
    `SCHEDULER_TASK_EXECUTOR_THREADS`) are under way at once; one that gets no turn was not sent.
    """
