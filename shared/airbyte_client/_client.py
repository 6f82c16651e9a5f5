"""The calls AAM makes, one method each; paths are relative to AIRBYTE_API_URL.

Shapes and behaviour were read in airbyte-platform 310e6cb6ac (2.0) and cf2a081f52 (0.63.19),
server-api/.../config.yaml and the controllers behind it. Every method raises the `Upstream` errors
of `shared.errors`; a docstring names those with a meaning of their own. Which calls are repeated,
and why, stands at `AirbyteClient`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import msgspec

from shared.airbyte_client import _shapes as shapes
from shared.airbyte_client._shapes import (
    AirbyteConnection,
    ConfiguredSource,
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
from shared.airbyte_client._transport import (
    UNSUPPORTED,
    ClientCredentials,
    Credentials,
    Transport,
)
from shared.causes import Reason
from shared.config import Settings
from shared.errors import (
    CheckFailed,
    ConnectorFailed,
    DiscoverFailed,
    Invalid,
    NotActive,
    SyncRunning,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.observability import logs

T = TypeVar("T")

log = logs.get(__name__)

BODY_LIMIT_BYTES = 10 * 1024 * 1024
"""Airbyte's `max-request-size`; abctl's nginx has the same."""

_COMMANDS_SINCE = (1, 7)
_HEALTH_TIMEOUT_S = 5.0
_PAGE = 100
_SMALLEST_PAGE = 20
_MOST_PAGES = 1000
_LONGEST_LISTING = 10
"""How long all pages of one list may take together, in the time of an ordinary call."""
_FIRST_POLL_S = 0.1
_SLOWEST_POLL_S = 2.0
_COMMAND_APPEARS_WITHIN_S = 30.0
RUNNING = ["pending", "running", "incomplete"]
"""The states of a job that has not ended which every release since 0.63 knows."""
_JOB_KINDS = ["sync", "reset_connection", "refresh", "clear"]

_NOTHING = msgspec.json.Decoder(None)
_SOURCE = msgspec.json.Decoder(Source)
_CONFIGURED_SOURCE = msgspec.json.Decoder(ConfiguredSource)
_SOURCES = msgspec.json.Decoder(shapes.SourcePage)
_DESTINATION = msgspec.json.Decoder(Destination)
_DESTINATIONS = msgspec.json.Decoder(shapes.DestinationPage)
_SOURCE_DEFINITIONS = msgspec.json.Decoder(shapes.SourceDefinitions)
_DESTINATION_DEFINITIONS = msgspec.json.Decoder(shapes.DestinationDefinitions)
_SOURCE_SPECIFICATION = msgspec.json.Decoder(shapes.SourceSpecification)
_DESTINATION_SPECIFICATION = msgspec.json.Decoder(shapes.DestinationSpecification)
_CHECK = msgspec.json.Decoder(shapes.CheckRead)
_DISCOVER = msgspec.json.Decoder(shapes.DiscoverRead)
_DISCOVER_OUTPUT = msgspec.json.Decoder(shapes.DiscoverOutput)
_COMMAND = msgspec.json.Decoder(shapes.Command)
_COMMAND_STATUS = msgspec.json.Decoder(shapes.CommandStatus)
_CONNECTION = msgspec.json.Decoder(shapes.ConnectionRead)
_CONNECTIONS = msgspec.json.Decoder(shapes.Connections)
_CONNECTION_PAGE = msgspec.json.Decoder(shapes.ConnectionPage)
_STATUSES = msgspec.json.Decoder(list[shapes.ConnectionStatusRead])
_JOB = msgspec.json.Decoder(shapes.JobInfo)
_JOBS = msgspec.json.Decoder(shapes.Jobs)
_INSTANCE = msgspec.json.Decoder(shapes.InstanceRead)
_HEALTH = msgspec.json.Decoder(shapes.Health)


class AirbyteClient:
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

    def __init__(
        self,
        base_url: str,
        credentials: Credentials | None = None,
        *,
        workspace_id: UUID | None = None,
        timeout: float = 60.0,
        check_timeout: float = 300.0,
        discover_timeout: float = 600.0,
        slow_calls: int = 10,
    ) -> None:
        self._transport = Transport(base_url, credentials or Credentials())
        self._slow_calls = slow_calls
        self._slots = asyncio.Semaphore(slow_calls)
        self._workspace_id = workspace_id
        self._timeout = timeout
        self._check_timeout = check_timeout
        self._discover_timeout = discover_timeout
        self._has_commands: bool | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The client that the environment describes; a bearer key goes before the other two."""
        return cls(
            str(settings.airbyte_api_url),
            _credentials(settings),
            workspace_id=settings.airbyte_workspace_id,
            timeout=settings.airbyte_timeout.total_seconds(),
            check_timeout=settings.check_timeout.total_seconds(),
            discover_timeout=settings.discover_timeout.total_seconds(),
            slow_calls=settings.airbyte_slow_calls,
        )

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    # The instance

    async def instance(self) -> Instance:
        """Which Airbyte this is, and its default workspace; needs no token.

        Endpoint: GET instance_configuration
        Receives: {"version": str, "auth": {"mode": str}, "defaultWorkspaceId": uuid, ...}
        """
        read = await self._get("instance_configuration", _INSTANCE, repeat=True)
        return Instance(read.version, read.auth.mode, read.default_workspace_id)

    async def health(self) -> bool:
        """Whether Airbyte says that it is available, and takes AAM's login.

        Endpoint: GET health
        Receives: {"available": bool}

        Raises:
            Upstream: it cannot be asked, something else answers in its place, or it gives AAM no
                token; the detail says which.
        """
        read = await self._get("health", _HEALTH, timeout=_HEALTH_TIMEOUT_S)
        await self._transport.log_in()
        return read.available

    # Sources

    async def create_source(
        self,
        workspace_id: UUID,
        connection_configuration: Mapping[str, Any],
        *,
        name: str,
        source_definition_id: UUID,
    ) -> Source:
        """Configure a source; Airbyte validates the shape but connects to nothing.

        Endpoint: POST sources/create
        Sends:    {"workspaceId", "sourceDefinitionId", "name", "connectionConfiguration": {...}}
        Receives: {"sourceId": uuid, ...}, secrets masked

        Raises:
            UpstreamRefused: the configuration does not fit the connector's specification.
            UpstreamUnknown: it may exist, and names are not unique: look before trying again.
        """
        async with self._turn("sources/create"):
            return await self._post(
                "sources/create",
                {
                    "workspaceId": workspace_id,
                    "sourceDefinitionId": source_definition_id,
                    "name": name,
                    "connectionConfiguration": connection_configuration,
                },
                _SOURCE,
            )

    async def check_source(self, source_id: UUID) -> None:
        """Let the connector try to reach its source.

        Endpoint: POST sources/check_connection
        Sends:    {"sourceId": uuid}
        Receives: {"status"?: "succeeded" | "failed", "jobInfo": {"succeeded", "failureReason"?}}
        Time:     seconds to minutes, since a connector starts; `check_timeout` at most.

        Raises:
            CheckFailed: with status 200, but the connector, or its job, failed.
        """
        await self._check(
            "sources/check_connection", source_id, {"sourceId": source_id}, repeat=True
        )

    async def check_source_update(
        self, source_id: UUID, connection_configuration: Mapping[str, Any], *, name: str
    ) -> bool:
        """Let the connector try to reach its source with another configuration, before it is one.

        Endpoint: POST sources/check_connection_for_update
        Sends:    {"sourceId", "name", "connectionConfiguration": {...}}, a mask for what stays
        Receives: as `check_source`
        Time:     as `check_source`

        Whether the connector changed the configuration while it checked (a rotated token): then
        Airbyte has kept the whole of it for the source already.

        Raises:
            CheckFailed: with status 200, but the connector, or its job, failed.
            UpstreamRefused: the configuration does not fit the connector's specification.
        """
        check = await self._check(
            "sources/check_connection_for_update",
            source_id,
            _source_update(source_id, connection_configuration, name),
            repeat=False,
        )
        return bool(check.job_info.connector_configuration_updated)

    async def _check(
        self, path: str, source_id: UUID, order: Mapping[str, Any], *, repeat: bool
    ) -> shapes.CheckRead:
        async with self._turn(path):
            check = await self._post(
                path,
                order,
                _CHECK,
                timeout=self._check_timeout,
                repeat=repeat,
                runs_connector=True,
            )
        if check.status == "succeeded":
            return check
        reason = check.job_info.failure_reason or shapes.FailureReason()
        failed = CheckFailed(
            f"Source {source_id} cannot be reached with its configuration.",
            failure_type=reason.type,
            retryable=reason.passing,
        )
        failed.retryable = reason.passing
        _explain(failed, reason.reason(check.message, run=_run_id(check.job_info.id)))
        raise failed

    async def update_source(
        self, source_id: UUID, connection_configuration: Mapping[str, Any], *, name: str
    ) -> None:
        """Change a source's configuration and its name, both or neither; its id stays.

        Endpoint: POST sources/update
        Sends:    {"sourceId", "name", "connectionConfiguration": {...}}, a mask for what stays
        Receives: as `get_source`

        Raises:
            UpstreamRefused: the configuration does not fit the connector's specification.
            UpstreamUnknown: it may be changed; the name tells.
        """
        await self._post(
            "sources/update",
            _source_update(source_id, connection_configuration, name),
            _SOURCE,
        )

    async def get_source(self, source_id: UUID) -> Source:
        """One source.

        Endpoint: POST sources/get
        Sends:    {"sourceId": uuid}

        Raises:
            UpstreamMissing: there is none; some versions answer 403 (UpstreamForbidden) or 500.
        """
        read = await self._post("sources/get", {"sourceId": source_id}, _SOURCE, repeat=True)
        _expect_asked("sources/get", read.source_id, source_id)
        return read

    async def get_configured_source(self, source_id: UUID) -> ConfiguredSource:
        """One source with its configuration, secrets masked.

        Endpoint: POST sources/get
        Sends:    {"sourceId": uuid}

        Raises:
            UpstreamMissing: as `get_source`.
        """
        read = await self._post(
            "sources/get", {"sourceId": source_id}, _CONFIGURED_SOURCE, repeat=True
        )
        _expect_asked("sources/get", read.source_id, source_id)
        return read

    async def list_sources(self, workspace_id: UUID) -> list[Source]:
        """All sources of a workspace.

        Endpoint: POST sources/list
        Sends:    {"workspaceId": uuid, "pageSize": int, "cursor"?: id of the last one seen}
        Receives: {"sources": [...]}, a page since 1.8, everything before
        """
        found = await self._all_pages(
            "sources/list", workspace_id, _SOURCES, lambda page: page.sources, _source_id
        )
        return [one for one in found if one.workspace_id == workspace_id]

    async def delete_source(self, source_id: UUID, *, workspace_id: UUID | None = None) -> None:
        """Delete a source and, with it, every connection of it; done already is done.

        Endpoint: POST sources/delete
        Sends:    {"sourceId": uuid}
        Receives: 204, empty

        `workspace_id` is its workspace, where the caller knows it: see `_delete`.
        """

        async def listed(workspace_id: UUID) -> bool:
            return any(
                found.source_id == source_id for found in await self.list_sources(workspace_id)
            )

        await self._delete("sources/delete", {"sourceId": source_id}, listed, workspace_id)

    async def discover_schema(self, source_id: UUID) -> Discovered:
        """Ask the source itself for its schema, past Airbyte's cache.

        No connection id goes along: with one, Airbyte would disable the connection on what it
        finds. Which of the two ways exists is what the server's version says.

        Endpoint: POST commands/run/discover, commands/status, commands/output/discover (since 1.7)
        Sends:    {"id": made here, "actor_id": uuid}, then {"id"}, then {"id", "with_logs": false}
        Receives: {"status": "succeeded" | "failed", "catalog"?, "catalogId"?, "failureReason"?}
        Endpoint: POST sources/discover_schema (before)
        Sends:    {"sourceId": uuid, "disable_cache": true}
        Receives: {"catalog"?: {"streams": [...]}, "catalogId"?, "jobInfo"?: {"succeeded", ...}}
        Time:     seconds to minutes, since a connector starts; `discover_timeout` at most.

        Raises:
            DiscoverFailed: with status 200, but the connector failed or there is no catalog.
            UpstreamMissing: Airbyte has no such source.
            UpstreamTimeout: no answer within `discover_timeout`; the connector may still run.
        """
        has_commands = self._has_commands
        if has_commands is None:
            has_commands = self._has_commands = await self._look_for_commands()
        async with self._turn("sources/discover_schema"):
            return await self._discover_as_it_can(source_id, has_commands=has_commands)

    async def _discover_as_it_can(self, source_id: UUID, *, has_commands: bool) -> Discovered:
        try:
            return await self._discover(source_id, by_command=has_commands)
        except UpstreamUnknown:
            self._has_commands = None
            raise
        except UpstreamRefused as refused:
            if not _is_no_such_endpoint(refused):
                raise
            self._has_commands = await self._look_for_commands()
            if self._has_commands is has_commands:
                raise
        return await self._discover(source_id, by_command=not has_commands)

    async def _look_for_commands(self) -> bool:
        """Whether this Airbyte has `commands/*`, by its version or else by asking for one."""
        try:
            version = re.match(r"v?(\d+)\.(\d+)\.", (await self.instance()).version)
        except (UpstreamRefused, UpstreamDenied):
            version = None
        if version is not None:
            return (int(version[1]), int(version[2])) >= _COMMANDS_SINCE
        try:
            await self._post("commands/status", {"id": str(uuid4())}, _COMMAND_STATUS, repeat=True)
        except UpstreamRefused as refused:
            return not _is_no_such_endpoint(refused)
        except UpstreamDenied:
            return True
        return True

    async def _discover(self, source_id: UUID, *, by_command: bool) -> Discovered:
        if not by_command:
            return await self._discover_at_once(source_id)
        try:
            async with asyncio.timeout(self._discover_timeout):
                return await self._discover_by_command(source_id)
        except TimeoutError:
            pass
        raise UpstreamTimeout(
            f"The discovery of source {source_id} took more than {self._discover_timeout:g} s."
        )

    async def _discover_at_once(self, source_id: UUID) -> Discovered:
        try:
            read = await self._post(
                "sources/discover_schema",
                {"sourceId": source_id, "disable_cache": True},
                _DISCOVER,
                timeout=self._discover_timeout,
                repeat=True,
                runs_connector=True,
            )
        except UpstreamUnknown as error:
            error.has_run = error.is_over
            raise
        job = read.job_info or shapes.SynchronousJob()
        if bytes(read.catalog) == b"null" or not job.succeeded:
            raise _discover_failed(source_id, job.failure_reason, _run_id(job.id))
        return Discovered(
            bytes(read.catalog), read.catalog_id, bool(job.connector_configuration_updated)
        )

    async def _discover_by_command(self, source_id: UUID) -> Discovered:
        # Its id makes the command idempotent, so a lost answer may be asked for again.
        command = {"id": str(uuid4())}
        await self._post(
            "commands/run/discover", {**command, "actor_id": source_id}, _COMMAND, repeat=True
        )
        if not await self._completed(command):
            cancelled = shapes.FailureReason("manual_cancellation")
            raise _discover_failed(source_id, cancelled, command["id"])
        output = await self._post(
            "commands/output/discover",
            {**command, "with_logs": False},
            _DISCOVER_OUTPUT,
            repeat=True,
        )
        if bytes(output.catalog) == b"null" or output.status != "succeeded":
            raise _discover_failed(source_id, output.failure_reason, command["id"])
        return Discovered(
            bytes(output.catalog), output.catalog_id, bool(output.connector_configuration_updated)
        )

    async def _completed(self, command: Mapping[str, str]) -> bool:
        """Wait until a command is over; False when it was cancelled.

        A failed one is `completed`, too, and one that Airbyte does not know yet has no status.
        """
        clock = asyncio.get_running_loop().time
        appears_by = clock() + _COMMAND_APPEARS_WITHIN_S
        wait_s = _FIRST_POLL_S
        while True:
            answer = await self._post("commands/status", command, _COMMAND_STATUS, repeat=True)
            if answer.status in {"completed", "cancelled"}:
                return answer.status == "completed"
            if answer.status is None and clock() > appears_by:
                raise UpstreamUnknown(
                    f"Airbyte took a discovery and after {_COMMAND_APPEARS_WITHIN_S:g} s knows "
                    "nothing of it."
                )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.25, _SLOWEST_POLL_S)

    # Connections

    async def create_connection(self, config: NewConnection) -> AirbyteConnection:
        """Wire a source to a destination, active, with Airbyte's own schema changes left to AAM.

        Endpoint: POST connections/create
        Sends:    {"name", "sourceId", "destinationId", "status": "active", "scheduleType",
                   "nonBreakingChangesPreference": "ignore", "syncCatalog", "sourceCatalogId"?, ...}
        Receives: ConnectionRead

        Raises:
            Invalid: no stream is selected, or the body is over Airbyte's limit; nothing was sent.
            UpstreamUnknown: it may exist; a source's connection is found by `list_connections`.
        """
        order: dict[str, Any] = {
            "name": config.name,
            "sourceId": config.source_id,
            "destinationId": config.destination_id,
            "status": "active",
            "nonBreakingChangesPreference": "ignore",
            "notifySchemaChanges": False,
            **_schedule(config.schedule),
            **_given(
                sourceCatalogId=config.source_catalog_id,
                namespaceDefinition=config.namespace_definition,
                namespaceFormat=config.namespace_format,
                prefix=config.prefix,
            ),
        }
        async with self._turn("connections/create"):
            return await self._send_catalog("connections/create", order, config.sync_catalog)

    async def update_connection(
        self,
        connection_id: UUID,
        sync_catalog: bytes,
        *,
        source_catalog_id: UUID | None = None,
        status: str | None = None,
        breaking_change: bool | None = None,
    ) -> AirbyteConnection:
        """Replace a connection's catalog by the selected streams of this one; no stream is reset.

        The last writer wins, so compare what is there before and after. Streams that leave, or
        change their sync mode, lose their state. What is None stays as it is.

        Endpoint: POST connections/update
        Sends:    {"connectionId", "syncCatalog", "sourceCatalogId"?, "status"?, "breakingChange"?}
        Receives: ConnectionRead

        Raises:
            Invalid: no stream is selected, or the body is over Airbyte's limit; nothing was sent.
            UpstreamUnknown: the catalog may have been replaced: read it back.
        """
        order = {
            "connectionId": connection_id,
            **_given(
                sourceCatalogId=source_catalog_id, status=status, breakingChange=breaking_change
            ),
        }
        return await self._send_catalog("connections/update", order, sync_catalog)

    async def set_status(self, connection_id: UUID, status: str) -> None:
        """Pause (`inactive`) or resume (`active`) a connection; all else stays as it is.

        Endpoint: POST connections/update
        Sends:    {"connectionId", "status"}
        Receives: ConnectionRead

        Raises:
            UpstreamUnknown: it may have been set: read it back.
        """
        await self._post(
            "connections/update", {"connectionId": connection_id, "status": status}, _CONNECTION
        )

    async def get_connection(self, connection_id: UUID) -> AirbyteConnection:
        """One connection; its catalog holds the selected streams and selected fields only.

        Endpoint: POST connections/get
        Sends:    {"connectionId": uuid}
        Receives: ConnectionRead; status `deprecated` once it was deleted

        Raises:
            UpstreamMissing: there is none; some versions answer 403 (UpstreamForbidden) or 500.
        """
        read = await self._post(
            "connections/get", {"connectionId": connection_id}, _CONNECTION, repeat=True
        )
        _expect_asked("connections/get", read.connection_id, connection_id)
        return read.told()

    async def list_connections(self, workspace_id: UUID) -> list[ListedConnection]:
        """All connections of a workspace, without their catalogs.

        Endpoint: POST web_backend/connections/list
        Sends:    {"workspaceId": uuid, "pageSize": int, "cursor"?: id of the last one seen}
        Receives: {"connections": [{"connectionId", "name", "status", "source": {"sourceId"},
                  "destination": {"destinationId"}}], "num_connections"?}: a page since 1.8,
                  everything before; some kilobytes each, since no catalog comes along
        """
        return await self._list_connections({"workspaceId": workspace_id})

    async def connections_of_source(
        self, source_id: UUID, workspace_id: UUID
    ) -> list[ListedConnection]:
        """The connections of one source, without their catalogs.

        Endpoint: as `list_connections`, with "sourceId": [uuid]
        """
        found = await self._list_connections({"workspaceId": workspace_id, "sourceId": [source_id]})
        return [one for one in found if one.source_id == source_id]

    async def _list_connections(self, order: dict[str, Any]) -> list[ListedConnection]:
        path = "web_backend/connections/list"
        async with self._listing(path):
            return await self._list_connection_pages(path, order)

    async def _list_connection_pages(
        self, path: str, order: dict[str, Any]
    ) -> list[ListedConnection]:
        found: dict[UUID, ListedConnection] = {}
        counted: int | None = None
        cursor: dict[str, UUID] = {}
        try:
            for _ in range(_MOST_PAGES):
                body = {**order, "pageSize": _PAGE, **cursor}
                page = await self._post(path, body, _CONNECTION_PAGE, repeat=True)
                before, counted = len(found), page.num_connections
                found.update((one.connection_id, one.told()) for one in page.connections)
                if len(page.connections) < _SMALLEST_PAGE or len(found) == before:
                    break
                cursor = {"cursor": page.connections[-1].connection_id}
            else:
                raise UpstreamUnknown(f"Airbyte's {path} does not end after {_MOST_PAGES} pages.")
        except UpstreamRefused as refused:
            # A cursor that was deleted meanwhile is missing, too.
            is_cursor = isinstance(refused, UpstreamMissing) and bool(cursor)
            if not (is_cursor or _is_no_such_endpoint(refused)):
                raise
            return await self._list_whole_connections(order["workspaceId"])
        if counted is not None and len(found) < counted:
            # Deletions are decided by this list, so none may be lost between two pages.
            return await self._list_whole_connections(order["workspaceId"])
        return list(found.values())

    async def _list_whole_connections(self, workspace_id: UUID) -> list[ListedConnection]:
        """All connections of a workspace in one answer, whose catalogs are skipped.

        Endpoint: POST connections/list
        Sends:    {"workspaceId": uuid}
        Receives: {"connections": [ConnectionRead]}
        """
        read = await self._post(
            "connections/list", {"workspaceId": workspace_id}, _CONNECTIONS, repeat=True
        )
        return [one for one in read.connections if one.workspace_id in (None, workspace_id)]

    async def connection_statuses(self, ids: Sequence[UUID]) -> list[ConnectionStatus]:
        """How connections are doing, without their catalogs.

        Endpoint: POST connections/status
        Sends:    {"connectionIds": [uuid]}
        Receives: one for each id of {"connectionId", "connectionSyncStatus" (before 1.0:
                  "isRunning"), "activeJob"?}

        Raises:
            UpstreamUnknown: also where one is left out: that does not say that no sync of it runs.
        """
        read = await self._post(
            "connections/status", {"connectionIds": list(ids)}, _STATUSES, repeat=True
        )
        if not {status.connection_id for status in read} >= set(ids):
            raise UpstreamUnknown("Airbyte's connections/status left out what was asked for.")
        return [status.told() for status in read]

    async def delete_connection(
        self, connection_id: UUID, *, workspace_id: UUID | None = None
    ) -> None:
        """Delete a connection; done already is done.

        Endpoint: POST connections/delete
        Sends:    {"connectionId": uuid}
        Receives: 204, empty

        `workspace_id` is its workspace, where the caller knows it: see `_delete`.
        """

        async def listed(workspace_id: UUID) -> bool:
            return any(
                found.connection_id == connection_id
                for found in await self.list_connections(workspace_id)
            )

        await self._delete(
            "connections/delete", {"connectionId": connection_id}, listed, workspace_id
        )

    # Jobs

    async def trigger_sync(self, connection_id: UUID) -> Job:
        """Start a sync; Airbyte answers once it runs.

        Endpoint: POST connections/sync
        Sends:    {"connectionId": uuid}
        Receives: {"job": {"id": int, "status", ...}, "attempts": [...]}

        Raises:
            SyncRunning: a job of the connection runs already: `airbyte_job_id` names it.
            NotActive: the connection is not active in Airbyte, which answers 500 for that.
            UpstreamConflict: Airbyte's 409, and no job runs: its database, or its workflow.
            UpstreamUnknown: a job may have started: look with `list_jobs`.
        """
        try:
            async with self._turn("connections/sync"):
                read = await self._post("connections/sync", {"connectionId": connection_id}, _JOB)
            return read.told()
        except UpstreamConflict:
            running = [
                job for job in await self.list_jobs(connection_id, limit=10) if not job.ended
            ]
            if not running:
                raise
        except UpstreamTimeout:
            raise
        except UpstreamUnknown:
            status = await self._status(connection_id)
            if status in (None, "active"):
                raise
            raise NotActive(f"Connection {connection_id} is {status} in Airbyte.") from None
        raise SyncRunning(
            f"Job {running[0].id} of connection {connection_id} runs already.",
            airbyte_job_id=running[0].id,
        )

    async def _status(self, connection_id: UUID) -> str | None:
        """The connection's status; None where it cannot be asked."""
        try:
            return (await self.get_connection(connection_id)).status
        except Upstream:
            return None

    async def get_job(self, job_id: int) -> Job:
        """One job with its attempts, without the logs.

        Endpoint: POST jobs/get_without_logs, or jobs/get where that is all there is
        Sends:    {"id": int}
        Receives: {"job": {...}, "attempts": [{"attempt": {...}}]}

        Raises:
            UpstreamUnknown: also for an unknown id, which Airbyte answers with 500.
        """
        try:
            read = await self._post("jobs/get_without_logs", {"id": job_id}, _JOB, repeat=True)
        except UpstreamRefused as refused:
            if not _is_no_such_endpoint(refused):
                raise
            read = await self._post("jobs/get", {"id": job_id}, _JOB, repeat=True)
        _expect_asked("jobs/get", read.job.id, job_id)
        return read.told()

    async def list_jobs(self, connection_id: UUID, *, limit: int) -> list[Job]:
        """The newest jobs of a connection, newest first.

        Endpoint: POST jobs/list
        Sends:    {"configTypes": [...], "configId": str, "pagination": {...}, "orderBy...": ...}
        Receives: {"jobs": [{"job": {...}, "attempts": [{...}]}], "totalJobCount": int}
        """
        jobs, _ = await self._jobs(
            0, size=limit, order="DESC", filters={"configId": str(connection_id)}
        )
        return jobs

    async def newest_job(self) -> Job | None:
        """The newest job of any connection of the instance; None where there is none.

        Endpoint: POST jobs/list, without a configId
        Sends:    {"configTypes": [...], "pagination": {"pageSize": 1, ...}, "orderBy...": ...}
        Receives: as `list_jobs`
        """
        jobs, _ = await self._jobs(0, size=1, order="DESC", filters={})
        return next(iter(jobs), None)

    async def recent_jobs(self, created_since: datetime) -> list[Job]:
        """The jobs of every connection of the instance that were created since then, oldest first.

        Endpoint: POST jobs/list, without a configId: one call, however many connections there are
        Sends:    {"configTypes": [...], "createdAtStart": date-time, "pagination": {...}, ...}
        Receives: as `list_jobs`
        """
        found = await self._all_jobs(
            {"createdAtStart": created_since.isoformat(timespec="seconds")}
        )
        return [job for job in found if job.created_at >= created_since]

    async def running_jobs(self) -> list[Job]:
        """The jobs of every connection of the instance that have not ended, oldest first.

        One in a state that is newer than `RUNNING` may be missing: `get_job` knows it.

        Endpoint: POST jobs/list, without a configId
        Sends:    {"configTypes": [...], "statuses": [...], "pagination": {...}, ...}
        Receives: as `list_jobs`
        """
        return await self._all_jobs({"statuses": RUNNING})

    async def _all_jobs(self, filters: Mapping[str, Any]) -> list[Job]:
        found: dict[int, Job] = {}
        async with self._listing("jobs/list"):
            for page in range(_MOST_PAGES):
                jobs, listed = await self._jobs(page, size=_PAGE, order="ASC", filters=filters)
                before = len(found)
                found |= {job.id: job for job in jobs}
                # One that ignores the offset gives the same page again and again.
                if listed < _PAGE or (jobs and len(found) == before):
                    break
        return sorted(found.values(), key=lambda job: job.id)

    async def _jobs(
        self, page: int, *, size: int, order: str, filters: Mapping[str, Any]
    ) -> tuple[list[Job], int]:
        """The jobs of one page that can be read, and how many it has."""
        read = await self._post(
            "jobs/list",
            {
                "configTypes": _JOB_KINDS,
                "pagination": {"pageSize": size, "rowOffset": page * size},
                "orderByField": "createdAt",
                "orderByMethod": order,
                **filters,
            },
            _JOBS,
            repeat=True,
        )
        jobs = [job for job in read.told() if job is not None]
        if len(jobs) < len(read.jobs):
            log.warning("jobs_not_readable", left=len(read.jobs) - len(jobs), of=len(read.jobs))
        return jobs, len(read.jobs)

    async def cancel_job(self, job_id: int) -> Job:
        """Stop a job.

        Endpoint: POST jobs/cancel
        Sends:    {"id": int}
        Receives: {"job": {...}, "attempts": [...]}

        Raises:
            UpstreamUnknown: also for a job that has ended, which Airbyte answers with 500.
        """
        return (await self._post("jobs/cancel", {"id": job_id}, _JOB)).told()

    # Destinations and definitions

    async def create_destination(
        self,
        workspace_id: UUID,
        configuration: Mapping[str, Any],
        *,
        name: str,
        destination_definition_id: UUID,
    ) -> Destination:
        """Configure a destination.

        Endpoint: POST destinations/create
        Sends:    {"workspaceId", "destinationDefinitionId", "name", "connectionConfiguration"}
        Receives: {"destinationId": uuid, ...}, secrets masked
        """
        return await self._post(
            "destinations/create",
            {
                "workspaceId": workspace_id,
                "destinationDefinitionId": destination_definition_id,
                "name": name,
                "connectionConfiguration": configuration,
            },
            _DESTINATION,
        )

    async def get_destination(self, destination_id: UUID) -> Destination:
        """One destination.

        Endpoint: POST destinations/get
        Sends:    {"destinationId": uuid}
        """
        read = await self._post(
            "destinations/get", {"destinationId": destination_id}, _DESTINATION, repeat=True
        )
        _expect_asked("destinations/get", read.destination_id, destination_id)
        return read

    async def list_destinations(self, workspace_id: UUID) -> list[Destination]:
        """All destinations of a workspace; pages as `list_sources`.

        Endpoint: POST destinations/list
        """
        return await self._all_pages(
            "destinations/list",
            workspace_id,
            _DESTINATIONS,
            lambda page: page.destinations,
            _destination_id,
        )

    async def destination_sync_modes(self, destination_id: UUID) -> frozenset[str]:
        """What a destination can do with rows: append, overwrite, append_dedup ...

        Endpoint: POST destination_definition_specifications/get
        Sends:    {"destinationDefinitionId": uuid, "workspaceId": uuid}
        Receives: {"supportedDestinationSyncModes"?: [str], ...}; empty where Airbyte tells none
        """
        destination = await self.get_destination(destination_id)
        read = await self._post(
            "destination_definition_specifications/get",
            {
                "destinationDefinitionId": destination.destination_definition_id,
                "workspaceId": destination.workspace_id,
            },
            _DESTINATION_SPECIFICATION,
            repeat=True,
        )
        return frozenset(read.supported_destination_sync_modes or ())

    async def source_definitions(self, workspace_id: UUID) -> list[Definition]:
        """The source connectors a workspace can use.

        Endpoint: POST source_definitions/list_for_workspace
        Sends:    {"workspaceId": uuid}
        """
        read = await self._post(
            "source_definitions/list_for_workspace",
            {"workspaceId": workspace_id},
            _SOURCE_DEFINITIONS,
            repeat=True,
        )
        return [definition.told() for definition in read.source_definitions]

    async def destination_definitions(self, workspace_id: UUID) -> list[Definition]:
        """The destination connectors a workspace can use.

        Endpoint: POST destination_definitions/list_for_workspace
        Sends:    {"workspaceId": uuid}
        """
        read = await self._post(
            "destination_definitions/list_for_workspace",
            {"workspaceId": workspace_id},
            _DESTINATION_DEFINITIONS,
            repeat=True,
        )
        return [definition.told() for definition in read.destination_definitions]

    async def source_specification(self, source_definition_id: UUID, workspace_id: UUID) -> bytes:
        """The JSON schema that a source's configuration must fit.

        Endpoint: POST source_definition_specifications/get
        Sends:    {"sourceDefinitionId": uuid, "workspaceId": uuid}
        Receives: {"connectionSpecification"?: {...}, ...}
        """
        read = await self._post(
            "source_definition_specifications/get",
            {"sourceDefinitionId": source_definition_id, "workspaceId": workspace_id},
            _SOURCE_SPECIFICATION,
            repeat=True,
        )
        return bytes(read.connection_specification)

    # How

    @asynccontextmanager
    async def _turn(self, path: str) -> AsyncIterator[None]:
        """A turn at Airbyte's small pool of threads.

        Raises:
            UpstreamUnreachable: none came within the time of an ordinary call; nothing was sent.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamUnreachable(
                f"{self._slow_calls} slow calls to Airbyte are under way; {path} was not sent.",
                code="airbyte_busy",
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def _listing(self, path: str) -> AsyncIterator[None]:
        """Read all pages of a list within a time of its own, which each page alone could not pass.

        Raises:
            UpstreamTimeout: it takes longer.
        """
        within_s = _LONGEST_LISTING * self._timeout
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError:
            raise UpstreamTimeout(
                f"Airbyte's {path} is not listed to its end within {within_s:g} s."
            ) from None

    async def _get(
        self,
        path: str,
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float | None = None,
        repeat: bool = False,
    ) -> T:
        """Ask what Airbyte tells anybody."""
        return await self._transport.call(
            path, None, answer, timeout=timeout or self._timeout, repeat=repeat, anonymous=True
        )

    async def _post(
        self,
        path: str,
        order: Mapping[str, Any],
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float | None = None,
        repeat: bool = False,
        only_status: int | None = None,
        runs_connector: bool = False,
    ) -> T:
        return await self._transport.call(
            path,
            msgspec.json.encode(order),
            answer,
            timeout=timeout or self._timeout,
            repeat=repeat,
            only_status=only_status,
            runs_connector=runs_connector,
        )

    async def _send_catalog(
        self, path: str, order: dict[str, Any], sync_catalog: bytes
    ) -> AirbyteConnection:
        try:
            selected = shapes.only_selected(sync_catalog)
        except msgspec.DecodeError:
            selected = b""
        if not selected:
            raise Invalid("The catalog is not a list of streams with configurations.")
        if selected == shapes.NO_STREAMS:
            raise Invalid("The catalog selects no stream.", code="no_selected_stream")
        body = msgspec.json.encode({**order, "syncCatalog": msgspec.Raw(selected)})
        if len(body) > BODY_LIMIT_BYTES:
            raise Invalid(
                f"The selected streams make a request of {len(body)} bytes, and Airbyte takes "
                f"{BODY_LIMIT_BYTES}; select fewer streams or fields.",
                code="catalog_too_large",
            )
        read = await self._transport.call(path, body, _CONNECTION, timeout=self._timeout)
        return read.told()

    async def _delete(
        self,
        path: str,
        order: Mapping[str, Any],
        listed: Callable[[UUID], Awaitable[bool]],
        workspace_id: UUID | None,
    ) -> None:
        """Delete, and where Airbyte is unclear whether there was anything, look.

        For an id that it does not know, it answers 404, 403 or 500, as version and login have it.
        The look is into its own workspace, where that is known, else into the one AAM works in.
        """
        try:
            await self._post(path, order, _NOTHING, repeat=True, only_status=204)
        except UpstreamMissing:
            return
        except (UpstreamForbidden, UpstreamUnknown):
            workspace_id = (
                workspace_id or self._workspace_id or (await self.instance()).default_workspace_id
            )
            if workspace_id is None or await listed(workspace_id):
                raise

    async def _all_pages(
        self,
        path: str,
        workspace_id: UUID,
        answer: msgspec.json.Decoder[T],
        items: Callable[[T], list[Item]],
        id_of: Callable[[Item], UUID],
    ) -> list[Item]:
        """Follow the cursor until a page brings nothing new.

        Before 1.8 the cursor is ignored and everything comes at once, and again when asked again.
        """
        found: dict[UUID, Item] = {}
        cursor: dict[str, UUID] = {}
        async with self._listing(path):
            for _ in range(_MOST_PAGES):
                body = {"workspaceId": workspace_id, "pageSize": _PAGE, **cursor}
                try:
                    page = items(await self._post(path, body, answer, repeat=True))
                except UpstreamMissing:
                    if not cursor:
                        raise
                    raise UpstreamUnknown(
                        f"Airbyte's {path} lost its place: what it had listed last was deleted."
                    ) from None
                before = len(found)
                found.update((id_of(item), item) for item in page)
                if len(page) < _SMALLEST_PAGE or len(found) == before:
                    return list(found.values())
                cursor = {"cursor": id_of(page[-1])}
        raise UpstreamUnknown(f"Airbyte's {path} does not end after {_MOST_PAGES} pages.")


Item = TypeVar("Item")


def _expect_asked(path: str, told: UUID | int, asked: UUID | int) -> None:
    """See that an answer is about what was asked for.

    Raises:
        UpstreamUnknown: it is about another object.
    """
    if told != asked:
        raise UpstreamUnknown(f"Airbyte's {path} answered with another object.")


def _source_id(source: Source) -> UUID:
    return source.source_id


def _source_update(
    source_id: UUID, configuration: Mapping[str, Any], name: str
) -> dict[str, object]:
    return {"sourceId": source_id, "name": name, "connectionConfiguration": configuration}


def _destination_id(destination: Destination) -> UUID:
    return destination.destination_id


def _credentials(settings: Settings) -> Credentials:
    if settings.airbyte_api_key is not None:
        return Credentials.bearer(settings.airbyte_api_key.get_secret_value())
    if settings.airbyte_client_id is not None and settings.airbyte_client_secret is not None:
        return ClientCredentials(
            settings.airbyte_client_id, settings.airbyte_client_secret.get_secret_value()
        )
    if settings.airbyte_username is not None and settings.airbyte_password is not None:
        return Credentials.basic(
            settings.airbyte_username, settings.airbyte_password.get_secret_value()
        )
    return Credentials()


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _schedule(schedule: Schedule | None) -> dict[str, Any]:
    if schedule is None:
        return {"scheduleType": "manual"}
    if schedule.cron is None:
        basic = {"timeUnit": schedule.time_unit, "units": schedule.units}
        return {"scheduleType": "basic", "scheduleData": {"basicSchedule": basic}}
    cron = {"cronExpression": schedule.cron, "cronTimeZone": schedule.time_zone}
    return {"scheduleType": "cron", "scheduleData": {"cron": cron}}


def _is_no_such_endpoint(refused: UpstreamRefused) -> bool:
    return refused.code == UNSUPPORTED


def _discover_failed(
    source_id: UUID, reason: shapes.FailureReason | None, run: str | None
) -> DiscoverFailed:
    reason = reason or shapes.FailureReason()
    failed = DiscoverFailed(
        f"The connector of source {source_id} did not deliver a schema.",
        failure_type=reason.type,
        retryable=reason.passing,
    )
    failed.retryable = reason.passing
    _explain(failed, reason.reason(run=run))
    return failed


def _explain(failed: ConnectorFailed, reason: Reason) -> None:
    failed.cause, failed.explanation, failed.log = reason.cause, reason.explanation, reason.log


def _run_id(told: Any) -> str | None:
    """Airbyte's id of a run, where it is one; the cause's own check is by the same rule."""
    return told if isinstance(told, str) else None
