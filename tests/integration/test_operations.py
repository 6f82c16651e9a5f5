"""Operations over HTTP: what is under way, keys, and what waiting means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.integration.conftest import Mesh
from tests.waiting import until

Json = dict[str, Any]
KEY = "a-key-of-one-effect"


async def ended(mesh: Mesh, operation_id: str) -> Json:
    """An operation once it has ended."""
    return await shows(mesh, operation_id, lambda view: bool(view["ended_at"]))


async def shows(mesh: Mesh, operation_id: str, fact: Callable[[Json], bool]) -> Json:
    """Wait until a fact is true of an operation's view; return the view."""

    async def view_once_so() -> Json | None:
        view = (await mesh.orchestrator.get(f"/operations/{operation_id}")).json()
        return dict(view) if fact(view) else None

    found: Json = await until(view_once_so)
    return found


async def test_request_without_waiting_answers_202_and_continues(mesh: Mesh) -> None:
    """The operation shows its progress, and its final answer."""
    answer = await mesh.orchestrator.post("/connections/onboard?wait=0", json=mesh.order)
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    operation_id = answer.json()["operation_id"]

    running = (await mesh.orchestrator.get(f"/operations/{operation_id}")).json()
    assert (running["kind"], running["attempts"], running["problem"]) == ("onboard", 1, None)
    done = await ended(mesh, operation_id)
    assert (done["status"], done["response_status"]) == ("done", 201)

    (only,) = (
        await mesh.orchestrator.get(f"/operations?connection_id={done['connection_id']}")
    ).json()["items"]
    assert only == done
    assert (await mesh.orchestrator.get("/operations?status=running")).json()["items"] == []
    seen = (await mesh.drift_repair_agent.get("/operations")).json()["items"]
    assert [one["operation_id"] for one in seen] == [operation_id]
    assert (await mesh.orchestrator.get(f"/operations/{uuid4()}")).status_code == 404


async def test_operation_shows_what_it_waits_for(mesh: Mesh) -> None:
    """The step, and the code of the error that blocks it."""
    mesh.airbyte.fault("commands/run/discover", 500, times=8)
    answer = await mesh.orchestrator.post("/connections/onboard?wait=0.1", json=mesh.order)
    view = await shows(
        mesh,
        answer.json()["operation_id"],
        lambda view: view["step"] == "discover" and bool(view["waits_for"]),
    )
    assert view["status"] == "running"
    assert view["waits_for"] in ("upstream_unknown", "in_flight_window")
    assert (await ended(mesh, view["operation_id"]))["status"] == "done"


async def test_failed_operation_keeps_its_problem(mesh: Mesh) -> None:
    """As it was answered, with the request's id."""
    mesh.airbyte.fail_discovery("config_error", "password of bob")
    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)
    operation_id = answer.json()["operation_id"]
    view = await ended(mesh, operation_id)
    assert (view["status"], view["response_status"]) == ("failed", 422)
    assert view["problem"] == answer.json()
    assert "bob" not in str(view)


# Keys


@pytest.mark.parametrize(
    "key",
    ["short", "x" * 129, "with space in it ok", "umlaut-äöü-xxxxxxx", "", '"unclosed-quote-x'],
)
async def test_invalid_idempotency_key_is_refused(mesh: Mesh, key: str) -> None:
    """400, and nothing is recorded; quotes around a valid one are the draft's own form."""
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    expected = 201 if key.startswith('"unclosed') else 400
    assert answer.status_code == expected, answer.text
    if expected == 400:
        assert answer.json()["code"] == "invalid_idempotency_key"
        assert await mesh.sql.fetchval("SELECT count(*) FROM operations") == 0


async def test_two_idempotency_keys_are_refused(mesh: Mesh) -> None:
    headers = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY + "2")]
    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


async def test_idempotency_key_is_scoped_to_its_route(mesh: Mesh) -> None:
    """The same key for an onboarding, a sync and an apply: three effects."""
    headers = {"Idempotency-Key": KEY}
    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    assert answer.status_code == 201
    path = f"/connections/{answer.json()['id']}"
    synced = await mesh.orchestrator.post(f"{path}/sync", headers=headers)
    assert synced.status_code == 202
    again = await mesh.orchestrator.post(f"{path}/sync", headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (synced.content, "true")
    mesh.airbyte.finish_job(synced.json()["airbyte_job_id"])
    await mesh.jobs_until_end(answer.json()["id"])
    catalog = (await mesh.orchestrator.get(f"{path}/catalog-versions/1")).json()
    order = {"connection_id": answer.json()["id"], "sync_catalog": catalog}
    for _ in range(2):
        applied = await mesh.drift_repair_agent.post(
            "/repair/apply_new_catalog", json=order, headers=headers
        )
        assert (applied.status_code, applied.json()["changed"]) == (200, False)
    assert applied.headers["idempotency-replayed"] == "true"
    assert len(mesh.airbyte.jobs) == 1


async def test_refusal_is_replayed(mesh: Mesh) -> None:
    """The same key gets the same answer, and nothing is tried again."""
    mesh.airbyte.fail_discovery()
    headers = {"Idempotency-Key": KEY}
    first = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    mesh.airbyte.heal()
    again = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    assert (again.status_code, again.content) == (422, first.content)
    assert again.headers["content-type"] == "application/problem+json"
    assert mesh.airbyte.sources == {}


async def test_refusal_without_a_record_does_not_use_the_key(mesh: Mesh) -> None:
    """A duplicate name is refused before anything is recorded."""
    await mesh.onboard()
    headers = {"Idempotency-Key": KEY}
    taken = await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    other = {**mesh.order, "connection_name": "other", "prefix": "other_"}
    answer = await mesh.orchestrator.post("/connections/onboard", json=other, headers=headers)
    assert answer.status_code == 201


async def test_idempotency_key_expires_after_a_day(mesh: Mesh) -> None:
    headers = {"Idempotency-Key": KEY}
    await mesh.orchestrator.post("/connections/onboard", json=mesh.order, headers=headers)
    await mesh.sql.execute(
        "UPDATE operations SET created_at = now() - interval '24 hours 1 second'"
    )
    other = {**mesh.order, "connection_name": "other", "prefix": "other_"}
    answer = await mesh.orchestrator.post("/connections/onboard", json=other, headers=headers)
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers


# Cost


@pytest.mark.exact
async def test_onboarding_needs_few_statements(mesh: Mesh) -> None:
    """At most 31, beside BEGIN and COMMIT: a job, taken and claimed tables, and health twice."""
    counted: list[str] = []

    def count(_c: Any, _u: Any, statement: str, _p: Any, _x: Any, _m: Any) -> None:
        # What runs beside the request has an id of its own; the auth_broker's audit is its own.
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        if request_id == "counted" and "credential_audit" not in statement:
            counted.append(statement)

    await mesh.orchestrator.get("/connections")  # who asks is known for the next four seconds
    event.listen(Engine, "before_cursor_execute", count)
    mesh.orchestrator.headers["X-Request-ID"] = "counted"
    try:
        await mesh.onboard()
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert 5 < len(counted) <= 31, "\n".join(counted)
