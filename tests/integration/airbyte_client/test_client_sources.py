"""The Airbyte client: sources and discovery."""

from __future__ import annotations

import json
import time
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import MASK, AirbyteClient
from shared.errors import (
    CheckFailed,
    DiscoverFailed,
    UpstreamDenied,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
)
from tests.fakes.airbyte_server import (
    DEFAULT_CATALOG,
    HARDCODED_RECORDS,
    SALESFORCE,
    AirbyteServer,
    catalog,
    stream,
)
from tests.integration.airbyte_client.stage import (
    CONFIGURATION,
    WORKSPACE,
    client_of,
    create,
    source_of,
)

pytestmark = pytest.mark.exact


async def test_create_get_list_and_delete_sources(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    created = await create(client)

    assert airbyte.sources[str(created.source_id)]["connectionConfiguration"] == CONFIGURATION
    assert await client.get_source(created.source_id) == created
    assert await client.list_sources(WORKSPACE) == [created]

    await client.delete_source(created.source_id)
    await client.delete_source(created.source_id)
    assert airbyte.sources == {}
    with pytest.raises(UpstreamMissing):
        await client.get_source(created.source_id)


async def test_refused_configuration_is_not_quoted(
    airbyte: AirbyteServer, client: AirbyteClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Airbyte's message repeats the whole configuration."""
    caplog.set_level("DEBUG")
    incomplete = {"client_secret": "AAMCANARY-client-secret"}

    with pytest.raises(UpstreamRefused) as caught:
        await client.create_source(
            WORKSPACE, incomplete, name="n", source_definition_id=UUID(SALESFORCE)
        )

    assert "CANARY" not in repr(caught.value.problem()) + caplog.text


@pytest.mark.parametrize("count", [0, 19, 20, 99, 100, 101, 250])
async def test_all_pages_are_listed(airbyte: AirbyteServer, count: int) -> None:
    """Whole lists and pages end at the last source, and not at the first page."""
    for number in range(count):
        airbyte.add_source(f"Source {number}", HARDCODED_RECORDS)
        airbyte.add_destination(f"Warehouse {number}")

    async with client_of(airbyte) as client:
        sources = await client.list_sources(WORKSPACE)
        destinations = await client.list_destinations(WORKSPACE)

    assert {str(source.source_id) for source in sources} == set(airbyte.sources)
    assert len(sources) == len(destinations) == count
    assert len(airbyte.called("sources/list")) <= count // 100 + 2


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("status", [403, 500])
async def test_deleting_an_unknown_source_succeeds(
    airbyte: AirbyteServer, client: AirbyteClient, status: int
) -> None:
    """Some versions answer 403 or 500 for an unknown id; the list is decisive."""
    airbyte.fault("sources/delete", status, times=None)
    airbyte.fault("connections/delete", status, times=None)
    there = source_of(airbyte)

    await client.delete_source(uuid4())
    await client.delete_connection(uuid4())

    with pytest.raises((UpstreamDenied, UpstreamUnknown)):
        await client.delete_source(there)


async def test_deletion_with_lost_answer_is_repeated(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The repetition is answered 404."""
    there = source_of(airbyte)
    airbyte.fault("sources/delete", "reset", after_effect=True)

    await client.delete_source(there)

    assert airbyte.sources == {}


async def test_check_source(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """HTTP 200 says nothing about the source: the body does."""
    source_id = source_of(airbyte)
    given = {"client_id": "i", "client_secret": "new", "refresh_token": "t"}
    await client.check_source_update(source_id, given, name="x")

    airbyte.fail_check("AAMCANARY-message", times=1)
    with pytest.raises(CheckFailed):
        await client.check_source_update(source_id, given, name="x")

    airbyte.fail_check("AAMCANARY-message", failure_type="transient_error", job=True, times=1)
    with pytest.raises(CheckFailed) as caught:
        await client.check_source_update(source_id, given, name="x")
    assert caught.value.members == {"failure_type": "transient_error", "retryable": True}
    assert caught.value.retryable
    assert "CANARY" not in repr(caught.value.problem())


async def test_update_source(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Checked first, changed at once with its name; a mask leaves the secret as it is."""
    source_id = source_of(airbyte)
    given = {"client_id": "i", "client_secret": "new", "refresh_token": "t"}
    assert not await client.check_source_update(source_id, given, name="x")
    await client.update_source(source_id, given, name="x")
    read = await client.get_configured_source(source_id)
    assert read.name == "x"
    assert read.connection_configuration == given | dict.fromkeys(
        ("client_secret", "refresh_token"), MASK
    )

    airbyte.renew_on_check(refresh_token="renewed")
    masked = {**read.connection_configuration, "client_id": "other"}
    assert await client.check_source_update(source_id, masked, name="x")
    await client.update_source(source_id, masked, name="y")
    stored = airbyte.sources[str(source_id)]["connectionConfiguration"]
    assert stored == {"client_id": "other", "client_secret": "new", "refresh_token": "renewed"}

    airbyte.fail_check("AAMCANARY-message", times=1)
    with pytest.raises(CheckFailed) as caught:
        await client.check_source_update(source_id, given, name="x")
    assert "CANARY" not in repr(caught.value.problem())
    with pytest.raises(UpstreamRefused):
        await client.check_source_update(source_id, {"client_secret": "AAMCANARY"}, name="x")


async def test_check_of_an_unsaved_configuration(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Sent once, whatever happens, and no source is created; an unknown definition is missing."""
    given = {"client_id": "i", "client_secret": "s", "refresh_token": "t"}
    definition, workspace = UUID(SALESFORCE), WORKSPACE
    assert not await client.check_configuration(definition, workspace, given)
    airbyte.renew_on_check(refresh_token="renewed")
    assert await client.check_configuration(definition, workspace, given)

    airbyte.fail_check("AAMCANARY-message")
    with pytest.raises(CheckFailed) as caught:
        await client.check_configuration(definition, workspace, given)
    assert "CANARY" not in repr(caught.value.problem())
    with pytest.raises(UpstreamRefused):
        await client.check_configuration(definition, workspace, {"client_secret": "AAMCANARY"})
    with pytest.raises(UpstreamMissing):
        await client.check_configuration(uuid4(), workspace, given)
    with pytest.raises(UpstreamMissing):
        await client.source_specification(uuid4(), workspace)
    airbyte.fault("scheduler/sources/check_connection", "reset", times=1)
    before = len(airbyte.called("scheduler/sources/check_connection"))
    with pytest.raises(UpstreamUnknown):
        await client.check_configuration(definition, workspace, given)
    assert len(airbyte.called("scheduler/sources/check_connection")) == before + 1
    assert airbyte.sources == {}


async def test_discovery_bypasses_the_cache(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Each call runs the connector, in either API; no connection id is sent."""
    source_id = source_of(airbyte)

    first = await client.discover_schema(source_id)
    airbyte.offers(catalog(stream("Account", ("Id", "Region"))))
    second = await client.discover_schema(source_id)

    assert airbyte.discoveries[str(source_id)] == 2
    offered = [pair["stream"]["name"] for pair in DEFAULT_CATALOG["streams"]]
    assert [pair["stream"]["name"] for pair in json.loads(first.catalog)["streams"]] == offered
    assert b"Region" in second.catalog
    assert first.catalog_id != second.catalog_id
    assert not first.configuration_updated
    by_command = airbyte.version == "2.0.0"
    assert bool(airbyte.called("commands/run/discover")) is by_command
    assert bool(airbyte.called("sources/discover_schema")) is not by_command
    sent = {key for request in airbyte.requests if request.body for key in request.body}
    assert not {"connectionId", "jobId", "attemptNumber"} & sent
    assert len(airbyte.called("instance_configuration")) == 1


@pytest.mark.parametrize(
    "failure_type,retryable,expected",
    [
        ("config_error", None, False),
        ("transient_error", None, True),
        ("system_error", None, True),
        ("system_error", False, False),
        ("config_error", True, True),
        ("AAMCANARY: a message instead of a type", None, False),
    ],
)
async def test_failed_discovery_with_status_200(
    airbyte: AirbyteServer,
    client: AirbyteClient,
    failure_type: str,
    retryable: bool | None,
    expected: bool,
) -> None:
    """The error has the failure type, never the connector's message."""
    airbyte.fail_discovery(failure_type, "AAMCANARY password", retryable=retryable)

    with pytest.raises(DiscoverFailed) as caught:
        await client.discover_schema(source_of(airbyte))

    plain = None if "CANARY" in failure_type else failure_type
    assert caught.value.members == {"failure_type": plain, "retryable": expected}
    assert caught.value.retryable is expected
    assert "CANARY" not in repr(caught.value.problem())


async def test_failed_connector_run_is_not_repeated() -> None:
    """A gateway's error says nothing of a run, and is retried."""
    body = {"message": "Internal Server Error: ...", "exceptionClassName": "java.lang.Error"}
    async with AirbyteServer(version="0.63.19") as airbyte, client_of(airbyte) as client:
        source_id = source_of(airbyte)
        path = "sources/discover_schema"
        airbyte.answer(path, body, status=500, times=None)
        with pytest.raises(UpstreamUnknown) as caught:
            await client.discover_schema(source_id)
        assert len(airbyte.called(path)) == 1
        assert caught.value.has_run
        airbyte.heal()
        airbyte.lose_route("nginx", status=500, path=path, times=2)
        await client.discover_schema(source_id)
        assert len(airbyte.called(path)) == 4


async def test_discovery_without_catalog_or_job_info() -> None:
    """Without a catalog it has failed; `jobInfo` may be missing."""
    async with AirbyteServer(version="0.63.19") as airbyte, client_of(airbyte) as client:
        source_id = source_of(airbyte)
        airbyte.answer("sources/discover_schema", {"jobInfo": {"succeeded": True}})
        with pytest.raises(DiscoverFailed):
            await client.discover_schema(source_id)

        airbyte.answer("sources/discover_schema", {"catalog": {"streams": []}})
        assert (await client.discover_schema(source_id)).catalog == b'{"streams":[]}'

        rotated = {"succeeded": True, "connectorConfigurationUpdated": True}
        airbyte.answer("sources/discover_schema", {"catalog": {"streams": []}, "jobInfo": rotated})
        assert (await client.discover_schema(source_id)).configuration_updated


async def test_cancelled_discovery_fails(newest: AirbyteServer, client: AirbyteClient) -> None:
    newest.command_statuses = ["pending", None, "cancelled"]

    with pytest.raises(DiscoverFailed) as caught:
        await client.discover_schema(source_of(newest))

    assert caught.value.members["failure_type"] == "manual_cancellation"


async def test_lost_command_is_sent_again_with_the_same_id(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """The id makes it the same command: the connector runs once."""
    source_id = source_of(newest)
    newest.fault("commands/run/discover", "reset", after_effect=True)
    newest.fault("commands/status", "html_502")
    newest.fault("commands/output/discover", "close")

    await client.discover_schema(source_id)

    assert newest.discoveries[str(source_id)] == 1
    assert len({body["id"] for body in newest.called("commands/run/discover")}) == 1


async def test_discovery_has_one_deadline_over_all_polls(newest: AirbyteServer) -> None:
    newest.command_statuses = ["running"] * 1000
    started = time.monotonic()
    async with client_of(newest, discover_timeout="1") as client:
        with pytest.raises(UpstreamTimeout):
            await client.discover_schema(source_of(newest))
    assert 0.9 < time.monotonic() - started < 10


@pytest.mark.parametrize("version", ["1.6.2", "1.7.0", "head"])
async def test_discovery_api_depends_on_the_server_version(version: str) -> None:
    """A build without a version is tried with a command."""
    async with AirbyteServer(version=version) as airbyte, client_of(airbyte) as client:
        source_id = source_of(airbyte)
        assert b"Account" in (await client.discover_schema(source_id)).catalog
        assert bool(airbyte.called("commands/run/discover")) is (version != "1.6.2")


async def test_downgrade_is_detected() -> None:
    """The remembered API stops working, so the server's version is read again."""
    newer, older = AirbyteServer(version="2.0.0"), AirbyteServer(version="0.63.19")
    source_id = source_of(newer)
    older.sources = newer.sources
    await newer.start()
    async with client_of(newer) as client:
        await client.discover_schema(source_id)
        await newer.stop()
        await older.start(newer.port)

        await client.discover_schema(source_id)
        await client.discover_schema(source_id)
        await older.stop()

    assert older.discoveries[str(source_id)] == 2
    assert len(older.called("commands/run/discover")) == 1


async def test_unknown_source_is_missing() -> None:
    """The 404 is about the source: the other API is not tried."""
    async with AirbyteServer(version="0.63.19") as airbyte, client_of(airbyte) as client:
        with pytest.raises(UpstreamMissing):
            await client.discover_schema(uuid4())
        assert airbyte.called("commands/run/discover") == []
