"""Lists of Airbyte's that do not end, and how the client ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from shared.airbyte_client import AirbyteClient, _calls
from shared.errors import UpstreamTimeout, UpstreamUnknown
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.airbyte_client.stage import WORKSPACE, client_of

pytestmark = pytest.mark.exact

Listing = Callable[[AirbyteClient], Awaitable[Any]]
JOB: dict[str, Any] = {"configType": "sync", "status": "running", "configId": "x"}
JOB |= {"createdAt": 1_700_000_000, "updatedAt": 1_700_000_000}


async def test_repeated_page_of_jobs_is_read_twice(
    airbyte: AirbyteServer,
) -> None:
    """Airbyte ignores the offset: the second page has nothing new, and is the last."""
    jobs = [{"job": {**JOB, "id": number}, "attempts": []} for number in range(100)]
    airbyte.answer("jobs/list", {"jobs": jobs, "totalJobCount": 100}, times=None)
    async with client_of(airbyte) as client:
        found = await client.running_jobs()

    assert [job.id for job in found] == list(range(100))
    assert len(airbyte.called("jobs/list")) == 2


def _sources(_page: int) -> dict[str, Any]:
    return {"sources": [_source() for _ in range(100)]}


def _source() -> dict[str, Any]:
    return {
        "sourceId": str(uuid4()),
        "sourceDefinitionId": str(uuid4()),
        "workspaceId": str(WORKSPACE),
        "name": "a source",
    }


def _connections(_page: int) -> dict[str, Any]:
    ends = {"source": {"sourceId": str(uuid4())}, "destination": {"destinationId": str(uuid4())}}
    rows = [
        {"connectionId": str(uuid4()), "name": "one", "status": "active", **ends}
        for _ in range(100)
    ]
    return {"connections": rows}


def _jobs(page: int) -> dict[str, Any]:
    jobs = [{"job": {**JOB, "id": 100 * page + n}, "attempts": []} for n in range(100)]
    return {"jobs": jobs, "totalJobCount": 7}


@pytest.mark.parametrize(
    "path, page, listing",
    [
        ("sources/list", _sources, lambda client: client.list_sources(WORKSPACE)),
        (
            "web_backend/connections/list",
            _connections,
            lambda client: client.list_connections(WORKSPACE),
        ),
        ("jobs/list", _jobs, lambda client: client.running_jobs()),
    ],
)
async def test_endless_slow_list_times_out(
    airbyte: AirbyteServer,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    page: Callable[[int], dict[str, Any]],
    listing: Listing,
) -> None:
    """Each page is new and arrives in time: the whole list has a deadline, too."""
    monkeypatch.setattr(_calls, "_LONGEST_LISTING", 0.1)
    for number in range(60):
        airbyte.answer(path, page(number))
    async with client_of(airbyte) as client:
        send = client._transport.call

        async def slow(*given: Any, **more: Any) -> Any:
            await asyncio.sleep(0.1)
            return await send(*given, **more)

        monkeypatch.setattr(client._transport, "call", slow)
        with pytest.raises(UpstreamTimeout, match="took more than"):
            await listing(client)
    assert len(airbyte.called(path)) < 10


async def test_endless_fast_list_is_aborted(
    airbyte: AirbyteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "MOST_PAGES", 3)
    for number in range(4):
        airbyte.answer("sources/list", _sources(number))
    async with client_of(airbyte) as client:
        with pytest.raises(UpstreamUnknown, match="has more than"):
            await client.list_sources(WORKSPACE)
