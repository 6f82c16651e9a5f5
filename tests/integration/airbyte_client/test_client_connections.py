"""The Airbyte client: connections and jobs."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from local.airbyte.api.jobs import job_info
from local.airbyte.errors import no_such_page
from shared.airbyte_client import AirbyteClient, NewConnection, Schedule
from shared.airbyte_client._connections import BODY_LIMIT_BYTES
from shared.errors import (
    Invalid,
    NotActive,
    SyncRunning,
    UpstreamConflict,
    UpstreamUnknown,
)
from tests.fakes.airbyte_server import (
    AirbyteServer,
)
from tests.integration.airbyte_client.stage import (
    WORKSPACE,
    connection_of,
    selected,
    source_of,
)

pytestmark = pytest.mark.exact


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
async def test_create_connection_sends_the_settings_aam_needs(
    airbyte: AirbyteServer,
    client: AirbyteClient,
    schedule: Schedule | None,
    kind: str,
    sent: dict[str, Any] | None,
) -> None:
    """Active, with schema changes ignored by Airbyte, and with the discovery it came from."""
    catalog_id = uuid4()
    connection = await client.create_connection(
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
    assert (connection.status, connection.source_catalog_id, connection.schedule_type) == (
        "active",
        catalog_id,
        kind,
    )
    assert await client.get_connection(connection.connection_id) == connection
    (listed,) = await client.list_connections(WORKSPACE)
    assert (listed.connection_id, listed.name) == (connection.connection_id, "prod")
    assert (listed.source_id, listed.status) == (connection.source_id, "active")


async def test_update_connection_replaces_the_catalog(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Only the given members are sent, and only the selected streams."""
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
    streams = json.loads(healed.sync_catalog)["streams"]
    assert [pair["stream"]["name"] for pair in streams] == ["Account", "Lead"]

    await client.update_connection(connection_id, selected("Account"))
    assert set(airbyte.called("connections/update")[1]) == {"connectionId", "syncCatalog"}


async def test_oversized_request_is_not_sent(airbyte: AirbyteServer, client: AirbyteClient) -> None:
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


async def test_unselected_streams_do_not_count_towards_the_limit(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection_id = await connection_of(airbyte, client)
    big = json.loads(selected("Account", "Lead"))
    big["streams"][1]["config"]["selected"] = False
    big["streams"][1]["stream"]["jsonSchema"]["description"] = "long " * (BODY_LIMIT_BYTES // 4)
    body = json.dumps(big).encode()

    await client.update_connection(connection_id, body)

    stored = airbyte.connections[str(connection_id)]["syncCatalog"]["streams"]
    assert [pair["stream"]["name"] for pair in stored] == ["Account"]


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
async def test_empty_catalog_is_not_sent(
    airbyte: AirbyteServer, client: AirbyteClient, wrong: bytes, code: str
) -> None:
    """It would stop every stream."""
    with pytest.raises(Invalid) as caught:
        await client.update_connection(uuid4(), wrong)
    assert caught.value.code == code
    assert airbyte.called("connections/update") == []


async def test_failed_update_is_not_repeated(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """It may have taken effect: the caller has to find out."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/update", "reset", after_effect=True)

    with pytest.raises(UpstreamUnknown):
        await client.update_connection(connection_id, selected("Lead"))

    assert len(airbyte.called("connections/update")) == 1


async def test_deleted_connection_is_reported_as_deleted(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte keeps it as deprecated; deleting it twice is no error."""
    connection_id = await connection_of(airbyte, client)
    await client.delete_connection(connection_id)
    await client.delete_connection(connection_id)

    assert (await client.get_connection(connection_id)).status == "deprecated"
    assert await client.list_connections(WORKSPACE) == []


async def test_answer_about_another_job_is_rejected(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """A proxy that caches answers by path may return an older job's."""
    connection_id = await connection_of(airbyte, client)
    before = await client.trigger_sync(connection_id)
    airbyte.finish_job(before.id)
    running = await client.trigger_sync(connection_id)
    job = job_info(airbyte, airbyte.jobs[before.id])
    airbyte.answer("jobs/get_without_logs", job, times=None)

    with pytest.raises(UpstreamUnknown, match="another object"):
        await client.get_job(running.id)


async def test_sync_from_start_to_end(airbyte: AirbyteServer, client: AirbyteClient) -> None:
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


async def test_failed_job_has_failure_type_and_origin(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte's types, never its messages."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    airbyte.finish_job(job.id, "incomplete", failure=("transient_error", "AAMCANARY"))
    assert not (await client.get_job(job.id)).ended

    airbyte.finish_job(job.id, "failed", failure=("config_error", "AAMCANARY"))
    failed = await client.get_job(job.id)
    assert (failed.failure_type, failed.failure_origin) == ("config_error", "source")
    assert "CANARY" not in repr(failed)


async def test_second_sync_is_refused_with_the_running_job(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte's 409 says that something runs; the list says what."""
    connection_id = await connection_of(airbyte, client)
    running = await client.trigger_sync(connection_id)

    with pytest.raises(SyncRunning) as caught:
        await client.trigger_sync(connection_id)

    assert caught.value.members == {"airbyte_job_id": running.id}
    assert len(airbyte.jobs) == 1


async def test_conflict_without_a_running_job(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers database errors with 409, too."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/sync", 409)

    with pytest.raises(UpstreamConflict):
        await client.trigger_sync(connection_id)


async def test_inactive_connection_is_not_synced(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Airbyte answers 500 without a reason; the connection's status explains it."""
    connection_id = await connection_of(airbyte, client)
    airbyte.connections[str(connection_id)]["status"] = "inactive"

    with pytest.raises(NotActive):
        await client.trigger_sync(connection_id)

    airbyte.connections[str(connection_id)]["status"] = "active"
    airbyte.fault("connections/sync", 500)
    with pytest.raises(UpstreamUnknown):
        await client.trigger_sync(connection_id)


async def test_sync_with_lost_answer_is_not_started_again(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """The outcome is unknown, and the list has the job."""
    connection_id = await connection_of(airbyte, client)
    airbyte.fault("connections/sync", "close", after_effect=True)

    with pytest.raises(UpstreamUnknown):
        await client.trigger_sync(connection_id)

    assert len(airbyte.called("connections/sync")) == 1
    assert [job.id for job in await client.list_jobs(connection_id, limit=1)] == [1]


async def test_jobs_without_attempts_and_with_invalid_ids(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """Attempts may be null; an id that the registry cannot store affects no other job."""
    connection_id = await connection_of(airbyte, client)
    jobs = [
        {
            "job": {
                "id": id_,
                "configType": "sync",
                "configId": str(connection_id),
                "createdAt": 1,
                "updatedAt": 1,
                "status": "pending",
            },
            "attempts": None,
        }
        for id_ in (2**31 + 1, 2**63)
    ]
    airbyte.answer("jobs/list", {"jobs": jobs, "totalJobCount": 2}, status=200)
    (listed,) = await client.list_jobs(connection_id, limit=5)
    assert (listed.id, listed.attempts, listed.ended) == (2**31 + 1, 0, False)

    airbyte.answer("jobs/get_without_logs", jobs[0], status=200)
    assert await client.get_job(listed.id) == listed


async def test_job_is_read_with_logs_where_there_is_no_other_endpoint(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    missing = no_such_page("/api/v1/jobs/get_without_logs").body(airbyte.release)
    airbyte.answer("jobs/get_without_logs", missing, status=404)

    assert await client.get_job(job.id) == job
