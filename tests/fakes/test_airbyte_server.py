"""Tests of the scriptable Airbyte server's faults and scripted behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer, Fault, catalog, stream
from tests.waiting import until

Json = dict[str, Any]


@pytest.fixture
async def server() -> AsyncIterator[AirbyteServer]:
    """An Airbyte without authentication."""
    async with AirbyteServer() as server:
        yield server


@pytest.fixture
async def http(server: AirbyteServer) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client, to see the behaviour on the wire."""
    async with httpx.AsyncClient(base_url=server.url, timeout=2) as client:
        yield client


def _connection(server: AirbyteServer, *streams: str) -> Json:
    """Build the request for a connection that selects these streams."""
    pairs = catalog(*(stream(name) for name in streams))
    for pair in pairs["streams"]:
        pair["config"]["selected"] = True
    return {
        "sourceId": server.add_source("crm")["sourceId"],
        "destinationId": server.add_destination()["destinationId"],
        "status": "active",
        "syncCatalog": pairs,
    }


@pytest.mark.parametrize(
    "kind, seen",
    [
        ("reset", httpx.ReadError),
        ("close", httpx.RemoteProtocolError),
        ("garbage", httpx.RemoteProtocolError),
        ("truncated", httpx.RemoteProtocolError),
        ("hang", httpx.ReadTimeout),
    ],
)
@pytest.mark.parametrize("after_effect", [False, True])
async def test_an_answer_is_lost(
    server: AirbyteServer,
    http: httpx.AsyncClient,
    kind: Fault,
    seen: type[Exception],
    after_effect: bool,
) -> None:
    """The response is lost once, with or without the effect, as scripted."""
    order = _connection(server, "Account")
    server.fault("connections/create", kind, after_effect=after_effect)
    with pytest.raises(seen):
        await http.post("/connections/create", json=order, timeout=0.5)
    assert len(server.connections) == int(after_effect)
    assert (await http.post("/connections/create", json=order)).status_code == 200


async def test_a_late_effect_comes_after_the_caller_gave_up(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """The connection is reset immediately, and the request takes effect later."""
    server.fault("connections/create", "late", seconds=0.2)
    with pytest.raises(httpx.ReadError):
        await http.post("/connections/create", json=_connection(server, "Account"))
    assert server.connections == {}
    await until(lambda: len(server.connections) == 1)


async def test_a_lie_keeps_nothing(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """The response looks successful, but the state does not change."""
    connection = (await http.post("/connections/create", json=_connection(server, "A", "B"))).json()
    fewer = {"streams": connection["syncCatalog"]["streams"][:1]}
    server.fault("connections/update", "lie")
    order = {"connectionId": connection["connectionId"], "syncCatalog": fewer}
    body = (await http.post("/connections/update", json=order)).json()
    assert len(body["syncCatalog"]["streams"]) == 1
    assert len(server.connections[connection["connectionId"]]["syncCatalog"]["streams"]) == 2


async def test_requests_at_once_are_counted(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """Peaks are counted per object, to detect concurrent writers of one connection."""
    one, two = (server.add_source(name)["sourceId"] for name in ("one", "two"))
    server.fault("sources/get", "slow", times=3, seconds=0.2)
    await asyncio.gather(
        *(http.post("/sources/get", json={"sourceId": source}) for source in (one, one, two))
    )
    assert server.most_at_once("sources/get") == 2


async def test_jobs_end_after_some_polls(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """Jobs end with the scripted counts; until then a second one is refused."""
    connection = (
        await http.post("/connections/create", json=_connection(server, "Account"))
    ).json()
    server.jobs_end_with("succeeded", polls=2, records=7, bytes=70)
    order = {"connectionId": connection["connectionId"]}
    job = (await http.post("/connections/sync", json=order)).json()["job"]
    assert (await http.post("/connections/sync", json=order)).status_code == 409
    seen = [
        (await http.post("/jobs/get_light", json={"id": job["id"]})).json()["job"]["status"]
        for _ in range(2)
    ]
    assert seen == ["running", "succeeded"]
    assert server.attempts[job["id"]][0]["recordsSynced"] == 7


async def _discovered(server: AirbyteServer, http: httpx.AsyncClient, source: str) -> Json:
    """Discover a source's streams, by name."""
    order = {"sourceId": source, "disable_cache": True}
    found = (await http.post("/sources/discover_schema", json=order)).json()
    return {pair["stream"]["name"]: pair for pair in found["catalog"]["streams"]}


async def test_a_source_changes_between_discoveries(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """Changes affect the given source only; its cursor and key follow their renamed fields."""
    one, other = (server.add_source(name)["sourceId"] for name in ("one", "other"))
    server.add_field("Account", "Region__c", source=one)
    server.retype_field("Account", "AnnualRevenue", "string", source=one)
    server.rename_field("Account", "Id", "AccountKey", source=one)
    server.rename_field("Contact", "SystemModstamp", "ModifiedAt", source=one)
    server.drop_field("Opportunity", "SystemModstamp", source=one)

    found = await _discovered(server, http, one)

    fields = found["Account"]["stream"]["jsonSchema"]["properties"]
    assert list(fields) == ["AccountKey", "Name", "AnnualRevenue", "SystemModstamp", "Region__c"]
    assert fields["AnnualRevenue"] == {"type": ["string", "null"]}
    assert found["Account"]["stream"]["sourceDefinedPrimaryKey"] == [["AccountKey"]]
    assert found["Contact"]["stream"]["defaultCursorField"] == ["ModifiedAt"]
    assert found["Contact"]["config"]["cursorField"] == ["ModifiedAt"]
    assert found["Opportunity"]["stream"]["supportedSyncModes"] == ["full_refresh"]
    assert found["Opportunity"]["config"]["syncMode"] == "full_refresh"
    untouched = await _discovered(server, http, other)
    assert "Region__c" not in untouched["Account"]["stream"]["jsonSchema"]["properties"]


async def test_hidden_streams_come_back_as_they_were(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """The catalog id depends on the content only."""
    order = {"sourceId": server.add_source("crm")["sourceId"], "disable_cache": True}
    before = (await http.post("/sources/discover_schema", json=order)).json()
    server.hide("Account")
    hidden = (await http.post("/sources/discover_schema", json=order)).json()
    server.show("Account")
    after = (await http.post("/sources/discover_schema", json=order)).json()
    assert "Account" not in [pair["stream"]["name"] for pair in hidden["catalog"]["streams"]]
    assert len(hidden["catalog"]["streams"]) == len(before["catalog"]["streams"]) - 1
    assert hidden["catalogId"] != before["catalogId"] == after["catalogId"]


async def test_catalogs_are_found_in_turn(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """Each catalog is returned by one discovery, the last one by all further ones."""
    source = server.add_source("crm")["sourceId"]
    server.offers(*(catalog(stream(name)) for name in ("A", "B", "A", "C")))
    found = [list(await _discovered(server, http, source)) for _ in range(5)]
    assert found == [["A"], ["B"], ["A"], ["C"], ["C"]]


@pytest.mark.parametrize("version", ["0.63.19", "2.0.0"])
async def test_discoveries_at_once_are_counted(version: str) -> None:
    """Concurrent discoveries of all sources are counted, synchronous or run as commands."""
    async with (
        AirbyteServer(version=version) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        sources = [server.add_source(str(number))["sourceId"] for number in range(3)]
        if version == "0.63.19":
            server.fault("sources/discover_schema", "slow", times=3, seconds=0.2)
            await asyncio.gather(*(_discovered(server, http, source) for source in sources))
        else:
            for source in sources:
                command = {"id": source}
                await http.post("/commands/run/discover", json={**command, "actor_id": source})
            for source in sources:
                for expected in ("running", "completed"):
                    status = await http.post("/commands/status", json={"id": source})
                    assert status.json()["status"] == expected
        assert server.most_discoveries_at_once == 3
        assert server.most_at_once("sources/discover_schema") <= 1
        server.forget_peaks()
        assert server.most_discoveries_at_once == 0


async def test_a_job_fails_as_scripted_and_the_next_succeeds(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """The failure has the scripted type, in the attempt where Airbyte reports it."""
    connection = (
        await http.post("/connections/create", json=_connection(server, "Account"))
    ).json()
    server.jobs_end_with("failed", failure=("config_error", "a field is gone"), times=1)
    order, ended = {"connectionId": connection["connectionId"]}, []
    for _ in range(2):
        job = (await http.post("/connections/sync", json=order)).json()["job"]
        ended.append((await http.post("/jobs/get", json={"id": job["id"]})).json())
    assert [job["job"]["status"] for job in ended] == ["failed", "succeeded"]
    (failure,) = ended[0]["attempts"][0]["attempt"]["failureSummary"]["failures"]
    assert (failure["failureType"], failure["failureOrigin"]) == ("config_error", "source")
    assert "failureSummary" not in ended[1]["attempts"][0]["attempt"]


async def test_state_ends_with_the_mode_and_not_with_the_stream(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """A changed mode removes it, since 1.8 with the update; a stream left out keeps it."""
    connection = (
        await http.post("/connections/create", json=_connection(server, "A", "B", "C"))
    ).json()
    order = {"connectionId": connection["connectionId"]}

    async def streams_with_state() -> list[str]:
        body = (await http.post("/state/get", json=order)).json()
        return [one["streamDescriptor"]["name"] for one in body.get("streamState", [])]

    async def sync() -> None:
        job = (await http.post("/connections/sync", json=order)).json()["job"]
        await http.post("/jobs/get", json={"id": job["id"]})

    assert await streams_with_state() == []
    server.jobs_end_with("succeeded")
    await sync()
    assert await streams_with_state() == ["A", "B", "C"]

    await http.post("/connections/update", json={**order, "status": "inactive"})
    assert (await http.post("/connections/sync", json=order)).status_code == 500
    pairs = connection["syncCatalog"]["streams"][:2]
    pairs[1]["config"].update(syncMode="full_refresh", destinationSyncMode="overwrite")
    healed = {"syncCatalog": {"streams": pairs}, "status": "active", "breakingChange": False}
    await http.post("/connections/update", json={**order, **healed})
    is_new = server.release.since(1, 8)
    assert await streams_with_state() == (["A", "C"] if is_new else ["A", "B", "C"])
    await sync()
    assert sorted(await streams_with_state()) == ["A", "C"]

    cleared = server.start_job(connection["connectionId"], "clear")
    assert await streams_with_state() == []
    listed = {"configTypes": ["clear", "reset_connection"], "configId": connection["connectionId"]}
    (seen,) = (await http.post("/jobs/list", json=listed)).json()["jobs"]
    assert seen["job"]["id"] == cleared["id"]


async def test_airbyte_stops_a_connection_by_itself(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """The connection and its status show it, and an update reactivates the connection."""
    connection = (
        await http.post("/connections/create", json=_connection(server, "Account"))
    ).json()
    order = {"connectionId": connection["connectionId"]}
    server.disable(connection["connectionId"])
    held = (await http.post("/connections/get", json=order)).json()
    assert (held["status"], held["breakingChange"]) == ("inactive", True)
    query = {"connectionIds": [connection["connectionId"]]}
    (status,) = (await http.post("/connections/status", json=query)).json()
    assert status["connectionSyncStatus"] == "failed"
    healed = {
        "status": "active",
        "breakingChange": False,
        "sourceCatalogId": connection["sourceId"],
    }
    held = (await http.post("/connections/update", json={**order, **healed})).json()
    assert {name: held[name] for name in healed} == healed
    assert held["syncCatalog"] == connection["syncCatalog"]
    assert (await http.post("/connections/sync", json=order)).status_code == 200


@pytest.mark.parametrize(
    "spoil, status",
    [
        (lambda pairs: pairs.append(pairs[0]), 500),
        (lambda pairs: pairs[0]["config"].pop("selected"), 500),
        (
            lambda pairs: pairs[0]["config"].update(
                fieldSelectionEnabled=True, selectedFields=[{"fieldPath": ["Name"]}]
            ),
            422,
        ),
        (
            lambda pairs: pairs[0]["stream"]["jsonSchema"].update(
                properties={f"f{number}": {} for number in range(20_001)}
            ),
            400,
        ),
        (lambda pairs: pairs[0]["stream"].update(name="x" * 11_000_000), 413),
    ],
    ids=["twice", "not-said", "without-its-key", "20001-fields", "11-MB"],
)
async def test_catalogs_that_airbyte_refuses(
    server: AirbyteServer, http: httpx.AsyncClient, spoil: Any, status: int
) -> None:
    """The statuses are Airbyte's, and nothing is stored."""
    order = _connection(server, "Account")
    spoil(order["syncCatalog"]["streams"])
    assert (await http.post("/connections/create", json=order)).status_code == status
    assert server.connections == {}


@pytest.mark.parametrize("version, page", [("0.63.19", 45), ("2.0.0", 20)])
async def test_lists_are_paged_since_1_8(version: str, page: int) -> None:
    """The last release for docker compose has no pages."""
    async with AirbyteServer(version=version) as server, httpx.AsyncClient() as http:
        for number in range(45):
            server.add_source(f"source {number:02}")
        body = {"workspaceId": WORKSPACE_ID}
        listed = (await http.post(f"{server.url}/sources/list", json=body)).json()["sources"]
    assert len(listed) == page


async def test_workspaces_are_separate(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """Lists and jobs are those of the requested workspaces; an unknown workspace is refused."""
    other = server.add_workspace("Marketing")
    made = {}
    for workspace in (WORKSPACE_ID, other):
        order = {
            "sourceId": server.add_source("crm", workspace=workspace)["sourceId"],
            "destinationId": server.add_destination(workspace=workspace)["destinationId"],
            "status": "active",
        }
        made[workspace] = (await http.post("/connections/create", json=order)).json()
        server.start_job(made[workspace]["connectionId"])

    async def listed(path: str, kind: str, **body: Any) -> list[Json]:
        answer = await http.post(f"/{path}/list", json=body)
        found: list[Json] = answer.json()[kind]
        return found

    for workspace, connection in made.items():
        for kind in ("sources", "destinations", "connections"):
            (one,) = await listed(kind, kind, workspaceId=workspace)
            assert one["workspaceId"] == workspace
        (item,) = await listed("web_backend/connections", "connections", workspaceId=workspace)
        assert item["connectionId"] == connection["connectionId"]
        jobs = {"configTypes": ["sync"], "workspaceIds": [workspace]}
        (job,) = (await http.post("/jobs/list_for_workspaces", json=jobs)).json()["jobs"]
        assert job["job"]["configId"] == connection["connectionId"]
        read = await http.post("/workspaces/get", json={"workspaceId": workspace})
        assert (read.json()["workspaceId"], read.status_code) == (workspace, 200)
    every = {"configTypes": ["sync"], "workspaceIds": list(made)}
    assert len((await http.post("/jobs/list_for_workspaces", json=every)).json()["jobs"]) == 2

    del server.workspaces[other]
    assert (await http.post("/jobs/list_for_workspaces", json=every)).status_code == 403
    for path in ("workspaces/get", "sources/list", "connections/list"):
        gone = await http.post(f"/{path}", json={"workspaceId": other})
        assert gone.status_code == 404


async def test_source_and_destination_of_two_workspaces_are_not_connected(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """Airbyte answers 500 (ConnectionHelper.validateWorkspace)."""
    server.version = "0.63.19"
    other = server.add_workspace("Marketing")
    order = {
        "sourceId": server.add_source("crm")["sourceId"],
        "destinationId": server.add_destination(workspace=other)["destinationId"],
        "status": "active",
    }

    answer = await http.post("/connections/create", json=order)

    assert answer.status_code == 500
    assert "do not belong to the same workspace" in answer.text
    assert server.connections == {}
