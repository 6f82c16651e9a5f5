"""Every sync is compared with the history of each of its streams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from services.orchestrator import volume_queries
from services.orchestrator.volume_states import Volume, decode, encode
from shared.domain import volume
from shared.errors import Unavailable
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.repairing import fields, put
from tests.waiting import until

Json = dict[str, Any]
USUAL = (1400, 1900, 1200, 1500, 1600, 1300, 1700, 1450)


async def past_syncs(
    mesh: Mesh, connection: Json, stream: str = "Account", rows: Sequence[int] = USUAL
) -> None:
    """Daily syncs of a stream, the newest a day ago, as the orchestrator records them."""
    mode = await mesh.sql.fetchval(
        "SELECT s -> 'config' ->> 'syncMode' FROM sync_catalog_versions,"
        " jsonb_array_elements(sync_catalog -> 'streams') s"
        " WHERE connection_id = $1 AND s -> 'stream' ->> 'name' = $2",
        UUID(connection["id"]),
        stream,
    )
    now = await mesh.sql.fetchval("SELECT now()")
    await mesh.sql.executemany(
        "INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)"
        " VALUES ($1, $2, $3, $4)",
        [
            (
                uuid4(),
                UUID(connection["id"]),
                now - timedelta(days=age),
                encode(
                    [Volume(stream, "", now - timedelta(days=age), mode != "incremental", count)]
                ),
            )
            for age, count in zip(range(len(rows), 0, -1), rows, strict=True)
        ],
    )


async def sync(mesh: Mesh, connection: Json, **streams: int) -> Json:
    """A sync that Airbyte's scheduler starts, to its recorded end."""
    job_id = mesh.airbyte.start_job(connection["airbyte_connection_id"])["id"]
    mesh.airbyte.finish_job(job_id, streams=streams)

    async def ended() -> Json | None:
        answer = await mesh.orchestrator.get(f"/connections/{connection['id']}/jobs")
        jobs = [one for one in answer.json()["items"] if one["airbyte_job_id"] == job_id]
        return dict(jobs[0]) if jobs and jobs[0]["ended_at"] else None

    return dict(await until(ended))


async def volumes(mesh: Mesh, connection: Json, **query: Any) -> list[Json]:
    answer = await mesh.orchestrator.get(f"/connections/{connection['id']}/volume", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def alarms(mesh: Mesh) -> list[tuple[str, str]]:
    """The job and code of each event."""
    rows = await mesh.sql.fetch(
        "SELECT ref, code FROM events WHERE type = 'sync.volume_suspicious' ORDER BY id"
    )
    return [(str(row["ref"]), row["code"]) for row in rows]


async def test_suspicious_stream_is_announced_once(mesh: Mesh) -> None:
    """By an event, in the job's view, and in the connection's volume, until it is usual again."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection)
    await mesh.sql.execute(
        "INSERT INTO webhooks (id, url, events)"
        """ VALUES (gen_random_uuid(), 'http://127.0.0.1:9', '["sync.volume_suspicious"]')"""
    )

    first = await sync(mesh, connection, Contact=3)
    (suspicious,) = first["suspicious_streams"]
    assert suspicious | {"suspicious_since": None} == {
        "stream": "Account",
        "namespace": None,
        "rows": 0,
        "usual_low": 1200,
        "usual_high": 1900,
        "suspicious_since": None,
    }
    assert await alarms(mesh) == [(first["job_id"], "no_rows")]
    (listed,) = await volumes(mesh, connection, suspicious=True)
    assert listed["summary"] == "usually 1,200 to 1,900 rows; now 0"
    assert listed["suspicious_since"] == first["ended_at"].replace(".000000", "")

    await age(mesh, timedelta(days=1))
    second = await sync(mesh, connection, Account=20)
    assert len(second["suspicious_streams"]) == 1
    assert await alarms(mesh) == [(first["job_id"], "no_rows")]

    await age(mesh, timedelta(days=1))
    third = await sync(mesh, connection, Account=1500)
    assert third["suspicious_streams"] == []
    assert await volumes(mesh, connection, suspicious=True) == []

    await age(mesh, timedelta(days=1))
    fourth = await sync(mesh, connection, Account=2)
    assert await alarms(mesh) == [(first["job_id"], "no_rows"), (fourth["job_id"], "fewer_rows")]
    types = [one["type"] for one in await mesh.events(await event_count(mesh))]
    assert types[-2:] == ["sync.finished", "sync.volume_suspicious"]
    messages = "SELECT count(*) = 2 FROM webhook_deliveries WHERE type = 'sync.volume_suspicious'"
    await mesh.until_true(messages)


async def age(mesh: Mesh, by: timedelta) -> None:
    """Let time pass for all recorded syncs."""
    for job_id, ended_at, volumes in await mesh.sql.fetch(
        "SELECT job_id, ended_at, volumes FROM sync_volumes"
    ):
        older = [
            replace(
                one,
                ended_at=one.ended_at - by,
                suspicious_since=one.suspicious_since and one.suspicious_since - by,
            )
            for one in decode(volumes)
        ]
        await mesh.sql.execute(
            "UPDATE sync_volumes SET ended_at = $2, volumes = $3 WHERE job_id = $1",
            job_id,
            ended_at - by,
            encode(older),
        )


async def event_count(mesh: Mesh) -> int:
    return int(await mesh.sql.fetchval("SELECT count(*) FROM events"))


async def test_every_stream_of_the_catalog_is_recorded(mesh: Mesh) -> None:
    """In one page or several; one that Airbyte does not count had no rows."""
    connection = await mesh.onboard()
    before = await volumes(mesh, connection)
    assert {one["rows"] for one in before} == {None}

    job = await sync(mesh, connection, Account=5)

    found = await volumes(mesh, connection)
    assert [one["stream"] for one in found] == [one["stream"] for one in before]
    assert {one["stream"]: one["rows"] for one in found} == {
        one["stream"]: 5 if one["stream"] == "Account" else 0 for one in before
    }
    account = next(one for one in found if one["stream"] == "Account")
    assert (account["bytes"], account["job_id"], account["summary"]) == (50, job["job_id"], None)
    path = f"/connections/{connection['id']}/volume"
    paged: list[Json] = []
    after: Json = {}
    while True:
        page = (await mesh.orchestrator.get(path, params={"limit": 1, **after})).json()
        paged += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert paged == found


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_sync_that_did_not_succeed_raises_no_alarm(mesh: Mesh, status: Any) -> None:
    """What is missing comes with the next one."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection)
    job_id = mesh.airbyte.start_job(connection["airbyte_connection_id"])["id"]
    mesh.airbyte.finish_job(job_id, status, streams={})
    await mesh.jobs_until_end(connection["id"])

    assert await alarms(mesh) == []
    assert await mesh.sql.fetchval("SELECT count(*) FROM sync_volumes") == len(USUAL)


async def test_newest_sync_replaces_the_oldest(mesh: Mesh) -> None:
    """A connection has as many rows as syncs are compared; its volume stays complete."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection, rows=[1400] * volume.MOST)
    oldest = "SELECT min(ended_at) FROM sync_volumes"
    before = await mesh.sql.fetchval(oldest)

    job = await sync(mesh, connection, Account=1500, Contact=3)

    rows = await mesh.sql.fetch("SELECT job_id FROM sync_volumes")
    assert len(rows) == volume.MOST
    assert job["job_id"] in {str(row["job_id"]) for row in rows}
    assert await mesh.sql.fetchval(oldest) == before + timedelta(days=1)
    assert {one["stream"]: one["rows"] for one in await volumes(mesh, connection)} == {
        "Account": 1500,
        "Contact": 3,
    }


async def test_stream_that_newer_syncs_left_out_keeps_its_volume(mesh: Mesh) -> None:
    """Its newest sync is listed, from whichever job."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection, "Contact", rows=[7, 8])
    await age(mesh, timedelta(days=1))
    await past_syncs(mesh, connection, "Account", rows=[5])

    found = {one["stream"]: one["rows"] for one in await volumes(mesh, connection)}

    assert (found["Account"], found["Contact"]) == (5, 8)
    assert await volumes(mesh, connection, suspicious=True) == []


async def test_job_without_counts_says_nothing(mesh: Mesh) -> None:
    """Where Airbyte has lost the counts of an attempt, they are unknown, and not zero."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection)
    job_id = mesh.airbyte.start_job(connection["airbyte_connection_id"])["id"]
    attempt = mesh.airbyte.attempts[job_id][-1]
    mesh.airbyte.finish_job(job_id, streams={})
    attempt.pop("streamStats")
    await mesh.jobs_until_end(connection["id"])

    assert await mesh.sql.fetchval("SELECT count(*) FROM sync_volumes") == len(USUAL)


async def test_failure_to_judge_stops_neither_the_job_nor_its_neighbours(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's end is recorded without its volumes; those of another connection are judged."""
    broken, other = await mesh.onboard(), await mesh.onboard(connection_name="other")
    await past_syncs(mesh, other)
    histories = volume_queries.histories

    async def failing(session: Any, connection_id: UUID, *args: Any, **more: Any) -> Any:
        if str(connection_id) == broken["id"]:
            raise Unavailable("The registry cannot be reached.")
        return await histories(session, connection_id, *args, **more)

    monkeypatch.setattr(volume_queries, "histories", failing)

    first, second = await sync(mesh, broken, Account=1), await sync(mesh, other)

    assert (first["status"], first["suspicious_streams"]) == ("succeeded", [])
    assert await alarms(mesh) == [(second["job_id"], "no_rows")]
    assert {one["rows"] for one in await volumes(mesh, broken)} == {None}


async def test_unknown_connection(mesh: Mesh) -> None:
    """404."""
    answer = await mesh.orchestrator.get(f"/connections/{uuid4()}/volume")

    assert answer.status_code == 404


async def healed(mesh: Mesh, **policy: str) -> Json:
    """A connection with a repair that waits for its verifying sync; Contact has a history."""
    connection = await mesh.onboard()
    await past_syncs(mesh, connection, "Contact")
    await put(mesh, connection, {"verify": "sync", **policy})
    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    await until(lambda: mesh.airbyte.jobs)
    return connection


async def test_repair_is_not_verified_by_a_sync_without_the_usual_rows(mesh: Mesh) -> None:
    """Whichever stream it is; by default, the repair is reported and stays applied."""
    connection = await healed(mesh)

    mesh.airbyte.finish_job(1, streams={"Account": 5})

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert repair["failure_code"] == "suspicious_volume"
    assert repair["failure_detail"] == "Contact: usually 1,200 to 1,900 rows; now 0."
    assert repair["restored_version"] is None
    code = "SELECT code FROM events WHERE type = 'repair.applied'"
    assert await mesh.sql.fetchval(code) == "suspicious_volume"
    assert "Region__c" in fields(mesh, connection)


async def test_policy_restores_the_version_before_the_missing_rows(mesh: Mesh) -> None:
    """By the rollback of failed verifications."""
    connection = await healed(mesh, on_suspicious_volume="rollback")

    mesh.airbyte.finish_job(1, streams={"Account": 5, "Contact": 30})

    (repair,) = await repairs_until(mesh, connection, ["rolled_back"])
    assert (repair["version_number"], repair["restored_version"]) == (2, 3)
    assert repair["failure_code"] == "suspicious_volume"
    code = "SELECT code FROM events WHERE type = 'repair.rolled_back'"
    assert await mesh.sql.fetchval(code) == "suspicious_volume"
    assert "Region__c" not in fields(mesh, connection)


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("rows", [1500, 0])
async def test_repair_is_verified_by_the_usual_rows(mesh: Mesh, rows: int) -> None:
    """A stream that was suspicious before the repair is not the repair's."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync", "on_suspicious_volume": "rollback"})
    await past_syncs(mesh, connection, "Contact")
    if rows == 0:
        await sync(mesh, connection, Account=5)
        await age(mesh, timedelta(days=1))
    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    job_id = 1 if rows else 2
    await until(lambda: job_id in mesh.airbyte.jobs)

    mesh.airbyte.finish_job(job_id, streams={"Contact": rows})

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert (repair["failure_code"], repair["failure_detail"]) == (None, None)
