"""Dry runs of approvals, rollbacks and catalogs: the same refusals, and nothing is changed.

`rehearsing` sends each request as a dry run first and compares the two, so that a test here only
has to make requests, and to name the outcomes that it expects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from shared.auth.scopes import KEY_SCOPES
from tests.integration.applying import GREW, apply, discovered, seen
from tests.integration.callers import ALL_BUT_DECIDE, caller
from tests.integration.conftest import Mesh
from tests.integration.drifting import (
    ACCOUNT,
    drift,
    offering,
    planned,
    post,
    repairs,
    repairs_until,
)
from tests.integration.rehearsing import Rehearsing, rehearse
from tests.integration.repairing import approve, proposal, put, upstream

pytestmark = pytest.mark.exact

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
MORE = ACCOUNT | {"Region__c": "string"}
RENAMED = {"Id": "string", "Name": "string", "YearlyRevenue": "number"}


@pytest.fixture(autouse=True)
def rehearsed(mesh: Mesh) -> Iterator[Rehearsing]:
    """Rehearse each decision of a test; at least one must have been."""
    transport = rehearse(mesh)
    yield transport
    assert transport.outcomes


async def roll_back(mesh: Mesh, connection: Json, version: int, **more: Any) -> tuple[int, Json]:
    """Ask for an older version; the answer's status and body."""
    return await post(
        mesh, f"/connections/{connection['id']}/rollback", {"version": version, **more}
    )


async def running_sync(mesh: Mesh, connection: Json) -> Json:
    """A sync that Airbyte has started, once AAM has recorded it."""
    job: Json = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    await mesh.until_true("SELECT count(*) = 1 FROM job_history")
    return job


async def end_sync(mesh: Mesh, connection: Json, job: Json) -> None:
    """Let a sync succeed, and wait until AAM has recorded it, which is not due to a dry run."""
    mesh.airbyte.finish_job(job["id"])
    await mesh.jobs_until_end(connection["id"])


async def dry_run(mesh: Mesh, path: str, body: Json) -> Json:
    """Rehearse a request, and return what it would do."""
    answer = await mesh.drift_repair_agent.post(path, params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


ORDERS: tuple[Json, ...] = (
    {"changes": ["c99"]},
    {"changes": []},
    {"changes": ["c1"] * 10_001},
    {"choices": {"c99": {}}},
    {"changes": ["c1"], "choices": {"c2": {}}},
    {"choices": {"c1": {"became": ["Nope"]}}},
    {"choices": {"c1": {"became": []}}},
    {"choices": {"c1": {"became": ["MyPassword__c"]}}},
    {"choices": {"c1": {"mapper": "drop"}}},
    {"choices": {"c1": {"mapper": "other"}}},
    {"choices": {"c1": {"continuity": "keep_column"}}},
    {"on_global_state": "other"},
    {"by": "policy"},
    {"by": ""},
    {"reason": "\n"},
    {"unknown": 1},
)


async def test_every_refused_approval_is_refused_in_a_dry_run(
    mesh: Mesh, rehearsed: Rehearsing
) -> None:
    """With the same status, code, and detail; what is valid afterwards is applied."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))

    answers = [await approve(mesh, repair, **order) for order in ORDERS]

    assert {status for status, _ in answers} <= {409, 422}
    assert len(rehearsed.outcomes) == len(ORDERS)
    status, decided = await approve(mesh, repair, on_global_state="refresh")
    assert (status, decided["state"]) == (200, "applied")
    assert rehearsed.outcomes[-1] == "applied"
    assert (await approve(mesh, repair))[1]["code"] == "not_proposed"
    unknown = {"id": str(uuid4())}
    assert (await approve(mesh, unknown))[0] == 404
    assert rehearsed.outcomes[-2:] == ["not_proposed", "not_found"]


async def test_dry_run_of_an_approval_shows_the_difference(mesh: Mesh) -> None:
    """By the choices of the request, and the same difference that the repair then makes."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RENAMED))
    path = f"/repairs/{repair['id']}/approve"
    (gone,) = [one["id"] for one in repair["changes"] if one["kind"] == "field_removed"]
    (new,) = [one["id"] for one in repair["changes"] if one["kind"] == "field_added"]
    apart = {"choices": {gone: {"became": None}}}
    part = {"changes": [new]}
    renamed = {"choices": {gone: {"became": ["YearlyRevenue"], "continuity": "new_column"}}}

    left_apart, left_part = await dry_run(mesh, path, apart), await dry_run(mesh, path, part)
    found = await dry_run(mesh, path, renamed)

    assert set(left_apart["changes"]) == {gone, new}
    assert (left_part["changes"], left_part["open_changes"]) == ([new], 1)
    assert [one["kind"] for one in left_part["catalog"]["schema_changes"]] == ["field_added"]
    assert (found["outcome"], found["base_version"], found["open_changes"]) == ("applied", 1, 0)
    assert (found["repair_id"], found["waits_for"]) == (repair["id"], None)
    status, decided = await post(mesh, path, renamed)
    assert (status, decided["state"]) == (200, "applied")
    made = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()["catalog"]
    for kind in ("schema_changes", "config_changes"):
        assert found["catalog"][kind] == made[kind]


async def test_dry_run_waits_as_the_approval_does(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """For a running sync; and it resumes a connection that the repair has paused."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(ACCOUNT, cursor=None))
    await mesh.until_true("SELECT paused_by IS NOT NULL FROM connections")
    assert upstream(mesh, connection)["status"] == "inactive"
    job = await running_sync(mesh, connection)
    path = f"/repairs/{repair['id']}/approve"

    found = await dry_run(mesh, path, {})

    assert (found["outcome"], found["waits_for"]) == ("applied", "sync_running")
    assert found["afterwards"] == "resumed"
    assert str(connection["id"]) in found["waits_for_detail"]
    status, decided = await approve(mesh, repair)
    assert (status, decided["waits_for"]) == (202, "sync_running")
    mesh.airbyte.finish_job(job["id"])
    await repairs_until(mesh, connection, ["applied"])
    assert upstream(mesh, connection)["status"] == "active"


async def test_dry_run_of_one_of_two_approvals(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """The first would only be recorded; the same caller is refused as the second."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"two_approvals_from": "needs_review"})
    repair = await proposal(mesh, connection, offering(LESS))

    await approve(mesh, repair)
    await approve(mesh, repair)
    async with caller(mesh, mesh.drift_repair_agent, *KEY_SCOPES, owner="Bob") as bob:
        answer = await bob.post(f"/repairs/{repair['id']}/approve", json={})

    assert answer.json()["state"] == "applied"
    assert rehearsed.outcomes == ["first_approval", "same_approver", "applied"]


async def test_stale_repair_is_refused_alike(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """The source has the field again, and no plan has seen it yet."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    mesh.airbyte.offers(offering(ACCOUNT))
    await discovered(mesh, connection, fresh="true")

    status, _ = await approve(mesh, repair)

    assert (status, rehearsed.outcomes) == (409, ["stale_plan"])


async def test_archived_connection_is_refused_alike(mesh: Mesh, rehearsed: Rehearsing) -> None:
    connection = await mesh.onboard()
    assert (await mesh.orchestrator.delete(f"/connections/{connection['id']}")).status_code == 204

    status, problem = await roll_back(mesh, connection, 1)

    assert (status, [problem["code"]]) == (409, rehearsed.outcomes)


async def test_dry_run_of_a_rollback(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """Unknown, unchanged, during a repair, applied, and to what the source no longer has."""
    connection = await mesh.onboard()
    await drift(mesh, connection, offering(MORE))
    await repairs_until(mesh, connection, ["applied"])

    assert (await roll_back(mesh, connection, 9))[0] == 404
    assert (await roll_back(mesh, {"id": str(uuid4())}, 1))[0] == 404
    assert (await roll_back(mesh, connection, 0))[0] == 422
    assert (await roll_back(mesh, connection, 2))[1]["changed"] is False
    found = await dry_run(mesh, f"/connections/{connection['id']}/rollback", {"version": 1})
    assert [one["kind"] for one in found["catalog"]["schema_changes"]] == ["field_removed"]
    assert (found["outcome"], found["repair_id"], found["changes"]) == ("applied", None, [])
    job = await running_sync(mesh, connection)
    status, waiting = await roll_back(mesh, connection, 1)
    assert (status, waiting["waits_for"]) == (202, "sync_running")
    assert (await roll_back(mesh, connection, 1))[1]["code"] == "repair_in_progress"
    await end_sync(mesh, connection, job)
    await repairs_until(mesh, connection, ["applied", "applied"])

    await planned(mesh, connection, await drift(mesh, connection, offering(ACCOUNT)))
    assert (await roll_back(mesh, connection, 2))[1]["code"] == "rollback_impossible"

    assert rehearsed.outcomes == [
        "not_found",
        "not_found",
        "invalid_request",
        "unchanged",
        "applied",
        "repair_in_progress",
        "rollback_impossible",
    ]
    assert len(await repairs(mesh, connection)) >= 2


async def test_dry_run_of_a_catalog(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """Refused for each reason, unchanged, and then applied as the dry run says."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(GREW)
    order = await discovered(mesh, connection)
    same = {**order, "sync_catalog": await version(mesh, connection, 1)}
    wrong: list[Json] = [
        {},
        {"connection_id": connection["id"]},
        {**order, "extra": 1},
        {**order, "connection_id": str(uuid4())},
        {**order, "expected_version": 7},
        {**order, "snapshot_id": str(uuid4())},
        {**order, "sync_catalog": {}},
        {**order, "sync_catalog": {"streams": [{"stream": {"name": "Account"}}]}},
        {**order, "sync_catalog": {"streams": order["sync_catalog"]["streams"] * 2}},
        {**order, "sync_catalog": renamed(order, "Nope")},
    ]

    statuses = [(await apply(mesh, one))[0] for one in wrong]

    assert set(statuses) <= {404, 409, 422}
    assert (await apply(mesh, same))[1]["changed"] is False
    job = await running_sync(mesh, connection)
    assert (await apply(mesh, order))[1]["code"] == "sync_running"
    await end_sync(mesh, connection, job)
    found = await dry_run(mesh, "/repair/apply_new_catalog", order)
    assert (found["outcome"], found["base_version"]) == ("applied", 1)
    assert (await seen(mesh, connection))["catalog_version"] == 1
    assert (await apply(mesh, order))[1]["version_number"] == 2
    path = f"/connections/{connection['id']}/catalog-versions/1/diff/2"
    made = (await mesh.orchestrator.get(path)).json()
    for kind in ("schema_changes", "config_changes"):
        assert found["catalog"][kind] == made[kind]
    assert rehearsed.outcomes[-3:] == ["unchanged", "sync_running", "applied"]


async def version(mesh: Mesh, connection: Json, number: int) -> Json:
    """The catalog of one version."""
    path = f"/connections/{connection['id']}/catalog-versions/{number}"
    found: Json = (await mesh.orchestrator.get(path)).json()
    return found


def renamed(order: Json, name: str) -> Json:
    """The order's catalog with another name of its first stream."""
    first, *others = order["sync_catalog"]["streams"]
    return {"streams": [{**first, "stream": {**first["stream"], "name": name}}, *others]}


async def test_dry_run_needs_the_scope_of_the_request(mesh: Mesh, rehearsed: Rehearsing) -> None:
    """So that it refuses whoever the request would refuse."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))

    async with caller(mesh, mesh.drift_repair_agent, *ALL_BUT_DECIDE) as other:
        answer = await other.post(f"/repairs/{repair['id']}/approve", json={})

    assert (answer.status_code, rehearsed.outcomes) == (403, ["forbidden"])


async def test_dry_run_ignores_an_idempotency_key(mesh: Mesh) -> None:
    """Neither is the key used up, nor is an earlier answer returned."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    path, headers = f"/repairs/{repair['id']}/approve", {"Idempotency-Key": f"dry-{uuid4()}"}

    for _ in range(2):
        dry = await mesh.drift_repair_agent.post(
            path, params={"dry_run": "true"}, json={}, headers=headers
        )
        assert dry.json()["outcome"] == "applied"
    real = await mesh.drift_repair_agent.post(path, json={}, headers=headers)

    assert (real.status_code, real.json()["state"]) == (200, "applied")
    assert "idempotency-replayed" not in real.headers
