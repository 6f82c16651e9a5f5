"""The Airbyte client: a connection's settings, cancellations, and logs of jobs."""

from __future__ import annotations

import pytest

from shared.airbyte_client import AirbyteClient, ConnectionSettings, Schedule, schedule_members
from shared.errors import UpstreamUnknown
from tests import leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.airbyte_client.stage import connection_of

SECRET = leaks.canary("a token in a connector's message")

pytestmark = pytest.mark.exact


async def test_only_given_settings_are_sent(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """The catalog stays; an empty prefix is sent, since null would leave the old one."""
    connection_id = await connection_of(airbyte, client)
    before = await client.get_connection(connection_id)

    held = await client.update_settings(
        connection_id, ConnectionSettings(prefix="crm_", status="inactive")
    )

    (sent,) = airbyte.called("connections/update")
    assert sent == {"connectionId": str(connection_id), "prefix": "crm_", "status": "inactive"}
    assert (held.prefix, held.status, held.name) == ("crm_", "inactive", before.name)
    read = await client.get_connection(connection_id)
    assert (read.settings, read.sync_catalog) == (held, before.sync_catalog)
    await client.update_settings(connection_id, ConnectionSettings(prefix=""))
    assert airbyte.called("connections/update")[1]["prefix"] == ""


async def test_manual_schedule_removes_the_data(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    connection_id = await connection_of(airbyte, client)
    for schedule, kind in ((Schedule(units=6), "basic"), (None, "manual")):
        members = schedule_members(schedule)
        held = await client.update_settings(
            connection_id,
            ConnectionSettings(
                schedule_type=members["scheduleType"], schedule_data=members.get("scheduleData")
            ),
        )
        assert held.schedule_type == kind
        assert (held.schedule_data is None) is (schedule is None)


async def test_cancelled_job_is_returned(airbyte: AirbyteServer, client: AirbyteClient) -> None:
    """Airbyte answers 500 for a job that has ended, so the outcome is unknown to the client."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)

    cancelled = await client.cancel_job(job.id)

    assert (cancelled.id, cancelled.status, cancelled.ended) == (job.id, "cancelled", True)
    with pytest.raises(UpstreamUnknown):
        await client.cancel_job(job.id)
    assert len(airbyte.called("jobs/cancel")) == 2


async def test_log_has_lines_and_errors_that_are_never_shown(
    airbyte: AirbyteServer, client: AirbyteClient
) -> None:
    """A message that is not a text is left out."""
    connection_id = await connection_of(airbyte, client)
    job = await client.trigger_sync(connection_id)
    airbyte.logs[job.id, 0] = [f"one {SECRET}", "two\nthree"]
    airbyte.finish_job(job.id, "failed", failure=("config_error", f"said {SECRET}"))

    logged = await client.get_job_with_logs(job.id)

    (attempt,) = logged.attempts
    assert (logged.id, logged.status, attempt.number) == (job.id, "failed", 0)
    assert attempt.lines == [f"one {SECRET}", "two", "three"]
    (failure,) = attempt.failures
    assert (failure.failure_type, failure.message) == ("config_error", f"said {SECRET}")
    assert SECRET not in repr(logged)
    bare = {"id": 0, "status": "failed", "failureSummary": {"failures": [{"externalMessage": 5}]}}
    airbyte.answer(
        "jobs/get", {"job": {"id": job.id, "status": "failed"}, "attempts": [{"attempt": bare}]}
    )
    (attempt,) = (await client.get_job_with_logs(job.id)).attempts
    assert (attempt.lines, attempt.failures[0].message) == ([], None)
