"""The trouble that the scriptable server makes is the trouble it says it makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer, Fault, catalog, stream

Json = dict[str, Any]


@pytest.fixture
async def server() -> AsyncIterator[AirbyteServer]:
    """An Airbyte without a login."""
    async with AirbyteServer() as server:
        yield server


@pytest.fixture
async def http(server: AirbyteServer) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP, which shows what happens on the wire."""
    async with httpx.AsyncClient(base_url=server.url, timeout=2) as client:
        yield client


def _connection(server: AirbyteServer, *streams: str) -> Json:
    """The order for a connection that selects these streams."""
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
    """Before its effect or after it, as the test wants, and only once."""
    order = _connection(server, "Account")
    server.fault("connections/create", kind, after_effect=after_effect)
    with pytest.raises(seen):
        await http.post("/connections/create", json=order, timeout=0.5)
    assert len(server.connections) == int(after_effect)
    assert (await http.post("/connections/create", json=order)).status_code == 200


async def test_a_late_effect_comes_after_the_caller_gave_up(
    server: AirbyteServer, http: httpx.AsyncClient
) -> None:
    """The connection is reset at once, and what was ordered happens all the same."""
    server.fault("connections/create", "late", seconds=0.2)
    with pytest.raises(httpx.ReadError):
        await http.post("/connections/create", json=_connection(server, "Account"))
    assert server.connections == {}
    await asyncio.sleep(0.4)
    assert len(server.connections) == 1


async def test_a_lie_keeps_nothing(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """The answer is the true one, and the state that of before."""
    made = (await http.post("/connections/create", json=_connection(server, "A", "B"))).json()
    fewer = {"streams": made["syncCatalog"]["streams"][:1]}
    server.fault("connections/update", "lie")
    order = {"connectionId": made["connectionId"], "syncCatalog": fewer}
    told = (await http.post("/connections/update", json=order)).json()
    assert len(told["syncCatalog"]["streams"]) == 1
    assert len(server.connections[made["connectionId"]]["syncCatalog"]["streams"]) == 2


async def test_requests_at_once_are_counted(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """Per object, so that two writers of one connection are seen."""
    one, two = (server.add_source(name)["sourceId"] for name in ("one", "two"))
    server.fault("sources/get", "slow", times=3, seconds=0.2)
    await asyncio.gather(
        *(http.post("/sources/get", json={"sourceId": source}) for source in (one, one, two))
    )
    assert server.most_at_once("sources/get") == 2


async def test_jobs_end_after_some_polls(server: AirbyteServer, http: httpx.AsyncClient) -> None:
    """By themselves, with the counts that were asked for; until then a second one is refused."""
    made = (await http.post("/connections/create", json=_connection(server, "Account"))).json()
    server.jobs_end_with("succeeded", polls=2, records=7, bytes=70)
    order = {"connectionId": made["connectionId"]}
    job = (await http.post("/connections/sync", json=order)).json()["job"]
    assert (await http.post("/connections/sync", json=order)).status_code == 409
    seen = [
        (await http.post("/jobs/get_light", json={"id": job["id"]})).json()["job"]["status"]
        for _ in range(2)
    ]
    assert seen == ["running", "succeeded"]
    assert server.attempts[job["id"]][0]["recordsSynced"] == 7


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
    """With its statuses, and nothing is kept."""
    order = _connection(server, "Account")
    spoil(order["syncCatalog"]["streams"])
    assert (await http.post("/connections/create", json=order)).status_code == status
    assert server.connections == {}


@pytest.mark.parametrize("version, page", [("0.63.19", 45), ("2.0.0", 20)])
async def test_lists_are_paged_since_1_8(version: str, page: int) -> None:
    """The last release of compose answered everything."""
    async with AirbyteServer(version=version) as server, httpx.AsyncClient() as http:
        for number in range(45):
            server.add_source(f"source {number:02}")
        body = {"workspaceId": WORKSPACE_ID}
        listed = (await http.post(f"{server.url}/sources/list", json=body)).json()["sources"]
    assert len(listed) == page
