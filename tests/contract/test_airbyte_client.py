"""Every request of the Airbyte client is valid against Airbyte's own OpenAPI documents."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from shared.airbyte_client import (
    AirbyteClient,
    ConnectionSettings,
    NewConnection,
    Schedule,
    SourceSpecification,
    StreamCount,
)
from shared.domain.catalog import StreamId
from shared.errors import NotFound, SyncRunning, Upstream
from tests.contract.openapi import VERSIONS, description
from tests.fakes.airbyte_server import HARDCODED_RECORDS, POSTGRES, WORKSPACE_ID, AirbyteServer

WAREHOUSE = {"host": "db", "port": 5432, "username": "u", "database": "d", "schema": "public"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_request_is_valid(version: str) -> None:
    """Run the life cycle of a source, which calls every method of the client."""
    async with (
        AirbyteServer(version=version, auth="none") as airbyte,
        AirbyteClient(airbyte.url) as client,
    ):
        await _use_everything(client, airbyte)

    judge = description(version)
    wrong = {
        request.path: found
        for request in airbyte.requests
        if (found := judge.about_request(request.method, request.path, request.body))
    }
    assert wrong == {}


def test_every_method_is_used() -> None:
    """A new client method must be added to the life cycle above."""
    methods = {
        name
        for name, of in inspect.getmembers(AirbyteClient, inspect.iscoroutinefunction)
        if not name.startswith("_") and name != "aclose"
    }
    parts = (_use_everything, _use_definitions, _use_jobs)
    calls = "".join(inspect.getsource(part) for part in parts)
    used = {name for name in methods if f"client.{name}(" in calls}
    assert methods - used == set()


async def _use_definitions(client: AirbyteClient, workspace: UUID) -> SourceSpecification:
    await client.source_definitions(workspace)
    await client.destination_definitions(workspace)
    records = UUID(HARDCODED_RECORDS)
    specified = await client.source_specification(records, workspace)
    assert msgspec.json.decode(specified.connection_specification)["properties"]["count"]
    assert not await client.check_configuration(records, workspace, {"count": 3})
    return specified


async def _use_everything(client: AirbyteClient, airbyte: AirbyteServer) -> None:
    workspace = UUID(WORKSPACE_ID)
    assert await client.health()
    assert (await client.instance()).default_workspace_id == workspace
    assert (await client.get_workspace(workspace)).workspace_id == workspace
    specified = await _use_definitions(client, workspace)
    assert await client.is_since_1_7() is airbyte.release.since(1, 7)
    assert await client.list_sources(workspace) == []

    source = await client.create_source(
        workspace, {"count": 3}, name="records", source_definition_id=UUID(HARDCODED_RECORDS)
    )
    destination = await client.create_destination(
        workspace, WAREHOUSE, name="warehouse", destination_definition_id=UUID(POSTGRES)
    )
    assert await client.get_source(source.source_id) == source
    assert await client.specification_of_source(source.source_id) == specified
    assert await client.list_sources(workspace) == [source]
    assert await client.get_destination(destination.destination_id) == destination
    assert await client.list_destinations(workspace) == [destination]
    assert "append_dedup" in await client.destination_sync_modes(destination)
    assert await client.supports_refreshes(destination.destination_id)
    rules = await client.destination_rules(destination.destination_id)
    assert (rules.title, rules.default_schema) == ("Postgres 3.0.14", "public")
    configured = await client.get_configured_source(source.source_id)
    assert configured.connection_configuration == {"count": 3}
    assert not await client.check_source_update(source.source_id, {"count": 4}, name="records")
    await client.update_source(source.source_id, {"count": 4}, name="records")
    assert (await client.connector_version(source.source_id)).tag
    assert await client.manifest_version(source.source_id) is None
    await client.upgrade_source_version(source.source_id)
    found = await client.discover_schema(source.source_id)

    connections = [
        await client.create_connection(
            NewConnection(
                name="records to warehouse",
                source_id=source.source_id,
                destination_id=destination.destination_id,
                sync_catalog=found.catalog,
                source_catalog_id=found.catalog_id,
                schedule=schedule,
                namespace_definition="customformat",
                namespace_format="records",
                prefix="r_",
            )
        )
        for schedule in (None, Schedule(units=6), Schedule(cron="0 0 * * * ?"))
    ]
    connection = connections[0].connection_id
    assert len(await client.list_connections(workspace)) == len(connections)
    assert len(await client.connections_of_source(source.source_id, workspace)) == len(connections)
    held = await client.get_connection(connection)
    assert msgspec.json.decode(held.sync_catalog)["streams"]
    await client.update_connection(
        connection,
        held.sync_catalog,
        source_catalog_id=found.catalog_id,
        status="active",
        breaking_change=False,
    )
    for status in ("inactive", "active"):
        await client.set_status(connection, status)
        assert (await client.get_connection(connection)).status == status
    await client.connection_statuses([connection])
    name = msgspec.json.decode(held.sync_catalog)["streams"][0]["stream"]["name"]
    if airbyte.release.since(1, 3):
        await client.validate_mappers(connection, StreamId(None, name))

    await client.update_settings(connection, ConnectionSettings(prefix="s_"))
    assert (await client.get_connection(connection)).settings.prefix == "s_"
    await _use_jobs(client, airbyte, connection)
    await client.delete_connection(connection)
    await client.delete_source(source.source_id)
    with pytest.raises((NotFound, Upstream)):
        await client.get_source(source.source_id)


async def _use_jobs(client: AirbyteClient, airbyte: AirbyteServer, connection: UUID) -> None:
    assert not await client.has_synced(connection)
    job = await client.trigger_sync(connection)
    with pytest.raises(SyncRunning):
        await client.trigger_sync(connection)
    await client.connection_statuses([connection])
    name = airbyte.jobs[job.id]["enabledStreams"][0]["name"]
    airbyte.finish_job(job.id, streams={name: 3})
    ended = await client.get_job(job.id)
    assert ended.records == 3
    assert await client.has_synced(connection)
    assert ended.counts(full_refresh=()) == ended.streams_by_attempt[0]
    assert ended.streams == {StreamId(None, name): StreamCount(3, 30)}
    assert [listed.id for listed in await client.list_jobs(connection, limit=5)] == [job.id]
    await client.recent_jobs(datetime.now(UTC))
    assert (newest := await client.newest_job()) is not None
    assert newest.id == job.id
    running = await client.trigger_sync(connection)
    assert [job.id for job in await client.running_jobs()] == [running.id]
    airbyte.finish_job(running.id)
    stream = StreamId("crm", "records")
    await client.refresh_streams(connection, [stream, StreamId(None, "records")])
    (refresh,) = await client.running_jobs()
    assert stream in refresh.refreshed
    assert (await client.connection_state(connection)).type in ("stream", "not_set")
    assert (await client.get_job_with_logs(refresh.id)).id == refresh.id
    await client.cancel_job(refresh.id)
    assert (await client.get_job(refresh.id)).status == "cancelled"
    written = await client.put_stream_states(connection, {stream: b'{"at":1}'})
    assert (written.type, written.streams[stream]) == ("stream", b'{"at":1}')
