"""The Airbyte client and Airbyte Cloud: tokens of another host, limits, permissions, 429."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import AirbyteClient, NewConnection
from shared.errors import (
    DiscoverFailed,
    Invalid,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamNoToken,
    UpstreamRateLimited,
    UpstreamUnreachable,
)
from shared.observability import logs
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.airbyte_client.stage import (
    WORKSPACE,
    client_of,
    connection_of,
    create,
    selected,
    source_of,
)

pytestmark = pytest.mark.exact


@pytest.fixture
async def cloud() -> AsyncIterator[AirbyteServer]:
    """Airbyte Cloud, as far as it is documented."""
    async with AirbyteServer(version="cloud", auth="token") as server:
        yield server


@pytest.fixture
async def client(cloud: AirbyteServer) -> AsyncIterator[AirbyteClient]:
    """Its client, whose logs are captured."""
    logs.set_up("test", level="DEBUG")
    async with client_of(cloud) as client:
        yield client


# Tokens


async def test_tokens_come_from_the_other_host(cloud: AirbyteServer, client: AirbyteClient) -> None:
    """One request there, with the grant type; the API gets the token and never the secret."""
    assert await client.list_sources(WORKSPACE) == []
    assert await client.list_destinations(WORKSPACE) == []

    (issued,) = [one for one in cloud.requests if "applications/token" in one.path]
    assert issued.raw_path == "/v1/applications/token"
    assert issued.headers["Host"] == f"127.0.0.1:{cloud.token_port}"
    assert set(issued.body) == {"client_id", "client_secret", "grant-type"}
    assert "Authorization" not in issued.headers


async def test_refused_client_secret_names_the_settings(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """Its server is not known by a signature: a 401 with any JSON is a refusal."""
    cloud.client_secret = "AAMCANARY-changed"

    with pytest.raises(UpstreamDenied) as caught:
        await client.list_sources(WORKSPACE)

    assert "AIRBYTE_TOKEN_URL refused AIRBYTE_CLIENT_ID" in caught.value.detail
    assert cloud.called("instance_configuration") == []


async def test_wrong_token_url_is_named(cloud: AirbyteServer) -> None:
    """Not AIRBYTE_API_URL, which is right."""
    async with client_of(cloud, airbyte_token_url=cloud.token_url + "s") as client:
        with pytest.raises(UpstreamNoToken) as caught:
            await client.list_sources(WORKSPACE)

    assert "AIRBYTE_TOKEN_URL" in caught.value.detail
    assert "AIRBYTE_API_URL" not in caught.value.detail


# Rate limits


@pytest.mark.parametrize("status", [429, 503])
async def test_read_is_repeated_after_the_seconds_of_retry_after(
    cloud: AirbyteServer, client: AirbyteClient, status: int
) -> None:
    """And not before."""
    await client.list_sources(WORKSPACE)
    cloud.limit_rate("1", path="sources/list", status=status)
    started = time.monotonic()

    assert await client.list_sources(WORKSPACE) == []

    assert time.monotonic() - started > 0.9
    assert len(cloud.called("sources/list")) == 3


async def test_retry_after_may_be_a_date(cloud: AirbyteServer, client: AirbyteClient) -> None:
    """In whole seconds, so that it waits between one and two."""
    await client.list_sources(WORKSPACE)
    until = datetime.now(UTC) + timedelta(seconds=2)
    cloud.limit_rate(format_datetime(until, usegmt=True))
    started = time.monotonic()

    await client.list_sources(WORKSPACE)

    assert time.monotonic() - started > 0.9


async def test_retry_after_beyond_the_deadline_fails_at_once(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """The first error has the seconds to wait; the next call is not sent."""
    await client.list_sources(WORKSPACE)
    sent = len(cloud.requests)
    cloud.limit_rate("99999999999")

    with pytest.raises(UpstreamRateLimited) as first:
        await client.list_sources(WORKSPACE)
    with pytest.raises(UpstreamUnreachable) as second:
        await create(client)

    assert (first.value.code, second.value.code) == ("upstream_rate_limited",) * 2
    assert first.value.members["wait_s"] == 300
    assert 290 < second.value.members["wait_s"] <= 300
    assert len(cloud.requests) == sent + 1


async def test_creation_is_not_repeated_after_429(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """Its caller checks whether it was done, and that call waits."""
    await client.list_sources(WORKSPACE)
    cloud.limit_rate("1", path="sources/create")
    started = time.monotonic()

    with pytest.raises(UpstreamRateLimited):
        await create(client)
    assert await client.list_sources(WORKSPACE) == []

    assert time.monotonic() - started > 0.9
    assert len(cloud.called("sources/create")) == 1


async def test_429_without_retry_after_is_repeated_as_before(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    cloud.limit_rate(None, path="sources/list", times=2)

    assert await client.list_sources(WORKSPACE) == []

    assert len(cloud.called("sources/list")) == 3


async def test_rate_limit_of_the_token_host_is_its_own(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """A call that still has a token is sent."""
    await client.list_sources(WORKSPACE)
    cloud.limit_rate("60", path="/v1/applications/token", times=None)
    other = client_of(cloud)

    with pytest.raises(UpstreamNoToken) as caught:
        await other.list_sources(WORKSPACE)
    assert await client.list_sources(WORKSPACE) == []

    assert "upstream_rate_limited" in caught.value.detail
    await other.aclose()


# Limits


def connecting(cloud: AirbyteServer, sync_catalog: bytes) -> NewConnection:
    """Build the order of a connection with this catalog."""
    return NewConnection(
        name="large",
        source_id=source_of(cloud),
        destination_id=UUID(cloud.add_destination()["destinationId"]),
        sync_catalog=sync_catalog,
    )


async def test_more_than_1000_streams_are_not_sent(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """The error has both numbers; 1,000 streams are accepted."""
    with pytest.raises(Invalid) as caught:
        await client.create_connection(connecting(cloud, selected(*(f"S{n}" for n in range(1001)))))
    assert caught.value.code == "too_many_streams"
    assert "1001 streams" in caught.value.detail
    assert "1000" in caught.value.detail
    assert cloud.called("connections/create") == []

    made = await client.create_connection(
        connecting(cloud, selected(*(f"S{n}" for n in range(1000))))
    )
    with pytest.raises(Invalid):
        await client.update_connection(
            made.connection_id, selected(*(f"S{n}" for n in range(1001)))
        )
    assert cloud.called("connections/update") == []


async def test_more_than_20000_fields_are_not_sent(newest: AirbyteServer) -> None:
    """On any Airbyte; with selected fields, only those count."""
    wide = catalog(*(stream(f"S{n}", {f"f{m}": "string" for m in range(201)}) for n in range(100)))
    for pair in wide["streams"]:
        pair["config"]["selected"] = True
    async with client_of(newest) as client:
        with pytest.raises(Invalid) as caught:
            await client.create_connection(connecting(newest, json.dumps(wide).encode()))
        assert caught.value.code == "catalog_too_large"
        assert "20200 fields" in caught.value.detail
        assert newest.called("connections/create") == []

        only = {"fieldSelectionEnabled": True, "selectedFields": [{"fieldPath": ["f1"]}]}
        modes = {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}
        wide["streams"][0]["config"] |= only | modes
        await client.create_connection(connecting(newest, json.dumps(wide).encode()))


async def test_discovery_of_more_than_1000_streams_fails(
    cloud: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte Cloud's own failure of the discovery is reported as such."""
    cloud.offers(catalog(*(stream(f"S{n}", {"Id": "string"}) for n in range(1001))))

    with pytest.raises(DiscoverFailed):
        await client.discover_schema(source_of(cloud))


# Permissions and statuses


async def test_jobs_are_those_of_the_workspace(cloud: AirbyteServer, client: AirbyteClient) -> None:
    """Only an administrator may list the instance's; the refusal is remembered."""
    connection_id = await connection_of(cloud, client)
    job = await client.trigger_sync(connection_id)
    assert (job.status, job.ended) == ("queued", False)

    newest = await client.newest_job()
    running = await client.running_jobs()

    assert newest is not None
    assert newest.id == job.id
    assert [one.id for one in running] == [job.id]
    assert len(cloud.called("jobs/list")) == 1
    assert [one["workspaceIds"] for one in cloud.called("jobs/list_for_workspaces")] == [
        [str(WORKSPACE)]
    ] * 2


async def test_jobs_of_other_workspaces_are_listed(
    cloud: AirbyteServer, client: AirbyteClient, caplog: pytest.LogCaptureFixture
) -> None:
    """In one request; where one of them is refused, each alone, and the refused one is logged."""
    first = (await client.trigger_sync(await connection_of(cloud, client))).id
    other, closed = UUID(cloud.add_workspace("Marketing")), uuid4()
    moved = await connection_of(cloud, client)
    cloud.connections[str(moved)]["workspaceId"] = str(other)
    second = (await client.trigger_sync(moved)).id
    start = datetime.now(UTC) - timedelta(minutes=1)
    for job_id in (first, second):
        await client.get_job(job_id)  # it is queued until it is read

    assert [job.id for job in await client.running_jobs()] == [first]
    assert [job.id for job in await client.running_jobs([other, WORKSPACE])] == [first, second]
    both = cloud.called("jobs/list_for_workspaces")[-1]["workspaceIds"]
    assert both == [str(WORKSPACE), str(other)]
    assert [job.id for job in await client.recent_jobs(start, [closed, other])] == [first, second]
    newest = await client.newest_job([closed, other])
    assert newest is not None
    assert newest.id in (first, second)  # created within the same second
    assert f"'workspace': '{closed}'" in caplog.text


async def test_jobs_are_refused_if_no_workspace_is_accessible(cloud: AirbyteServer) -> None:
    async with client_of(cloud, airbyte_workspace_id=None) as client:
        with pytest.raises(UpstreamForbidden):
            await client.running_jobs([uuid4(), uuid4()])


async def test_jobs_need_a_workspace_without_that_permission(cloud: AirbyteServer) -> None:
    async with client_of(cloud, airbyte_workspace_id=None) as client:
        with pytest.raises(UpstreamForbidden):
            await client.running_jobs()
    assert cloud.called("jobs/list_for_workspaces") == []


async def test_discovery_runs_by_command(cloud: AirbyteServer, client: AirbyteClient) -> None:
    """Although this Airbyte does not name its version."""
    found = await client.discover_schema(source_of(cloud))

    assert found.catalog_id is not None
    assert len(cloud.called("commands/run/discover")) == 1
    assert cloud.called("sources/discover_schema") == []
