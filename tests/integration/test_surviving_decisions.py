"""Decisions that survive a new plan, and approvals that need two callers."""

from __future__ import annotations

from typing import Any

from shared.auth.scopes import KEY_SCOPES
from tests.integration.callers import caller
from tests.integration.conftest import Mesh
from tests.integration.drifting import drift, offering, repairs, repairs_until
from tests.integration.repairing import approve, fields, proposal, put

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
RETYPED = {"Id": "string", "Name": "integer"}
TWO = {"two_approvals_from": "needs_review"}


async def test_decision_survives_a_new_plan(mesh: Mesh) -> None:
    """An approved repair became stale: what means the same is applied without asking again."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RETYPED))
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    status, waiting = await approve(mesh, repair, reason="Unused.")
    assert (status, waiting["state"]) == (202, "approved")

    await drift(mesh, connection, offering(LESS))  # the type is the former one again
    mesh.airbyte.finish_job(job["id"])

    stale, applied = await repairs_until(mesh, connection, ["superseded", "applied"])
    (change,) = applied["changes"]
    assert (change["path"], change["decision"]["by"]) == (["AnnualRevenue"], "Ada")
    (decision,) = applied["decisions"]
    assert (decision["by"], decision["reason"]) == ("Ada", "Unused.")
    assert (decision["carried_from"], decision["changes"]) == (stale["id"], [change["id"]])
    last = stale["decisions"][-1]
    assert (last["verdict"], last["repair_id"]) == ("carried_over", applied["id"])
    assert "AnnualRevenue" not in fields(mesh, connection)


async def test_decision_about_another_change_is_not_carried_over(mesh: Mesh) -> None:
    """The field is gone after all: a person is asked about that."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(RETYPED | {"AnnualRevenue": "number"}))
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    assert (await approve(mesh, repair))[0] == 202

    await drift(mesh, connection, offering({"Id": "string", "AnnualRevenue": "number"}))
    mesh.airbyte.finish_job(job["id"])

    _, asked = await repairs_until(mesh, connection, ["superseded", "proposed"])
    assert [(one["path"], one["kind"]) for one in asked["changes"]] == [(["Name"], "field_removed")]


async def test_two_callers_must_approve(mesh: Mesh) -> None:
    """The first approval is recorded and shown; the same caller twice is refused."""
    connection = await mesh.onboard()
    await put(mesh, connection, TWO)
    repair = await proposal(mesh, connection, offering(LESS))
    path = f"/repairs/{repair['id']}/approve"

    status, first = await approve(mesh, repair, reason="Unused.")

    assert (status, first["state"]) == (202, "proposed")
    (recorded,) = first["decisions"]
    assert (recorded["verdict"], recorded["by"]) == ("first_approval", "Ada")
    assert "AnnualRevenue" in fields(mesh, connection)
    status, problem = await approve(mesh, repair, by="Bob")
    assert (status, problem["code"]) == (409, "same_approver")
    async with caller(mesh, mesh.drift_repair_agent, *KEY_SCOPES) as same:
        answer = await same.post(path, json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "same_approver")

    async with caller(mesh, mesh.drift_repair_agent, *KEY_SCOPES, owner="Bob") as bob:
        answer = await bob.post(path, json={})

    assert (answer.status_code, answer.json()["state"]) == (200, "applied")
    verdicts = [one["verdict"] for one in answer.json()["decisions"]]
    assert verdicts == ["first_approval", "approved"]
    assert "AnnualRevenue" not in fields(mesh, connection)


async def test_second_approval_must_be_about_the_same(mesh: Mesh) -> None:
    """With other changes, it is another first approval, which then needs a second one."""
    connection = await mesh.onboard()
    await put(mesh, connection, TWO)
    repair = await proposal(mesh, connection, offering(RETYPED))
    removed = next(one["id"] for one in repair["changes"] if one["kind"] == "field_removed")
    assert (await approve(mesh, repair))[1]["state"] == "proposed"

    path, part = f"/repairs/{repair['id']}/approve", {"changes": [removed]}
    async with caller(mesh, mesh.drift_repair_agent, *KEY_SCOPES, owner="Bob") as bob:
        answer = await bob.post(path, json=part)
    assert (answer.status_code, answer.json()["state"]) == (202, "proposed")
    status, decided = await approve(mesh, repair, **part)

    assert (status, decided["state"]) == (200, "applied")
    rest, applied = await repairs_until(mesh, connection, ["proposed", "applied"])
    assert [one["verdict"] for one in applied["decisions"]] == ["first_approval", "approved"]
    assert [one["verdict"] for one in rest["decisions"]] == ["first_approval", "approved"]
    assert rest["decisions"][0]["changes"] != [removed]


async def test_first_approval_survives_a_new_plan(mesh: Mesh) -> None:
    """As long as its change means the same; the second approval is then of the new proposal."""
    connection = await mesh.onboard()
    await put(mesh, connection, TWO)
    repair = await proposal(mesh, connection, offering(LESS))
    assert (await approve(mesh, repair))[1]["state"] == "proposed"

    await drift(mesh, connection, offering(RETYPED))
    _, newer = await repairs_until(mesh, connection, ["superseded", "proposed"])

    (recorded,) = newer["decisions"]
    removed = next(one["id"] for one in newer["changes"] if one["kind"] == "field_removed")
    assert (recorded["verdict"], recorded["changes"]) == ("first_approval", [removed])
    async with caller(mesh, mesh.drift_repair_agent, *KEY_SCOPES, owner="Bob") as bob:
        answer = await bob.post(f"/repairs/{newer['id']}/approve", json={"changes": [removed]})
    assert (answer.status_code, answer.json()["state"]) == (200, "applied")


async def test_less_severe_changes_need_one_approval(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await put(mesh, connection, {"two_approvals_from": "breaking"})
    repair = await proposal(mesh, connection, offering(LESS))

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"]) == (200, "applied")
    assert len(await repairs(mesh, connection)) == 1
