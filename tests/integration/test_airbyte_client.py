"""The client against a scriptable Airbyte of both kinds: 0.63 with Basic, 2.0 with tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import MASK, AirbyteClient, NewConnection, Schedule, Source
from shared.airbyte_client._client import BODY_LIMIT_BYTES
from shared.config import Settings
from shared.errors import (
    CheckFailed,
    DiscoverFailed,
    Invalid,
    NotActive,
    SyncRunning,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from tests.fakes.airbyte_server import (
    DEFAULT_CATALOG,
    HARDCODED_RECORDS,
    POSTGRES,
    SALESFORCE,
    WORKSPACE_ID,
    AirbyteServer,
    Auth,
    catalog,
    no_such_page,
    stream,
)

pytestmark = pytest.mark.exact

WORKSPACE = UUID(WORKSPACE_ID)
CONFIGURATION = {
    "client_id": "consumer-key",
    "client_secret": "AAMCANARY-client-secret",
    "refresh_token": "AAMCANARY-refresh-token",
}


def client_of(airbyte: AirbyteServer, **settings: Any) -> AirbyteClient:
    """The client as a service makes it from its environment."""
    environment = {name.lower(): value for name, value in airbyte.environment.items()}
    return AirbyteClient.from_settings(
        Settings(
            _env_file=None,
            supabase_db_url="postgresql://u:p@localhost/aam",
            **{"airbyte_timeout": "5", **environment, **settings},
        )
    )


@pytest.fixture(params=["0.63.19", "2.0.0"])
async def airbyte(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteServer]:
    """An Airbyte of each kind."""
    auth: Auth = "basic" if request.param == "0.63.19" else "token"
    async with AirbyteServer(version=request.param, auth=auth) as server:
        yield server


@pytest.fixture
async def newest() -> AsyncIterator[AirbyteServer]:
    """A present-day Airbyte alone."""
    async with AirbyteServer(version="2.0.0", auth="token") as server:
        yield server


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteClient]:
    """The client of `airbyte`, or of `newest` where a test asks for that."""
    name = "newest" if "newest" in request.fixturenames else "airbyte"
    async with client_of(request.getfixturevalue(name)) as client:
        yield client


def source_of(airbyte: AirbyteServer, name: str = "Salesforce") -> UUID:
    """A source that is there already."""
    return UUID(airbyte.add_source(name, **CONFIGURATION)["sourceId"])


async def connection_of(airbyte: AirbyteServer, client: AirbyteClient) -> UUID:
    """A connection of two streams that is there already."""
    made = await client.create_connection(
        NewConnection(
            name="prod",
            source_id=source_of(airbyte),
            destination_id=UUID(airbyte.add_destination()["destinationId"]),
            sync_catalog=selected("Account", "Contact"),
        )
    )
    return made.connection_id


def selected(*names: str) -> bytes:
    """A catalog of selected streams, as JSON."""
    pairs = catalog(*(stream(name) for name in names))
    for pair in pairs["streams"]:
        pair["config"]["selected"] = True
    return json.dumps(pairs).encode()


# Instance and credentials


async def test_instance_and_health(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Which Airbyte it is, and the workspace to work in."""
    instance = await client.instance()

    assert instance.version == airbyte.version
    assert instance.default_workspace_id == WORKSPACE
    assert await client.health()


async def test_instance_needs_no_token(newest: AirbyteServer, client: AirbyteClient) -> None:
    """A wrong client id does not hide what Airbyte tells everybody."""
    newest.client_secret = "AAMCANARY-changed"

    assert (await client.instance()).auth_mode == "simple"
    assert newest.called("applications/token") == []


async def test_calls_at_once_share_one_token(newest: AirbyteServer, client: AirbyteClient) -> None:
    """Twenty calls, one token."""
    await asyncio.gather(*(client.list_sources(WORKSPACE) for _ in range(20)))

    assert len(newest.called("applications/token")) == 1


async def test_token_is_renewed_before_it_expires(newest: AirbyteServer) -> None:
    """No call is answered with a 401 when a token's time comes."""
    newest.token_seconds = 2.0
    async with client_of(newest) as client:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            await client.list_sources(WORKSPACE)
            await asyncio.sleep(0.05)

    tokens = {
        request.headers["Authorization"]
        for request in newest.requests
        if request.path == "sources/list"
    }
    assert 3 <= len(newest.called("applications/token")) <= 8
    assert len(tokens) == len(newest.called("applications/token"))


async def test_a_revoked_token_is_replaced_once(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """A 401 costs one new token for all who got one, and each call is repeated once."""
    await client.list_sources(WORKSPACE)
    newest.revoke_tokens()

    await asyncio.gather(*(client.list_sources(WORKSPACE) for _ in range(10)))

    assert len(newest.called("applications/token")) == 2


async def test_a_401_that_stays_is_a_denial(newest: AirbyteServer, client: AirbyteClient) -> None:
    """With a fresh token it is refused again: no third attempt."""
    newest.fault("sources/create", 401, times=None)

    with pytest.raises(UpstreamDenied):
        await create(client)

    assert len(newest.called("sources/create")) == 2
    assert newest.sources == {}


async def test_a_wrong_client_secret_is_a_denial(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers 400 for it."""
    newest.client_secret = "AAMCANARY-changed"

    with pytest.raises(UpstreamDenied) as caught:
        await create(client)

    assert "CANARY" not in repr(caught.value)


async def test_without_a_token_nothing_was_sent(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """The token endpoint's trouble is no unknown outcome of the call."""
    newest.fault("applications/token", "html_502", times=None)

    with pytest.raises(UpstreamUnreachable):
        await create(client)

    assert newest.called("sources/create") == []


async def test_a_slow_token_endpoint_is_asked_again(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte gives itself one second for a token and answers 408 after it."""
    newest.fault("applications/token", 408)

    assert await client.list_sources(WORKSPACE) == []


async def test_a_bearer_key_goes_before_the_rest(newest: AirbyteServer) -> None:
    """One header, and no token is fetched."""
    async with client_of(newest, airbyte_api_key=newest.api_key) as client:
        await client.list_sources(WORKSPACE)

    assert newest.requests[0].headers["Authorization"] == f"Bearer {newest.api_key}"
    assert newest.called("applications/token") == []


async def test_basic_credentials_go_along(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """The compose release's proxy wants them on every call, health included."""
    await client.health()
    await client.list_sources(WORKSPACE)

    if airbyte.auth == "basic":
        said = base64.b64encode(f"{airbyte.username}:{airbyte.password}".encode()).decode()
        assert {request.headers["Authorization"] for request in airbyte.requests} == {
            f"Basic {said}"
        }
    else:
        assert "Authorization" not in airbyte.requests[0].headers


# Sources


async def create(client: AirbyteClient) -> Source:
    """A source with secrets in its configuration."""
    return await client.create_source(
        WORKSPACE, CONFIGURATION, name="Salesforce", source_definition_id=UUID(SALESFORCE)
    )


async def test_sources_come_and_go(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Create, get, list, delete, and delete once more."""
    made = await create(client)

    assert airbyte.sources[str(made.source_id)]["connectionConfiguration"] == CONFIGURATION
    assert await client.get_source(made.source_id) == made
    assert await client.list_sources(WORKSPACE) == [made]

    await client.delete_source(made.source_id)
    await client.delete_source(made.source_id)
    assert airbyte.sources == {}
    with pytest.raises(UpstreamMissing):
        await client.get_source(made.source_id)


async def test_a_refused_configuration_is_not_quoted(
    airbyte: AirbyteServer, client: AirbyteClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Airbyte's own message repeats the whole configuration; ours repeats nothing."""
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


@pytest.mark.parametrize("status", [403, 500])
async def test_deleting_the_unknown_is_done_however_airbyte_says_it(
    airbyte: AirbyteServer, client: AirbyteClient, status: int
) -> None:
    """Some versions answer 403 or 500 for an id that is not there; the list tells."""
    airbyte.fault("sources/delete", status, times=None)
    airbyte.fault("connections/delete", status, times=None)
    there = source_of(airbyte)

    await client.delete_source(uuid4())
    await client.delete_connection(uuid4())

    with pytest.raises((UpstreamDenied, UpstreamUnknown)):
        await client.delete_source(there)


async def test_a_lost_deletion_is_repeated(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """It took effect and the answer was lost: the second one says 404."""
    there = source_of(airbyte)
    airbyte.fault("sources/delete", "reset", after_effect=True)

    await client.delete_source(there)

    assert airbyte.sources == {}


async def test_check(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """HTTP 200 says nothing about the source: the body does."""
    source_id = source_of(airbyte)
    await client.check_source(source_id)

    airbyte.fail_check("AAMCANARY-message", times=1)
    with pytest.raises(CheckFailed):
        await client.check_source(source_id)

    airbyte.fail_check("AAMCANARY-message", failure_type="transient_error", job=True, times=1)
    with pytest.raises(CheckFailed) as caught:
        await client.check_source(source_id)
    assert caught.value.members == {"failure_type": "transient_error", "retryable": True}
    assert caught.value.retryable
    assert "CANARY" not in repr(caught.value.problem())


async def test_an_update_of_a_source(airbyte: AirbyteServer, client: AirbyteClient) -> None:
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
    kept = airbyte.sources[str(source_id)]["connectionConfiguration"]
    assert kept == {"client_id": "other", "client_secret": "new", "refresh_token": "renewed"}

    airbyte.fail_check("AAMCANARY-message", times=1)
    with pytest.raises(CheckFailed) as caught:
        await client.check_source_update(source_id, given, name="x")
    assert "CANARY" not in repr(caught.value.problem())
    with pytest.raises(UpstreamRefused):
        await client.check_source_update(source_id, {"client_secret": "AAMCANARY"}, name="x")


# Discovering


async def test_discovery_goes_past_the_cache(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Each call runs the connector, whichever way this Airbyte has; no connection goes along."""
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
    """Airbyte answers 200; why is told by type, never by the connector's words."""
    airbyte.fail_discovery(failure_type, "AAMCANARY password", retryable=retryable)

    with pytest.raises(DiscoverFailed) as caught:
        await client.discover_schema(source_of(airbyte))

    plain = None if "CANARY" in failure_type else failure_type
    assert caught.value.members == {"failure_type": plain, "retryable": expected}
    assert caught.value.retryable is expected
    assert "CANARY" not in repr(caught.value.problem())


async def test_discovery_without_a_catalog_or_without_job_info() -> None:
    """No catalog is a failure; a missing `jobInfo` is none."""
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


async def test_a_cancelled_discovery_has_failed(
    newest: AirbyteServer, client: AirbyteClient
) -> None:
    """Somebody cancelled the command."""
    newest.command_statuses = ["pending", None, "cancelled"]

    with pytest.raises(DiscoverFailed) as caught:
        await client.discover_schema(source_of(newest))

    assert caught.value.members["failure_type"] == "manual_cancellation"


async def test_a_lost_command_is_sent_again_under_its_id(
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


async def test_discovery_has_one_deadline(newest: AirbyteServer) -> None:
    """However many polls it takes."""
    newest.command_statuses = ["running"] * 1000
    started = time.monotonic()
    async with client_of(newest, discover_timeout="1") as client:
        with pytest.raises(UpstreamTimeout):
            await client.discover_schema(source_of(newest))
    assert 0.9 < time.monotonic() - started < 3


@pytest.mark.parametrize("version", ["1.6.2", "1.7.0", "head"])
async def test_the_way_to_discover_is_what_the_server_says(version: str) -> None:
    """By version; a build without one is asked for a command."""
    async with AirbyteServer(version=version) as airbyte, client_of(airbyte) as client:
        source_id = source_of(airbyte)
        assert b"Account" in (await client.discover_schema(source_id)).catalog
        assert bool(airbyte.called("commands/run/discover")) is (version != "1.6.2")


async def test_a_downgrade_is_noticed() -> None:
    """What was remembered stops fitting, so the server is asked again."""
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


async def test_an_unknown_source_is_missing_and_not_another_version() -> None:
    """The 404 is the source's: the other way is not tried."""
    async with AirbyteServer(version="0.63.19") as airbyte, client_of(airbyte) as client:
        with pytest.raises(UpstreamMissing):
            await client.discover_schema(uuid4())
        assert airbyte.called("commands/run/discover") == []


# Connections


@pytest.mark.parametrize(
    "schedule,kind,sent",
    [
        (None, "manual", None),
        (Schedule(units=6), "basic", {"basicSchedule": {"timeUnit": "hours", "units": 6}}),
        (
            Schedule(cron="0 0 * * * ?"),
            "cron",
            {"cron": {"cronExpression": "0 0 * * * ?", "cronTimeZone": "UTC"}},
        ),
    ],
)
async def test_a_connection_is_made_as_aam_needs_it(
    airbyte: AirbyteServer,
    client: AirbyteClient,
    schedule: Schedule | None,
    kind: str,
    sent: dict[str, Any] | None,
) -> None:
    """Active, with Airbyte told to leave schema changes alone, and the discovery it came from."""
    catalog_id = uuid4()
    made = await client.create_connection(
        NewConnection(
            name="prod",
            source_id=source_of(airbyte),
            destination_id=UUID(airbyte.add_destination()["destinationId"]),
            sync_catalog=selected("Account"),
            source_catalog_id=catalog_id,
            schedule=schedule,
            prefix="sf_",
        )
    )

    (body,) = airbyte.called("connections/create")
    assert body["nonBreakingChangesPreference"] == "ignore"
    assert body["scheduleType"] == kind
    assert body.get("scheduleData") == sent
    assert body["sourceCatalogId"] == str(catalog_id)
    assert body["prefix"] == "sf_"
    assert "namespaceFormat" not in body
    assert (made.status, made.source_catalog_id, made.schedule_type) == ("active", catalog_id, kind)
    assert await client.get_connection(made.connection_id) == made
    (listed,) = await client.list_connections(WORKSPACE)
    assert (listed.connection_id, listed.name) == (made.connection_id, "prod")
    assert (listed.source_id, listed.status) == (made.source_id, "active")


async def test_healing_replaces_the_catalog(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Only what is given is sent, and only the selected streams of it."""
    connection_id = await connection_of(airbyte, client)
    airbyte.connections[str(connection_id)].update(status="inactive", breakingChange=True)
    catalog_id = uuid4()
    mixed = json.loads(selected("Account", "Lead", "Case"))
    mixed["streams"][2]["config"]["selected"] = False

    healed = await client.update_connection(
        connection_id,
        json.dumps(mixed).encode(),
        source_catalog_id=catalog_id,
        status="active",
        breaking_change=False,
    )

    (body,) = airbyte.called("connections/update")
    assert set(body) == {
        "connectionId",
        "syncCatalog",
        "sourceCatalogId",
        "status",
        "breakingChange",
    }
    assert body["syncCatalog"]["streams"] == mixed["streams"][:2]
    assert (healed.status, healed.breaking_change) == ("active", False)
    assert healed.source_catalog_id == catalog_id
    kept = json.loads(healed.sync_catalog)["streams"]
    assert [pair["stream"]["name"] for pair in kept] == ["Account", "Lead"]

    await client.update_connection(connection_id, selected("Account"))
    assert set(airbyte.called("connections/update")[1]) == {"connectionId", "syncCatalog"}


async def test_a_body_over_the_limit_is_not_sent(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The limit is for the whole request; a byte below it passes."""
    connection_id = await connection_of(airbyte, client)
    small = selected("Account")
    room = BODY_LIMIT_BYTES - len(
        b'{"connectionId":"%s","syncCatalog":%s}' % (str(connection_id).encode(), small)
    )

    with pytest.raises(Invalid) as caught:
        await client.update_connection(connection_id, small[:-1] + b" " * (room + 1) + b"}")
    assert caught.value.code == "catalog_too_large"
    assert airbyte.called("connections/update") == []

    await client.update_connection(connection_id, small[:-1] + b" " * room + b"}")
    assert airbyte.requests[-1].headers["Content-Length"] == str(BODY_LIMIT_BYTES)
    assert "Transfer-Encoding" not in airbyte.requests[-1].headers


async def test_unselected_streams_do_not_count(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """They are dropped before anything is measured."""
    connection_id = await connection_of(airbyte, client)
    big = json.loads(selected("Account", "Lead"))
    big["streams"][1]["config"]["selected"] = False
    big["streams"][1]["stream"]["jsonSchema"]["description"] = "long " * (BODY_LIMIT_BYTES // 4)
    body = json.dumps(big).encode()

    await client.update_connection(connection_id, body)

    kept = airbyte.connections[str(connection_id)]["syncCatalog"]["streams"]
    assert [pair["stream"]["name"] for pair in kept] == ["Account"]


@pytest.mark.parametrize(
    "wrong,code",
    [
        (b'{"streams":[]}', "no_selected_stream"),
        (b'{"streams": [ ]}', "no_selected_stream"),
        (b'{"streams":[{"stream":{},"config":{"selected":false}}]}', "no_selected_stream"),
        (b'{"streams":[{"stream":{},"config":{}}]}', "no_selected_stream"),
        (b'{"streams":[{"stream":{}}]}', "invalid_request"),
        (b"[]", "invalid_request"),
        (b"{", "invalid_request"),
        (b"", "invalid_request"),
    ],
)
async def test_what_selects_nothing_is_not_sent(
    airbyte: AirbyteServer, client: AirbyteClient, wrong: bytes, code: str
) -> None:
    """An empty catalog would stop every stream, so it is never meant."""
    with pytest.raises(Invalid) as caught:
        await client.update_connection(uuid4(), wrong)
    assert caught.value.code == code
    assert airbyte.called("connections/update") == []


async def test_an_update_is_sent_once(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """It may have happened: that is for the caller to find out."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/update", "reset", after_effect=True)

    with pytest.raises(UpstreamUnknown):
        await client.update_connection(connection_id, selected("Lead"))

    assert len(airbyte.called("connections/update")) == 1


async def test_a_deleted_connection_says_so(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Airbyte keeps it as deprecated; deleting it twice is no error."""
    connection_id = await connection_of(airbyte, client)
    await client.delete_connection(connection_id)
    await client.delete_connection(connection_id)

    assert (await client.get_connection(connection_id)).status == "deprecated"
    assert await client.list_connections(WORKSPACE) == []


# Jobs


async def test_a_sync_from_start_to_end(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Its job is followed by id, and counts when it has ended."""
    connection_id = await connection_of(airbyte, client)

    started = await client.trigger_sync(connection_id)
    assert (started.status, started.ended, started.connection_id) == (
        "running",
        False,
        connection_id,
    )
    assert started.ended_at is None
    (status,) = await client.connection_statuses([connection_id])
    assert (status.status, status.last_job_id) == ("running", started.id)

    airbyte.finish_job(started.id, records=7, bytes=700)
    ended = await client.get_job(started.id)
    assert ended.ended
    assert (ended.status, ended.records, ended.bytes_, ended.attempts) == ("succeeded", 7, 700, 1)
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.created_at
    assert await client.list_jobs(connection_id, limit=5) == [ended]


async def test_a_failed_job_tells_its_type(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """By Airbyte's words for type and origin, never by its messages."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    airbyte.finish_job(job.id, "incomplete", failure=("transient_error", "AAMCANARY"))
    assert not (await client.get_job(job.id)).ended

    airbyte.finish_job(job.id, "failed", failure=("config_error", "AAMCANARY"))
    failed = await client.get_job(job.id)
    assert (failed.failure_type, failed.failure_origin) == ("config_error", "source")
    assert "CANARY" not in repr(failed)


async def test_a_second_sync_names_the_first(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Airbyte's 409 says that something runs; the list says what."""
    connection_id = await connection_of(airbyte, client)
    running = await client.trigger_sync(connection_id)

    with pytest.raises(SyncRunning) as caught:
        await client.trigger_sync(connection_id)

    assert caught.value.members == {"airbyte_job_id": running.id}
    assert len(airbyte.jobs) == 1


async def test_a_409_with_nothing_running_is_a_conflict(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers database errors with 409, too."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/sync", 409)

    with pytest.raises(UpstreamConflict):
        await client.trigger_sync(connection_id)


async def test_an_inactive_connection_is_not_synced(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers 500 and tells nothing; the connection's status does."""
    connection_id = await connection_of(airbyte, client)
    airbyte.connections[str(connection_id)]["status"] = "inactive"

    with pytest.raises(NotActive):
        await client.trigger_sync(connection_id)

    airbyte.connections[str(connection_id)]["status"] = "active"
    airbyte.fault("connections/sync", 500)
    with pytest.raises(UpstreamUnknown):
        await client.trigger_sync(connection_id)


async def test_a_lost_sync_is_not_started_twice(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The job runs and the answer is lost: unknown, and the list has it."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/sync", "close", after_effect=True)

    with pytest.raises(UpstreamUnknown):
        await client.trigger_sync(connection_id)

    assert len(airbyte.called("connections/sync")) == 1
    assert [job.id for job in await client.list_jobs(connection_id, limit=1)] == [1]


async def test_a_job_is_cancelled(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """And then it has ended."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)

    assert (await client.cancel_job(job.id)).status == "cancelled"
    assert (await client.get_job(job.id)).ended


async def test_a_job_without_the_light_endpoint(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Where there is no answer without logs, the one with logs is read."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    missing = no_such_page("/api/v1/jobs/get_without_logs")
    airbyte.answer("jobs/get_without_logs", missing.body, status=missing.status)

    assert await client.get_job(job.id) == job


# Destinations and definitions


async def test_destinations_and_definitions(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """What a workspace can read from and write to."""
    configuration = {
        "host": "localhost",
        "port": 5432,
        "username": "w",
        "password": "AAMCANARY",
        "database": "warehouse",
        "schema": "public",
    }
    made = await client.create_destination(
        WORKSPACE, configuration, name="Warehouse", destination_definition_id=UUID(POSTGRES)
    )

    assert await client.get_destination(made.destination_id) == made
    modes = await client.destination_sync_modes(made.destination_id)
    assert modes == {"append", "overwrite", "append_dedup"}
    sources = await client.source_definitions(WORKSPACE)
    assert UUID(SALESFORCE) in {definition.definition_id for definition in sources}
    (postgres,) = await client.destination_definitions(WORKSPACE)
    assert (postgres.name, postgres.docker_repository) == (
        "Postgres",
        "airbyte/destination-postgres",
    )
    specification = json.loads(await client.source_specification(UUID(SALESFORCE), WORKSPACE))
    assert "refresh_token" in specification["required"]
