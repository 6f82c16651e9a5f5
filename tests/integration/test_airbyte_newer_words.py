"""Values and members that are newer than AAM are kept, and block nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.airbyte_client import AirbyteClient
from shared.errors import CheckFailed, DiscoverFailed
from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer

pytestmark = pytest.mark.exact

Json = dict[str, Any]
NEW = {"aMember": {"of": ["the", "future", 3]}, "another": None}
ID = UUID("0b6f3c1e-52a7-4d55-8f7e-3f0c8a6f2f10")


@pytest.fixture
async def airbyte() -> AsyncIterator[AirbyteServer]:
    """An Airbyte without a login."""
    async with AirbyteServer() as server:
        yield server


@pytest.fixture
async def client(airbyte: AirbyteServer) -> AsyncIterator[AirbyteClient]:
    """Its client."""
    async with AirbyteClient(airbyte.url, timeout=5) as client:
        yield client


def connection(status: str = "hibernating") -> Json:
    """A connection whose every word is new."""
    return {
        "connectionId": str(ID),
        "name": "crm",
        "sourceId": str(ID),
        "destinationId": str(ID),
        "status": status,
        "scheduleType": "event",
        "namespaceDefinition": "by-mood",
        "nonBreakingChangesPreference": "ask",
        "breakingChange": None,
        "syncCatalog": {"streams": []},
        **NEW,
    }


def job(status: str, *attempts: Json) -> Json:
    """A job whose every word is new."""
    fields = {
        "id": 7,
        "configType": "compaction",
        "configId": str(ID),
        "status": status,
        "createdAt": 1_760_000_000,
        "updatedAt": 1_760_000_100,
        **NEW,
    }
    return {"job": fields, "attempts": [{"attempt": {**NEW, **one}} for one in attempts]}


@pytest.mark.parametrize("status", ["locked", "deprecated", "hibernating"])
async def test_unknown_connection_status_is_kept(
    airbyte: AirbyteServer, client: AirbyteClient, status: str
) -> None:
    """Read alone, and in a list."""
    airbyte.answer("connections/get", connection(status), effect=False)
    assert (await client.get_connection(ID)).status == status
    item = {
        "connectionId": str(ID),
        "name": "crm",
        "status": status,
        "source": {"sourceId": str(ID), **NEW},
        "destination": {"destinationId": str(ID), **NEW},
        "schemaChange": "sideways",
        **NEW,
    }
    airbyte.answer("web_backend/connections/list", {"connections": [item], **NEW})
    (listed,) = await client.list_connections(UUID(WORKSPACE_ID))
    assert listed.status == status
    read = {"connectionId": str(ID), "connectionSyncStatus": "dreaming", "activeJob": None, **NEW}
    airbyte.answer("connections/status", [read], effect=False)
    (seen,) = await client.connection_statuses([ID])
    assert seen.status == "dreaming"


@pytest.mark.parametrize(
    "status,ended_at,ended",
    [
        ("queued", None, False),
        ("queued", 1_760_000_050, False),
        ("incomplete", 1_760_000_050, False),
        ("hibernating", None, False),
        ("partially_succeeded", 1_760_000_050, True),
    ],
)
async def test_unknown_job_status_ends_with_its_last_attempt(
    airbyte: AirbyteServer, client: AirbyteClient, status: str, ended_at: int | None, ended: bool
) -> None:
    attempt = {"id": 0, "status": "exploded", "endedAt": ended_at}
    airbyte.answer("jobs/get_without_logs", job(status, attempt), effect=False)

    read = await client.get_job(7)

    assert (read.status, read.config_type, read.ended) == (status, "compaction", ended)


async def test_unknown_failure_type_is_kept(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Of several failures, the first that has a type counts."""
    path = "jobs/get_without_logs"
    failures = [
        {"failureOrigin": "source", "internalMessage": "…"},
        {"failureType": "cosmic_ray", "failureOrigin": "sun", "retryable": None, **NEW},
    ]
    attempt = {"endedAt": 1_760_000_050, "failureSummary": {"failures": failures, **NEW}}
    airbyte.answer(path, job("failed", attempt), effect=False)
    read = await client.get_job(7)
    assert (read.failure_type, read.failure_origin) == ("cosmic_ray", "sun")
    airbyte.answer(path, job("failed", {"failureSummary": {"failures": None}}), effect=False)
    assert (await client.get_job(7)).failure_type is None


async def test_unknown_outcome_is_a_failure(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    reason = {"failureType": "cosmic_ray", **NEW}
    info = {"succeeded": False, "failureReason": reason, "configType": "divination", **NEW}
    answer = {"status": "undecided", "jobInfo": info, **NEW}
    airbyte.answer("sources/check_connection_for_update", answer, effect=False)
    with pytest.raises(CheckFailed) as check:
        await client.check_source_update(ID, {}, name="crm")
    assert check.value.members["failure_type"] == "cosmic_ray"

    source = UUID(airbyte.add_source("crm")["sourceId"])
    failed = {"id": str(uuid4()), "status": "undecided", "failureReason": reason, **NEW}
    airbyte.answer("commands/output/discover", failed)
    with pytest.raises(DiscoverFailed) as discovery:
        await client.discover_schema(source)
    assert discovery.value.members["failure_type"] == "cosmic_ray"
