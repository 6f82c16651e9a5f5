"""The list of the jobs of all connections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.integration.conftest import Mesh
from tests.integration.paging import pages

Json = dict[str, Any]
AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


async def add_jobs(mesh: Mesh, connection: Json, status: str, count: int, at: datetime) -> None:
    """Jobs that ended, all started at one time."""
    await mesh.sql.execute(
        "INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version,"
        " started_by, started_at, ended_at, failure_explanation)"
        " SELECT gen_random_uuid(), $1, 1000 + n + extract(epoch FROM $4::timestamptz)::int % 997,"
        " $2, 1, 'airbyte', $4, $4, 'x' FROM generate_series(1, $3::int) n",
        UUID(connection["id"]),
        status,
        count,
        at,
    )


async def jobs(mesh: Mesh, **query: Any) -> list[Json]:
    """The jobs that match."""
    answer = await mesh.orchestrator.get("/jobs", params=query)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def test_jobs_of_all_connections_are_listed(mesh: Mesh) -> None:
    """Filtered by status, starter and time; equal times are paged once."""
    one = await mesh.onboard()
    two = await mesh.onboard(connection_name="Another")
    await add_jobs(mesh, one, "failed", 4, AT)
    await add_jobs(mesh, two, "failed", 3, AT)
    await add_jobs(mesh, two, "succeeded", 2, AT + timedelta(hours=1))

    whole = await jobs(mesh)
    assert [job["status"] for job in whole] == ["succeeded"] * 2 + ["failed"] * 7
    assert {(job["connection_id"], job["connection_name"]) for job in whole} == {
        (one["id"], "Salesforce production"),
        (two["id"], "Another"),
    }
    for limit in (1, 4):
        paged = await pages(mesh.orchestrator, "/jobs", limit=limit)
        assert [job["job_id"] for page in paged for job in page] == [job["job_id"] for job in whole]
    failed = await pages(mesh.orchestrator, "/jobs", limit=3, status="failed")
    assert [len(page) for page in failed] == [3, 3, 1]
    assert len(await jobs(mesh, since="2026-11-24T10:00:00Z")) == 2
    assert len(await jobs(mesh, status="failed", started_by="airbyte")) == 7
    assert await jobs(mesh, started_by="aam") == []
    for wrong in ({"status": "lost"}, {"since": "2026-11-24T10:00:00"}, {"after": "AA"}):
        assert (await mesh.orchestrator.get("/jobs", params=wrong)).status_code == 422, wrong


async def test_jobs_of_archived_connections_stay_listed(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await add_jobs(mesh, connection, "failed", 1, AT)
    assert (await mesh.orchestrator.delete(f"/connections/{connection['id']}")).status_code == 204
    (job,) = await jobs(mesh, status="failed")
    assert job["connection_id"] == connection["id"]
