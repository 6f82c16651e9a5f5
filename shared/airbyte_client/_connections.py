"""Connections: create, update, read, list, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from shared.airbyte_client import _schemas as shapes
from shared.airbyte_client import _selected_streams as selected_streams
from shared.airbyte_client._calls import (
    MOST_PAGES,
    PAGE,
    SMALLEST_PAGE,
    Calls,
    expect_requested,
    is_no_such_endpoint,
)
from shared.airbyte_client._schemas import (
    AirbyteConnection,
    ConnectionSettings,
    ConnectionStatus,
    ListedConnection,
    NewConnection,
    Schedule,
)
from shared.airbyte_client._state import NO_VALUES, ConnectionState, StateRead, sent_streams
from shared.domain.catalog import StreamId
from shared.errors import (
    Invalid,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamUnknown,
)

BODY_LIMIT_BYTES = 10 * 1024 * 1024
"""Airbyte's `max-request-size`; the nginx of abctl has the same limit."""
MAX_FIELDS = 20_000
"""Airbyte's default MAX_FIELDS_PER_CONNECTION, also on Airbyte Cloud."""
_FIELD_BYTES = 8
"""The shortest field of a JSON schema, `"a":{},`, with its comma."""
_CONNECTION = msgspec.json.Decoder(shapes.ConnectionRead)
_CONNECTIONS = msgspec.json.Decoder(shapes.Connections)
_CONNECTION_PAGE = msgspec.json.Decoder(shapes.ConnectionPage)
_VALIDATED = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATE = msgspec.json.Decoder(StateRead)
_STATUSES = msgspec.json.Decoder(list[shapes.ConnectionStatusRead])


class Connections(Calls):
    """Connections: create, update, read, list, delete."""

    async def create_connection(self, config: NewConnection) -> AirbyteConnection:
        """Create an active connection in which Airbyte leaves schema changes to AAM.

        Endpoint: POST connections/create
        Sends:    {"name", "sourceId", "destinationId", "status": "active", "scheduleType",
                   "nonBreakingChangesPreference": "ignore", "syncCatalog", "sourceCatalogId"?, ...}
        Receives: ConnectionRead

        Raises:
            Invalid: no stream is selected, or the body is over Airbyte's limit; nothing was sent.
            UpstreamUnknown: it may exist; find a source's connections with `list_connections`.
        """
        order: dict[str, Any] = {
            "name": config.name,
            "sourceId": config.source_id,
            "destinationId": config.destination_id,
            "status": "active",
            "nonBreakingChangesPreference": "ignore",
            "notifySchemaChanges": False,
            **schedule_members(config.schedule),
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
        """Replace a connection's catalog with the selected streams of this one; resets no stream.

        The last writer wins, so compare what is held before and after. Arguments that are None
        leave their part unchanged. Streams that are left out keep their state, so a stream that is
        selected again resumes from it. Since 1.8, a changed sync mode deletes the stream's state;
        before, the first sync that reads the stream in full_refresh does.

        Endpoint: POST connections/update
        Sends:    {"connectionId", "syncCatalog", "sourceCatalogId"?, "status"?, "breakingChange"?}
        Receives: ConnectionRead
        Source:   ConnectionsHandler and FlagDefinitions (reset-stream-state-on-disable is false),
                  AttemptHandler.updateGenerationAndStateForFirstAttempt, 0.63.19 to 310e6cb6ac

        Raises:
            Invalid: no stream is selected, or the body is over Airbyte's limit; nothing was sent.
            MapperRefused: since Airbyte 1.2, for a mapper whose field is not selected or does not
                exist; since 1.3, also for one that writes a selected field.
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
        """Pause (`inactive`) or resume (`active`) a connection, and change nothing else.

        Endpoint: POST connections/update
        Sends:    {"connectionId", "status"}
        Receives: ConnectionRead

        Raises:
            UpstreamUnknown: it may have been set: read it back.
        """
        await self._post(
            "connections/update", {"connectionId": connection_id, "status": status}, _CONNECTION
        )

    async def update_settings(
        self, connection_id: UUID, settings: ConnectionSettings
    ) -> ConnectionSettings:
        """Change the settings that are not None; resets no stream, and leaves the catalog as it is.

        Airbyte records an event for `status` even if it does not change: leave it out then.

        Endpoint: POST connections/update
        Sends:    {"connectionId", "name"?, "status"?, "scheduleType"?, "scheduleData"?,
                   "namespaceDefinition"?, "namespaceFormat"?, "prefix"?}
        Receives: ConnectionRead
        Source:   applyPatchToStandardSync (ConnectionsHandler): null members stay unchanged, and a
                  schedule of the type `manual` removes the schedule's data

        Raises:
            UpstreamUnknown: they may have been changed: read them back.
        """
        order = {
            "connectionId": connection_id,
            **_given(
                name=settings.name,
                status=settings.status,
                scheduleType=settings.schedule_type,
                scheduleData=settings.schedule_data,
                namespaceDefinition=settings.namespace_definition,
                namespaceFormat=settings.namespace_format,
                prefix=settings.prefix,
            ),
        }
        read = await self._post("connections/update", order, _CONNECTION)
        return read.to_domain().settings

    async def get_connection(self, connection_id: UUID) -> AirbyteConnection:
        """One connection; its catalog has only the selected streams and fields.

        Endpoint: POST connections/get
        Sends:    {"connectionId": uuid}
        Receives: ConnectionRead; status `deprecated` once it was deleted

        Raises:
            UpstreamMissing: not found; some versions answer 403 (UpstreamForbidden) or 500.
        """
        read = await self._post(
            "connections/get", {"connectionId": connection_id}, _CONNECTION, repeat=True
        )
        expect_requested("connections/get", read.connection_id, connection_id)
        return read.to_domain()

    async def connection_state(self, connection_id: UUID) -> ConnectionState:
        """What the connection's next sync resumes from, including streams no longer selected.

        Endpoint: POST state/get
        Sends:    {"connectionId": uuid}
        Receives: {"connectionId", "stateType": stream|global|legacy|not_set,
                  "streamState"?: [{"streamDescriptor": {"name", "namespace"?}, "streamState"?}],
                  "globalState"?: {"shared_state"?, "streamStates": [...]}, "state"?}
        """
        read = await self._post("state/get", {"connectionId": connection_id}, _STATE, repeat=True)
        expect_requested("state/get", read.connection_id, connection_id)
        return read.to_domain()

    async def put_stream_states(
        self, connection_id: UUID, states: Mapping[StreamId, bytes]
    ) -> ConnectionState:
        """Write states of streams; the connection's state must have the type `stream`.

        An upsert: other streams keep theirs, and so do streams that are not selected. Airbyte
        checks that no job is open, but holds no lock. Sending the same states twice is harmless.

        Endpoint: POST state/create_or_update_safe
        Sends:    {"connectionId", "connectionState": {"connectionId", "stateType": "stream",
                  "streamState": [{"streamDescriptor": {"name", "namespace"?}, "streamState"}]}}
        Receives: as `connection_state`
        Source:   StateHandler.createOrUpdateStateSafe and StatePersistence, 0.63.19 to 310e6cb6ac

        Raises:
            Invalid: a state has no value, which would make the next sync fail; nothing was sent.
            UpstreamConflict: a job of the connection is open (423).
            UpstreamUnknown: it may have been written, or the connection's state has another type
                (500): read it back.
        """
        empty = next((stream for stream, value in states.items() if value in NO_VALUES), None)
        if empty is not None:
            raise Invalid(f"The state of {empty} has no value.")
        id_ = str(connection_id)
        order = {
            "connectionId": id_,
            "connectionState": {
                "connectionId": id_,
                "stateType": "stream",
                "streamState": sent_streams(states),
            },
        }
        read = await self._post("state/create_or_update_safe", order, _STATE)
        expect_requested("state/create_or_update_safe", read.connection_id, connection_id)
        return read.to_domain()

    async def validate_mappers(self, connection_id: UUID, stream: StreamId) -> None:
        """Learn whether Airbyte supports mappers: it validates an empty list of them for a stream.

        Endpoint: POST web_backend/mappers/validate
        Sends:    {"connectionId", "streamDescriptor": {"name", "namespace"?}, "mappers": []}
        Receives: {"initialFields", "outputFields", "mappers": [], ...}
        Source:   MappersHandler of 310e6cb6ac, since 1.3; it uses the stored catalog, so it says
                  nothing about a mapper of a field that is not selected yet.

        Raises:
            UpstreamRefused: Airbyte has no such endpoint, or the connection no such stream.
            UpstreamForbidden: mappers are not available in this installation.
        """
        descriptor = {"name": stream.name}
        if stream.namespace is not None:
            descriptor["namespace"] = stream.namespace
        await self._post(
            "web_backend/mappers/validate",
            {"connectionId": str(connection_id), "streamDescriptor": descriptor, "mappers": []},
            _VALIDATED,
            repeat=True,
        )

    async def list_connections(self, workspace_id: UUID) -> list[ListedConnection]:
        """All connections of a workspace, without their catalogs.

        Endpoint: POST web_backend/connections/list
        Sends:    {"workspaceId": uuid, "pageSize": int, "cursor"?: id of the last one seen}
        Receives: {"connections": [{"connectionId", "name", "status", "source": {"sourceId"},
                  "destination": {"destinationId"}}], "num_connections"?}: one page since
                  1.8, before that all of them; some kilobytes each, without the catalogs
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
            for _ in range(MOST_PAGES):
                body = {**order, "pageSize": PAGE, **cursor}
                page = await self._post(path, body, _CONNECTION_PAGE, repeat=True)
                before, counted = len(found), page.num_connections
                found.update((one.connection_id, one.to_domain()) for one in page.connections)
                if len(page.connections) < SMALLEST_PAGE or len(found) == before:
                    break
                cursor = {"cursor": page.connections[-1].connection_id}
            else:
                raise UpstreamUnknown(f"Airbyte's {path} has more than {MOST_PAGES} pages.")
        except UpstreamRefused as refused:
            # A cursor that was deleted in the meantime answers 404 as well.
            is_cursor = isinstance(refused, UpstreamMissing) and bool(cursor)
            if not (is_cursor or is_no_such_endpoint(refused)):
                raise
            return await self._list_whole_connections(order["workspaceId"])
        if counted is not None and len(found) < counted:
            # Deletions depend on this list, so none may be missed between two pages.
            return await self._list_whole_connections(order["workspaceId"])
        return list(found.values())

    async def _list_whole_connections(self, workspace_id: UUID) -> list[ListedConnection]:
        """All connections of a workspace in one response; their catalogs are skipped.

        Endpoint: POST connections/list
        Sends:    {"workspaceId": uuid}
        Receives: {"connections": [ConnectionRead]}
        """
        read = await self._post(
            "connections/list", {"workspaceId": workspace_id}, _CONNECTIONS, repeat=True
        )
        return [one for one in read.connections if one.workspace_id in (None, workspace_id)]

    async def connection_statuses(self, ids: Sequence[UUID]) -> list[ConnectionStatus]:
        """The sync statuses of connections, without their catalogs.

        Endpoint: POST connections/status
        Sends:    {"connectionIds": [uuid]}
        Receives: one for each id of {"connectionId", "connectionSyncStatus" (before 1.0:
                  "isRunning"), "activeJob"?}

        Raises:
            UpstreamUnknown: also if an id is left out, which does not mean that no sync is running.
        """
        read = await self._post(
            "connections/status", {"connectionIds": list(ids)}, _STATUSES, repeat=True
        )
        if not {status.connection_id for status in read} >= set(ids):
            raise UpstreamUnknown(
                "Airbyte's connections/status did not include a requested connection."
            )
        return [status.to_domain() for status in read]

    async def delete_connection(
        self, connection_id: UUID, *, workspace_id: UUID | None = None
    ) -> None:
        """Delete a connection; idempotent.

        Endpoint: POST connections/delete
        Sends:    {"connectionId": uuid}
        Receives: 204, empty

        `workspace_id` is the connection's workspace, if known: see `_delete`.
        """

        async def listed(workspace_id: UUID) -> bool:
            return any(
                found.connection_id == connection_id
                for found in await self.list_connections(workspace_id)
            )

        await self._delete(
            "connections/delete", {"connectionId": connection_id}, listed, workspace_id
        )

    async def _send_catalog(
        self, path: str, order: dict[str, Any], sync_catalog: bytes
    ) -> AirbyteConnection:
        try:
            selected = selected_streams.only_selected(sync_catalog)
        except msgspec.DecodeError:
            selected = b""
        if not selected:
            raise Invalid("The catalog is not a list of streams with configurations.")
        if selected == shapes.NO_STREAMS:
            raise Invalid("The catalog selects no stream.", code="no_selected_stream")
        self._expect_within_limits(selected)
        body = msgspec.json.encode({**order, "syncCatalog": msgspec.Raw(selected)})
        if len(body) > BODY_LIMIT_BYTES:
            raise Invalid(
                f"The selected streams result in a request of {len(body)} bytes, but Airbyte "
                f"accepts at most {BODY_LIMIT_BYTES}; select fewer streams or fields.",
                code="catalog_too_large",
            )
        read = await self._transport.call(path, body, _CONNECTION, timeout=self._timeout)
        return read.to_domain()

    def _expect_within_limits(self, selected: bytes) -> None:
        """Check a catalog of selected streams against Airbyte's limits for one connection.

        Raises:
            Invalid: it has more streams or fields; nothing was sent.
        """
        if self._max_streams is None and len(selected) < MAX_FIELDS * _FIELD_BYTES:
            return
        streams, fields = selected_streams.count_selected(selected)
        if self._max_streams is not None and streams > self._max_streams:
            raise Invalid(
                f"{streams} streams are selected, but this Airbyte accepts at most "
                f"{self._max_streams} in one connection; select fewer streams.",
                code="too_many_streams",
            )
        if fields > MAX_FIELDS:
            raise Invalid(
                f"{fields} fields are selected, but Airbyte accepts at most {MAX_FIELDS} in one "
                "connection; select fewer streams or fields.",
                code="catalog_too_large",
            )


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def schedule_members(schedule: Schedule | None) -> dict[str, Any]:
    """Airbyte's `scheduleType` and `scheduleData`; None means that only AAM starts syncs."""
    if schedule is None:
        return {"scheduleType": "manual"}
    if schedule.cron is None:
        basic = {"timeUnit": schedule.time_unit, "units": schedule.units}
        return {"scheduleType": "basic", "scheduleData": {"basicSchedule": basic}}
    cron = {"cronExpression": schedule.cron, "cronTimeZone": schedule.time_zone}
    return {"scheduleType": "cron", "scheduleData": {"cron": cron}}
